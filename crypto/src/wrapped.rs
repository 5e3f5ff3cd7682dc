//! Keys as the database has them: wrapped, numbered and named.

use crate::mac::Purpose;
use strongroom_core::ProjectId;
use thiserror::Error;

/// Not one of the names that stand in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no such {what} of a key")]
pub struct UnknownName {
    /// A `state` or a `purpose`.
    pub what: &'static str,
}

/// What a key of the keyring is still used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It is known to every server before any uses it: it opens and verifies, and makes nothing yet.
    PreActive,
    /// It seals and opens. One term, and one generation of each purpose, is active.
    Active,
    /// It opens and verifies what exists, and makes nothing new.
    DecryptOnly,
    /// As [`Self::DecryptOnly`], until what it protects was made anew: somebody else may have it.
    Compromised,
    /// It is gone.
    Destroyed,
}

impl KeyState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::PreActive, Self::Active, Self::DecryptOnly, Self::Compromised, Self::Destroyed];

    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreActive => "pre-active",
            Self::Active => "active",
            Self::DecryptOnly => "decrypt-only",
            Self::Compromised => "compromised",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether a key of this state may be found in that one later: states only go forward. Whoever brings an earlier one back rolled the keyring back.
    pub fn may_become(self, later: Self) -> bool {
        let place = |state| Self::ALL.iter().position(|known| *known == state);
        place(self) <= place(later)
    }
}

impl std::str::FromStr for KeyState {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(UnknownName { what: "state" })
    }
}

impl std::str::FromStr for Purpose {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text).ok_or(UnknownName { what: "purpose" })
    }
}

/// A term's key as the database has it, wrapped by the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedTerm {
    /// Its number.
    pub term: i32,
    /// Its state.
    pub state: KeyState,
    /// What the root key's provider made of it.
    pub wrapped: Vec<u8>,
}

/// A purpose's key as the database has it, wrapped by a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedPurposeKey {
    /// What it is for.
    pub purpose: Purpose,
    /// Its generation.
    pub generation: i32,
    /// The term that wraps it.
    pub term: i32,
    /// Its state.
    pub state: KeyState,
    /// An envelope.
    pub wrapped: Vec<u8>,
}

/// A project's key as the database has it, wrapped by a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedProjectKey {
    /// Whose.
    pub project: ProjectId,
    /// Its generation.
    pub generation: i32,
    /// The term that wraps it.
    pub term: i32,
    /// An envelope.
    pub wrapped: Vec<u8>,
}

/// All of a keyring as the database has it. It cannot be opened without the root key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKeyring {
    /// The key that authenticates the keyring's own rows, wrapped by the root, never by a term.
    pub mac_key: Vec<u8>,
    /// The one that does it next, where one was made; wrapped by the root.
    pub next_mac_key: Option<Vec<u8>>,
    /// The terms.
    pub terms: Vec<WrappedTerm>,
    /// The keys of all purposes and generations.
    pub purpose_keys: Vec<WrappedPurposeKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_in_the_database_parse_back() {
        for purpose in Purpose::ALL {
            assert_eq!(purpose.as_str().parse(), Ok(purpose));
        }
        for state in KeyState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!(
            KeyState::PreActive.may_become(KeyState::Active) && !KeyState::DecryptOnly.may_become(KeyState::Active)
        );
        assert!("Active".parse::<KeyState>().is_err() && "row".parse::<Purpose>().is_err());
    }
}
