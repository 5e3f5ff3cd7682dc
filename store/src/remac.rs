//! New MACs for access rows that stay as they are.

use crate::{
    ClusterRow, GrantRow, ManifestScope, MemberRow, PolicyRow, ProjectRow, QuarantineRow, RetiredNameRow, RoleRow,
    TombstoneRow,
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{MacRow, Maced, ProjectId};

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
    QuarantineRow, "UPDATE quarantines SET mac_generation = $1, mac_layout = $2, mac = $3 WHERE scope = $4", |r| r.scope.id();
}

/// Removes everything of a project but its secrets: they must be gone.
pub async fn delete_project(connection: &mut Connection, project: ProjectId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM tombstones WHERE scope = $1", ManifestScope::Project(project).id())
        .execute(&mut *connection)
        .await?;
    sqlx::query!("DELETE FROM policies WHERE project_id = $1", project.0).execute(&mut *connection).await?;
    sqlx::query!("DELETE FROM grants WHERE project_id = $1", project.0).execute(&mut *connection).await?;
    // Their members go with them.
    sqlx::query!("DELETE FROM roles WHERE project_id = $1", project.0).execute(&mut *connection).await?;
    sqlx::query!("DELETE FROM project_keys WHERE project_id = $1", project.0).execute(&mut *connection).await?;
    let result = sqlx::query!("DELETE FROM projects WHERE id = $1", project.0).execute(connection).await?;
    one_row("projects", &result)
}

/// Removes all issued tokens.
pub async fn delete_all_tokens(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM tokens").execute(connection).await?;
    Ok(())
}

/// Removes the outcomes of writes that carried an idempotency key: their MACs and hashes are not worth a rotation, they only live for a while.
pub async fn delete_idempotency_keys(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM idempotency_keys").execute(connection).await?;
    Ok(())
}
