//! Where secrets lie: renaming, copying, moving. Both paths are locked in their order, so that two of these never wait for each other.

use super::{
    add::{insert, seal_version},
    change::write_row,
    checked_version,
    delete::refuse_protected,
    once::run,
    opened,
    pointers::{is_expired, is_kept, pinned},
    resource, unsigned, with_key,
    work::{Halt, Held, Work},
};
use crate::{
    app::{App, Caller},
    failure::Failure,
    operations::{authorization::decide, change::audited},
};
use strongroom_api::metadata::{CopiedVersions, Copy, Move, Placed, Rename};
use strongroom_core::{Action, Payload, SecretId, SecretPath};
use strongroom_policy::Grant;
use strongroom_store::{Conflict, SecretRow, VersionRow, VersionState, purge_secret, read_version, versions_of};
use uuid::Uuid;

/// Most versions that one copy or move seals anew.
pub const MAX_COPIED: usize = 1_000;
/// Versions looked at in one query.
const BATCH: i64 = 100;

/// Gives a secret another path in its project: the same id, all versions, all metadata; nothing is sealed anew.
pub async fn rename(app: &App, caller: &Caller, rename: &Rename) -> Result<Placed, Failure> {
    let outcome = async { run(app, caller, async |work| rename_in(app, caller, work, rename).await).await };
    audited(app, caller, Action::Write, rename.to.to_string(), outcome.await).await
}

/// [`rename`] in a transaction. It needs `delete` there, `write` here, and `manage-grants` in the project: folders feed policies.
pub async fn rename_in(app: &App, caller: &Caller, work: &mut Work, rename: &Rename) -> Result<Placed, Halt> {
    refuse_same(&rename.from, &rename.to)?;
    if rename.from.project() != rename.to.project() {
        return Err(Failure::Invalid("to: it is in another project; move the secret instead".to_owned()).into());
    }
    let (mut from, mut to) =
        hold_both(app, caller, work, (&rename.from, Action::Delete), (&rename.to, Action::Write)).await?;
    let _ = from.demand_of_project(app, caller, Action::ManageGrants)?;
    let secret = from.existing()?;
    if secret.deleted {
        return Err(Failure::Deleted.into());
    }
    refuse_taken(&to)?;
    let row = write_row(app, work, secret, |row| {
        row.path = rename.to.clone();
        Ok(())
    })
    .await?;
    // Another's lock may have made this wait.
    from.confirm(app, caller, work.connection()).await?;
    to.confirm(app, caller, work.connection()).await?;
    let managed = from.demand_of_project(app, caller, Action::ManageGrants)?;
    let version = unsigned(row.current_version);
    for (held, path) in [(&from, &rename.from), (&to, &rename.to)] {
        work.changed(path);
        work.record(app, caller, &[&held.grant, &managed], path, Some(version), "ok");
    }
    Ok(Placed { path: rename.to.clone(), version, copied: 0 })
}

/// Copies a secret, in another project too: a new id, sealed anew under the target's key.
pub async fn copy(app: &App, caller: &Caller, copy: &Copy) -> Result<Placed, Failure> {
    let outcome = async { run(app, caller, async |work| copy_in(app, caller, work, copy).await).await };
    audited(app, caller, Action::Write, copy.to.to_string(), outcome.await).await
}

/// [`copy`] in a transaction. It needs `read` on each version copied, `write` at the target, and for labels and owner `manage-grants` there.
pub async fn copy_in(app: &App, caller: &Caller, work: &mut Work, copy: &Copy) -> Result<Placed, Halt> {
    refuse_same(&copy.from, &copy.to)?;
    let (mut from, to) = hold_both(app, caller, work, (&copy.from, Action::Read), (&copy.to, Action::Write)).await?;
    place_copy(app, caller, work, &mut from, to, copy.versions, copy.metadata).await
}

/// Moves a secret to another project: every version that can be read goes there, and the source is purged.
pub async fn move_to(app: &App, caller: &Caller, moved: &Move) -> Result<Placed, Failure> {
    let outcome = async { run(app, caller, async |work| move_in(app, caller, work, moved).await).await };
    audited(app, caller, Action::Write, moved.to.to_string(), outcome.await).await
}

