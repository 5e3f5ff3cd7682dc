//! Manifests: one row a scope, over every access row of it.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{Columns, MacRow, Maced, ProjectId, ProjectName, RowMac, Unverified};
use uuid::Uuid;

/// What a manifest covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ManifestScope {
    /// The instance, its keyring, clusters, projects, tokens and grants.
    Instance,
    /// A project's keys, roles, grants and policies.
    Project(ProjectId),
}

impl ManifestScope {
    /// Its key in the database: the nil id is the instance.
    pub fn id(self) -> Uuid {
        match self {
            Self::Instance => Uuid::nil(),
            Self::Project(project) => project.0,
        }
    }

    /// The scope of a key in the database.
    pub fn from_id(id: Uuid) -> Self {
        if id.is_nil() { Self::Instance } else { Self::Project(ProjectId(id)) }
    }
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRow {
    /// What it covers.
    pub scope: ManifestScope,
    /// Counts its changes, from 1, in the lower 32 bits; above stands which branch of the instance's history it is of. It never goes back.
    pub epoch: i64,
    /// How many rows it covers.
    pub entries: i32,
    /// SHA-256 over them.
    pub root: Vec<u8>,
}

impl MacRow for ManifestRow {
    const TABLE: &'static str = "manifests";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.scope.id()).integer(self.epoch).integer(self.entries.into()).bytes(&self.root);
    }
}

/// A manifest's row as the queries return it.
struct Raw {
    scope: Uuid,
    epoch: i64,
    entries: i32,
    root: Vec<u8>,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
}

impl Raw {
    fn unverified(self) -> Unverified<ManifestRow> {
        let row = ManifestRow {
            scope: ManifestScope::from_id(self.scope),
            epoch: self.epoch,
            entries: self.entries,
            root: self.root,
        };
        Unverified::new(row, RowMac { generation: self.mac_generation, layout: self.mac_layout, tag: self.mac })
    }
}

/// The instance's manifest, and that of the project of this name where there is one: what every decision begins with.
pub async fn manifests_for(
    connection: &mut Connection,
    project: Option<&ProjectName>,
) -> Result<Vec<Unverified<ManifestRow>>, StoreError> {
    let rows = sqlx::query_as!(
        Raw,
        "SELECT scope, epoch, entries, root, mac_generation, mac_layout, mac FROM manifests
         WHERE scope = '00000000-0000-0000-0000-000000000000' OR scope = (SELECT id FROM projects WHERE name = $1)",
        project.map(ProjectName::as_str)
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Raw::unverified).collect())
}

/// The manifests of these scopes, as far as there are any.
pub async fn manifests_of(
    connection: &mut Connection,
    scopes: &[ManifestScope],
) -> Result<Vec<Unverified<ManifestRow>>, StoreError> {
    let scopes: Vec<Uuid> = scopes.iter().map(|scope| scope.id()).collect();
    let rows = sqlx::query_as!(
        Raw,
        "SELECT scope, epoch, entries, root, mac_generation, mac_layout, mac FROM manifests WHERE scope = ANY($1)",
        &scopes
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Raw::unverified).collect())
}

/// One scope's manifest.
pub async fn manifest(
    connection: &mut Connection,
    scope: ManifestScope,
) -> Result<Option<Unverified<ManifestRow>>, StoreError> {
    let row = sqlx::query_as!(
        Raw,
        "SELECT scope, epoch, entries, root, mac_generation, mac_layout, mac FROM manifests WHERE scope = $1",
        scope.id()
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Raw::unverified))
}

/// All manifests, by scope.
pub async fn manifests(connection: &mut Connection) -> Result<Vec<Unverified<ManifestRow>>, StoreError> {
    let rows = sqlx::query_as!(
        Raw,
        "SELECT scope, epoch, entries, root, mac_generation, mac_layout, mac FROM manifests ORDER BY scope"
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Raw::unverified).collect())
}

/// Adds a scope's first manifest.
pub async fn insert_manifest(connection: &mut Connection, row: &Maced<ManifestRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO manifests (scope, epoch, entries, root, mac_generation, mac_layout, mac) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        r.scope.id(),
        r.epoch,
        r.entries,
        r.root,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("manifests", &result)
}

/// Writes a scope's next manifest, where that of epoch `before` still stands.
pub async fn update_manifest(
    connection: &mut Connection,
    before: i64,
    row: &Maced<ManifestRow>,
) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "UPDATE manifests SET epoch = $2, entries = $3, root = $4, mac_generation = $5, mac_layout = $6, mac = $7 WHERE scope = $1 AND epoch = $8",
        r.scope.id(),
        r.epoch,
        r.entries,
        r.root,
        mac.generation,
        mac.layout,
        mac.tag,
        before
    )
    .execute(connection)
    .await?;
    one_row("manifests", &result)
}

/// Removes a project's manifest, with the last of the project. Where somebody removed it before, that was all the same.
pub async fn delete_manifest(connection: &mut Connection, project: ProjectId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM manifests WHERE scope = $1", project.0).execute(connection).await?;
    Ok(())
}
