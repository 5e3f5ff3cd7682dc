//! Who may do what, as far as rows decide it: the access rows of a scope, loaded whole, checked against the scope's manifest, and kept for as long as the
//! manifest stays the same.
//!
//! Every decision begins with one small query for the manifests. A row that was deleted, brought back, added or exchanged for an older one does not fit the
//! manifest, and a manifest older than one this process has seen is refused: then nothing in the scope is decided any more, and that is an alarm.

mod instance;
pub(crate) mod ledger;
mod project;

pub use instance::InstanceAccess;
pub use ledger::Ledger;
pub use project::{Key, ProjectAccess, Role};

use crate::{app::App, failure::Failure};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};
use strongroom_core::{AccessRow, ProjectId, ProjectName, Unverified, Verified};
use strongroom_crypto::{Entries, Keyring};
use strongroom_store::{Connection, ManifestRow, ManifestScope, manifest, manifests, manifests_for};

/// How often a look is repeated when rows change while they are loaded.
const ATTEMPTS: usize = 8;
/// How long a scope whose rows did not fit is refused without another look.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// What stands for one request: the instance, and the project it is about, where there is one.
#[derive(Clone, Debug)]
pub struct Access {
    /// The instance.
    pub instance: Arc<InstanceAccess>,
    /// The project, where there is one of that name.
    pub project: Option<Arc<ProjectAccess>>,
}

/// What was loaded and checked, by scope.
#[derive(Debug, Default)]
pub struct AccessCache {
    instance: RwLock<Option<Arc<InstanceAccess>>>,
    projects: RwLock<HashMap<ProjectId, Arc<ProjectAccess>>>,
    /// Who loads: after a change all requests find it at once, and one of them is enough.
    turn: tokio::sync::Mutex<()>,
    /// Scopes whose rows did not fit, for a moment: not every request must find it out anew, while others wait for their turn.
    refused: Mutex<HashMap<ManifestScope, Refused>>,
}

#[derive(Clone, Debug)]
struct Refused {
    until: Instant,
    /// The manifest's MAC at that time.
    tag: Vec<u8>,
    what: String,
}

/// A manifest whose MAC was checked, with the tag it was checked by: the same row again needs no second check.
#[derive(Clone, Debug)]
struct Checked {
    row: Verified<ManifestRow>,
    tag: Vec<u8>,
}

/// What a manifest in the database is to the one that is kept.
enum Standing {
    /// The same: what is kept holds.
    Same,
    /// Another: everything is loaded anew.
    Changed,
    /// An older one. It is looked at again first: another request may have kept a newer one meanwhile.
    Older,
}

impl Access {
    /// What holds now. It costs one query, and the loading of what changed since.
    ///
    /// # Errors
    /// [`Failure::Integrity`] when rows do not fit their manifest, or a manifest is older than one that was seen.
    pub async fn now(app: &App, connection: &mut Connection, name: Option<&ProjectName>) -> Result<Self, Failure> {
        let mut older = false;
        for _ in 0..ATTEMPTS {
            match Self::look(app, connection, name).await? {
                Looked::Found(access) => return Ok(access),
                Looked::Older => older = true,
                Looked::Moved => {}
            }
        }
        if older {
            return Err(Failure::Integrity(
                "the database's access rows are older than this server has seen: it was rolled back".to_owned(),
            ));
        }
        Err(Failure::Unavailable("the access rows, which change all the time,"))
    }

