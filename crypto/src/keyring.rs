//! The running server's keys.

use crate::key::{KEY_LENGTH, Key};
use crate::mac::{MacKeys, Purpose, hmac_key};
use crate::names::{Names, ProjectKeyNames, PurposeKeyNames, RootWrapped};
use crate::provider::{ProviderError, RootKeyProvider, RootKeys};
use crate::seal::{EnvelopeError, open_key, seal};
use crate::wrapped::{KeyState, WrappedKeyring, WrappedProjectKey, WrappedPurposeKey, WrappedTerm};
use ring::hmac;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use strongroom_core::{InstanceId, ProjectId, SecretBytes};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// Why a keyring or a project key does not open.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// The keyring was made with another root key, or for another instance.
    #[error("this root key does not belong to this database (instance {instance}); nothing was changed")]
    WrongRootKey {
        /// Whose database it is.
        instance: InstanceId,
        /// What the provider said.
        source: ProviderError,
    },
    /// The root key's provider failed.
    #[error("the root key's provider failed with {what}")]
    Provider {
        /// Which key it was asked for.
        what: String,
        /// Why.
        source: ProviderError,
    },
    /// A wrapped key is not as it was written.
    #[error("the wrapped key of {what} does not open")]
    Damaged {
        /// Which key.
        what: String,
        /// Why.
        source: EnvelopeError,
    },
    /// A key was wrapped by a term that is not in the keyring.
    #[error("{what} is wrapped by term {term}, which is not in the keyring")]
    NoSuchTerm {
        /// Which key.
        what: String,
        /// The term that is missing.
        term: i32,
    },
    /// Not exactly one active key where there must be one.
    #[error("there must be exactly one active {what}, but there are {found}")]
    Active {
        /// Of what.
        what: String,
        /// How many there are.
        found: usize,
    },
}

impl KeyringError {
    /// Whether only the root key's provider is away, so that asking again later may help.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Provider { source: ProviderError::Unavailable(_), .. })
    }
}

/// The key that authenticates the keyring's own rows: what is opened first, so that no row of the keyring is used before it was verified.
pub struct KeyringMac {
    instance: InstanceId,
    key: hmac::Key,
}

impl KeyringMac {
    /// Unwraps the key. Fails with [`KeyringError::WrongRootKey`] where this root key did not make this database's keyring.
    pub async fn open(root: &dyn RootKeyProvider, instance: InstanceId, wrapped: &[u8]) -> Result<Self, KeyringError> {
        let opened = root_unwrap(root, RootWrapped::KeyringMacKey { instance }, wrapped).await;
        let key = opened.map_err(|error| match error {
            // The first thing the root key is tried on: it is not the one, or the database is another instance's. No envelope at all is what another
            // kind of provider made.
            KeyringError::Damaged {
                source: source @ (EnvelopeError::OtherKeyOrNames | EnvelopeError::NotAnEnvelope),
                ..
            } => KeyringError::WrongRootKey { instance, source: source.into() },
            KeyringError::Provider { source: source @ ProviderError::NotItsOwn(_), .. } => {
                KeyringError::WrongRootKey { instance, source }
            }
            other => other,
        })?;
        Ok(Self { instance, key: hmac_key(&key) })
    }

    /// Unwraps the key that was announced as the next one, by a row that this instance's keyring authenticated.
    async fn open_next(root: &dyn RootKeyProvider, instance: InstanceId, wrapped: &[u8]) -> Result<Self, KeyringError> {
        let key = root_unwrap(root, RootWrapped::KeyringMacKey { instance }, wrapped).await?;
        Ok(Self { instance, key: hmac_key(&key) })
    }

    /// Whose keyring it is.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    pub(crate) fn key(&self) -> &hmac::Key {
        &self.key
    }
}

