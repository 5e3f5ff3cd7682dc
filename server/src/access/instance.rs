//! The instance's access rows.

use super::{Checked, confirm, has_moved, listed};
use crate::{
    app::App,
    failure::Failure,
    keys::{Followed, OpenKeyring},
    operations::authorization::grant_rule,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use strongroom_core::{ProjectId, ProjectName, Unverified, Verified};
use strongroom_crypto::Entries;
use strongroom_policy::GrantRule;
use strongroom_store::{
    ClusterRow, Connection, InstanceRow, ManifestRow, ManifestScope, ProjectRow, PurposeKeyRow, QuarantineRow,
    RetiredNameRow, TermRow, TokenRow, clusters, grants_of, instance, projects, purpose_keys, quarantines,
    retired_names, terms, tokens, tombstones,
};
use uuid::Uuid;

/// The instance's own rows, projects, clusters, tokens and grants.
#[derive(Debug)]
pub struct InstanceAccess {
    pub(super) manifest: Checked,
    /// The instance.
    pub row: Verified<InstanceRow>,
    terms: Vec<Verified<TermRow>>,
    purpose_keys: Vec<Verified<PurposeKeyRow>>,
    quarantines: Vec<Verified<QuarantineRow>>,
    projects: BTreeMap<ProjectName, Arc<Verified<ProjectRow>>>,
    clusters: BTreeMap<String, Verified<ClusterRow>>,
    retired: BTreeMap<String, Verified<RetiredNameRow>>,
    tokens: HashMap<Vec<u8>, Verified<TokenRow>>,
    grants: HashMap<String, Vec<GrantRule>>,
    buried: HashSet<Uuid>,
    entries: Entries,
}

impl InstanceAccess {
    /// Loads and checks everything; `None` when it changed meanwhile.
    pub(super) async fn load(
        app: &App,
        connection: &mut Connection,
        manifest: Unverified<ManifestRow>,
    ) -> Result<Option<(Self, OpenKeyring)>, Failure> {
        let tag = manifest.tag().to_vec();
        match Self::try_load(app, connection, manifest).await {
            // Rows and keys that changed while they were loaded may not fit together.
            Err(Failure::Integrity(_)) if has_moved(connection, ManifestScope::Instance, &tag).await? => Ok(None),
            loaded => loaded,
        }
    }

    async fn try_load(
        app: &App,
        connection: &mut Connection,
        manifest: Unverified<ManifestRow>,
    ) -> Result<Option<(Self, OpenKeyring)>, Failure> {
        let mut entries = Entries::default();
        // The keyring's own rows first: what follows may be authenticated by a key that came with this change.
        let missing = || Failure::Integrity("the instance's row is missing".to_owned());
        let row = instance(connection).await?.ok_or_else(missing)?;
        let (terms, keys) = (terms(connection).await?, purpose_keys(connection).await?);
        let followed = app.keys.follow(row, terms, keys, &mut entries).await?;
        let Followed { instance: row, terms, purpose_keys, keyring: keys } = followed;
        let keyring = keys.keyring.as_ref();
        let mut all = BTreeMap::new();
        for project in projects(connection).await? {
            let project = listed(keyring, project, &mut entries)?;
            all.insert(project.name.clone(), Arc::new(project));
        }
        let mut known = BTreeMap::new();
        for cluster in clusters(connection).await? {
            let cluster = listed(keyring, cluster, &mut entries)?;
            known.insert(cluster.name.clone(), cluster);
        }
        let mut retired = BTreeMap::new();
        for name in retired_names(connection).await? {
            let name = listed(keyring, name, &mut entries)?;
            retired.insert(name.name.clone(), name);
        }
        let mut issued = HashMap::new();
        for token in tokens(connection).await? {
            let token = listed(keyring, token, &mut entries)?;
            issued.insert(token.hash.clone(), token);
        }
        let mut grants: HashMap<String, Vec<GrantRule>> = HashMap::new();
        for grant in grants_of(connection, None).await? {
            let grant = listed(keyring, grant, &mut entries)?;
            grants.entry(grant.principal.clone()).or_default().push(grant_rule(&grant)?);
        }
        let mut buried = HashSet::new();
        for tombstone in tombstones(connection, ManifestScope::Instance).await? {
            buried.insert(listed(keyring, tombstone, &mut entries)?.subject);
        }
        let mut quarantined = Vec::new();
        for quarantine in quarantines(connection).await? {
            quarantined.push(listed(keyring, quarantine, &mut entries)?);
        }
        let Some(manifest) = confirm(keyring, connection, manifest, &entries).await? else { return Ok(None) };
        if let Some(project) = all.values().find(|project| buried.contains(&project.id.0)) {
            return Err(Failure::Integrity(format!(
                "project {} was removed for good, and its row is back",
                project.id
            )));
        }
        let loaded = Self {
            manifest,
            row,
            terms,
            purpose_keys,
            quarantines: quarantined,
            projects: all,
            clusters: known,
            retired,
            tokens: issued,
            grants,
            buried,
            entries,
        };
        Ok(Some((loaded, keys)))
    }

    /// The keyring's terms, oldest first.
    pub fn terms(&self) -> &[Verified<TermRow>] {
        &self.terms
    }

    /// The keys of all purposes, oldest generation first.
    pub fn purpose_keys(&self) -> &[Verified<PurposeKeyRow>] {
        &self.purpose_keys
    }

    /// The scopes that wait for an operator's word.
    pub fn quarantines(&self) -> &[Verified<QuarantineRow>] {
        &self.quarantines
    }

    /// The ids of these scopes.
    pub fn quarantined(&self) -> Vec<Uuid> {
        self.quarantines.iter().map(|row| row.scope.id()).collect()
    }

    /// Whether a project's rows wait for an operator's word: nothing is decided by them meanwhile.
    pub fn is_quarantined(&self, project: ProjectId) -> bool {
        self.quarantines.iter().any(|row| row.scope == ManifestScope::Project(project))
    }

    /// The project of a name. One whose keys were destroyed is among them.
    pub fn project(&self, name: &ProjectName) -> Option<&Arc<Verified<ProjectRow>>> {
        self.projects.get(name)
    }

    /// All projects, by name.
    pub fn projects(&self) -> impl Iterator<Item = &Arc<Verified<ProjectRow>>> {
        self.projects.values()
    }

    /// Whether there is a project of this id.
    pub fn has_project(&self, id: ProjectId) -> bool {
        self.projects.values().any(|project| project.id == id)
    }

    /// The cluster of a name.
    pub fn cluster(&self, name: &str) -> Option<&Verified<ClusterRow>> {
        self.clusters.get(name)
    }

    /// All clusters, by name.
    pub fn clusters(&self) -> impl Iterator<Item = &Verified<ClusterRow>> {
        self.clusters.values()
    }

    /// Whether a removed cluster had this name.
    pub fn is_retired(&self, name: &str) -> bool {
        self.retired.contains_key(name)
    }

    /// The token with one of these keyed hashes.
    pub fn token<'a>(&self, hashes: impl IntoIterator<Item = &'a [u8]>) -> Option<&Verified<TokenRow>> {
        hashes.into_iter().find_map(|hash| self.tokens.get(hash))
    }

    /// All tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &Verified<TokenRow>> {
        self.tokens.values()
    }

    /// The instance's grants to one principal.
    pub fn grants_to(&self, principal: &str) -> &[GrantRule] {
        self.grants.get(principal).map_or(&[], Vec::as_slice)
    }

    /// Whether something of this id was removed for good.
    pub fn is_buried(&self, id: Uuid) -> bool {
        self.buried.contains(&id)
    }

    /// Whether the anchor says nothing of a project: it was removed for good, or its rows wait for an operator's word.
    pub fn is_left_out(&self, id: Uuid) -> bool {
        self.is_buried(id) || self.is_quarantined(ProjectId(id))
    }

    /// The manifest's row.
    pub fn manifest(&self) -> &Verified<ManifestRow> {
        &self.manifest.row
    }

    /// The rows the manifest covers.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }
}
