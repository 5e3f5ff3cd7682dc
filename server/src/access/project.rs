//! A project's access rows.

use super::{Checked, confirm, has_moved, listed};
use crate::{
    app::App,
    failure::Failure,
    operations::authorization::{grant_rule, text_policy},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use strongroom_core::{MemberPattern, ProjectId, ProjectName, RoleId, SecretId, Unverified, Verified};
use strongroom_crypto::{Entries, Keyring, ProjectKey, WrappedProjectKey};
use strongroom_policy::{GrantRule, TextPolicy};
use strongroom_store::{
    Connection, GrantRow, ManifestRow, ManifestScope, MemberRow, PolicyRow, ProjectKeyRow, ProjectRow, ProjectSettings,
    RoleRow, grants_of, members_of_project, policies_of_project, project_keys, roles_of_project, tombstones,
};
use uuid::Uuid;

/// A project's settings, keys, roles, grants, policies and tombstones.
#[derive(Clone, Debug)]
pub struct ProjectAccess {
    pub(super) manifest: Checked,
    pub(super) row: Arc<Verified<ProjectRow>>,
    rows: Arc<Rows>,
}

#[derive(Debug)]
struct Rows {
    keys: BTreeMap<i32, Key>,
    active_key: Option<i32>,
    roles: BTreeMap<String, Role>,
    /// Which roles have a member of this pattern.
    members: HashMap<String, Vec<(MemberPattern, String)>>,
    grants: Vec<(Verified<GrantRow>, GrantRule)>,
    grants_to: HashMap<String, Vec<usize>>,
    policies: Vec<(Verified<PolicyRow>, TextPolicy)>,
    /// By the one principal they can concern; `None` for those that can concern anyone.
    policies_about: HashMap<Option<String>, Vec<usize>>,
    buried: HashSet<(Uuid, i64)>,
    entries: Entries,
}

/// A generation of the project's key.
#[derive(Debug)]
pub struct Key {
    /// Its row.
    pub row: Verified<ProjectKeyRow>,
    /// The key, open; `None` once destroyed.
    pub key: Option<ProjectKey>,
}

/// A role and its members.
#[derive(Debug)]
pub struct Role {
    /// Its row.
    pub row: Verified<RoleRow>,
    /// Its members, by pattern.
    pub members: Vec<Verified<MemberRow>>,
}

impl ProjectAccess {
    /// Loads and checks everything; `None` when it changed meanwhile.
    pub(super) async fn load(
        app: &App,
        keyring: Arc<Keyring>,
        connection: &mut Connection,
        row: Arc<Verified<ProjectRow>>,
        manifest: Unverified<ManifestRow>,
    ) -> Result<Option<Self>, Failure> {
        let tag = manifest.tag().to_vec();
        let scope = ManifestScope::Project(row.id);
        match Self::load_by(&keyring, connection, row, manifest).await {
            // Rows and keys that changed while they were loaded may not fit together.
            Err(Failure::Integrity(_))
                if !Arc::ptr_eq(&keyring, &app.keyring()) || has_moved(connection, scope, &tag).await? =>
            {
                Ok(None)
            }
            loaded => loaded,
        }
    }

    async fn load_by(
        keyring: &Keyring,
        connection: &mut Connection,
        row: Arc<Verified<ProjectRow>>,
        manifest: Unverified<ManifestRow>,
    ) -> Result<Option<Self>, Failure> {
        let (id, mut entries) = (row.id, Entries::default());
        let (mut keys, mut active_key) = (BTreeMap::new(), None);
        for key in project_keys(connection, id).await? {
            let key = listed(keyring, key, &mut entries)?;
            if key.state == "active" {
                active_key = Some(key.generation);
            }
            let open = if key.state == "destroyed" { None } else { Some(open(keyring, &key)?) };
            keys.insert(key.generation, Key { row: key, key: open });
        }
        let mut by_id: BTreeMap<RoleId, Role> = BTreeMap::new();
        for role in roles_of_project(connection, id).await? {
            let role = listed(keyring, role, &mut entries)?;
            by_id.insert(role.id, Role { row: role, members: Vec::new() });
        }
        let mut members: HashMap<String, Vec<(MemberPattern, String)>> = HashMap::new();
        for member in members_of_project(connection, id).await? {
            let member = listed(keyring, member, &mut entries)?;
            let pattern = MemberPattern::parse(&member.pattern).map_err(|_| {
                Failure::Integrity("role_members.pattern holds what Strongroom never writes".to_owned())
            })?;
            // Read in another statement than the roles: a role that came between is seen by `confirm`.
            if let Some(role) = by_id.get_mut(&member.role) {
                members.entry(member.pattern.clone()).or_default().push((pattern, role.row.name.clone()));
                role.members.push(member);
            }
        }
        let (mut grants, mut grants_to) = (Vec::new(), HashMap::<String, Vec<usize>>::new());
        for grant in grants_of(connection, Some(id)).await? {
            let grant = listed(keyring, grant, &mut entries)?;
            grants_to.entry(grant.principal.clone()).or_default().push(grants.len());
            let rule = grant_rule(&grant)?;
            grants.push((grant, rule));
        }
        let (mut policies, mut policies_about) = (Vec::new(), HashMap::<Option<String>, Vec<usize>>::new());
        for policy in policies_of_project(connection, id).await? {
            let policy = listed(keyring, policy, &mut entries)?;
            policies_about.entry(policy.principal_key.clone()).or_default().push(policies.len());
            let text = text_policy(&policy, &row.name);
            policies.push((policy, text));
        }
        let mut buried = HashSet::new();
        for tombstone in tombstones(connection, ManifestScope::Project(id)).await? {
            let tombstone = listed(keyring, tombstone, &mut entries)?;
            buried.insert((tombstone.subject, tombstone.version));
        }
        let Some(manifest) = confirm(keyring, connection, manifest, &entries).await? else { return Ok(None) };
        let roles = by_id.into_values().map(|role| (role.row.name.clone(), role)).collect();
        let rows =
            Rows { keys, active_key, roles, members, grants, grants_to, policies, policies_about, buried, entries };
        Ok(Some(Self { manifest, row, rows: Arc::new(rows) }))
    }

    /// The same with another row of the project, which belongs to the instance.
    pub(super) fn with_row(&self, row: Arc<Verified<ProjectRow>>) -> Self {
        Self { row, ..self.clone() }
    }

    /// Its id.
    pub fn id(&self) -> ProjectId {
        self.row.id
    }

    /// Its name.
    pub fn name(&self) -> &ProjectName {
        &self.row.name
    }

    /// Its row.
    pub fn row(&self) -> &Verified<ProjectRow> {
        &self.row
    }

    /// What it demands of its secrets.
    pub fn settings(&self) -> &ProjectSettings {
        &self.row.settings
    }

    /// The key that new versions are sealed under.
    ///
    /// # Errors
    /// [`Failure::Shredded`] when the project's keys were destroyed.
    pub fn active_key(&self) -> Result<&ProjectKey, Failure> {
        if self.row.shredded {
            return Err(Failure::Shredded);
        }
        let active = self.rows.active_key.and_then(|generation| self.rows.keys.get(&generation)?.key.as_ref());
        active.ok_or_else(|| Failure::Integrity(format!("project {} has no active key", self.id())))
    }

    /// The key of one generation.
    ///
    /// # Errors
    /// [`Failure::Shredded`] when it was destroyed with the project's keys.
    pub fn key(&self, generation: i32) -> Result<&ProjectKey, Failure> {
        let key = self.rows.keys.get(&generation);
        match key.and_then(|key| key.key.as_ref()) {
            Some(key) => Ok(key),
            None if self.row.shredded => Err(Failure::Shredded),
            None => Err(Failure::Integrity(format!("project {} has no key of generation {generation}", self.id()))),
        }
    }

    /// Whether there is a key of this generation, destroyed or not.
    pub fn has_key(&self, generation: i32) -> bool {
        self.rows.keys.contains_key(&generation)
    }

    /// All generations of its key, oldest first.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.rows.keys.values()
    }

    /// All roles, by name.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.rows.roles.values()
    }

    /// One role.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.rows.roles.get(name)
    }

    /// The names of the roles that have a member of this pattern, with the pattern, which decides.
    pub fn members(&self, pattern: &str) -> &[(MemberPattern, String)] {
        self.rows.members.get(pattern).map_or(&[], Vec::as_slice)
    }

    /// All grants, oldest first.
    pub fn grants(&self) -> impl Iterator<Item = &Verified<GrantRow>> {
        self.rows.grants.iter().map(|(row, _)| row)
    }

    /// The grants to one principal.
    pub fn grants_to(&self, principal: &str) -> impl Iterator<Item = &GrantRule> {
        let found = self.rows.grants_to.get(principal).map_or(&[][..], Vec::as_slice);
        found.iter().map(|at| &self.rows.grants[*at].1)
    }

    /// All policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = &Verified<PolicyRow>> {
        self.rows.policies.iter().map(|(row, _)| row)
    }

    /// The policies that can concern one principal, or with `None` those that can concern anyone.
    pub fn policies_about(&self, principal: Option<&str>) -> impl Iterator<Item = &TextPolicy> {
        let found = self.rows.policies_about.get(&principal.map(str::to_owned)).map_or(&[][..], Vec::as_slice);
        found.iter().map(|at| &self.rows.policies[*at].1)
    }

    /// One policy, with its row.
    pub fn policy(&self, name: &str) -> Option<&(Verified<PolicyRow>, TextPolicy)> {
        self.rows.policies.iter().find(|(row, _)| row.name == name)
    }

    /// Whether a secret, or one version of it, was removed for good: its rows are refused when they come back.
    pub fn is_buried(&self, secret: SecretId, version: Option<i64>) -> bool {
        !self.rows.buried.is_empty()
            && (self.rows.buried.contains(&(secret.0, 0))
                || version.is_some_and(|version| self.rows.buried.contains(&(secret.0, version))))
    }

    /// The manifest's row.
    pub fn manifest(&self) -> &Verified<ManifestRow> {
        &self.manifest.row
    }

    /// The rows the manifest covers.
    pub fn entries(&self) -> &Entries {
        &self.rows.entries
    }
}

fn open(keyring: &Keyring, row: &ProjectKeyRow) -> Result<ProjectKey, Failure> {
    let wrapped = WrappedProjectKey {
        project: row.project,
        generation: row.generation,
        term: row.term,
        wrapped: row.wrapped.clone(),
    };
    keyring.open_project_key(&wrapped).map_err(|error| Failure::Integrity(error.to_string()))
}
