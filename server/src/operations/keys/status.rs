//! What there is, and what uses it.

use crate::{
    anchor::hex,
    app::{App, Caller},
    failure::{Failure, unless_damaged},
    operations::change::look,
    rotation::count_outdated,
};
use strongroom_api::keys::{Keys, ProjectKey, PurposeKey, Quarantine, Rotation, Term};
use strongroom_core::{Action, ProjectId};
use strongroom_crypto::RootKeyProvider as _;
use strongroom_store::{
    Connection, ManifestScope, Progress, RotationRow, manifest, project_keys, retired_project_keys, rotations,
    uses_of_project_keys, uses_of_terms,
};

/// Rotations shown.
const SHOWN: i64 = 50;

/// The instance's keys, what uses them, and work on them.
pub async fn status(app: &App, caller: &Caller) -> Result<Keys, Failure> {
    let access = look(app, caller, Action::ManageKeys, None, |rules| Ok(rules.access().clone())).await?;
    let mut connection = app.store.reader().await?;
    let uses = uses_of_terms(&mut connection).await?;
    let terms = access.instance.terms().iter().map(|row| Term {
        term: row.term,
        state: row.state.clone(),
        uses: uses.iter().find(|used| used.number == row.term).map_or(0, |used| unsigned(used.rows)),
        created_at: row.created_at,
        retired_at: row.retired_at,
    });
    let purpose_keys = access.instance.purpose_keys().iter().map(|row| PurposeKey {
        purpose: row.purpose.clone(),
        generation: row.generation,
        term: row.term,
        state: row.state.clone(),
    });
    let mut keys = Keys {
        terms: terms.collect(),
        purpose_keys: purpose_keys.collect(),
        project_keys: Vec::new(),
        root_outdated: count_outdated(app, &access) as u64,
        root_key_id: app.keys.root().key_id(),
        rotations: Vec::new(),
        quarantines: Vec::new(),
    };
    for id in retired_project_keys(&mut connection).await? {
        let Some(row) = access.instance.projects().find(|row| row.id == id) else { continue };
        // Who looks here may be after just such damage.
        let shown = unless_damaged(of_project(app, &mut connection, id, &row.name).await, "showing projects' keys")?;
        keys.project_keys.extend(shown.into_iter().flatten());
    }
    for (row, progress) in rotations(&mut connection, SHOWN).await? {
        // One that does not verify is closed by whoever works on it, with an alarm; it is not shown as ours.
        if let Ok(row) = app.verify(row) {
            keys.rotations.push(shown(&row, progress));
        }
    }
    for row in access.instance.quarantines() {
        // One that does not verify waits for being put back; the root is the one that was seen then.
        let now = manifest(&mut connection, row.scope).await?.and_then(|now| app.verify(now).ok());
        let project = match row.scope {
            ManifestScope::Instance => None,
            ManifestScope::Project(id) => access.instance.projects().find(|project| project.id == id),
        };
        keys.quarantines.push(Quarantine {
            scope: row.scope.id(),
            project: project.map(|project| project.name.clone()),
            root: hex(now.as_ref().map_or(&row.root, |now| &now.root)),
            since: row.created_at,
        });
    }
    Ok(keys)
}

async fn of_project(
    app: &App,
    connection: &mut Connection,
    id: ProjectId,
    name: &strongroom_core::ProjectName,
) -> Result<Vec<ProjectKey>, Failure> {
    let uses = uses_of_project_keys(connection, id).await?;
    let rows = app.verify_all(project_keys(connection, id).await?)?;
    let rows = rows.into_iter().filter(|row| row.state != "destroyed").map(|row| ProjectKey {
        project: name.clone(),
        generation: row.generation,
        term: row.term,
        state: row.state.clone(),
        uses: uses.iter().find(|used| used.number == row.generation).map_or(0, |used| unsigned(used.rows)),
    });
    Ok(rows.collect())
}

/// A rotation as callers see it.
pub(super) fn shown(row: &RotationRow, progress: Progress) -> Rotation {
    Rotation {
        id: row.id,
        what: row.kind.as_str().to_owned(),
        project: row.project,
        target: row.target,
        compromised: row.compromised,
        author: row.author.clone(),
        created_at: row.created_at,
        stage: progress.stage,
        done: unsigned(progress.done),
        total: unsigned(progress.total),
        failure: progress.failure,
        finished_at: progress.finished_at,
    }
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
