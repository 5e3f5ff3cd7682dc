//! When a write is done: what the caller says he saw.

use super::unsigned;
use crate::failure::Failure;
use strongroom_store::{ProjectSettings, SecretRow};

/// When a write is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Always.
    None,
    /// Only where nothing live is there.
    Absent,
    /// Only where this version is current.
    Current(u64),
}

impl Precondition {
    /// Checks it against the locked row.
    ///
    /// # Errors
    /// [`Failure::VersionConflict`] where it does not hold; [`Failure::PreconditionRequired`] where the project demands one and there is none.
    pub(super) fn check(self, settings: &ProjectSettings, secret: Option<&SecretRow>) -> Result<(), Failure> {
        if self == Self::None && settings.require_check_and_set {
            return Err(Failure::PreconditionRequired);
        }
        self.check_if_given(secret)
    }

    /// Checks it where a project never demands one: by who deletes. Nothing is overwritten then, and it can be undone.
    pub(super) fn check_if_given(self, secret: Option<&SecretRow>) -> Result<(), Failure> {
        if self.holds(secret) { Ok(()) } else { Err(Failure::VersionConflict) }
    }

    /// Checks it for what brings back: there it is asked of the version that `current` points at, deleted or not.
    pub(super) fn check_to_bring_back(self, secret: &SecretRow) -> Result<(), Failure> {
        let holds = match self {
            Self::None => true,
            Self::Absent => secret.deleted,
            Self::Current(version) => unsigned(secret.current_version) == version,
        };
        if holds { Ok(()) } else { Err(Failure::VersionConflict) }
    }

    fn holds(self, secret: Option<&SecretRow>) -> bool {
        let live = secret.filter(|secret| !secret.deleted);
        match self {
            Self::None => true,
            Self::Absent => live.is_none(),
            Self::Current(version) => live.is_some_and(|secret| unsigned(secret.current_version) == version),
        }
    }
}
