//! Quarantines: scopes whose rows wait for an operator's word.

use crate::{
    error::{StoreError, one_row},
    manifests::ManifestScope,
    pool::Connection,
};
use strongroom_core::{AccessRow, Columns, MacRow, Maced, RowMac, Unverified};
use time::OffsetDateTime;

/// A scope whose rows were others than the anchor says when a term was found to be compromised.
#[derive(Clone, Debug)]
pub struct QuarantineRow {
    /// Which scope.
    pub scope: ManifestScope,
    /// The root of its manifest then.
    pub root: Vec<u8>,
    /// The highest epoch of the scope that anybody knew of then: what is confirmed goes on beyond it, whatever was put back.
    pub epoch: i64,
    /// Who asked for the rotation.
    pub author: String,
    /// When.
    pub created_at: OffsetDateTime,
}

impl MacRow for QuarantineRow {
    const TABLE: &'static str = "quarantines";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.scope.id()).bytes(&self.root).integer(self.epoch).text(&self.author).time(self.created_at);
    }
}

impl AccessRow for QuarantineRow {
    fn key(&self, out: &mut Columns) {
        out.uuid(self.scope.id());
    }
}

/// All quarantines.
pub async fn quarantines(connection: &mut Connection) -> Result<Vec<Unverified<QuarantineRow>>, StoreError> {
    let rows = sqlx::query!(
        "SELECT scope, root, epoch, author, created_at, mac_generation, mac_layout, mac FROM quarantines ORDER BY scope"
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            Unverified::new(
                QuarantineRow {
                    scope: ManifestScope::from_id(r.scope),
                    root: r.root,
                    epoch: r.epoch,
                    author: r.author,
                    created_at: r.created_at,
                },
                RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
            )
        })
        .collect())
}

/// Adds a quarantine.
pub async fn insert_quarantine(connection: &mut Connection, row: &Maced<QuarantineRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO quarantines (scope, root, epoch, author, created_at, mac_generation, mac_layout, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        r.scope.id(),
        r.root,
        r.epoch,
        r.author,
        r.created_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("quarantines", &result)
}

/// Removes a quarantine.
pub async fn delete_quarantine(connection: &mut Connection, scope: ManifestScope) -> Result<(), StoreError> {
    let result = sqlx::query!("DELETE FROM quarantines WHERE scope = $1", scope.id()).execute(connection).await?;
    one_row("quarantines", &result)
}
