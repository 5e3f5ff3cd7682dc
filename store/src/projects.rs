//! Projects and their keys.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{Columns, MacRow, Maced, ProjectId, ProjectName, RowMac, Unverified};
use time::OffsetDateTime;

/// A project.
#[derive(Clone, Debug)]
pub struct ProjectRow {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    pub name: ProjectName,
    /// Who made it.
    pub author: String,
    /// When.
    pub created_at: OffsetDateTime,
}

impl MacRow for ProjectRow {
    const TABLE: &'static str = "projects";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.id.0).text(self.name.as_str()).text(&self.author).time(self.created_at);
    }
}

/// A generation of a project's key.
#[derive(Clone, Debug)]
pub struct ProjectKeyRow {
    /// Whose key.
    pub project: ProjectId,
    /// Its generation, from 1.
    pub generation: i32,
    /// The term that wraps it.
    pub term: i32,
    /// `active` or `decrypt-only`.
    pub state: String,
    /// The key, sealed under the term.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

impl MacRow for ProjectKeyRow {
    const TABLE: &'static str = "project_keys";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.project.0)
            .integer(self.generation.into())
            .integer(self.term.into())
            .text(&self.state)
            .bytes(&self.wrapped)
            .time(self.created_at);
    }
}

/// A project's row as the queries return it.
struct RawProject {
    id: uuid::Uuid,
    name: String,
    author: String,
    created_at: OffsetDateTime,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
}

impl RawProject {
    fn unverified(self) -> Result<Unverified<ProjectRow>, StoreError> {
        let name =
            ProjectName::parse(&self.name).map_err(|_| StoreError::Corrupt { table: "projects", column: "name" })?;
        let row = ProjectRow { id: ProjectId(self.id), name, author: self.author, created_at: self.created_at };
        Ok(Unverified::new(row, RowMac { generation: self.mac_generation, layout: self.mac_layout, tag: self.mac }))
    }
}

/// All projects, by name.
pub async fn projects(connection: &mut Connection) -> Result<Vec<Unverified<ProjectRow>>, StoreError> {
    let rows = sqlx::query_as!(
        RawProject,
        "SELECT id, name, author, created_at, mac_generation, mac_layout, mac FROM projects ORDER BY name"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(RawProject::unverified).collect()
}

/// One project.
pub async fn project_by_name(
    connection: &mut Connection,
    name: &ProjectName,
) -> Result<Option<Unverified<ProjectRow>>, StoreError> {
    let row = sqlx::query_as!(
        RawProject,
        "SELECT id, name, author, created_at, mac_generation, mac_layout, mac FROM projects WHERE name = $1",
        name.as_str()
    )
    .fetch_optional(connection)
    .await?;
    row.map(RawProject::unverified).transpose()
}

/// Adds a project.
pub async fn insert_project(connection: &mut Connection, row: &Maced<ProjectRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO projects (id, name, author, created_at, mac_generation, mac_layout, mac) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        r.id.0,
        r.name.as_str(),
        r.author,
        r.created_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("projects", &result)
}

/// The key that new versions are sealed with.
pub async fn active_project_key(
    connection: &mut Connection,
    project: ProjectId,
) -> Result<Option<Unverified<ProjectKeyRow>>, StoreError> {
    let row = sqlx::query!(
        "SELECT generation, term, state, wrapped, created_at, mac_generation, mac_layout, mac
         FROM project_keys WHERE project_id = $1 AND state = 'active'",
        project.0
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|r| {
        Unverified::new(
            ProjectKeyRow {
                project,
                generation: r.generation,
                term: r.term,
                state: r.state,
                wrapped: r.wrapped,
                created_at: r.created_at,
            },
            RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
        )
    }))
}

/// Adds a generation of a project's key.
pub async fn insert_project_key(connection: &mut Connection, row: &Maced<ProjectKeyRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO project_keys (project_id, generation, term, state, wrapped, created_at, mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        r.project.0,
        r.generation,
        r.term,
        r.state,
        r.wrapped,
        r.created_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("project_keys", &result)
}
