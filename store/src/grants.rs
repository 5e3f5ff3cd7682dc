//! Grants: linked policy templates, one row each.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{AccessRow, Columns, GrantId, MacRow, Maced, ProjectId, RowMac, Unverified};
use time::OffsetDateTime;

/// A grant.
#[derive(Clone, Debug)]
pub struct GrantRow {
    /// Its id.
    pub id: GrantId,
    /// The project it can touch; `None` for the instance.
    pub project: Option<ProjectId>,
    /// Who.
    pub principal: String,
    /// What: names of actions joined by commas.
    pub actions: String,
    /// Where: `project/`, `project/folder/`, `project/name`, or `instance`.
    pub scope: String,
    /// Who granted it.
    pub author: String,
    /// When.
    pub created_at: OffsetDateTime,
}

impl MacRow for GrantRow {
    const TABLE: &'static str = "grants";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.id.0);
        out.optional(self.project, |c, project| {
            c.uuid(project.0);
        });
        out.text(&self.principal).text(&self.actions).text(&self.scope).text(&self.author).time(self.created_at);
    }
}

impl AccessRow for GrantRow {
    fn key(&self, out: &mut Columns) {
        out.uuid(self.id.0);
    }
}

/// A grant's row as the queries return it.
struct Raw {
    id: uuid::Uuid,
    project_id: Option<uuid::Uuid>,
    principal: String,
    actions: String,
    scope: String,
    author: String,
    created_at: OffsetDateTime,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
}

impl Raw {
    fn unverified(self) -> Unverified<GrantRow> {
        let row = GrantRow {
            id: GrantId(self.id),
            project: self.project_id.map(ProjectId),
            principal: self.principal,
            actions: self.actions,
            scope: self.scope,
            author: self.author,
            created_at: self.created_at,
        };
        Unverified::new(row, RowMac { generation: self.mac_generation, layout: self.mac_layout, tag: self.mac })
    }
}

/// All grants of a project, or of the instance, oldest first.
pub async fn grants_of(
    connection: &mut Connection,
    project: Option<ProjectId>,
) -> Result<Vec<Unverified<GrantRow>>, StoreError> {
    let rows = sqlx::query_as!(
        Raw,
        "SELECT id, project_id, principal, actions, scope, author, created_at, mac_generation, mac_layout, mac
         FROM grants WHERE project_id IS NOT DISTINCT FROM $1 ORDER BY created_at, id",
        project.map(|project| project.0)
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Raw::unverified).collect())
}

/// Adds a grant.
pub async fn insert_grant(connection: &mut Connection, row: &Maced<GrantRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO grants (id, project_id, principal, actions, scope, author, created_at, mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        r.id.0,
        r.project.map(|p| p.0),
        r.principal,
        r.actions,
        r.scope,
        r.author,
        r.created_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("grants", &result)
}

/// Removes a grant.
pub async fn delete_grant(connection: &mut Connection, grant: GrantId) -> Result<(), StoreError> {
    let result = sqlx::query!("DELETE FROM grants WHERE id = $1", grant.0).execute(connection).await?;
    one_row("grants", &result)
}
