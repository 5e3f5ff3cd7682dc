//! Secrets' values: sealed for whoever may write, opened for whoever was granted to read.

use crate::capability::Maintenance;
use crate::key::Key;
use crate::keyring::{Keyring, ProjectKey};
use crate::names::{DataKey, Value};
use crate::seal::{EnvelopeError, open, open_key, seal};
use strongroom_core::{Action, SecretBytes, SecretId};
use strongroom_policy::Grant;
use thiserror::Error;

/// What a version is called, from verified rows. A sealed version opens under no other names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionNames<'a> {
    /// Which secret. Its path is not part of it, so that renaming within a project reseals nothing.
    pub secret: SecretId,
    /// Which version, from 1.
    pub version: u64,
    /// The media type of its value.
    pub media_type: &'a str,
}

/// A version as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedVersion {
    /// Which generation of its project's key wraps the data key.
    pub project_key_generation: i32,
    /// The data key, an envelope.
    pub wrapped_key: Vec<u8>,
    /// The value, an envelope.
    pub sealed_value: Vec<u8>,
}

/// Why a version was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The grant is for another secret or version, or not for reading.
    #[error("the grant is not for reading this version of this secret")]
    OtherGrant,
    /// The project key given is of another project or generation than needed.
    #[error("the data key is wrapped by another project key than the one at hand")]
    OtherProjectKey,
    /// The data key does not open: another project's, another version's, or changed.
    #[error("the wrapped data key does not open")]
    WrappedKey(#[source] EnvelopeError),
    /// The value does not open: another version's, or changed.
    #[error("the sealed value does not open")]
    Value(#[source] EnvelopeError),
}

impl Keyring {
    /// Seals a value under a fresh data key, and that under the project's key.
    ///
    /// Construction and nonce rule: the envelope of `seal.rs`, twice. The data key seals this one value.
    pub fn seal_value(&self, key: &ProjectKey, names: &VersionNames<'_>, value: &SecretBytes) -> SealedVersion {
        let data_key = Key::generate();
        SealedVersion {
            project_key_generation: key.generation,
            wrapped_key: seal(&key.key, &self.data_key_names(key, names), data_key.expose()),
            // Exposed to be sealed.
            sealed_value: seal(&data_key, &self.value_names(names), value.expose_bytes()),
        }
    }

    /// Opens the version that `grant` allows to read, and consumes the grant.
    ///
    /// Construction: the envelope of `seal.rs`, twice; `key` is the generation that `sealed` names, of the secret's project.
    #[expect(clippy::needless_pass_by_value, reason = "a grant is good for one opening")]
    pub fn open_value(
        &self,
        key: &ProjectKey,
        names: &VersionNames<'_>,
        sealed: &SealedVersion,
        grant: Grant,
    ) -> Result<SecretBytes, OpenError> {
        let granted = grant.action() == Action::Read
            && grant.secret_id() == Some(names.secret)
            && grant.version() == Some(names.version);
        if !granted {
            return Err(OpenError::OtherGrant);
        }
        self.open_granted(key, names, sealed)
    }

    /// Opens a version for work that reveals nothing of it: whoever holds [`Maintenance`] answers for that.
    ///
    /// Construction: as [`Self::open_value`].
    pub fn open_for_maintenance(
        &self,
        key: &ProjectKey,
        names: &VersionNames<'_>,
        sealed: &SealedVersion,
        _: &Maintenance,
    ) -> Result<SecretBytes, OpenError> {
        self.open_granted(key, names, sealed)
    }

    /// Moves a data key from one generation of its project's key to another, and never touches the value.
    ///
    /// Construction and nonce rule: the envelope of `seal.rs`, with a fresh salt. Only the wrapping key and its generation change in the names, so
    /// that a rewrap cannot widen what the data key opens.
    pub fn rewrap(
        &self,
        from: &ProjectKey,
        to: &ProjectKey,
        names: &VersionNames<'_>,
        wrapped_key: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        if from.project != to.project {
            return Err(OpenError::OtherProjectKey);
        }
        let data_key =
            open_key(&from.key, &self.data_key_names(from, names), wrapped_key).map_err(OpenError::WrappedKey)?;
        Ok(seal(&to.key, &self.data_key_names(to, names), data_key.expose()))
    }

    fn open_granted(
        &self,
        key: &ProjectKey,
        names: &VersionNames<'_>,
        sealed: &SealedVersion,
    ) -> Result<SecretBytes, OpenError> {
        if sealed.project_key_generation != key.generation {
            return Err(OpenError::OtherProjectKey);
        }
        let data_key =
            open_key(&key.key, &self.data_key_names(key, names), &sealed.wrapped_key).map_err(OpenError::WrappedKey)?;
        open(&data_key, &self.value_names(names), &sealed.sealed_value).map_err(OpenError::Value)
    }

    fn value_names<'a>(&self, names: &VersionNames<'a>) -> Value<'a> {
        Value { instance: self.instance(), secret: names.secret, version: names.version, media_type: names.media_type }
    }

    fn data_key_names<'a>(&self, key: &ProjectKey, names: &VersionNames<'a>) -> DataKey<'a> {
        DataKey { value: self.value_names(names), project: key.project, generation: key.generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{INSTANCE, PROJECT, SECRET};
    use proptest::prelude::*;
    use strongroom_core::{GrantId, Identity, ProjectId, SecretPath};
    use strongroom_policy::{About, Engine, GrantRule, Request, Resource, Slice};
    use uuid::Uuid;

    const NAMES: VersionNames<'static> = VersionNames { secret: SECRET, version: 7, media_type: "text/plain" };

    /// Asks the real engine, as the owner of the project.
    fn grant(action: Action, id: Option<SecretId>, version: Option<u64>) -> Grant {
        let identity = Identity::user("ada").unwrap();
        let path = SecretPath::parse("payments/db").unwrap();
        let rule = GrantRule::project_owner(GrantId(Uuid::from_u128(1)), (&identity).into(), &path.project()).unwrap();
        let slice = Slice { grants: vec![rule], ..Slice::default() };
        let resource = Resource::Secret { path: &path, id, version, about: About::default() };
        let request = Request { identity: &identity, roles: &[], action, resource };
        Engine::new().authorize(&request, &slice).unwrap()
    }

    fn read() -> Grant {
        grant(Action::Read, Some(SECRET), Some(7))
    }

    struct Sealed {
        keyring: Keyring,
        key: ProjectKey,
        version: SealedVersion,
    }

    fn sealed() -> Sealed {
        let keyring = Keyring::fixed(INSTANCE);
        let (key, _) = keyring.new_project_key(PROJECT, 1);
        let version = keyring.seal_value(&key, &NAMES, &SecretBytes::new(b"hunter2".to_vec()));
        Sealed { keyring, key, version }
    }

    #[test]
    fn a_grant_opens_the_version_it_names() {
        let Sealed { keyring, key, version } = sealed();
        assert_eq!(version.project_key_generation, 1);
        assert_eq!(keyring.open_value(&key, &NAMES, &version, read()).unwrap().expose_bytes(), b"hunter2");
    }

    #[test]
    fn a_grant_for_anything_else_opens_nothing() {
        let Sealed { keyring, key, version } = sealed();
        let other = SecretId(Uuid::from_u128(9));
        for grant in [
            grant(Action::Read, Some(other), Some(7)),
            grant(Action::Read, None, Some(7)),
            grant(Action::Read, Some(SECRET), Some(8)),
            grant(Action::Read, Some(SECRET), None),
            grant(Action::Write, Some(SECRET), Some(7)),
            grant(Action::Describe, Some(SECRET), Some(7)),
        ] {
            let shown = format!("{grant:?}");
            assert_eq!(
                keyring.open_value(&key, &NAMES, &version, grant).unwrap_err(),
                OpenError::OtherGrant,
                "{shown}"
            );
        }
    }

    #[test]
    fn rows_that_were_moved_or_mixed_do_not_open() {
        let Sealed { keyring, key, version } = sealed();
        let wrapped_key = OpenError::WrappedKey(EnvelopeError::OtherKeyOrNames);
        let open = |key: &ProjectKey, names: &VersionNames<'_>, sealed: &SealedVersion| {
            let grant = grant(Action::Read, Some(names.secret), Some(names.version));
            keyring.open_value(key, names, sealed, grant).map(|_| ()).unwrap_err()
        };
        assert_eq!(open(&key, &VersionNames { secret: SecretId(Uuid::from_u128(9)), ..NAMES }, &version), wrapped_key);
        assert_eq!(open(&key, &VersionNames { version: 8, ..NAMES }, &version), wrapped_key);
        assert_eq!(open(&key, &VersionNames { media_type: "text/html", ..NAMES }, &version), wrapped_key);
        let (other_project, _) = keyring.new_project_key(ProjectId(Uuid::from_u128(9)), 1);
        assert_eq!(open(&other_project, &NAMES, &version), wrapped_key);
        let (next, _) = keyring.new_project_key(PROJECT, 2);
        assert_eq!(open(&next, &NAMES, &version), OpenError::OtherProjectKey);
        let relabelled = SealedVersion { project_key_generation: 2, ..version.clone() };
        assert_eq!(open(&next, &NAMES, &relabelled), OpenError::WrappedKey(EnvelopeError::OtherKeyNumber));

        let second = keyring.seal_value(&key, &NAMES, &SecretBytes::new(b"other".to_vec()));
        let mixed = SealedVersion { sealed_value: second.sealed_value, ..version };
        assert_eq!(open(&key, &NAMES, &mixed), OpenError::Value(EnvelopeError::OtherKeyOrNames));
    }

    #[test]
    fn a_rewrapped_data_key_opens_under_the_new_generation_only() {
        let Sealed { keyring, key, version } = sealed();
        let (next, _) = keyring.new_project_key(PROJECT, 2);
        let wrapped_key = keyring.rewrap(&key, &next, &NAMES, &version.wrapped_key).unwrap();
        let moved = SealedVersion { project_key_generation: 2, wrapped_key, ..version.clone() };
        assert_eq!(keyring.open_value(&next, &NAMES, &moved, read()).unwrap().expose_bytes(), b"hunter2");
        assert!(keyring.open_value(&key, &NAMES, &moved, read()).is_err());
    }

    /// As in CVE-2026-22728, where a rewrap widened the scope of what it moved.
    #[test]
    fn a_rewrap_changes_neither_project_nor_names() {
        let Sealed { keyring, key, version } = sealed();
        let (other, _) = keyring.new_project_key(ProjectId(Uuid::from_u128(9)), 1);
        assert_eq!(keyring.rewrap(&key, &other, &NAMES, &version.wrapped_key), Err(OpenError::OtherProjectKey));
        let (next, _) = keyring.new_project_key(PROJECT, 2);
        let renamed = VersionNames { version: 8, ..NAMES };
        assert_eq!(
            keyring.rewrap(&key, &next, &renamed, &version.wrapped_key),
            Err(OpenError::WrappedKey(EnvelopeError::OtherKeyOrNames))
        );
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test of what the right allows")]
    fn maintenance_opens_what_it_names_and_nothing_else() {
        let Sealed { keyring, key, version } = sealed();
        let right = Maintenance::assume();
        let opened = keyring.open_for_maintenance(&key, &NAMES, &version, &right).unwrap();
        assert_eq!(opened.expose_bytes(), b"hunter2");
        let other = VersionNames { version: 8, ..NAMES };
        assert!(keyring.open_for_maintenance(&key, &other, &version, &right).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_value_comes_back(value in prop::collection::vec(any::<u8>(), 0..2000)) {
            let Sealed { keyring, key, .. } = sealed();
            let version = keyring.seal_value(&key, &NAMES, &SecretBytes::new(value.clone()));
            let opened = keyring.open_value(&key, &NAMES, &version, read()).unwrap();
            prop_assert_eq!(opened.expose_bytes(), &value[..]);
        }
    }
}
