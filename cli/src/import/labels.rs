//! The one place where labels leave for the server.
//!
//! Policies can depend on labels, so they are taken along only where asked for, and never dropped silently where they were.

use super::reading::Candidate;
use crate::failure::Failure;
use strongroom_client::PutOptions;

/// LABELS ARE SENT HERE, once `PutOptions` has them: set them from `candidate.labels`, and let [`check`] pass.
pub(crate) fn put_options(candidate: &Candidate, if_version: Option<u64>, reason: &str) -> PutOptions {
    debug_assert!(candidate.labels.is_empty(), "check() refused labels");
    PutOptions { if_version, reason: Some(reason.to_owned()), ..PutOptions::default() }
}

/// Whether labels that were asked for can be sent at all.
pub(crate) fn check(wanted: bool) -> Result<(), Failure> {
    if wanted {
        return Err(Failure::usage(
            "labels cannot be put yet: the API does not take them",
            "Leave out --labels; the secrets come without them.",
        ));
    }
    Ok(())
}
