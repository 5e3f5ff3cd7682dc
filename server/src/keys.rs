//! The running server's keyring, which changes while it serves.

use crate::failure::Failure;
use std::{
    fmt,
    sync::{Arc, RwLock},
};
use strongroom_core::{Unverified, Verified};
use strongroom_crypto::{
    Entries, KeyState, Keyring, KeyringError, RootKeys, WrappedKeyring, WrappedPurposeKey, WrappedTerm,
};
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
    rows: WrappedKeyring,
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

impl Keys {
    /// Begins with an open keyring and the rows that it was opened from.
    pub fn new(root: Arc<RootKeys>, keyring: Arc<Keyring>, rows: WrappedKeyring) -> Self {
        Self { root, now: RwLock::new(OpenKeyring { keyring, rows }) }
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
        let claimed = instance.claimed(|row| row.keyring_mac_key.clone());
        let mac = if now.rows.next_mac_key.as_ref() == Some(&claimed) {
            // The key that was announced is in use: what the one before it authenticates is refused from now on.
            now.keyring.promoted_mac(self.root.as_ref(), &claimed).await.map_err(cannot_follow)?
        } else {
            now.keyring.keyring_mac().clone()
        };
        let tampered = |error: strongroom_crypto::Tampered| Failure::Integrity(error.to_string());
        let instance = mac.verify_listed(instance, entries).map_err(tampered)?;
        let verified = terms.into_iter().map(|term| mac.verify_listed(term, entries).map_err(tampered));
        let terms = verified.collect::<Result<Vec<_>, _>>()?;
        let verified = keys.into_iter().map(|key| mac.verify_listed(key, entries).map_err(tampered));
        let purpose_keys = verified.collect::<Result<Vec<_>, _>>()?;
        let rows = wrapped_keyring(&instance, &terms, &purpose_keys)?;
        if now.rows == rows {
            return Ok(Followed { instance, terms, purpose_keys, keyring: now });
        }
        if goes_back(&now.rows, &rows) {
            return Err(Failure::Integrity(
                "the keyring's rows are older than this server has seen: it was rolled back".to_owned(),
            ));
        }
        if brings_in(&now.rows, &rows) {
            return Err(Failure::Integrity("the keyring has a key that no rotation makes".to_owned()));
        }
        let followed = now.keyring.follow(self.root.as_ref(), mac, &rows).await;
        let keyring = OpenKeyring { keyring: Arc::new(followed.map_err(cannot_follow)?), rows };
        Ok(Followed { instance, terms, purpose_keys, keyring })
    }

