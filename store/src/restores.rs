//! Restores: what is known of how this database came from a backup.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{Columns, MacRow, Maced, RowMac, Unverified};
use time::OffsetDateTime;
use uuid::Uuid;

/// A restore of this database from a backup.
#[derive(Clone, Debug)]
pub struct RestoreRow {
    /// Its id.
    pub id: Uuid,
    /// When the backup was taken: what came later is lost.
    pub taken_at: OffsetDateTime,
    /// The backup's SHA-256, as its last line has it.
    pub backup_sha256: Vec<u8>,
    /// When it was restored.
    pub restored_at: OffsetDateTime,
}

impl MacRow for RestoreRow {
    const TABLE: &'static str = "restores";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.id).time(self.taken_at).bytes(&self.backup_sha256).time(self.restored_at);
    }
}

/// Notes a restore.
pub async fn insert_restore(connection: &mut Connection, row: &Maced<RestoreRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO restores (id, taken_at, backup_sha256, restored_at, mac_generation, mac_layout, mac) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        r.id,
        r.taken_at,
        r.backup_sha256,
        r.restored_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("restores", &result)
}

struct RawRestore {
    id: Uuid,
    taken_at: OffsetDateTime,
    backup_sha256: Vec<u8>,
    restored_at: OffsetDateTime,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
}

impl RawRestore {
    fn unverified(self) -> Unverified<RestoreRow> {
        let Self { id, taken_at, backup_sha256, restored_at, mac_generation, mac_layout, mac } = self;
        Unverified::new(
            RestoreRow { id, taken_at, backup_sha256, restored_at },
            RowMac { generation: mac_generation, layout: mac_layout, tag: mac },
        )
    }
}

/// Every restore, oldest first.
pub async fn restores(connection: &mut Connection) -> Result<Vec<Unverified<RestoreRow>>, StoreError> {
    let rows = sqlx::query_as!(
        RawRestore,
        "SELECT id, taken_at, backup_sha256, restored_at, mac_generation, mac_layout, mac FROM restores ORDER BY restored_at, id"
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(RawRestore::unverified).collect())
}

/// Restores after which no server has started yet, noted as seen by this start. Of several starts at once, one is told.
pub async fn take_new_restores(
    connection: &mut Connection,
    now: OffsetDateTime,
) -> Result<Vec<Unverified<RestoreRow>>, StoreError> {
    let rows = sqlx::query_as!(
        RawRestore,
        "UPDATE restores SET started_at = $1 WHERE started_at IS NULL
         RETURNING id, taken_at, backup_sha256, restored_at, mac_generation, mac_layout, mac",
        now
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(RawRestore::unverified).collect())
}