    async fn look(app: &App, connection: &mut Connection, name: Option<&ProjectName>) -> Result<Looked, Failure> {
        let (mut of_instance, mut of_project) = (None, None);
        for row in manifests_for(connection, name).await? {
            match row.claimed(|row| row.scope) {
                ManifestScope::Instance => of_instance = Some(row),
                ManifestScope::Project(id) => of_project = Some((id, row)),
            }
        }
        let of_instance = of_instance.ok_or_else(|| missing(ManifestScope::Instance))?;
        let kept = read(&app.access.instance).clone();
        let instance = match standing(kept.as_ref().map(|kept| &kept.manifest), &of_instance) {
            Standing::Older => return Ok(Looked::Older),
            Standing::Same => kept.expect("it was compared"),
            Standing::Changed => {
                app.access.check_refused(&of_instance)?;
                let _turn = app.access.turn.lock().await;
                if app.access.epoch(ManifestScope::Instance) != kept.map(|kept| kept.manifest.row.epoch) {
                    return Ok(Looked::Moved);
                }
                let (scope, tag) = (ManifestScope::Instance, of_instance.tag().to_vec());
                let loaded = InstanceAccess::load(app, connection, of_instance).await;
                let Some((loaded, keyring)) = loaded.inspect_err(|error| app.access.refuse(scope, tag, error))? else {
                    return Ok(Looked::Moved);
                };
                app.access.keep_instance(loaded, || app.keys.adopt(keyring))
            }
        };
        let Some(name) = name else { return Ok(Looked::Found(Self { instance, project: None })) };
        let Some(row) = instance.project(name) else {
            // A row of this name that the instance does not know did not get here through this server.
            return match of_project {
                Some((id, _)) => Err(mismatch(ManifestScope::Project(id))),
                None => Ok(Looked::Found(Self { instance, project: None })),
            };
        };
        let scope = ManifestScope::Project(row.id);
        if instance.is_quarantined(row.id) {
            return Err(Failure::Integrity(format!(
                "{} is quarantined: its access rows are others than the anchor says, and a term may be known to somebody. Confirm them, or restore them",
                self::name(scope)
            )));
        }
        let manifest = match of_project {
            Some((id, manifest)) if id == row.id => manifest,
            _ => return Err(missing(scope)),
        };
        let kept = read(&app.access.projects).get(&row.id).cloned();
        let project = match standing(kept.as_ref().map(|kept| &kept.manifest), &manifest) {
            Standing::Older => return Ok(Looked::Older),
            // The project's own row belongs to the instance, which may have changed without it.
            Standing::Same => {
                let kept = kept.expect("it was compared");
                if Arc::ptr_eq(&kept.row, row) { kept } else { app.access.keep_project(kept.with_row(row.clone())) }
            }
            Standing::Changed => {
                app.access.check_refused(&manifest)?;
                let _turn = app.access.turn.lock().await;
                if app.access.epoch(scope) != kept.map(|kept| kept.manifest.row.epoch) {
                    return Ok(Looked::Moved);
                }
                let tag = manifest.tag().to_vec();
                let loaded = ProjectAccess::load(app, app.keyring(), connection, row.clone(), manifest).await;
                match loaded.inspect_err(|error| app.access.refuse(scope, tag, error))? {
                    Some(loaded) => app.access.keep_project(loaded),
                    None => return Ok(Looked::Moved),
                }
            }
        };
        Ok(Looked::Found(Self { instance, project: Some(project) }))
    }
}

/// Loads every scope anew and checks it, without touching what is kept. Answers how many scopes there are.
///
/// # Errors
/// [`Failure::Integrity`] for the first scope whose rows do not fit.
pub async fn check_everything(app: &App, connection: &mut Connection) -> Result<usize, Failure> {
    for _ in 0..ATTEMPTS {
        let found = manifests(connection).await?;
        let count = found.len();
        let (mut instance, mut projects) = (None, HashMap::new());
        for row in found {
            match row.claimed(|row| row.scope) {
                ManifestScope::Instance => instance = Some(row),
                ManifestScope::Project(id) => drop(projects.insert(id, row)),
            }
        }
        let instance = instance.ok_or_else(|| missing(ManifestScope::Instance))?;
        let Some((instance, open)) = InstanceAccess::load(app, connection, instance).await? else { continue };
        let mut moved = false;
        for row in instance.projects() {
            let manifest = match projects.remove(&row.id) {
                Some(manifest) => manifest,
                // Made since the manifests were read, or removed by somebody.
                None => manifest(connection, ManifestScope::Project(row.id))
                    .await?
                    .ok_or_else(|| missing(ManifestScope::Project(row.id)))?,
            };
            // By the keyring of the instance that was just read, which this server may not have followed yet.
            let keyring = open.keyring.clone();
            moved |= ProjectAccess::load(app, keyring, connection, row.clone(), manifest).await?.is_none();
        }
        if !moved {
            return Ok(count);
        }
    }
    Err(Failure::Unavailable("the access rows, which change all the time,"))
}

/// Every manifest, checked. Those of quarantined projects are left out: nothing is said of their rows.
///
/// # Errors
/// [`Failure::Integrity`] for the first that this instance's row key did not make, or an earlier one did.
pub async fn verified_manifests(
    app: &App,
    connection: &mut Connection,
    instance: &InstanceAccess,
) -> Result<Vec<Verified<ManifestRow>>, Failure> {
    // Before the rows: they are at least as new as it is.
    let keyring = app.keyring();
    let mut checked = Vec::new();
    for row in manifests(connection).await? {
        let scope = row.claimed(|row| row.scope);
        if matches!(scope, ManifestScope::Project(id) if instance.is_quarantined(id)) {
            continue;
        }
        if row.generation() < keyring.row_generation() {
            return Err(Failure::Integrity(format!("the manifest of {} was made by an earlier row key", name(scope))));
        }
        checked.push(keyring.verify_row(row).map_err(|tampered| Failure::Integrity(tampered.to_string()))?);
    }
    Ok(checked)
}

enum Looked {
    Found(Access),
    Moved,
    Older,
}

impl AccessCache {
    /// What is kept of projects.
    pub fn projects_kept(&self) -> Vec<Arc<ProjectAccess>> {
        read(&self.projects).values().cloned().collect()
    }

    /// What is kept of the instance.
    pub fn instance_kept(&self) -> Option<Arc<InstanceAccess>> {
        read(&self.instance).clone()
    }

    /// Remembers for a moment that a scope's rows do not fit.
    fn refuse(&self, scope: ManifestScope, tag: Vec<u8>, error: &Failure) {
        if let Failure::Integrity(what) = error {
            let refused = Refused { until: Instant::now() + REFUSED_FOR, tag, what: what.clone() };
            self.refused.lock().expect("nothing panics while it holds this lock").insert(scope, refused);
        }
    }

