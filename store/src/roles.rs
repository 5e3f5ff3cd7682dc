//! Roles: a project's named groups.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{AccessRow, Columns, MacRow, Maced, ProjectId, RoleId, RowMac, Unverified};
use time::OffsetDateTime;

/// A role.
#[derive(Clone, Debug)]
pub struct RoleRow {
    /// Its id.
    pub id: RoleId,
    /// The project it belongs to.
    pub project: ProjectId,
    /// Its name within the project.
    pub name: String,
    /// Who made it.
    pub author: String,
    /// When.
    pub created_at: OffsetDateTime,
}

impl MacRow for RoleRow {
    const TABLE: &'static str = "roles";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.id.0).uuid(self.project.0).text(&self.name).text(&self.author).time(self.created_at);
    }
}

impl AccessRow for RoleRow {
    fn key(&self, out: &mut Columns) {
        out.uuid(self.id.0);
    }
}

/// One member of a role.
#[derive(Clone, Debug)]
pub struct MemberRow {
    /// Which role.
    pub role: RoleId,
    /// Who, as a pattern.
    pub pattern: String,
}

impl MacRow for MemberRow {
    const TABLE: &'static str = "role_members";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.role.0).text(&self.pattern);
    }
}

impl AccessRow for MemberRow {
    fn key(&self, out: &mut Columns) {
        out.uuid(self.role.0).text(&self.pattern);
    }
}

/// All roles of a project, by name.
pub async fn roles_of_project(
    connection: &mut Connection,
    project: ProjectId,
) -> Result<Vec<Unverified<RoleRow>>, StoreError> {
    let rows = sqlx::query_as!(
        Raw,
        "SELECT id, project_id, name, author, created_at, mac_generation, mac_layout, mac
         FROM roles WHERE project_id = $1 ORDER BY name",
        project.0
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Raw::unverified).collect())
}

/// A role's row as the queries return it.
struct Raw {
    id: uuid::Uuid,
    project_id: uuid::Uuid,
    name: String,
    author: String,
    created_at: OffsetDateTime,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
}

impl Raw {
    fn unverified(self) -> Unverified<RoleRow> {
        let row = RoleRow {
            id: RoleId(self.id),
            project: ProjectId(self.project_id),
            name: self.name,
            author: self.author,
            created_at: self.created_at,
        };
        Unverified::new(row, RowMac { generation: self.mac_generation, layout: self.mac_layout, tag: self.mac })
    }
}

/// The members of all roles of a project, by role and pattern.
pub async fn members_of_project(
    connection: &mut Connection,
    project: ProjectId,
) -> Result<Vec<Unverified<MemberRow>>, StoreError> {
    let rows = sqlx::query!(
        "SELECT m.role_id, m.pattern, m.mac_generation, m.mac_layout, m.mac
         FROM role_members m JOIN roles r ON r.id = m.role_id WHERE r.project_id = $1 ORDER BY m.role_id, m.pattern",
        project.0
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            Unverified::new(
                MemberRow { role: RoleId(r.role_id), pattern: r.pattern },
                RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
            )
        })
        .collect())
}

/// Adds a role.
pub async fn insert_role(connection: &mut Connection, row: &Maced<RoleRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO roles (id, project_id, name, author, created_at, mac_generation, mac_layout, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        r.id.0,
        r.project.0,
        r.name,
        r.author,
        r.created_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("roles", &result)
}

/// Adds a member.
pub async fn insert_member(connection: &mut Connection, row: &Maced<MemberRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO role_members (role_id, pattern, mac_generation, mac_layout, mac) VALUES ($1, $2, $3, $4, $5)",
        r.role.0,
        r.pattern,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("role_members", &result)
}

/// Removes all members of a role, before the new ones are added.
pub async fn delete_members(connection: &mut Connection, role: RoleId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM role_members WHERE role_id = $1", role.0).execute(connection).await?;
    Ok(())
}

/// Removes a role and its members.
pub async fn delete_role(connection: &mut Connection, role: RoleId) -> Result<(), StoreError> {
    let result = sqlx::query!("DELETE FROM roles WHERE id = $1", role.0).execute(connection).await?;
    one_row("roles", &result)
}
