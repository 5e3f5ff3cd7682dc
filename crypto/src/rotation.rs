//! New keys, and keys wrapped anew: what rotations are made of.

use crate::key::Key;
use crate::keyring::{Keyring, KeyringError, root_unwrap, root_wrap, what};
use crate::mac::Purpose;
use crate::names::{ProjectKeyNames, PurposeKeyNames, RootWrapped};
use crate::provider::RootKeyProvider;
use crate::seal::{EnvelopeError, open_key, seal};
use crate::wrapped::{KeyState, WrappedProjectKey, WrappedPurposeKey, WrappedTerm};
use std::fmt;
use strongroom_core::InstanceId;
use subtle::ConstantTimeEq;

/// A term that was just made and is in no keyring yet.
pub struct NewTerm {
    instance: InstanceId,
    term: i32,
    key: Key,
    wrapped: Vec<u8>,
}

impl NewTerm {
    /// Makes a term's key, has it wrapped, and sees to it that it opens again.
    ///
    /// # Errors
    /// [`KeyringError::Provider`] when the root key's provider fails.
    pub async fn make(root: &dyn RootKeyProvider, instance: InstanceId, term: i32) -> Result<Self, KeyringError> {
        let (key, wrapped) = wrapped_by_root(root, RootWrapped::Term { instance, term }).await?;
        Ok(Self { instance, term, key, wrapped })
    }

    /// Its number.
    pub fn term(&self) -> i32 {
        self.term
    }

    /// As the database has it, known to every server before any uses it.
    pub fn wrapped(&self) -> WrappedTerm {
        WrappedTerm { term: self.term, state: KeyState::PreActive, wrapped: self.wrapped.clone() }
    }

    /// A new generation of a purpose's key, wrapped by this term, known to every server before any uses it.
    ///
    /// Construction and nonce rule: the envelope of `seal.rs`.
    pub fn new_purpose_key(&self, purpose: Purpose, generation: i32) -> WrappedPurposeKey {
        let term = self.term;
        let names = PurposeKeyNames { instance: self.instance, purpose: purpose.as_str(), generation, term };
        let wrapped = seal(&self.key, &names, Key::generate().expose());
        WrappedPurposeKey { purpose, generation, term, state: KeyState::PreActive, wrapped }
    }
}

/// Makes the key that is to authenticate the keyring's own rows next, has it wrapped, and sees to it that it opens again. As the database has it.
///
/// # Errors
/// [`KeyringError::Provider`] when the root key's provider fails.
pub async fn next_keyring_mac_key(root: &dyn RootKeyProvider, instance: InstanceId) -> Result<Vec<u8>, KeyringError> {
    Ok(wrapped_by_root(root, RootWrapped::KeyringMacKey { instance }).await?.1)
}

async fn wrapped_by_root(root: &dyn RootKeyProvider, names: RootWrapped) -> Result<(Key, Vec<u8>), KeyringError> {
    let key = Key::generate();
    let wrapped = root_wrap(root, names, &key).await?;
    let again = root_unwrap(root, names, &wrapped).await?;
    if bool::from(again.expose().ct_eq(key.expose())) {
        Ok((key, wrapped))
    } else {
        Err(KeyringError::Damaged { what: what(names), source: EnvelopeError::UnexpectedContent })
    }
}

