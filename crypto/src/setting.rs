//! The system's own sealed settings, such as a cluster's reviewer credential.

use crate::capability::System;
use crate::keyring::{Keyring, KeyringError};
use crate::names::Setting;
use crate::seal::{open, seal};
use strongroom_core::SecretBytes;

/// A setting as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSetting {
    /// The term that seals it.
    pub term: i32,
    /// An envelope.
    pub sealed: Vec<u8>,
}

impl Keyring {
    /// Seals a setting by the active term, bound to its name, which says what it is and of whom (`cluster/<id>/reviewer`).
    ///
    /// Construction and nonce rule: the envelope of `seal.rs`.
    pub fn seal_setting(&self, _right: &System, name: &str, value: &SecretBytes) -> SealedSetting {
        let term = self.active_term();
        let key = self.term(term).expect("the active term is in the keyring");
        // Exposed to be sealed.
        SealedSetting {
            term,
            sealed: seal(key, &Setting { instance: self.instance(), name, term }, value.expose_bytes()),
        }
    }

    /// Opens the setting of this name.
    pub fn open_setting(
        &self,
        _right: &System,
        name: &str,
        setting: &SealedSetting,
    ) -> Result<SecretBytes, KeyringError> {
        let term = setting.term;
        let what = || format!("the setting {name}");
        let key = self.term(term).ok_or_else(|| KeyringError::NoSuchTerm { what: what(), term })?;
        open(key, &Setting { instance: self.instance(), name, term }, &setting.sealed)
            .map_err(|source| KeyringError::Damaged { what: what(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::EnvelopeError;
    use crate::testing::INSTANCE;

    #[expect(clippy::disallowed_methods, reason = "the test of what the right allows")]
    fn right() -> System {
        System::assume()
    }

    #[test]
    fn a_setting_opens_under_its_own_name_only() {
        let keyring = Keyring::fixed(INSTANCE);
        let sealed = keyring.seal_setting(&right(), "cluster/a/reviewer", &SecretBytes::new(b"token".to_vec()));
        assert_eq!(keyring.open_setting(&right(), "cluster/a/reviewer", &sealed).unwrap().expose_bytes(), b"token");
        assert!(matches!(
            keyring.open_setting(&right(), "cluster/b/reviewer", &sealed),
            Err(KeyringError::Damaged { source: EnvelopeError::OtherKeyOrNames, .. })
        ));
        let later = SealedSetting { term: 2, ..sealed };
        assert!(matches!(
            keyring.open_setting(&right(), "cluster/a/reviewer", &later),
            Err(KeyringError::NoSuchTerm { term: 2, .. })
        ));
    }
}
