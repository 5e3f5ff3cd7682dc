//! The revision of the access rows. Caches will be valid for as long as it is confirmed unchanged; writing secrets does not touch it.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{Columns, MacRow, Maced, RowMac, Unverified};

/// The revision.
#[derive(Clone, Copy, Debug)]
pub struct RevisionRow {
    /// Grows by one with each change of an access row.
    pub revision: i64,
}

impl MacRow for RevisionRow {
    const TABLE: &'static str = "access_revision";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.integer(self.revision);
    }
}

/// The revision, locked until the end of the transaction: changes of access rows happen one after the other.
pub async fn lock_revision(connection: &mut Connection) -> Result<Option<Unverified<RevisionRow>>, StoreError> {
    let row = sqlx::query!("SELECT revision, mac_generation, mac_layout, mac FROM access_revision FOR UPDATE")
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|r| {
        Unverified::new(
            RevisionRow { revision: r.revision },
            RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
        )
    }))
}

/// The revision as it is now.
pub async fn revision(connection: &mut Connection) -> Result<Option<Unverified<RevisionRow>>, StoreError> {
    let row = sqlx::query!("SELECT revision, mac_generation, mac_layout, mac FROM access_revision")
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|r| {
        Unverified::new(
            RevisionRow { revision: r.revision },
            RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
        )
    }))
}

/// Writes the first revision.
pub async fn insert_revision(connection: &mut Connection, row: &Maced<RevisionRow>) -> Result<(), StoreError> {
    let mac = row.mac();
    let result = sqlx::query!(
        "INSERT INTO access_revision (revision, mac_generation, mac_layout, mac) VALUES ($1, $2, $3, $4)",
        row.row().revision,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("access_revision", &result)
}

/// Writes the next revision.
pub async fn update_revision(connection: &mut Connection, row: &Maced<RevisionRow>) -> Result<(), StoreError> {
    let mac = row.mac();
    let result = sqlx::query!(
        "UPDATE access_revision SET revision = $1, mac_generation = $2, mac_layout = $3, mac = $4",
        row.row().revision,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("access_revision", &result)
}
