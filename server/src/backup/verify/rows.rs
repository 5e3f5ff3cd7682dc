//! Rows of a backup, checked as the server checks them before it decides by them, and every envelope opened.

use super::{CannotVerify, Problems};
use crate::{access::branch, failure::Failure, keys::wrapped_keyring};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use strongroom_api::backup::{Header, HeaderManifest};
use strongroom_core::{AccessRow, MacRow, ProjectId, RoleId, SecretId, Unverified, Verified};
use strongroom_crypto::{
    Entries, Keyring, KeyringMac, Maintenance, ProjectKey, RootKeyProvider, SealedVersion, VersionNames,
    WrappedProjectKey,
};
use strongroom_store::{
    BackupRow, InstanceRow, ManifestRow, ManifestScope, ProjectKeyRow, PurposeKeyRow, SecretRow, TermRow, VersionRow,
    VersionState,
};
use uuid::Uuid;

/// What was learned of the rows so far: keys, and what later rows are checked by. It grows with the number of secrets, by some hundred bytes each; values are dropped.
pub(super) struct Rows<'a> {
    root: &'a dyn RootKeyProvider,
    right: Maintenance,
    mac: Option<KeyringMac>,
    instance: Option<Verified<InstanceRow>>,
    terms: Vec<Verified<TermRow>>,
    purpose_keys: Vec<Verified<PurposeKeyRow>>,
    pub(super) keyring: Option<Keyring>,
    of_instance: Entries,
    of_projects: BTreeMap<ProjectId, Entries>,
    manifests: Vec<Verified<ManifestRow>>,
    /// Where the others stand: whether that is wrong is known once the quarantines are.
    damaged_manifests: BTreeMap<ManifestScope, String>,
    /// Projects whose rows wait for an operator's word: whatever manifest they have, it waits with them.
    pub(super) quarantined: BTreeSet<ProjectId>,
    project_keys: HashMap<(ProjectId, i32), Option<ProjectKey>>,
    roles: HashMap<RoleId, ProjectId>,
    /// Projects whose keys were destroyed; what is left of them is being removed.
    shredded: HashSet<ProjectId>,
    /// By scope, subject and version; 0 for all versions.
    buried: HashSet<(Uuid, Uuid, i64)>,
    secrets: HashMap<SecretId, Secret>,
    /// Versions that aliases point at and that were not seen yet.
    pointed: HashSet<(SecretId, i64)>,
    pub(super) problems: Problems,
    /// Lines of rows that are wrong and that nothing is decided by.
    pub(super) damaged_records: BTreeSet<u64>,
    pub(super) values: (u64, u64),
}

struct Secret {
    project: ProjectId,
    latest_version: i64,
    path: String,
}