/// [`move_to`] in a transaction. It needs `read`, `delete` and `purge` at the source, `write` at the target, and for labels and owner `manage-grants` there.
pub async fn move_in(app: &App, caller: &Caller, work: &mut Work, moved: &Move) -> Result<Placed, Halt> {
    refuse_same(&moved.from, &moved.to)?;
    if moved.from.project() == moved.to.project() {
        return Err(Failure::Invalid("to: it is in the same project; rename the secret instead".to_owned()).into());
    }
    let (mut from, to) = hold_both(app, caller, work, (&moved.from, Action::Purge), (&moved.to, Action::Write)).await?;
    // Decided before anything is looked at: each version is decided on once more, and the deletion when all waits are over.
    let _ = (from.demand(app, caller, Action::Delete)?, from.demand(app, caller, Action::Read)?);
    let secret = from.existing()?.id;
    refuse_protected(&from, from.existing()?)?;
    let placed = place_copy(app, caller, work, &mut from, to, CopiedVersions::All, moved.metadata).await?;
    work.bury(app, caller, &mut from, &[0]).await?;
    let delete = from.demand(app, caller, Action::Delete)?;
    purge_secret(work.connection(), secret).await?;
    work.changed(&moved.from);
    work.record(app, caller, &[&from.grant, &delete], &moved.from, None, "ok");
    Ok(placed)
}

/// Holds two paths in their order, and answers them in the order they were given.
async fn hold_both(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    from: (&SecretPath, Action),
    to: (&SecretPath, Action),
) -> Result<(Held, Held), Halt> {
    if from.0 < to.0 {
        let first = work.hold(app, caller, from.0, from.1).await?;
        Ok((first, work.hold(app, caller, to.0, to.1).await?))
    } else {
        let first = work.hold(app, caller, to.0, to.1).await?;
        Ok((work.hold(app, caller, from.0, from.1).await?, first))
    }
}

async fn place_copy(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    from: &mut Held,
    mut to: Held,
    versions: CopiedVersions,
    metadata: bool,
) -> Result<Placed, Halt> {
    let manages = |to: &Held| metadata.then(|| to.demand_of_project(app, caller, Action::ManageGrants)).transpose();
    manages(&to)?;
    // The source's own project may be none; the target's must be there.
    to.rules.existing_project()?;
    let source = from.existing()?.clone();
    if source.deleted {
        return Err(Failure::Deleted.into());
    }
    if is_expired(&source, app.clock.now()) {
        return Err(Failure::Expired.into());
    }
    refuse_taken(&to)?;
    let numbers = match versions {
        CopiedVersions::Current => vec![source.current_version],
        CopiedVersions::All => live_versions(app, work, from, &source).await?,
    };
    let row = target_row(app, &to, &source, (versions, &numbers), metadata)?;
    if !insert(app, caller, work, &mut to, row.clone()).await? {
        return Err(Failure::Conflict(Conflict::Secret).into());
    }
    // Decided anew: something may have been waited for.
    let managed = manages(&to)?;
    for number in &numbers {
        copy_version(app, caller, work, from, &to, &source, (*number, &row, versions)).await?;
    }
    work.changed(&to.path);
    work.expires(row.expires_at);
    let version = unsigned(row.current_version);
    let grants: Vec<&Grant> = [&to.grant].into_iter().chain(&managed).collect();
    work.record(app, caller, &grants, &to.path, Some(version), "ok");
    Ok(Placed { path: to.path, version, copied: numbers.len() as u64 })
}