/// The keys a running server holds: the terms, the keys of each purpose, and the key of the keyring's own rows. Project keys are opened one by
/// one and held by whoever caches them.
pub struct Keyring {
    mac: Arc<KeyringMac>,
    /// The key that authenticates the keyring's own rows next, as it is wrapped and open.
    next_mac: Option<(Vec<u8>, Arc<KeyringMac>)>,
    active_term: i32,
    /// Shared with the keyring that this one followed: a term's number never stands for another key.
    terms: BTreeMap<i32, Arc<Key>>,
    purposes: BTreeMap<Purpose, MacKeys>,
    /// Whether a key that is not in use yet was left closed: a term and the keys below it, or the keyring's next MAC key.
    lacks_keys: bool,
}

/// What is done about a key that is not in use yet and not known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upcoming {
    Open,
    LeaveClosed,
}

impl Keyring {
    /// Makes a new instance's keyring: term 1, and generation 1 of each purpose, all from the system's random generator.
    ///
    /// It is written down by the caller, in one transaction and only where there is no keyring yet.
    pub async fn create(
        root: &dyn RootKeyProvider,
        instance: InstanceId,
    ) -> Result<(Self, WrappedKeyring), KeyringError> {
        let mac_key = root_wrap(root, RootWrapped::KeyringMacKey { instance }, &Key::generate()).await?;
        let term_key = Key::generate();
        let term = root_wrap(root, RootWrapped::Term { instance, term: 1 }, &term_key).await?;
        let wrapped = WrappedKeyring {
            mac_key,
            next_mac_key: None,
            terms: vec![WrappedTerm { term: 1, state: KeyState::Active, wrapped: term }],
            purpose_keys: Purpose::ALL.map(|purpose| new_purpose_key(instance, purpose, &term_key)).into(),
        };
        // Opened the way a start opens it: what does not open again is never written down.
        let mac = KeyringMac::open(root, instance, &wrapped.mac_key).await?;
        let keyring = Self::open(root, mac, &wrapped).await?;
        Ok((keyring, wrapped))
    }

    /// Opens a keyring from its rows, which the caller verified with `mac`.
    pub async fn open(
        root: &dyn RootKeyProvider,
        mac: KeyringMac,
        wrapped: &WrappedKeyring,
    ) -> Result<Self, KeyringError> {
        Self::open_knowing(root, Arc::new(mac), wrapped, None, Upcoming::Open).await
    }

    /// The keyring after its rows changed, which the caller verified with `mac`. The root key's provider is asked only for terms in use that this one does not
    /// hold: whoever follows may be about to answer a request, which need not wait for a key that nothing is sealed by yet. [`Self::complete`] opens what was left
    /// closed.
    pub async fn follow(
        &self,
        root: &dyn RootKeyProvider,
        mac: Arc<KeyringMac>,
        wrapped: &WrappedKeyring,
    ) -> Result<Self, KeyringError> {
        Self::open_knowing(root, mac, wrapped, Some(self), Upcoming::LeaveClosed).await
    }

    /// The keyring of the same rows with everything opened.
    pub async fn complete(&self, root: &dyn RootKeyProvider, wrapped: &WrappedKeyring) -> Result<Self, KeyringError> {
        Self::open_knowing(root, self.mac.clone(), wrapped, Some(self), Upcoming::Open).await
    }

    /// Whether a key of its rows is not open: one that is not in use yet.
    pub fn lacks_keys(&self) -> bool {
        self.lacks_keys
    }