    /// Serves with this keyring from now on, but that one of the same rows with more of its keys open stays.
    pub fn adopt(&self, keyring: OpenKeyring) {
        let mut now = self.now.write().expect("nothing panics while it holds this lock");
        if !(now.rows == keyring.rows && keyring.keyring.lacks_keys()) {
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
        let completed = known.keyring.complete(self.root.as_ref(), &known.rows).await;
        let completed = OpenKeyring { keyring: Arc::new(completed.map_err(cannot_follow)?), ..known };
        let mut now = self.now.write().expect("nothing panics while it holds this lock");
        // Where the rows changed meanwhile, the next turn opens what they lack.
        if now.rows == completed.rows {
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

/// Whether a key that was seen is not there any more, or is in an earlier state.
fn goes_back(seen: &WrappedKeyring, rows: &WrappedKeyring) -> bool {
    let term_stays =
        |seen: &WrappedTerm| rows.terms.iter().any(|term| term.term == seen.term && seen.state.may_become(term.state));
    let key_stays = |seen: &WrappedPurposeKey| same_key(rows, seen).is_some_and(|key| seen.state.may_become(key.state));
    !seen.terms.iter().all(term_stays) || !seen.purpose_keys.iter().all(key_stays)
}

/// Whether a key comes that no rotation makes: one that was never announced, or that is wrapped by a term which nothing new is wrapped by. Whoever knows the keyring's
/// MAC key and an earlier term would bring in a key of his own like that.
fn brings_in(seen: &WrappedKeyring, rows: &WrappedKeyring) -> bool {
    let is_strange = |key: &WrappedPurposeKey| match same_key(seen, key) {
        _ if key.state == KeyState::Destroyed => false,
        Some(seen) if (seen.term, &seen.wrapped) == (key.term, &key.wrapped) => false,
        None if !is_coming(key.state) => true,
        _ => !rows.terms.iter().any(|term| term.term == key.term && is_coming(term.state)),
    };
    rows.purpose_keys.iter().any(is_strange)
}

fn same_key<'a>(rows: &'a WrappedKeyring, key: &WrappedPurposeKey) -> Option<&'a WrappedPurposeKey> {
    rows.purpose_keys.iter().find(|other| (other.purpose, other.generation) == (key.purpose, key.generation))
}

fn is_coming(state: KeyState) -> bool {
    matches!(state, KeyState::PreActive | KeyState::Active)
}

/// The keyring's rows as crypto takes them.
pub fn wrapped_keyring(
    instance: &Verified<InstanceRow>,
    terms: &[Verified<TermRow>],
    keys: &[Verified<PurposeKeyRow>],
) -> Result<WrappedKeyring, Failure> {
    Ok(WrappedKeyring {
        mac_key: instance.keyring_mac_key.clone(),
        next_mac_key: instance.next_keyring_mac_key.clone(),
        terms: terms.iter().map(|row| wrapped_term(row)).collect::<Result<_, _>>()?,
        purpose_keys: keys.iter().map(|row| wrapped_purpose_key(row)).collect::<Result<_, _>>()?,
    })
}

/// A term's row as crypto takes it.
pub fn wrapped_term(row: &TermRow) -> Result<WrappedTerm, Failure> {
    let state = row.state.parse().map_err(|_| corrupt("keyring_terms.state"))?;
    Ok(WrappedTerm { term: row.term, state, wrapped: row.wrapped.clone() })
}

/// A purpose key's row as crypto takes it.
pub fn wrapped_purpose_key(row: &PurposeKeyRow) -> Result<WrappedPurposeKey, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_crypto::Purpose;

    fn key(generation: i32, term: i32, state: KeyState, wrapped: u8) -> WrappedPurposeKey {
        WrappedPurposeKey { purpose: Purpose::RowMac, generation, term, state, wrapped: vec![wrapped] }
    }

    #[test]
    fn only_keys_that_a_rotation_makes_come_into_a_keyring() {
        use KeyState::{Active, Compromised, DecryptOnly, Destroyed, PreActive};
        let term = |term, state| WrappedTerm { term, state, wrapped: vec![0] };
        let terms = vec![term(1, Compromised), term(2, Active), term(3, PreActive), term(4, DecryptOnly)];
        let standing = key(1, 1, Active, 1);
        let seen = WrappedKeyring { mac_key: vec![0], next_mac_key: None, terms, purpose_keys: vec![standing.clone()] };
        for (what, strange, keys) in [
            ("nothing changes", false, vec![standing.clone()]),
            ("it is retired", false, vec![key(1, 1, Compromised, 1)]),
            ("it is destroyed", false, vec![key(1, 1, Destroyed, 0)]),
            ("it is wrapped by the active term", false, vec![key(1, 2, DecryptOnly, 2)]),
            ("one is announced", false, vec![standing.clone(), key(2, 3, PreActive, 2)]),
            (
                "one is active that was announced while this server did not look",
                false,
                vec![standing.clone(), key(2, 2, Active, 2)],
            ),
            ("one comes and is gone already", false, vec![standing.clone(), key(2, 1, Destroyed, 0)]),
            ("one that was never announced", true, vec![standing.clone(), key(2, 2, DecryptOnly, 2)]),
            ("one that was compromised before it came", true, vec![standing.clone(), key(2, 2, Compromised, 2)]),
            ("one below a compromised term", true, vec![standing.clone(), key(2, 1, PreActive, 2)]),
            ("one below a retired term", true, vec![standing.clone(), key(2, 4, Active, 2)]),
            ("one below no term", true, vec![standing.clone(), key(2, 9, Active, 2)]),
            ("another in its place, below the same term", true, vec![key(1, 1, Active, 2)]),
        ] {
            let rows = WrappedKeyring { purpose_keys: keys, ..seen.clone() };
            assert_eq!(brings_in(&seen, &rows), strange, "{what}");
            assert!(!goes_back(&seen, &rows), "{what}");
        }
    }
}
