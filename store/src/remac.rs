//! New MACs for rows that stay as they are.

use crate::{
    ClusterRow, GrantRow, MemberRow, PolicyRow, ProjectRow, QuarantineRow, RestoreRow, RetiredNameRow, RoleRow,
    TombstoneRow,
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{MacRow, Maced};

/// A row whose MAC can be written alone.
pub trait Remac: MacRow + Sized {
    /// Writes the row's new MAC.
    fn write_mac(connection: &mut Connection, row: &Maced<Self>)
    -> impl Future<Output = Result<(), StoreError>> + Send;
}

macro_rules! remac {
    ($($row:ty, $text:literal, |$r:ident| $($key:expr),+;)+) => {$(
        impl Remac for $row {
            async fn write_mac(connection: &mut Connection, row: &Maced<Self>) -> Result<(), StoreError> {
                let ($r, mac) = (row.row(), row.mac());
                let result = sqlx::query!($text, mac.generation, mac.layout, mac.tag, $($key),+).execute(connection).await?;
                one_row(Self::TABLE, &result)
            }
        }
    )+};
}

remac! {
    ProjectRow, "UPDATE projects SET mac_generation = $1, mac_layout = $2, mac = $3 WHERE id = $4", |r| r.id.0;
    ClusterRow, "UPDATE clusters SET mac_generation = $1, mac_layout = $2, mac = $3 WHERE id = $4", |r| r.id.0;
    RetiredNameRow, "UPDATE cluster_names SET mac_generation = $1, mac_layout = $2, mac = $3 WHERE name = $4", |r| r.name;
    GrantRow, "UPDATE grants SET mac_generation = $1, mac_layout = $2, mac = $3 WHERE id = $4", |r| r.id.0;
    RoleRow, "UPDATE roles SET mac_generation = $1, mac_layout = $2, mac = $3 WHERE id = $4", |r| r.id.0;
    MemberRow, "UPDATE role_members SET mac_generation = $1, mac_layout = $2, mac = $3 WHERE role_id = $4 AND pattern = $5", |r| r.role.0, r.pattern;
    PolicyRow, "UPDATE policies SET mac_generation = $1, mac_layout = $2, mac = $3 WHERE id = $4", |r| r.id.0;
    TombstoneRow, "UPDATE tombstones SET mac_generation = $1, mac_layout = $2, mac = $3 WHERE scope = $4 AND subject = $5 AND version = $6",
        |r| r.scope.id(), r.subject, r.version;
    RestoreRow, "UPDATE restores SET mac_generation = $1, mac_layout = $2, mac = $3 WHERE id = $4", |r| r.id;
    QuarantineRow, "UPDATE quarantines SET mac_generation = $1, mac_layout = $2, mac = $3 WHERE scope = $4", |r| r.scope.id();
}
