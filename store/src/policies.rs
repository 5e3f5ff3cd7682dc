//! Free-text Cedar policies.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{AccessRow, Columns, MacRow, Maced, PolicyId, ProjectId, RowMac, Unverified};
use time::OffsetDateTime;

/// A policy.
#[derive(Clone, Debug)]
pub struct PolicyRow {
    /// Its id.
    pub id: PolicyId,
    /// The project it can touch.
    pub project: ProjectId,
    /// Its name within the project.
    pub name: String,
    /// The Cedar text.
    pub text: String,
    /// The one principal or role it can concern; `None` when it can concern anyone.
    pub principal_key: Option<String>,
    /// Who wrote it.
    pub author: String,
    /// When.
    pub created_at: OffsetDateTime,
}

impl MacRow for PolicyRow {
    const TABLE: &'static str = "policies";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.id.0).uuid(self.project.0).text(&self.name).text(&self.text);
        out.optional(self.principal_key.as_deref(), |c, key| {
            c.text(key);
        });
        out.text(&self.author).time(self.created_at);
    }
}

impl AccessRow for PolicyRow {
    fn key(&self, out: &mut Columns) {
        out.uuid(self.id.0);
    }
}

/// A policy's row as the queries return it.
struct Raw {
    id: uuid::Uuid,
    project_id: uuid::Uuid,
    name: String,
    text: String,
    principal_key: Option<String>,
    author: String,
    created_at: OffsetDateTime,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
}

impl Raw {
    fn unverified(self) -> Unverified<PolicyRow> {
        let row = PolicyRow {
            id: PolicyId(self.id),
            project: ProjectId(self.project_id),
            name: self.name,
            text: self.text,
            principal_key: self.principal_key,
            author: self.author,
            created_at: self.created_at,
        };
        Unverified::new(row, RowMac { generation: self.mac_generation, layout: self.mac_layout, tag: self.mac })
    }
}

/// All policies of a project, by name.
pub async fn policies_of_project(
    connection: &mut Connection,
    project: ProjectId,
) -> Result<Vec<Unverified<PolicyRow>>, StoreError> {
    let rows = sqlx::query_as!(
        Raw,
        "SELECT id, project_id, name, text, principal_key, author, created_at, mac_generation, mac_layout, mac
         FROM policies WHERE project_id = $1 ORDER BY name",
        project.0
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Raw::unverified).collect())
}

/// Adds a policy. One that replaces another is put where that was removed.
pub async fn insert_policy(connection: &mut Connection, row: &Maced<PolicyRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO policies (id, project_id, name, text, principal_key, author, created_at, mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        r.id.0,
        r.project.0,
        r.name,
        r.text,
        r.principal_key,
        r.author,
        r.created_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("policies", &result)
}

/// Removes a policy.
pub async fn delete_policy(connection: &mut Connection, policy: PolicyId) -> Result<(), StoreError> {
    let result = sqlx::query!("DELETE FROM policies WHERE id = $1", policy.0).execute(connection).await?;
    one_row("policies", &result)
}