impl<'a> Rows<'a> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a backup is verified by opening each of its values, without looking at any"
    )]
    pub(super) fn new(root: &'a dyn RootKeyProvider) -> Self {
        Self {
            root,
            right: Maintenance::assume(),
            mac: None,
            instance: None,
            terms: Vec::new(),
            purpose_keys: Vec::new(),
            keyring: None,
            of_instance: Entries::default(),
            of_projects: BTreeMap::new(),
            manifests: Vec::new(),
            damaged_manifests: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            project_keys: HashMap::new(),
            roles: HashMap::new(),
            shredded: HashSet::new(),
            buried: HashSet::new(),
            secrets: HashMap::new(),
            pointed: HashSet::new(),
            problems: Problems::default(),
            damaged_records: BTreeSet::new(),
            values: (0, 0),
        }
    }

    /// Checks the next row.
    pub(super) async fn check(&mut self, row: BackupRow, line: u64) -> Result<(), CannotVerify> {
        let at = |key: String| format!("{key} (line {line})");
        match row {
            BackupRow::Instance(row) => return self.instance(row).await,
            BackupRow::Term(row) => {
                let row = self.keyring_row(row)?;
                self.terms.push(row);
                return Ok(());
            }
            BackupRow::PurposeKey(row) => {
                let row = self.keyring_row(row)?;
                self.purpose_keys.push(row);
                return Ok(());
            }
            _ => self.open_keyring().await?,
        }
        match row {
            BackupRow::Instance(_) | BackupRow::Term(_) | BackupRow::PurposeKey(_) => unreachable!("done above"),
            BackupRow::Revision(row) => drop(self.verified(at("the revision".to_owned()), row)),
            BackupRow::Restore(row) => {
                let (key, verified) = (at(row.claimed(|r| r.id.to_string())), self.keyring().verify_row(row));
                self.record(line, key, verified);
            }
            BackupRow::Manifest(row) => {
                let scope = row.claimed(|r| r.scope);
                // As the server looks at it: one by an earlier row key says nothing.
                match self.keyring().verify_current_row(row) {
                    Ok(row) => self.manifests.push(row),
                    Err(_) => drop(self.damaged_manifests.insert(scope, at(scope_name(scope)))),
                }
            }
            BackupRow::Project(row) => self.project(at(row.claimed(|r| r.id.to_string())), row),
            BackupRow::ProjectKey(row) => {
                self.project_key(at(row.claimed(|r| format!("{} generation {}", r.project, r.generation))), row);
            }
            BackupRow::Tombstone(row) => {
                let scope = row.claimed(|r| r.scope);
                let key = at(row.claimed(|r| format!("{} version {}", r.subject, r.version)));
                if let Some(row) = self.listed(scope, key, row) {
                    self.buried.insert((row.scope.id(), row.subject, row.version));
                }
            }
            BackupRow::Cluster(row) => self.of_instance(at(row.claimed(|r| r.id.to_string())), row),
            BackupRow::RetiredName(row) => self.of_instance(at(row.claimed(|r| quoted(&r.name))), row),
            BackupRow::Role(row) => {
                let (id, project) = row.claimed(|r| (r.id, r.project));
                if self.listed(ManifestScope::Project(project), at(id.to_string()), row).is_some() {
                    self.roles.insert(id, project);
                }
            }
            BackupRow::Member(row) => {
                let key = at(row.claimed(|r| format!("{} {}", r.role, quoted(&r.pattern))));
                match self.roles.get(&row.claimed(|r| r.role)).copied() {
                    Some(project) => drop(self.listed(ManifestScope::Project(project), key, row)),
                    None => self.problems.add("role_members", key, "its role is not there".to_owned()),
                }
            }
            BackupRow::Grant(row) => {
                let scope = row.claimed(|r| r.project).map_or(ManifestScope::Instance, ManifestScope::Project);
                drop(self.listed(scope, at(row.claimed(|r| r.id.to_string())), row));
            }
            BackupRow::Policy(row) => {
                let scope = ManifestScope::Project(row.claimed(|r| r.project));
                drop(self.listed(scope, at(row.claimed(|r| r.id.to_string())), row));
            }
            BackupRow::Token(row) => self.of_instance(at(row.claimed(|r| r.id.to_string())), row),
            BackupRow::Quarantine(row) => {
                let (scope, key) = row.claimed(|r| (r.scope, at(scope_name(r.scope))));
                if let (Some(_), ManifestScope::Project(id)) = (self.listed(ManifestScope::Instance, key, row), scope) {
                    self.quarantined.insert(id);
                }
            }
            BackupRow::Rotation(row) => {
                let (key, verified) = (at(row.claimed(|r| r.id.to_string())), self.keyring().verify_row(row));
                self.record(line, key, verified);
            }
            BackupRow::Secret(row) => self.secret(at(row.claimed(|r| r.path.to_string())), *row),
            BackupRow::Version(row) => self.version(row, line),
            BackupRow::AuditEvent(row) => {
                let (key, verified) = (at(row.claimed(|r| r.id.to_string())), self.keyring().verify_audit_row(row));
                self.record(line, key, verified);
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks what only all rows together show.
    pub(super) async fn finish(&mut self, header: &Header) -> Result<(), CannotVerify> {
        self.open_keyring().await?;
        let own = self.instance.as_ref().expect("the keyring was opened by it");
        let is_quarantined = |scope: Uuid| self.quarantined.contains(&ProjectId(scope));
        let mut wrong = Vec::new();
        if own.id != header.instance.id || own.name != header.instance.name || own.kind.as_str() != header.instance.kind
        {
            wrong.push(("(file)", "line 1".to_owned(), "the header names another instance than the rows"));
        }
        let mut in_header: Vec<_> = header.manifests.iter().collect();
        let of_instance = self.manifests.iter().find(|manifest| manifest.scope == ManifestScope::Instance);
        let of_instance = of_instance.map_or(0, |manifest| branch::of(manifest.epoch));
        for manifest in self.manifests.iter().filter(|manifest| !is_quarantined(manifest.scope.id())) {
            let name = scope_name(manifest.scope);
            let entries = match manifest.scope {
                ManifestScope::Instance => Some(&self.of_instance),
                ManifestScope::Project(id) => self.of_projects.get(&id),
            };
            let fits = entries.is_some_and(|entries| {
                manifest.root == entries.root() && usize::try_from(manifest.entries) == Ok(entries.count())
            });
            if !fits {
                wrong.push(("manifests", name.clone(), "the rows of this scope are not those of its manifest: one is missing, was added, or is an older one"));
            }
            let said = |in_header: &&HeaderManifest| {
                in_header.scope == manifest.scope.id()
                    && in_header.epoch == manifest.epoch
                    && in_header.root == BASE64_STANDARD.encode(&manifest.root)
            };
            if branch::of(manifest.epoch) != of_instance {
                wrong.push(("manifests", name.clone(), "it is of another branch than the instance's: of a state that was left when the database was restored"));
            }
            match in_header.iter().position(said) {
                Some(at) => drop(in_header.swap_remove(at)),
                None => wrong.push(("manifests", name, "the header says otherwise of it")),
            }
        }
        in_header.retain(|manifest| !is_quarantined(manifest.scope));
        if !in_header.is_empty() {
            wrong.push(("(file)", "line 1".to_owned(), "the header names manifests that are not there"));
        }
        let has = |scope| self.manifests.iter().any(|manifest| manifest.scope == scope);
        if !has(ManifestScope::Instance) {
            wrong.push(("manifests", "the instance".to_owned(), "it is missing"));
        }
        for (_, key) in self.damaged_manifests.iter().filter(|(scope, _)| !is_quarantined(scope.id())) {
            wrong.push(("manifests", key.clone(), TAMPERED));
        }
        for project in self.of_projects.keys().filter(|id| !has(ManifestScope::Project(**id))) {
            if !self.quarantined.contains(project) {
                wrong.push(("manifests", format!("project {project}"), "it is missing"));
            }
        }
        for (table, row, what) in wrong {
            self.problems.add(table, row, what.to_owned());
        }
        for (id, version) in std::mem::take(&mut self.pointed) {
            let path = self.secrets.get(&id).map_or("?", |secret| secret.path.as_str());
            let row = format!("{path} version {version}");
            self.problems.add("secret_versions", row, "an alias points at it, and it is missing".to_owned());
        }
        Ok(())
    }

    async fn instance(&mut self, row: Unverified<InstanceRow>) -> Result<(), CannotVerify> {
        let (id, wrapped) = row.claimed(|row| (row.id, row.keyring_mac_key.clone()));
        if self.mac.is_some() {
            return Err(CannotVerify::KeyringRows("there are two instances".to_owned()));
        }
        self.mac = Some(KeyringMac::open(self.root, id, &wrapped).await.map_err(CannotVerify::Keyring)?);
        self.instance = Some(self.keyring_row(row)?);
        Ok(())
    }

    /// A row of the keyring: a wrong one ends the verification, because everything else is checked by these keys.
    fn keyring_row<T: AccessRow>(&mut self, row: Unverified<T>) -> Result<Verified<T>, CannotVerify> {
        let mac = self.mac.as_ref().ok_or_else(|| CannotVerify::KeyringRows("the instance is not there".to_owned()))?;
        mac.verify_listed(row, &mut self.of_instance).map_err(|error| CannotVerify::KeyringRows(error.to_string()))
    }

    async fn open_keyring(&mut self) -> Result<(), CannotVerify> {
        if self.keyring.is_some() {
            return Ok(());
        }
        let mac = self.mac.take().ok_or_else(|| CannotVerify::KeyringRows("the instance is not there".to_owned()))?;
        let instance = self.instance.as_ref().expect("its row came with the key");
        let rows = wrapped_keyring(instance, &self.terms, &self.purpose_keys).map_err(|failure| corrupt(&failure))?;
        let opened = Keyring::open(self.root, mac, &rows).await;
        self.keyring = Some(opened.map_err(CannotVerify::Keyring)?);
        Ok(())
    }

    fn keyring(&self) -> &Keyring {
        self.keyring.as_ref().expect("check() opened it before any row but its own")
    }

    fn verified<T: MacRow>(&mut self, key: String, row: Unverified<T>) -> Option<Verified<T>> {
        let verified = self.keyring().verify_row(row);
        self.noted(key, verified)
    }

    fn listed<T: AccessRow>(&mut self, scope: ManifestScope, key: String, row: Unverified<T>) -> Option<Verified<T>> {
        let entries = match scope {
            ManifestScope::Instance => &mut self.of_instance,
            ManifestScope::Project(id) => self.of_projects.entry(id).or_default(),
        };
        let verified = self.keyring.as_ref().expect("check() opened it").verify_listed(row, entries);
        self.noted(key, verified)
    }

    fn of_instance<T: AccessRow>(&mut self, key: String, row: Unverified<T>) {
        drop(self.listed(ManifestScope::Instance, key, row));
    }

    /// A row that nothing is decided by: what was done once.
    fn record<T: MacRow>(
        &mut self,
        line: u64,
        key: String,
        verified: Result<Verified<T>, strongroom_crypto::Tampered>,
    ) {
        if self.noted(key, verified).is_none() {
            self.damaged_records.insert(line);
        }
    }

    fn noted<T: MacRow>(
        &mut self,
        key: String,
        verified: Result<Verified<T>, strongroom_crypto::Tampered>,
    ) -> Option<Verified<T>> {
        if verified.is_err() {
            self.problems.add(T::TABLE, key, TAMPERED.to_owned());
        }
        verified.ok()
    }

    fn project(&mut self, key: String, row: Unverified<strongroom_store::ProjectRow>) {
        let Some(row) = self.listed(ManifestScope::Instance, key, row) else { return };
        // A project has a manifest even where nothing else is of it.
        self.of_projects.entry(row.id).or_default();
        if row.shredded {
            self.shredded.insert(row.id);
        }
    }

    fn project_key(&mut self, key: String, row: Unverified<ProjectKeyRow>) {
        let scope = ManifestScope::Project(row.claimed(|r| r.project));
        let Some(row) = self.listed(scope, key.clone(), row) else { return };
        let opened = if row.state == "destroyed" {
            None
        } else {
            let wrapped = WrappedProjectKey {
                project: row.project,
                generation: row.generation,
                term: row.term,
                wrapped: row.wrapped.clone(),
            };
            match self.keyring().open_project_key(&wrapped) {
                Ok(opened) => Some(opened),
                Err(error) => return self.problems.add("project_keys", key, error.to_string()),
            }
        };
        self.project_keys.insert((row.project, row.generation), opened);
    }

    fn secret(&mut self, key: String, row: Unverified<SecretRow>) {
        let Some(row) = self.verified(key.clone(), row) else { return };
        if !self.of_projects.contains_key(&row.project) {
            self.problems.add("secrets", key.clone(), "its project is not there".to_owned());
        }
        if self.buried.contains(&(row.project.0, row.id.0, 0)) {
            self.problems.add("secrets", key, "it was removed for good, and its row is back".to_owned());
        }
        if !self.shredded.contains(&row.project) {
            let fixed = [Some(row.current_version), row.previous_version, row.pending_version];
            let free = row
                .aliases
                .iter()
                .map(|(_, version)| i64::try_from(version).expect("aliases hold versions of the database"));
            self.pointed.extend(fixed.into_iter().flatten().chain(free).map(|version| (row.id, version)));
        }
        let path = row.path.to_string();
        self.secrets.insert(row.id, Secret { project: row.project, latest_version: row.latest_version, path });
    }

    fn version(&mut self, row: Unverified<VersionRow>, line: u64) {
        let (id, number) = row.claimed(|r| (r.secret, r.version));
        let secret = self.secrets.get(&id);
        let name = secret.map_or_else(|| id.to_string(), |secret| secret.path.clone());
        let key = format!("{name} version {number} (line {line})");
        let Some((project, latest)) = secret.map(|secret| (secret.project, secret.latest_version)) else {
            return self.problems.add(
                "secret_versions",
                key,
                "its secret is not there, or is not authentic".to_owned(),
            );
        };
        let Some(row) = self.verified(key.clone(), row) else { return };
        self.pointed.remove(&(id, number));
        if let Err(what) = self.check_version(&row, project, latest) {
            self.problems.add("secret_versions", key, what);
        }
    }

    fn check_version(&mut self, row: &VersionRow, project: ProjectId, latest: i64) -> Result<(), String> {
        if row.version > latest {
            return Err("its number was never given out".to_owned());
        }
        if row.state == VersionState::Destroyed {
            let empty = row.wrapped_key.is_empty() && row.sealed_value.is_empty();
            return if empty { Ok(()) } else { Err("it was destroyed, and its value is there".to_owned()) };
        }
        if self.buried.contains(&(project.0, row.secret.0, row.version)) {
            return Err("it was destroyed, and its value is back".to_owned());
        }
        let generation = row.project_key_generation;
        let key = match self.project_keys.get(&(project, generation)) {
            Some(Some(key)) => key,
            // Destroyed with its project: what is sealed under it is gone, as was wanted.
            Some(None) if self.shredded.contains(&project) => return Ok(()),
            Some(None) => {
                return Err(format!(
                    "the project's key of generation {generation} was destroyed, and its value is lost"
                ));
            }
            None => return Err(format!("its project has no key of generation {generation} that opens")),
        };
        let version = u64::try_from(row.version).map_err(|_| "its number is below 1".to_owned())?;
        let names = VersionNames { secret: row.secret, version, media_type: &row.media_type };
        let sealed = SealedVersion {
            project_key_generation: generation,
            wrapped_key: row.wrapped_key.clone(),
            sealed_value: row.sealed_value.clone(),
        };
        let keyring = self.keyring.as_ref().expect("check() opened it");
        let length = keyring.check_value(&self.right, key, &names, &sealed).map_err(|error| {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
            format!("{error}{why}")
        })?;
        self.values.0 += 1;
        self.values.1 += length as u64;
        Ok(())
    }
}

const TAMPERED: &str = "its MAC is wrong: it was changed, or another instance wrote it";

fn corrupt(failure: &Failure) -> CannotVerify {
    CannotVerify::KeyringRows(failure.to_string())
}

fn scope_name(scope: ManifestScope) -> String {
    match scope {
        ManifestScope::Instance => "the instance".to_owned(),
        ManifestScope::Project(id) => format!("project {id}"),
    }
}

/// What stands in a row that nobody vouched for may hold anything, also what moves a terminal's cursor.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}
