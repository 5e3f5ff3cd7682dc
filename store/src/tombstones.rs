//! Tombstones: what is gone for good, so that its rows are refused when somebody puts them back.

use crate::{
    error::{StoreError, one_row},
    manifests::ManifestScope,
    pool::Connection,
};
use strongroom_core::{AccessRow, Columns, MacRow, Maced, RowMac, Unverified};
use time::OffsetDateTime;
use uuid::Uuid;

/// A tombstone.
#[derive(Clone, Debug)]
pub struct TombstoneRow {
    /// Whose manifest covers it.
    pub scope: ManifestScope,
    /// What is gone: a secret's id, or a project's.
    pub subject: Uuid,
    /// The one version that is gone; 0 for all.
    pub version: i64,
    /// Who did it.
    pub author: String,
    /// When.
    pub created_at: OffsetDateTime,
}

impl MacRow for TombstoneRow {
    const TABLE: &'static str = "tombstones";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        self.key(out);
        out.text(&self.author).time(self.created_at);
    }
}

impl AccessRow for TombstoneRow {
    fn key(&self, out: &mut Columns) {
        out.uuid(self.scope.id()).uuid(self.subject).integer(self.version);
    }
}

/// The tombstones of a scope.
pub async fn tombstones(
    connection: &mut Connection,
    scope: ManifestScope,
) -> Result<Vec<Unverified<TombstoneRow>>, StoreError> {
    let rows = sqlx::query!(
        "SELECT subject, version, author, created_at, mac_generation, mac_layout, mac FROM tombstones WHERE scope = $1 ORDER BY subject, version",
        scope.id()
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            Unverified::new(
                TombstoneRow {
                    scope,
                    subject: r.subject,
                    version: r.version,
                    author: r.author,
                    created_at: r.created_at,
                },
                RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
            )
        })
        .collect())
}

/// Adds a tombstone.
pub async fn insert_tombstone(connection: &mut Connection, row: &Maced<TombstoneRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO tombstones (scope, subject, version, author, created_at, mac_generation, mac_layout, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        r.scope.id(),
        r.subject,
        r.version,
        r.author,
        r.created_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("tombstones", &result)
}

/// Removes a scope's tombstones, with the last of the scope.
pub async fn delete_tombstones(connection: &mut Connection, scope: ManifestScope) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM tombstones WHERE scope = $1", scope.id()).execute(connection).await?;
    Ok(())
}
