//! What a secret's aliases point at. Each points at a live version, always: `previous` is cleared when its version goes, and what another one points at
//! cannot be deleted.

use super::unsigned;
use crate::failure::Failure;
use strongroom_api::metadata::Pointers;
use strongroom_core::{AliasName, VersionSelector};
use strongroom_store::SecretRow;
use time::OffsetDateTime;

/// Whether the secret's expiry has come.
pub(in crate::operations) fn is_expired(secret: &SecretRow, now: OffsetDateTime) -> bool {
    secret.expires_at.is_some_and(|at| at <= now)
}

/// Every version that an alias points at.
pub(super) fn pinned(secret: &SecretRow) -> Vec<i64> {
    let mut pinned: Vec<i64> = [Some(secret.current_version), secret.previous_version, secret.pending_version]
        .into_iter()
        .flatten()
        .chain(secret.aliases.iter().map(|(_, version)| signed(version)))
        .collect();
    pinned.sort_unstable();
    pinned.dedup();
    pinned
}

/// Whether a version was not pruned. One that was and stands in the database all the same was put back by somebody, and is not looked at.
pub(super) fn is_kept(secret: &SecretRow, version: i64) -> bool {
    version >= secret.oldest_version || pinned(secret).contains(&version)
}

/// The version that a selector means, where the alias exists. It may still not be there.
pub(in crate::operations) fn pointed(secret: &SecretRow, selector: &VersionSelector) -> Option<i64> {
    match selector {
        VersionSelector::Current => Some(secret.current_version),
        VersionSelector::Previous => secret.previous_version,
        VersionSelector::Pending => secret.pending_version,
        VersionSelector::Number(number) => {
            i64::try_from(*number).ok().filter(|number| (1..=secret.latest_version).contains(number))
        }
        VersionSelector::Alias(alias) => secret.aliases.version(alias).map(signed),
    }
}

/// The names of the aliases that point at a version, in the order `current`, `previous`, `pending`, free ones.
pub(super) fn names_of(secret: &SecretRow, version: i64) -> Vec<String> {
    let fixed = [
        ("current", Some(secret.current_version)),
        ("previous", secret.previous_version),
        ("pending", secret.pending_version),
    ];
    let free = secret.aliases.iter().map(|(name, at)| (name.as_str(), Some(signed(at))));
    fixed.into_iter().chain(free).filter(|(_, at)| *at == Some(version)).map(|(name, _)| name.to_owned()).collect()
}

/// Points `current` at a version: what was current is `previous` then, and a version that was pending is not any more.
pub(super) fn activate(secret: &mut SecretRow, version: i64) {
    if version != secret.current_version {
        secret.previous_version = Some(secret.current_version);
        secret.current_version = version;
    }
    if secret.pending_version == Some(version) {
        secret.pending_version = None;
    }
}

/// Points a free alias at a version.
pub(super) fn point(secret: &mut SecretRow, alias: AliasName, version: i64) -> Result<(), Failure> {
    secret.aliases.point(alias, unsigned(version)).map_err(|error| Failure::Invalid(format!("alias: {error}")))
}

/// Lets go of a version that is deleted or destroyed.
///
/// # Errors
/// [`Failure::VersionInUse`] where an alias other than `previous` points at it.
pub(super) fn release(secret: &mut SecretRow, version: i64) -> Result<(), Failure> {
    let names = names_of(secret, version);
    if let Some(name) = names.iter().find(|name| *name != "previous") {
        return Err(Failure::VersionInUse(format!("`{name}` points at version {version}.")));
    }
    if secret.previous_version == Some(version) {
        secret.previous_version = None;
    }
    Ok(())
}

/// As callers see them.
pub(super) fn shown(secret: &SecretRow) -> Pointers {
    Pointers {
        current: unsigned(secret.current_version),
        previous: secret.previous_version.map(unsigned),
        pending: secret.pending_version.map(unsigned),
        aliases: secret.aliases.iter().map(|(name, version)| (name.clone(), version)).collect(),
    }
}

fn signed(version: u64) -> i64 {
    i64::try_from(version).expect("canonical aliases hold what the database can")
}