/// The copy's row. Free aliases go with all versions; labels and owner only where they were asked for.
fn target_row(
    app: &App,
    to: &Held,
    source: &SecretRow,
    (versions, numbers): (CopiedVersions, &[i64]),
    metadata: bool,
) -> Result<SecretRow, Failure> {
    let project = to.rules.existing_project()?.id();
    let mut row = SecretRow::new(SecretId(Uuid::now_v7()), project, to.path.clone(), app.clock.now());
    row.expires_at = source.expires_at;
    row.keep_versions = source.keep_versions;
    row.deletion_protected = source.deletion_protected;
    if metadata {
        row.labels = source.labels.clone();
        row.owner.clone_from(&source.owner);
    }
    if versions == CopiedVersions::All {
        row.latest_version = source.latest_version;
        row.current_version = source.current_version;
        row.previous_version = source.previous_version;
        row.pending_version = source.pending_version;
        row.aliases = source.aliases.clone();
        row.oldest_version = source.oldest_version;
        let kept = numbers.iter().filter(|number| **number >= row.oldest_version).count();
        row.skipped_versions = row.latest_version - row.oldest_version + 1 - i64::try_from(kept).unwrap_or(0);
    }
    Ok(row)
}

/// The numbers of all versions that can be read.
async fn live_versions(app: &App, work: &mut Work, from: &Held, source: &SecretRow) -> Result<Vec<i64>, Halt> {
    let (mut numbers, mut before) = (Vec::new(), None);
    loop {
        let rows = versions_of(work.connection(), source.id, before, BATCH).await?;
        let last = rows.len() < usize::try_from(BATCH).expect("a small number");
        for row in rows {
            let row = checked_version(app, &from.rules, source, row)?;
            before = Some(row.version);
            if row.state == VersionState::Live && is_kept(source, row.version) {
                numbers.push(row.version);
            }
        }
        if numbers.len() > MAX_COPIED {
            return Err(Failure::Invalid(format!(
                "from: it has more than {MAX_COPIED} versions; lower its keep_versions and put it once more"
            ))
            .into());
        }
        if last {
            numbers.reverse();
            if let Some(missing) = pinned(source).into_iter().find(|pinned| !numbers.contains(pinned)) {
                return Err(Failure::Integrity(format!(
                    "version {missing} of {}, which an alias points at, is missing",
                    source.id
                ))
                .into());
            }
            return Ok(numbers);
        }
    }
}

/// Reads one version by the caller's own right as it is now, and seals it anew for the copy.
async fn copy_version(
    app: &App,
    caller: &Caller,
    work: &mut Work,
    from: &mut Held,
    to: &Held,
    source: &SecretRow,
    (number, target, versions): (i64, &SecretRow, CopiedVersions),
) -> Result<(), Halt> {
    from.confirm(app, caller, work.connection()).await?;
    let about = resource(&from.path, Some(source), Some(unsigned(number)));
    let grant = decide(app, caller, &from.rules, Action::Read, about).map_err(|denied| Halt::Refused {
        action: Action::Read,
        resource: about.name(),
        denied,
    })?;
    let missing = || Failure::Integrity(format!("version {number} of {} is missing", source.id));
    let row = read_version(work.connection(), source.id, number).await?.ok_or_else(missing)?;
    let row = checked_version(app, &from.rules, source, row)?.into_inner();
    work.record(app, caller, &[&grant], &from.path, Some(unsigned(number)), "ok");
    let project = with_key(app, work.connection(), &from.rules, row.project_key_generation).await?;
    let bytes = opened(app, &project, &row, grant)?;
    let payload = Payload::decode(&row.media_type, bytes).map_err(|error| Failure::Integrity(error.to_string()))?;
    let copy = match versions {
        CopiedVersions::All => VersionRow { secret: target.id, ..row },
        CopiedVersions::Current => VersionRow {
            secret: target.id,
            version: 1,
            author: caller.identity.principal(),
            reason: None,
            created_at: target.created_at,
            ..row
        },
    };
    seal_version(app, work, to, copy, &payload).await
}

fn refuse_same(from: &SecretPath, to: &SecretPath) -> Result<(), Failure> {
    if from == to { Err(Failure::Invalid("to: it is where the secret lies".to_owned())) } else { Ok(()) }
}

/// Nothing may be at the target, not even a deleted secret: its versions would be lost.
fn refuse_taken(to: &Held) -> Result<(), Failure> {
    if to.secret.is_some() { Err(Failure::Conflict(Conflict::Secret)) } else { Ok(()) }
}
