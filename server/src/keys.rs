//! The running server's keyring, which changes while it serves.

use crate::failure::Failure;
use std::{
    fmt,
    sync::{Arc, RwLock},
};
use strongroom_core::{Unverified, Verified};
use strongroom_crypto::{Entries, Keyring, KeyringError, RootKeys, WrappedPurposeKey, WrappedTerm};
use strongroom_store::{InstanceRow, PurposeKeyRow, TermRow};

/// The keyring as it is now, and the root key's providers, for when it changes.
pub struct Keys {
    root: Arc<RootKeys>,
    now: RwLock<OpenKeyring>,
}

/// An open keyring and the rows it was made of.
#[derive(Clone, Debug)]
pub struct OpenKeyring {
    /// The keyring.
    pub keyring: Arc<Keyring>,
    /// What it was opened from.
    terms: Vec<WrappedTerm>,
    purpose_keys: Vec<WrappedPurposeKey>,
}

/// The keyring's rows, checked, and the keyring they make.
#[derive(Debug)]
pub struct Followed {
    /// The instance's row.
    pub instance: Verified<InstanceRow>,
    /// The terms, oldest first.
    pub terms: Vec<Verified<TermRow>>,
    /// The keys of all purposes, oldest generation first.
    pub purpose_keys: Vec<Verified<PurposeKeyRow>>,
    /// What they open to.
    pub keyring: OpenKeyring,
}

impl OpenKeyring {
    /// Whether both were made of the same rows.
    fn is_of_the_rows_of(&self, other: &Self) -> bool {
        self.terms == other.terms && self.purpose_keys == other.purpose_keys
    }

    /// Whether a key that this one was made of is not there any more, or is in an earlier state.
    fn goes_back(&self, terms: &[WrappedTerm], keys: &[WrappedPurposeKey]) -> bool {
        let term_stays =
            |seen: &WrappedTerm| terms.iter().any(|term| term.term == seen.term && seen.state.may_become(term.state));
        let key_stays = |seen: &WrappedPurposeKey| {
            keys.iter().any(|key| {
                (key.purpose, key.generation) == (seen.purpose, seen.generation) && seen.state.may_become(key.state)
            })
        };
        !self.terms.iter().all(term_stays) || !self.purpose_keys.iter().all(key_stays)
    }
}

impl Keys {
    /// Begins with an open keyring.
    pub fn new(root: Arc<RootKeys>, keyring: Arc<Keyring>) -> Self {
        let open = OpenKeyring { keyring, terms: Vec::new(), purpose_keys: Vec::new() };
        Self { root, now: RwLock::new(open) }
    }

    /// The keyring.
    pub fn now(&self) -> Arc<Keyring> {
        self.now.read().expect("nothing panics while it holds this lock").keyring.clone()
    }

    /// The root key's providers.
    pub fn root(&self) -> &RootKeys {
        &self.root
    }

    /// Checks the keyring's rows and notes them among the instance's. Where they are others than the open keyring was made of, it is opened anew; it serves
    /// once it is adopted. What this server has seen does not go away and does not go back: whoever knows an earlier key could bring it back otherwise.
    pub async fn follow(
        &self,
        instance: Unverified<InstanceRow>,
        terms: Vec<Unverified<TermRow>>,
        keys: Vec<Unverified<PurposeKeyRow>>,
        entries: &mut Entries,
    ) -> Result<Followed, Failure> {
        let now = self.now.read().expect("nothing panics while it holds this lock").clone();
        let mac = now.keyring.keyring_mac();
        let tampered = |error: strongroom_crypto::Tampered| Failure::Integrity(error.to_string());
        let instance = mac.verify_listed(instance, entries).map_err(tampered)?;
        let verified = terms.into_iter().map(|term| mac.verify_listed(term, entries).map_err(tampered));
        let terms = verified.collect::<Result<Vec<_>, _>>()?;
        let verified = keys.into_iter().map(|key| mac.verify_listed(key, entries).map_err(tampered));
        let purpose_keys = verified.collect::<Result<Vec<_>, _>>()?;
        let wrapped_terms = terms.iter().map(wrapped_term).collect::<Result<Vec<_>, _>>()?;
        let wrapped_keys = purpose_keys.iter().map(wrapped_purpose_key).collect::<Result<Vec<_>, _>>()?;
        if now.terms == wrapped_terms && now.purpose_keys == wrapped_keys {
            return Ok(Followed { instance, terms, purpose_keys, keyring: now });
        }
        if now.goes_back(&wrapped_terms, &wrapped_keys) {
            return Err(Failure::Integrity(
                "the keyring's rows are older than this server has seen: it was rolled back".to_owned(),
            ));
        }
        let followed = now.keyring.follow(self.root.as_ref(), &wrapped_terms, &wrapped_keys).await;
        let keyring = followed.map_err(cannot_follow)?;
        let keyring = OpenKeyring { keyring: Arc::new(keyring), terms: wrapped_terms, purpose_keys: wrapped_keys };
        Ok(Followed { instance, terms, purpose_keys, keyring })
    }

    /// Serves with this keyring from now on, but that one of the same rows with more of its keys open stays.
    pub fn adopt(&self, keyring: OpenKeyring) {
        let mut now = self.now.write().expect("nothing panics while it holds this lock");
        if !(now.is_of_the_rows_of(&keyring) && keyring.keyring.lacks_keys()) {
            *now = keyring;
        }
    }

    /// Opens the keys that are not in use yet and were left closed. It asks the root key's provider, so no request waits for it.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] while the provider is away; the server serves on by the keys it has.
    pub async fn complete(&self) -> Result<(), Failure> {
        let known = self.now.read().expect("nothing panics while it holds this lock").clone();
        if !known.keyring.lacks_keys() {
            return Ok(());
        }
        let completed = known.keyring.complete(self.root.as_ref(), &known.terms, &known.purpose_keys).await;
        let completed = OpenKeyring { keyring: Arc::new(completed.map_err(cannot_follow)?), ..known };
        let mut now = self.now.write().expect("nothing panics while it holds this lock");
        // Where the rows changed meanwhile, the next turn opens what they lack.
        if now.is_of_the_rows_of(&completed) {
            *now = completed;
        }
        Ok(())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("root", &self.root).finish_non_exhaustive()
    }
}

/// A term's row as crypto takes it.
pub fn wrapped_term(row: &Verified<TermRow>) -> Result<WrappedTerm, Failure> {
    let state = row.state.parse().map_err(|_| corrupt("keyring_terms.state"))?;
    Ok(WrappedTerm { term: row.term, state, wrapped: row.wrapped.clone() })
}

/// A purpose key's row as crypto takes it.
pub fn wrapped_purpose_key(row: &Verified<PurposeKeyRow>) -> Result<WrappedPurposeKey, Failure> {
    Ok(WrappedPurposeKey {
        purpose: row.purpose.parse().map_err(|_| corrupt("keyring_keys.purpose"))?,
        generation: row.generation,
        term: row.term,
        state: row.state.parse().map_err(|_| corrupt("keyring_keys.state"))?,
        wrapped: row.wrapped.clone(),
    })
}

fn corrupt(column: &'static str) -> Failure {
    Failure::Integrity(format!("{column} holds what Strongroom never writes"))
}

fn cannot_follow(error: KeyringError) -> Failure {
    match error {
        KeyringError::Provider { .. } => {
            tracing::debug!(error = format!("{:#}", anyhow::Error::new(error)), "a key cannot be opened");
            Failure::Unavailable("the root key's provider, which new keys are opened with,")
        }
        other => Failure::Integrity(other.to_string()),
    }
}