    fn check_refused(&self, manifest: &Unverified<ManifestRow>) -> Result<(), Failure> {
        let refused = self.refused.lock().expect("nothing panics while it holds this lock");
        match refused.get(&manifest.claimed(|row| row.scope)) {
            Some(refused) if refused.until > Instant::now() && refused.tag == manifest.tag() => {
                Err(Failure::Integrity(refused.what.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The epoch that is kept of a scope.
    fn epoch(&self, scope: ManifestScope) -> Option<i64> {
        match scope {
            ManifestScope::Instance => read(&self.instance).as_ref().map(|kept| kept.manifest.row.epoch),
            ManifestScope::Project(id) => read(&self.projects).get(&id).map(|kept| kept.manifest.row.epoch),
        }
    }

    /// Keeps the newer of what is kept and what was loaded, and answers what was loaded: it was right when it was looked at.
    fn keep_instance(&self, loaded: InstanceAccess, adopt_keyring: impl FnOnce()) -> Arc<InstanceAccess> {
        let loaded = Arc::new(loaded);
        let mut kept = self.instance.write().expect("nothing panics while it holds this lock");
        if kept.as_ref().is_none_or(|kept| kept.manifest.row.epoch <= loaded.manifest.row.epoch) {
            *kept = Some(loaded.clone());
            // Under the same lock, so that an older keyring never follows a newer one.
            adopt_keyring();
        }
        loaded
    }

    fn keep_project(&self, loaded: ProjectAccess) -> Arc<ProjectAccess> {
        let loaded = Arc::new(loaded);
        let mut kept = self.projects.write().expect("nothing panics while it holds this lock");
        if kept.get(&loaded.id()).is_none_or(|kept| kept.manifest.row.epoch <= loaded.manifest.row.epoch) {
            kept.insert(loaded.id(), loaded.clone());
        }
        loaded
    }

    /// Forgets a project that is gone.
    pub fn forget_project(&self, project: ProjectId) {
        self.projects.write().expect("nothing panics while it holds this lock").remove(&project);
    }
}

fn standing(kept: Option<&Checked>, found: &Unverified<ManifestRow>) -> Standing {
    let Some(kept) = kept else { return Standing::Changed };
    let same = found.claimed(|found| *found == *kept.row) && found.tag() == kept.tag;
    if same {
        Standing::Same
    } else if found.claimed(|found| found.epoch) < kept.row.epoch {
        Standing::Older
    } else {
        Standing::Changed
    }
}

/// Checks what was loaded against the manifest that stood before, and that it stands still. `None` when rows changed meanwhile: every change of an access row
/// changes its manifest in the same transaction, so between two looks at one manifest nothing moved.
async fn confirm(
    keyring: &Keyring,
    connection: &mut Connection,
    before: Unverified<ManifestRow>,
    entries: &Entries,
) -> Result<Option<Checked>, Failure> {
    let scope = before.claimed(|row| row.scope);
    let after = manifest(connection, scope).await?.ok_or_else(|| missing(scope))?;
    let unmoved = before.tag() == after.tag() && after.claimed(|after| before.claimed(|before| before == after));
    if !unmoved {
        return Ok(None);
    }
    let tag = before.tag().to_vec();
    // All manifests change with the row key, at once: whoever knows an earlier one could make a newer manifest by it otherwise.
    let row = keyring.verify_current_row(before).map_err(|tampered| Failure::Integrity(tampered.to_string()))?;
    let fits = row.root == entries.root() && usize::try_from(row.entries) == Ok(entries.count());
    if fits { Ok(Some(Checked { row, tag })) } else { Err(mismatch(scope)) }
}

/// Whether a scope's manifest is another than the one with this tag.
async fn has_moved(connection: &mut Connection, scope: ManifestScope, tag: &[u8]) -> Result<bool, Failure> {
    Ok(manifest(connection, scope).await?.is_none_or(|now| now.tag() != tag))
}

/// Checks a row's MAC and notes the row among those that are there.
fn listed<T: AccessRow>(keyring: &Keyring, row: Unverified<T>, entries: &mut Entries) -> Result<Verified<T>, Failure> {
    keyring.verify_listed(row, entries).map_err(|tampered| Failure::Integrity(tampered.to_string()))
}

fn mismatch(scope: ManifestScope) -> Failure {
    Failure::Integrity(format!(
        "the access rows of {} are not those of its manifest: one was deleted, added, brought back or exchanged",
        name(scope)
    ))
}

fn missing(scope: ManifestScope) -> Failure {
    Failure::Integrity(format!("the manifest of {} is missing", name(scope)))
}

pub(crate) fn name(scope: ManifestScope) -> String {
    match scope {
        ManifestScope::Instance => "the instance".to_owned(),
        ManifestScope::Project(id) => format!("project {id}"),
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().expect("nothing panics while it holds this lock")
}