    async fn open_knowing(
        root: &dyn RootKeyProvider,
        mac: Arc<KeyringMac>,
        wrapped: &WrappedKeyring,
        known: Option<&Self>,
        upcoming: Upcoming,
    ) -> Result<Self, KeyringError> {
        let instance = mac.instance;
        let active_term = only_active("term", wrapped.terms.iter().map(|term| (term.state, term.term)))?;
        let (mut terms, mut closed) = (BTreeMap::new(), BTreeSet::new());
        for term in wrapped.terms.iter().filter(|term| term.state != KeyState::Destroyed) {
            let names = RootWrapped::Term { instance, term: term.term };
            let key = match known.and_then(|known| known.terms.get(&term.term)) {
                Some(key) => key.clone(),
                None if term.state == KeyState::PreActive && upcoming == Upcoming::LeaveClosed => {
                    closed.insert(term.term);
                    continue;
                }
                None => Arc::new(root_unwrap(root, names, &term.wrapped).await?),
            };
            terms.insert(term.term, key);
        }
        let is_closed = |key: &&WrappedPurposeKey| key.state == KeyState::PreActive && closed.contains(&key.term);
        let open: Vec<_> = wrapped.purpose_keys.iter().filter(|key| !is_closed(key)).collect();
        let purposes = Purpose::ALL
            .into_iter()
            .map(|purpose| Ok((purpose, open_purpose(instance, purpose, &terms, &open)?)))
            .collect::<Result<_, KeyringError>>()?;
        let next_mac = match &wrapped.next_mac_key {
            Some(next) => match known.and_then(|known| known.known_next_mac(next)) {
                Some(mac) => Some((next.clone(), mac)),
                None if upcoming == Upcoming::LeaveClosed => None,
                None => Some((next.clone(), Arc::new(KeyringMac::open_next(root, instance, next).await?))),
            },
            None => None,
        };
        let lacks_keys = !closed.is_empty() || next_mac.is_some() != wrapped.next_mac_key.is_some();
        Ok(Self { mac, next_mac, active_term, terms, purposes, lacks_keys })
    }

    fn known_next_mac(&self, wrapped: &[u8]) -> Option<Arc<KeyringMac>> {
        self.next_mac.as_ref().filter(|(known, _)| known == wrapped).map(|(_, mac)| mac.clone())
    }

    /// Whose keyring it is.
    pub fn instance(&self) -> InstanceId {
        self.mac.instance
    }

    /// The number of the term that wraps new keys.
    pub fn active_term(&self) -> i32 {
        self.active_term
    }

    /// Makes a generation of a project's key and wraps it by the active term.
    pub fn new_project_key(&self, project: ProjectId, generation: i32) -> (ProjectKey, WrappedProjectKey) {
        let key = Key::generate();
        let term = self.active_term;
        let names = ProjectKeyNames { instance: self.instance(), project, generation, term };
        let wrapped = seal(self.term(term).expect("the active term is in the keyring"), &names, key.expose());
        (ProjectKey { project, generation, key }, WrappedProjectKey { project, generation, term, wrapped })
    }

    /// Opens a project's key. The names come from verified rows.
    pub fn open_project_key(&self, wrapped: &WrappedProjectKey) -> Result<ProjectKey, KeyringError> {
        let &WrappedProjectKey { project, generation, term, .. } = wrapped;
        let what = || format!("project {project}, generation {generation}");
        let names = ProjectKeyNames { instance: self.instance(), project, generation, term };
        let term_key = self.term(term).ok_or_else(|| KeyringError::NoSuchTerm { what: what(), term })?;
        let key = open_key(term_key, &names, &wrapped.wrapped)
            .map_err(|source| KeyringError::Damaged { what: what(), source })?;
        Ok(ProjectKey { project, generation, key })
    }

    pub(crate) fn term(&self, term: i32) -> Option<&Key> {
        self.terms.get(&term).map(AsRef::as_ref)
    }

    pub(crate) fn mac_keys(&self, purpose: Purpose) -> &MacKeys {
        self.purposes.get(&purpose).expect("open() opened every purpose")
    }

    /// What authenticates the keyring's own rows.
    pub fn keyring_mac(&self) -> &Arc<KeyringMac> {
        &self.mac
    }

    /// What authenticates them next, where that was announced and is open.
    pub fn next_keyring_mac(&self) -> Option<&KeyringMac> {
        self.next_mac.as_ref().map(|(_, mac)| mac.as_ref())
    }