impl fmt::Debug for NewTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewTerm").field("term", &self.term).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Wraps a purpose's key by another term. Purpose, generation and state stay.
    ///
    /// Construction and nonce rule: the envelope of `seal.rs`, with a fresh salt; only the term changes in the names.
    pub fn rewrap_purpose_key(
        &self,
        wrapped: &WrappedPurposeKey,
        term: i32,
    ) -> Result<WrappedPurposeKey, KeyringError> {
        let what = || format!("{} key, generation {}", wrapped.purpose, wrapped.generation);
        let names = |term| PurposeKeyNames {
            instance: self.instance(),
            purpose: wrapped.purpose.as_str(),
            generation: wrapped.generation,
            term,
        };
        let no_term = |term| KeyringError::NoSuchTerm { what: what(), term };
        let from = self.term(wrapped.term).ok_or_else(|| no_term(wrapped.term))?;
        let to = self.term(term).ok_or_else(|| no_term(term))?;
        let key = open_key(from, &names(wrapped.term), &wrapped.wrapped)
            .map_err(|source| KeyringError::Damaged { what: what(), source })?;
        Ok(WrappedPurposeKey { term, wrapped: seal(to, &names(term), key.expose()), ..wrapped.clone() })
    }

    /// Wraps a project's key by another term. Project and generation stay.
    ///
    /// Construction and nonce rule: the envelope of `seal.rs`, with a fresh salt; only the term changes in the names.
    pub fn rewrap_project_key(
        &self,
        wrapped: &WrappedProjectKey,
        term: i32,
    ) -> Result<WrappedProjectKey, KeyringError> {
        let key = self.open_project_key(wrapped)?;
        let &WrappedProjectKey { project, generation, .. } = wrapped;
        let what = || format!("project {project}, generation {generation}");
        let to = self.term(term).ok_or_else(|| KeyringError::NoSuchTerm { what: what(), term })?;
        let names = ProjectKeyNames { instance: self.instance(), project, generation, term };
        Ok(WrappedProjectKey { project, generation, term, wrapped: seal(to, &names, key.key.expose()) })
    }

    /// The generation of the row key that authenticates new rows.
    pub fn row_generation(&self) -> i32 {
        self.mac_keys(Purpose::RowMac).active().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::KeyringMac;
    use crate::root::RootKey;
    use crate::testing::{INSTANCE, PROJECT, now};
    use crate::wrapped::WrappedKeyring;
    use strongroom_core::{Columns, MacRow, Unverified};

    static_assertions::assert_not_impl_any!(NewTerm: Clone, fmt::Display);

    struct Made {
        root: RootKey,
        keyring: Keyring,
        wrapped: WrappedKeyring,
    }

    /// A keyring with a second term that is known and not used yet.
    fn made() -> Made {
        let root = RootKey::generate();
        let (_, mut wrapped) = now(Keyring::create(&root, INSTANCE)).unwrap();
        let second = now(NewTerm::make(&root, INSTANCE, 2)).unwrap();
        wrapped.terms.push(second.wrapped());
        wrapped.purpose_keys.push(second.new_purpose_key(Purpose::RowMac, 2));
        let keyring = open(&root, &wrapped).unwrap();
        Made { root, keyring, wrapped }
    }

    fn open(root: &RootKey, wrapped: &WrappedKeyring) -> Result<Keyring, KeyringError> {
        let mac = now(KeyringMac::open(root, INSTANCE, &wrapped.mac_key))?;
        now(Keyring::open(root, mac, wrapped))
    }

    #[test]
    fn a_new_term_is_known_and_makes_nothing_until_it_is_active() {
        let Made { root, keyring, mut wrapped } = made();
        assert_eq!((keyring.active_term(), keyring.row_generation()), (1, 1));
        for term in &mut wrapped.terms {
            term.state = if term.term == 2 { KeyState::Active } else { KeyState::DecryptOnly };
        }
        let next = open(&root, &wrapped).unwrap();
        assert_eq!(next.new_project_key(PROJECT, 1).1.term, 2);
    }

    #[test]
    fn keys_that_were_wrapped_anew_open_the_same_without_the_old_term() {
        let Made { root, keyring, mut wrapped } = made();
        let (key, by_first) = keyring.new_project_key(PROJECT, 3);
        let by_second = keyring.rewrap_project_key(&by_first, 2).unwrap();
        assert_eq!((by_second.generation, by_second.term), (3, 2));
        for key in &mut wrapped.purpose_keys {
            *key = keyring.rewrap_purpose_key(key, 2).unwrap();
        }
        wrapped.terms[0] = WrappedTerm { term: 1, state: KeyState::Destroyed, wrapped: Vec::new() };
        wrapped.terms[1].state = KeyState::Active;
        let next = open(&root, &wrapped).unwrap();
        assert_eq!(next.open_project_key(&by_second).unwrap().key.expose(), key.key.expose());
        assert!(matches!(next.open_project_key(&by_first), Err(KeyringError::NoSuchTerm { term: 1, .. })));
        for purpose in Purpose::ALL {
            let sign = |keyring: &Keyring| {
                crate::mac::sign(keyring.mac_keys(purpose).generation(1).unwrap(), "x", INSTANCE, b"x")
            };
            assert_eq!(sign(&next), sign(&keyring), "{purpose}");
        }
    }

    #[test]
    fn a_key_that_is_wrapped_anew_keeps_what_it_is() {
        let Made { keyring, .. } = made();
        let (_, wrapped) = keyring.new_project_key(PROJECT, 1);
        let mut moved = keyring.rewrap_project_key(&wrapped, 2).unwrap();
        assert!(keyring.open_project_key(&moved).is_ok());
        moved.generation = 2;
        assert!(keyring.open_project_key(&moved).is_err());
        let unknown = keyring.rewrap_project_key(&wrapped, 9);
        assert!(matches!(unknown, Err(KeyringError::NoSuchTerm { term: 9, .. })));
    }

    #[test]
    fn the_next_key_of_the_keyrings_rows_waits_for_whoever_completes_and_then_takes_over() {
        let Made { root, keyring, mut wrapped } = made();
        let next = now(next_keyring_mac_key(&root, INSTANCE)).unwrap();
        wrapped.next_mac_key = Some(next.clone());
        let followed = now(keyring.follow(&root, keyring.keyring_mac().clone(), &wrapped)).unwrap();
        assert!(followed.lacks_keys() && followed.next_keyring_mac().is_none());
        let completed = now(followed.complete(&root, &wrapped)).unwrap();
        assert!(!completed.lacks_keys());

        (wrapped.mac_key, wrapped.next_mac_key) = (next.clone(), None);
        let by = |keyring: &Keyring| keyring.keyring_mac().mac_anchor("x");
        let opened = by(&open(&root, &wrapped).unwrap());
        assert_ne!(opened, by(&keyring));
        for before in [&completed, &followed] {
            let mac = now(before.promoted_mac(&root, &next)).unwrap();
            let promoted = now(before.follow(&root, mac, &wrapped)).unwrap();
            assert_eq!(by(&promoted), opened, "known or not, it is the one that a start opens");
            assert!(promoted.next_keyring_mac().is_none());
        }
        assert_eq!(completed.next_keyring_mac().unwrap().mac_anchor("x"), opened);
    }

    #[test]
    fn a_row_by_an_earlier_row_key_is_authentic_and_not_current() {
        #[derive(Clone, Debug, PartialEq)]
        struct Sample;

        impl MacRow for Sample {
            const TABLE: &'static str = "samples";
            const LAYOUT: i16 = 1;

            fn columns(&self, out: &mut Columns) {
                out.integer(1);
            }
        }

        let Made { root, keyring, mut wrapped } = made();
        let row = |by: &Keyring| Unverified::new(Sample, by.mac_row(Sample).mac().clone());
        assert!(keyring.verify_current_row(row(&keyring)).is_ok());
        for key in wrapped.purpose_keys.iter_mut().filter(|key| key.purpose == Purpose::RowMac) {
            key.state = if key.generation == 2 { KeyState::Active } else { KeyState::Compromised };
        }
        let next = open(&root, &wrapped).unwrap();
        assert!(next.verify_row(row(&keyring)).is_ok() && next.verify_current_row(row(&keyring)).is_err());
        assert!(next.verify_current_row(row(&next)).is_ok());
        // Known already, and not in use yet.
        assert!(keyring.verify_row(row(&next)).is_ok() && keyring.verify_current_row(row(&next)).is_err());
    }
}
