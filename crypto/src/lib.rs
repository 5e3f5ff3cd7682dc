//! The cryptography of Strongroom: the only crate that holds keys.
//!
//! What it is: root key providers ([`RootKeyProvider`]), the running server's [`Keyring`], sealing and opening of values (opening costs a
//! [`strongroom_policy::Grant`]), MACs of database rows, [`Session`]s and issued [`Token`]s,
//! recovery shares of the root key ([`RecoveryShare`]).
//! What it is not: a place for SQL, HTTP or decisions, nor for any other IO than reading a root key's file; providers that ask somebody are the server's. It stores nothing; it hands out wrapped keys and takes them back.
//!
//! Numbers of terms and generations are `i32`, PostgreSQL's `integer`, and count from 1.
//!
//! Memory: keys and values are wiped in the buffers this crate owns, and the stack below each operation is overwritten. Not covered: HMAC states
//! inside `ring`, which live as long as the keyring, and what the operating system keeps of pages.

mod capability;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gf256;
mod idempotency;
mod key;
mod keyring;
mod mac;
mod manifest;
mod names;
mod pair;
mod provider;
mod recovery;
mod root;
mod rotation;
mod row;
mod seal;
mod session;
mod setting;
#[cfg(any(test, fuzzing))]
mod testing;
mod token;
mod value;
mod wrapped;

pub use capability::{Maintenance, System};
pub use idempotency::RequestHash;
pub use keyring::{Keyring, KeyringError, KeyringMac, ProjectKey, rewrap};
pub use mac::{KeyedHash, Purpose};
pub use manifest::Entries;
pub use names::RootWrapped;
pub use pair::{BadRsaBits, KeyPair, RsaBits};
pub use provider::{ProviderAnswer, ProviderError, Reason, RootKeyProvider, RootKeys};
pub use recovery::{BadShare, CannotSplit, CombineError, RECOVERY_THRESHOLDS, RecoveryShare};
pub use root::{ROOT_KEY_VARIABLE, RootKey, RootKeyError};
pub use rotation::{NewTerm, next_keyring_mac_key};
pub use row::Tampered;
pub use seal::EnvelopeError;
pub use session::{CannotIssue, MAX_SESSION, MAX_WORKLOAD_SESSION, Session, SessionError};
pub use setting::SealedSetting;
pub use token::{BadToken, Token};
pub use value::{OpenError, SealedVersion, VersionNames, same_value};
pub use wrapped::{KeyState, UnknownName, WrappedKeyring, WrappedProjectKey, WrappedPurposeKey, WrappedTerm};