    /// What authenticates them from now on: the key that was announced as the next one, wrapped like this. The root key's provider is asked only where it was left
    /// closed.
    pub async fn promoted_mac(
        &self,
        root: &dyn RootKeyProvider,
        wrapped: &[u8],
    ) -> Result<Arc<KeyringMac>, KeyringError> {
        match self.known_next_mac(wrapped) {
            Some(mac) => Ok(mac),
            None => Ok(Arc::new(KeyringMac::open_next(root, self.instance(), wrapped).await?)),
        }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("instance", &self.mac.instance)
            .field("active_term", &self.active_term)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KeyringMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyringMac").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// One generation of a project's key, open. Wiped when dropped; may be cached for as long as the server runs.
pub struct ProjectKey {
    pub(crate) project: ProjectId,
    pub(crate) generation: i32,
    pub(crate) key: Key,
}

impl ProjectKey {
    /// Whose.
    pub fn project(&self) -> ProjectId {
        self.project
    }

    /// Its generation.
    pub fn generation(&self) -> i32 {
        self.generation
    }
}

impl fmt::Debug for ProjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectKey")
            .field("project", &self.project)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

fn new_purpose_key(instance: InstanceId, purpose: Purpose, term_key: &Key) -> WrappedPurposeKey {
    let (generation, term) = (1, 1);
    let names = PurposeKeyNames { instance, purpose: purpose.as_str(), generation, term };
    let wrapped = seal(term_key, &names, Key::generate().expose());
    WrappedPurposeKey { purpose, generation, term, state: KeyState::Active, wrapped }
}

fn open_purpose(
    instance: InstanceId,
    purpose: Purpose,
    terms: &BTreeMap<i32, Arc<Key>>,
    wrapped: &[&WrappedPurposeKey],
) -> Result<MacKeys, KeyringError> {
    let of_purpose = || wrapped.iter().filter(|key| key.purpose == purpose && key.state != KeyState::Destroyed);
    let what = format!("{purpose} key");
    let active = only_active(&what, of_purpose().map(|key| (key.state, key.generation)))?;
    let generations = of_purpose()
        .map(|key| {
            let &WrappedPurposeKey { generation, term, .. } = *key;
            let what = || format!("{what}, generation {generation}");
            let names = PurposeKeyNames { instance, purpose: purpose.as_str(), generation, term };
            let term_key = terms.get(&term).ok_or_else(|| KeyringError::NoSuchTerm { what: what(), term })?;
            let opened = open_key(term_key, &names, &key.wrapped)
                .map_err(|source| KeyringError::Damaged { what: what(), source })?;
            Ok((generation, hmac_key(&opened)))
        })
        .collect::<Result<_, KeyringError>>()?;
    Ok(MacKeys::new(active, generations).expect("the active generation is one of those just opened"))
}

fn only_active(what: &str, keys: impl Iterator<Item = (KeyState, i32)>) -> Result<i32, KeyringError> {
    let active: Vec<i32> = keys.filter(|(state, _)| *state == KeyState::Active).map(|(_, number)| number).collect();
    match active[..] {
        [number] => Ok(number),
        _ => Err(KeyringError::Active { what: what.to_owned(), found: active.len() }),
    }
}

/// Wraps anew by the current provider what [`RootKeys::needs_rewrap`] says it of, and shows that it opens again before it is given out.
///
/// The caller verifies the row that `wrapped` and `names` come from, and replaces it only where it is still as it was read.
pub async fn rewrap(root: &RootKeys, names: RootWrapped, wrapped: &[u8]) -> Result<Vec<u8>, KeyringError> {
    let key = root_unwrap(root, names, wrapped).await?;
    let rewrapped = root_wrap(root, names, &key).await?;
    let again = root_unwrap(root, names, &rewrapped).await?;
    if bool::from(again.expose().ct_eq(key.expose())) {
        Ok(rewrapped)
    } else {
        Err(KeyringError::Damaged { what: what(names), source: EnvelopeError::UnexpectedContent })
    }
}

/// Wraps a key by the root. The plaintext embeds the names before the key, because not every provider has associated data (KMS v2 has none).
pub(crate) async fn root_wrap(
    root: &dyn RootKeyProvider,
    names: RootWrapped,
    key: &Key,
) -> Result<Vec<u8>, KeyringError> {
    let embedded = names.encode();
    let mut plaintext = Vec::with_capacity(embedded.len() + KEY_LENGTH);
    plaintext.extend_from_slice(&embedded);
    plaintext.extend_from_slice(key.expose());
    root.wrap(names, &SecretBytes::new(plaintext))
        .await
        .map_err(|source| KeyringError::Provider { what: what(names), source })
}

pub(crate) async fn root_unwrap(
    root: &dyn RootKeyProvider,
    names: RootWrapped,
    wrapped: &[u8],
) -> Result<Key, KeyringError> {
    let plaintext = root.unwrap(names, wrapped).await.map_err(|error| match error {
        ProviderError::Envelope(source) => KeyringError::Damaged { what: what(names), source },
        source => KeyringError::Provider { what: what(names), source },
    })?;
    // Exposed to become a key, in a buffer that is wiped as well.
    let key = plaintext.expose_bytes().strip_prefix(&names.encode()[..]).and_then(Key::from_slice);
    key.ok_or_else(|| KeyringError::Damaged { what: what(names), source: EnvelopeError::UnexpectedContent })
}

pub(crate) fn what(names: RootWrapped) -> String {
    match names {
        RootWrapped::Term { term, .. } => format!("term {term}"),
        RootWrapped::KeyringMacKey { .. } => "the keyring's rows".to_owned(),
    }
}

#[cfg(any(test, fuzzing))]
impl Keyring {
    /// A keyring of known keys, for known answers.
    pub(crate) fn fixed(instance: InstanceId) -> Self {
        let key = |byte| Key::from_slice(&[byte; KEY_LENGTH]).expect("it has the length of a key");
        let purpose = |purpose| match purpose {
            Purpose::RowMac => 0x21,
            Purpose::Token => 0x22,
            Purpose::Session => 0x23,
            Purpose::Audit => 0x24,
        };
        let keys =
            |of| MacKeys::new(1, BTreeMap::from([(1, hmac_key(&key(purpose(of))))])).expect("generation 1 is there");
        Self {
            mac: Arc::new(KeyringMac { instance, key: hmac_key(&key(0x20)) }),
            next_mac: None,
            active_term: 1,
            terms: BTreeMap::from([(1, Arc::new(key(0x11)))]),
            purposes: Purpose::ALL.into_iter().map(|of| (of, keys(of))).collect(),
            lacks_keys: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::sign;
    use crate::provider::ProviderAnswer;
    use crate::root::RootKey;
    use crate::testing::{INSTANCE, PROJECT, now};
    use std::sync::Arc;
    use uuid::Uuid;

    static_assertions::assert_not_impl_any!(Keyring: Clone, fmt::Display);
    static_assertions::assert_not_impl_any!(KeyringMac: Clone, fmt::Display);
    static_assertions::assert_not_impl_any!(ProjectKey: Clone, fmt::Display, PartialEq);
    static_assertions::assert_impl_all!(Keyring: Send, Sync);

    fn open(root: &RootKey, instance: InstanceId, wrapped: &WrappedKeyring) -> Result<Keyring, KeyringError> {
        let mac = now(KeyringMac::open(root, instance, &wrapped.mac_key))?;
        now(Keyring::open(root, mac, wrapped))
    }

    #[test]
    fn a_keyring_opens_again_with_the_same_keys() {
        let root = RootKey::generate();
        let (made, wrapped) = now(Keyring::create(&root, INSTANCE)).unwrap();
        let opened = open(&root, INSTANCE, &wrapped).unwrap();
        for purpose in Purpose::ALL {
            let hash = |keyring: &Keyring| sign(keyring.mac_keys(purpose).active().1, "x", INSTANCE, b"x");
            assert_eq!(hash(&made), hash(&opened));
        }
        let (_, project) = made.new_project_key(PROJECT, 1);
        assert_eq!((project.generation, project.term, opened.active_term()), (1, 1, 1));
        assert_eq!(opened.open_project_key(&project).unwrap().project(), PROJECT);
    }

    #[test]
    fn the_purposes_have_different_keys() {
        let (keyring, _) = now(Keyring::create(&RootKey::generate(), INSTANCE)).unwrap();
        let hashes = Purpose::ALL.map(|purpose| sign(keyring.mac_keys(purpose).active().1, "x", INSTANCE, b"x"));
        assert_eq!(std::collections::BTreeSet::from(hashes).len(), Purpose::ALL.len());
    }

    #[test]
    fn another_root_key_or_another_instance_is_refused_by_name() {
        let root = RootKey::generate();
        let (_, wrapped) = now(Keyring::create(&root, INSTANCE)).unwrap();
        let error = open(&RootKey::generate(), INSTANCE, &wrapped).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("this root key does not belong to this database (instance {INSTANCE}); nothing was changed")
        );
        let other = InstanceId(Uuid::from_u128(2));
        assert!(
            matches!(open(&root, other, &wrapped), Err(KeyringError::WrongRootKey { instance, .. }) if instance == other)
        );
    }

    #[test]
    fn each_wrapped_key_is_bound_to_its_place() {
        let root = RootKey::generate();
        let (keyring, wrapped) = now(Keyring::create(&root, INSTANCE)).unwrap();
        let damaged = |change: &dyn Fn(&mut WrappedKeyring)| {
            let mut wrapped = wrapped.clone();
            change(&mut wrapped);
            let error = open(&root, INSTANCE, &wrapped).unwrap_err();
            assert!(matches!(error, KeyringError::Damaged { .. }), "{error:?}");
        };
        damaged(&|w| w.terms[0].term = 2);
        damaged(&|w| w.terms[0].wrapped = w.mac_key.clone());
        damaged(&|w| *w.terms[0].wrapped.last_mut().unwrap() ^= 1);
        damaged(&|w| *w.mac_key.last_mut().unwrap() ^= 1);
        damaged(&|w| w.purpose_keys[0].generation = 2);
        damaged(&|w| w.purpose_keys[0].wrapped = w.purpose_keys[1].wrapped.clone());

        let (_, project) = keyring.new_project_key(PROJECT, 1);
        for other in [
            WrappedProjectKey { project: ProjectId(Uuid::from_u128(2)), ..project.clone() },
            WrappedProjectKey { generation: 2, ..project.clone() },
        ] {
            assert!(matches!(keyring.open_project_key(&other), Err(KeyringError::Damaged { .. })));
        }
        let later = WrappedProjectKey { term: 2, ..project };
        assert!(matches!(keyring.open_project_key(&later), Err(KeyringError::NoSuchTerm { term: 2, .. })));
    }

    #[test]
    fn a_keyring_needs_exactly_one_active_key_of_each_kind_and_all_terms() {
        let root = RootKey::generate();
        let (_, wrapped) = now(Keyring::create(&root, INSTANCE)).unwrap();
        let refused = |change: &dyn Fn(&mut WrappedKeyring)| {
            let mut wrapped = wrapped.clone();
            change(&mut wrapped);
            open(&root, INSTANCE, &wrapped).unwrap_err().to_string()
        };
        assert_eq!(refused(&|w| w.terms.clear()), "there must be exactly one active term, but there are 0");
        assert_eq!(
            refused(&|w| w.purpose_keys[2].state = KeyState::DecryptOnly),
            "there must be exactly one active session key, but there are 0"
        );
        assert_eq!(
            refused(&|w| w.purpose_keys.push(w.purpose_keys[1].clone())),
            "there must be exactly one active token key, but there are 2"
        );
        assert_eq!(
            refused(&|w| w.purpose_keys[3].term = 2),
            "audit key, generation 1 is wrapped by term 2, which is not in the keyring"
        );
    }

    #[test]
    fn a_provider_without_associated_data_cannot_swap_what_it_unwraps() {
        /// Unwraps to what was wrapped, whatever it is asked for.
        #[derive(Debug)]
        struct Forgetful(RootKey);

        const ANY: RootWrapped = RootWrapped::Term { instance: InstanceId(Uuid::nil()), term: 0 };

        impl RootKeyProvider for Forgetful {
            fn key_id(&self) -> Option<String> {
                self.0.key_id()
            }

            fn wrap<'a>(&'a self, _: RootWrapped, plaintext: &'a SecretBytes) -> ProviderAnswer<'a, Vec<u8>> {
                self.0.wrap(ANY, plaintext)
            }

            fn unwrap<'a>(&'a self, _: RootWrapped, wrapped: &'a [u8]) -> ProviderAnswer<'a, SecretBytes> {
                self.0.unwrap(ANY, wrapped)
            }

            fn is_current(&self, _: RootWrapped, wrapped: &[u8]) -> Option<bool> {
                self.0.is_current(ANY, wrapped)
            }
        }

        let root = Forgetful(RootKey::generate());
        let (_, wrapped) = now(Keyring::create(&root, INSTANCE)).unwrap();
        let unexpected =
            |error| matches!(error, KeyringError::Damaged { source: EnvelopeError::UnexpectedContent, .. });
        assert!(unexpected(now(KeyringMac::open(&root, INSTANCE, &wrapped.terms[0].wrapped)).unwrap_err()));
        assert!(unexpected(now(KeyringMac::open(&root, InstanceId(Uuid::nil()), &wrapped.mac_key)).unwrap_err()));
        let mac = now(KeyringMac::open(&root, INSTANCE, &wrapped.mac_key)).unwrap();
        let moved = WrappedTerm { term: 2, ..wrapped.terms[0].clone() };
        let moved = WrappedKeyring { terms: vec![moved], ..wrapped };
        assert!(unexpected(now(Keyring::open(&root, mac, &moved)).unwrap_err()));
    }

    #[test]
    fn a_rewrapped_key_opens_under_the_new_root_alone_and_only_as_what_it_was() {
        let (old, new) = (Arc::new(RootKey::generate()), Arc::new(RootKey::generate()));
        let (_, wrapped) = now(Keyring::create(&*old, INSTANCE)).unwrap();
        let both = RootKeys::new(new.clone(), Some(old));
        let mac = RootWrapped::KeyringMacKey { instance: INSTANCE };
        let term = RootWrapped::Term { instance: INSTANCE, term: 1 };
        let needed = |keys: &WrappedKeyring| {
            (both.needs_rewrap(mac, &keys.mac_key), both.needs_rewrap(term, &keys.terms[0].wrapped))
        };
        assert_eq!(needed(&wrapped), (Some(true), Some(true)));
        let mut rewrapped = wrapped.clone();
        rewrapped.mac_key = now(rewrap(&both, mac, &wrapped.mac_key)).unwrap();
        rewrapped.terms[0].wrapped = now(rewrap(&both, term, &wrapped.terms[0].wrapped)).unwrap();
        assert_eq!(needed(&rewrapped), (Some(false), Some(false)));
        assert!(open(&new, INSTANCE, &rewrapped).is_ok());
        assert!(matches!(now(rewrap(&both, mac, &wrapped.terms[0].wrapped)), Err(KeyringError::Damaged { .. })));
    }

    #[test]
    fn a_provider_that_is_away_or_of_another_kind_is_told_apart_from_a_damaged_row() {
        let root = RootKey::generate();
        let another_kind = now(KeyringMac::open(&root, INSTANCE, &[b'S'; 200])).unwrap_err();
        assert!(matches!(another_kind, KeyringError::WrongRootKey { .. }), "{another_kind:?}");
        let error = |source| KeyringError::Provider { what: "term 1".to_owned(), source };
        assert!(error(ProviderError::Unavailable("away".into())).is_unavailable());
        assert!(!error(ProviderError::Failed("refused".into())).is_unavailable());
        assert!(!another_kind.is_unavailable());
    }

    #[test]
    fn debug_shows_no_key() {
        let keyring = Keyring::fixed(INSTANCE);
        let (project, _) = keyring.new_project_key(PROJECT, 1);
        for text in [format!("{keyring:?}"), format!("{:?}", keyring.keyring_mac()), format!("{project:?}")] {
            assert!(!text.contains("17, 17") && !text.contains("key:"), "{text}");
        }
    }
}
