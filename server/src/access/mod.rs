//! Who may do what, as far as rows decide it: the access rows of a scope, loaded whole, checked against the scope's manifest, and kept for as long as the
//! manifest stays the same.
//!
//! Every decision begins with one small query for the manifests. A row that was deleted, brought back, added or exchanged for an older one does not fit the
//! manifest, and a manifest older than one this process has seen is refused: then nothing in the scope is decided any more, and that is an alarm.

pub(crate) mod branch;
mod instance;
pub(crate) mod ledger;
mod project;
mod recent;

pub use instance::InstanceAccess;
pub use ledger::Ledger;
pub use project::{Key, ProjectAccess, Role};

use crate::{app::App, failure::Failure};
use recent::Recent;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};
use strongroom_core::{AccessRow, ProjectId, ProjectName, Unverified, Verified};
use strongroom_crypto::{Entries, Keyring};
use strongroom_store::{
    Connection, ManifestRow, ManifestScope, ProjectRow, manifest, manifests, manifests_for, manifests_of,
};

/// How often a look is repeated when rows change while they are loaded.
pub(crate) const ATTEMPTS: usize = 8;
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
    projects: RwLock<Recent<Arc<ProjectAccess>>>,
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
    /// An older one, or one of another branch. It is looked at again first: another request may have kept a newer one meanwhile.
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
                "the database's access rows are older than this server has seen, or of another branch: it was rolled back or restored".to_owned(),
            ));
        }
        Err(Failure::Unavailable("the access rows, which change all the time,"))
    }

    /// What holds now of many projects, by one query: of those that are kept and did not change. Each of the others is to be looked at by itself.
    pub async fn unchanged(
        app: &App,
        connection: &mut Connection,
        projects: &[ProjectId],
    ) -> Result<HashMap<ProjectId, Self>, Failure> {
        let mut unchanged = HashMap::new();
        let Some(instance) = app.access.instance_kept() else { return Ok(unchanged) };
        let scopes: Vec<_> =
            projects.iter().copied().map(ManifestScope::Project).chain([ManifestScope::Instance]).collect();
        let found = manifests_of(connection, &scopes).await?;
        let found: HashMap<_, _> = found.into_iter().map(|row| (row.claimed(|row| row.scope), row)).collect();
        let stands = |scope: ManifestScope, kept: &Checked| {
            found.get(&scope).is_some_and(|found| matches!(standing(Some(kept), found), Standing::Same))
        };
        if !stands(ManifestScope::Instance, &instance.manifest) {
            return Ok(unchanged);
        }
        for kept in projects.iter().filter_map(|id| app.access.project(*id)) {
            let id = kept.id();
            let is_current = instance.project(kept.name()).is_some_and(|row| Arc::ptr_eq(row, &kept.row));
            if is_current && !instance.is_quarantined(id) && stands(ManifestScope::Project(id), &kept.manifest) {
                unchanged.insert(id, Self { instance: instance.clone(), project: Some(kept) });
            }
        }
        Ok(unchanged)
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
        let branch = branch_of(&of_instance);
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
            Some((id, manifest)) if id == row.id && branch_of(&manifest) == branch => manifest,
            Some((id, _)) if id == row.id => return Err(other_branch(scope)),
            _ => return Err(missing(scope)),
        };
        let kept = app.access.project(row.id);
        let standing = match &kept {
            None if app.access.has_seen_newer(row.id, &manifest) => Standing::Older,
            kept => standing(kept.as_ref().map(|kept| &kept.manifest), &manifest),
        };
        let project = match standing {
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

/// What came of a check of everything.
#[derive(Debug)]
pub struct Survey {
    /// How many scopes there are.
    pub scopes: usize,
    /// The projects whose rows do not fit, and what is wrong there.
    pub damaged: Vec<(ProjectName, Failure)>,
}

/// Loads every scope anew and checks it, without touching what is kept. A damaged project keeps no other from being looked at.
///
/// # Errors
/// [`Failure::Integrity`] where the instance's own rows do not fit: without them nothing can be said of the projects.
pub async fn check_everything(app: &App, connection: &mut Connection) -> Result<Survey, Failure> {
    for _ in 0..ATTEMPTS {
        let found = manifests(connection).await?;
        let mut survey = Survey { scopes: found.len(), damaged: Vec::new() };
        let (mut instance, mut projects) = (None, HashMap::new());
        for row in found {
            match row.claimed(|row| row.scope) {
                ManifestScope::Instance => instance = Some(row),
                ManifestScope::Project(id) => drop(projects.insert(id, row)),
            }
        }
        let instance = instance.ok_or_else(|| missing(ManifestScope::Instance))?;
        let branch = branch_of(&instance);
        let Some((instance, open)) = InstanceAccess::load(app, connection, instance).await? else { continue };
        let mut moved = false;
        for row in instance.projects() {
            // By the keyring of the instance that was just read, which this server may not have followed yet.
            let keyring = open.keyring.clone();
            match check_project(app, keyring, connection, branch, row, projects.remove(&row.id)).await {
                Ok(is_sound) => moved |= !is_sound,
                Err(failure @ Failure::Integrity(_)) => survey.damaged.push((row.name.clone(), failure)),
                Err(failure) => return Err(failure),
            }
        }
        if !moved {
            return Ok(survey);
        }
    }
    Err(Failure::Unavailable("the access rows, which change all the time,"))
}

/// Whether a project's rows fit; `false` when they changed meanwhile.
async fn check_project(
    app: &App,
    keyring: Arc<Keyring>,
    connection: &mut Connection,
    branch: i64,
    row: &Arc<Verified<ProjectRow>>,
    found: Option<Unverified<ManifestRow>>,
) -> Result<bool, Failure> {
    let scope = ManifestScope::Project(row.id);
    let manifest = match found {
        Some(manifest) => manifest,
        // Made since the manifests were read, or removed by somebody.
        None => manifest(connection, scope).await?.ok_or_else(|| missing(scope))?,
    };
    if branch_of(&manifest) != branch {
        return Err(other_branch(scope));
    }
    Ok(ProjectAccess::load(app, keyring, connection, row.clone(), manifest).await?.is_some())
}

/// What the manifests of all scopes are, but for projects that are quarantined: nothing is said of their rows.
#[derive(Debug)]
pub struct Manifests {
    /// The instance's, and those of the projects that this instance made by the row key in use.
    pub sound: Vec<ManifestRow>,
    /// The projects whose manifest is missing or is not such a one, and what is wrong with it.
    pub damaged: BTreeMap<ProjectId, String>,
}

/// The manifests as one look finds them; `None` where the instance is another by now. A manifest of what is no project is nobody's, and not looked at.
///
/// # Errors
/// [`Failure::Integrity`] where the instance's own is not sound: without it nothing can be said of the projects.
pub async fn verified_manifests(
    app: &App,
    connection: &mut Connection,
    instance: &InstanceAccess,
) -> Result<Option<Manifests>, Failure> {
    // Before the rows: they are at least as new as it is.
    let keyring = app.keyring();
    let (mut of_instance, mut of_projects) = (None, HashMap::new());
    for row in manifests(connection).await? {
        match row.claimed(|row| row.scope) {
            ManifestScope::Instance => of_instance = Some(row),
            ManifestScope::Project(id) => drop(of_projects.insert(id, row)),
        }
    }
    let of_instance = of_instance.ok_or_else(|| missing(ManifestScope::Instance))?;
    // Otherwise these are not the manifests of its projects, nor the keyring theirs.
    if !of_instance.claimed(|row| row == &**instance.manifest()) {
        return Ok(None);
    }
    let tampered = |error: strongroom_crypto::Tampered| error.to_string();
    let of_instance = keyring.verify_current_row(of_instance).map_err(|error| Failure::Integrity(tampered(error)))?;
    let mut found = Manifests { sound: vec![of_instance.into_inner()], damaged: BTreeMap::new() };
    for id in instance.projects().map(|project| project.id).filter(|id| !instance.is_quarantined(*id)) {
        let sound = match of_projects.remove(&id) {
            None => Err("its manifest is missing".to_owned()),
            Some(row) if row.generation() < keyring.row_generation() => {
                Err("its manifest was made by an earlier row key".to_owned())
            }
            Some(row) => keyring.verify_row(row).map_err(tampered),
        };
        match sound {
            Ok(row) => found.sound.push(row.into_inner()),
            Err(what) => drop(found.damaged.insert(id, what)),
        }
    }
    Ok(Some(found))
}

enum Looked {
    Found(Access),
    Moved,
    Older,
}

impl AccessCache {
    /// Forgets everything, where another branch was begun: before anybody is served.
    pub(crate) fn forget(&self) {
        *self.instance.write().expect("nothing panics while it holds this lock") = None;
        *self.projects.write().expect("nothing panics while it holds this lock") = Recent::default();
    }

    /// What is kept of projects.
    pub fn projects_kept(&self) -> Vec<Arc<ProjectAccess>> {
        read(&self.projects).all()
    }

    /// What is kept of a project.
    fn project(&self, id: ProjectId) -> Option<Arc<ProjectAccess>> {
        read(&self.projects).find(id, Instant::now())
    }

    /// Whether a newer manifest of a project was seen, of which nothing else may be kept any more.
    fn has_seen_newer(&self, id: ProjectId, than: &Unverified<ManifestRow>) -> bool {
        read(&self.projects).has_seen_newer(id, than.claimed(|row| row.epoch))
    }

    /// The highest epoch that this server has seen of a scope.
    pub(crate) fn seen(&self, scope: ManifestScope) -> Option<i64> {
        match scope {
            ManifestScope::Instance => self.epoch(scope),
            ManifestScope::Project(id) => read(&self.projects).seen(id),
        }
    }

    /// Lets go of projects that nobody has asked for in a while before `now`, their keys with them.
    pub fn forget_unused(&self, now: Instant) {
        self.projects.write().expect("nothing panics while it holds this lock").forget_unused(now);
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
            ManifestScope::Project(id) => self.project(id).map(|kept| kept.manifest.row.epoch),
        }
    }

    /// Keeps the newer of what is kept and what was loaded, and answers what was loaded: it was right when it was looked at.
    fn keep_instance(&self, loaded: InstanceAccess, adopt_keyring: impl FnOnce()) -> Arc<InstanceAccess> {
        let loaded = Arc::new(loaded);
        let mut kept = self.instance.write().expect("nothing panics while it holds this lock");
        if kept.as_ref().is_none_or(|kept| kept.manifest.row.epoch <= loaded.manifest.row.epoch) {
            // Under the same lock, so that an older keyring never follows a newer one. What other servers ended is not kept here either: it holds keys.
            adopt_keyring();
            let mut projects = self.projects.write().expect("nothing panics while it holds this lock");
            let there: HashSet<_> = loaded.projects().map(|project| project.id).collect();
            projects.retain(|id| there.contains(&id), |project| stands_in(&loaded, project));
            *kept = Some(loaded.clone());
        }
        loaded
    }

    fn keep_project(&self, loaded: ProjectAccess) -> Arc<ProjectAccess> {
        let loaded = Arc::new(loaded);
        // Held meanwhile, so that what ended while it was loaded is not kept after all.
        let instance = read(&self.instance);
        let mut kept = self.projects.write().expect("nothing panics while it holds this lock");
        if instance.as_ref().is_some_and(|instance| stands_in(instance, &loaded)) {
            kept.keep(loaded.id(), loaded.manifest.row.epoch, loaded.clone(), Instant::now());
        }
        loaded
    }
}

/// Whether a project is what the instance says: still there, and shredded or not as it was.
fn stands_in(instance: &InstanceAccess, project: &ProjectAccess) -> bool {
    let row = instance.project(&project.row.name);
    row.is_some_and(|row| row.id == project.row.id && row.shredded == project.row.shredded)
}

fn standing(kept: Option<&Checked>, found: &Unverified<ManifestRow>) -> Standing {
    let Some(kept) = kept else { return Standing::Changed };
    let same = found.claimed(|found| *found == *kept.row) && found.tag() == kept.tag;
    if same {
        Standing::Same
    } else if found.claimed(|found| found.epoch) < kept.row.epoch || branch_of(found) != branch::of(kept.row.epoch) {
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

fn branch_of(manifest: &Unverified<ManifestRow>) -> i64 {
    manifest.claimed(|row| branch::of(row.epoch))
}

fn other_branch(scope: ManifestScope) -> Failure {
    Failure::Integrity(format!(
        "the manifest of {} is of another branch than the instance's: it is of a state that was left when the database was restored",
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
