//! Projects and their keys.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{AccessRow, Columns, MacRow, Maced, ProjectId, ProjectName, RowMac, Unverified};
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
    /// Whether its keys were destroyed; what is left of it is being removed.
    pub shredded: bool,
    /// What holds for all of its secrets.
    pub settings: ProjectSettings,
}

/// What a project demands of its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectSettings {
    /// Most versions kept of a secret that does not say otherwise, 1 to 10,000.
    pub keep_versions: i32,
    /// Whether a write must say which version it is made for.
    pub require_check_and_set: bool,
    /// Whether its secrets are protected from deletion.
    pub deletion_protection: bool,
    /// How long before a secret's expiry the event is left, in seconds; 0 for none.
    pub expiry_notice_seconds: i32,
    /// Most secrets it may hold.
    pub max_secrets: Option<i32>,
}

impl Default for ProjectSettings {
    fn default() -> Self {
        Self {
            keep_versions: 100,
            require_check_and_set: false,
            deletion_protection: false,
            expiry_notice_seconds: 604_800,
            max_secrets: None,
        }
    }
}

impl MacRow for ProjectRow {
    const TABLE: &'static str = "projects";
    const LAYOUT: i16 = 2;

    fn columns(&self, out: &mut Columns) {
        self.first_layout(out);
        let settings = &self.settings;
        out.boolean(self.shredded)
            .integer(settings.keep_versions.into())
            .boolean(settings.require_check_and_set)
            .boolean(settings.deletion_protection)
            .integer(settings.expiry_notice_seconds.into());
        out.optional(settings.max_secrets, |c, most| {
            c.integer(most.into());
        });
    }

    fn columns_of(&self, layout: i16, out: &mut Columns) -> bool {
        match layout {
            Self::LAYOUT => self.columns(out),
            1 if !self.shredded && self.settings == ProjectSettings::default() => self.first_layout(out),
            _ => return false,
        }
        true
    }
}

impl AccessRow for ProjectRow {
    fn key(&self, out: &mut Columns) {
        out.uuid(self.id.0);
    }
}

impl ProjectRow {
    fn first_layout(&self, out: &mut Columns) {
        out.uuid(self.id.0).text(self.name.as_str()).text(&self.author).time(self.created_at);
    }

    const fn state(&self) -> &'static str {
        if self.shredded { "shredded" } else { "live" }
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
    /// `active`, `decrypt-only` or `destroyed`.
    pub state: String,
    /// The key, sealed under the term; empty once destroyed.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it stopped being the active one.
    pub retired_at: Option<OffsetDateTime>,
}

impl MacRow for ProjectKeyRow {
    const TABLE: &'static str = "project_keys";
    const LAYOUT: i16 = 2;

    fn columns(&self, out: &mut Columns) {
        self.first_layout(out);
        out.optional(self.retired_at, |c, at| {
            c.time(at);
        });
    }

    fn columns_of(&self, layout: i16, out: &mut Columns) -> bool {
        match layout {
            Self::LAYOUT => self.columns(out),
            1 if self.retired_at.is_none() => self.first_layout(out),
            _ => return false,
        }
        true
    }
}

impl AccessRow for ProjectKeyRow {
    fn key(&self, out: &mut Columns) {
        out.uuid(self.project.0).integer(self.generation.into());
    }
}

impl ProjectKeyRow {
    fn first_layout(&self, out: &mut Columns) {
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
    state: String,
    keep_versions: i32,
    require_check_and_set: bool,
    deletion_protection: bool,
    expiry_notice_seconds: i32,
    max_secrets: Option<i32>,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
}

impl RawProject {
    fn unverified(self) -> Result<Unverified<ProjectRow>, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "projects", column };
        let row = ProjectRow {
            id: ProjectId(self.id),
            name: ProjectName::parse(&self.name).map_err(|_| corrupt("name"))?,
            author: self.author,
            created_at: self.created_at,
            shredded: match self.state.as_str() {
                "live" => false,
                "shredded" => true,
                _ => return Err(corrupt("state")),
            },
            settings: ProjectSettings {
                keep_versions: self.keep_versions,
                require_check_and_set: self.require_check_and_set,
                deletion_protection: self.deletion_protection,
                expiry_notice_seconds: self.expiry_notice_seconds,
                max_secrets: self.max_secrets,
            },
        };
        Ok(Unverified::new(row, RowMac { generation: self.mac_generation, layout: self.mac_layout, tag: self.mac }))
    }
}

/// All projects, by name.
pub async fn projects(connection: &mut Connection) -> Result<Vec<Unverified<ProjectRow>>, StoreError> {
    let rows = sqlx::query_as!(
        RawProject,
        "SELECT id, name, author, created_at, state, keep_versions, require_check_and_set, deletion_protection, expiry_notice_seconds, max_secrets,
                mac_generation, mac_layout, mac
         FROM projects ORDER BY name"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(RawProject::unverified).collect()
}

/// Adds a project.
pub async fn insert_project(connection: &mut Connection, row: &Maced<ProjectRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO projects (id, name, author, created_at, state, keep_versions, require_check_and_set, deletion_protection, expiry_notice_seconds,
                               max_secrets, mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        r.id.0,
        r.name.as_str(),
        r.author,
        r.created_at,
        r.state(),
        r.settings.keep_versions,
        r.settings.require_check_and_set,
        r.settings.deletion_protection,
        r.settings.expiry_notice_seconds,
        r.settings.max_secrets,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("projects", &result)
}

/// Writes a project's state and settings.
pub async fn update_project(connection: &mut Connection, row: &Maced<ProjectRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "UPDATE projects SET state = $2, keep_versions = $3, require_check_and_set = $4, deletion_protection = $5, expiry_notice_seconds = $6,
                             max_secrets = $7, mac_generation = $8, mac_layout = $9, mac = $10
         WHERE id = $1",
        r.id.0,
        r.state(),
        r.settings.keep_versions,
        r.settings.require_check_and_set,
        r.settings.deletion_protection,
        r.settings.expiry_notice_seconds,
        r.settings.max_secrets,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("projects", &result)
}

/// All generations of a project's key, oldest first.
pub async fn project_keys(
    connection: &mut Connection,
    project: ProjectId,
) -> Result<Vec<Unverified<ProjectKeyRow>>, StoreError> {
    let rows = sqlx::query!(
        "SELECT generation, term, state, wrapped, created_at, retired_at, mac_generation, mac_layout, mac
         FROM project_keys WHERE project_id = $1 ORDER BY generation",
        project.0
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            Unverified::new(
                ProjectKeyRow {
                    project,
                    generation: r.generation,
                    term: r.term,
                    state: r.state,
                    wrapped: r.wrapped,
                    created_at: r.created_at,
                    retired_at: r.retired_at,
                },
                RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
            )
        })
        .collect())
}

/// Adds a generation of a project's key.
pub async fn insert_project_key(connection: &mut Connection, row: &Maced<ProjectKeyRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO project_keys (project_id, generation, term, state, wrapped, created_at, retired_at, mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        r.project.0,
        r.generation,
        r.term,
        r.state,
        r.wrapped,
        r.created_at,
        r.retired_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("project_keys", &result)
}

/// Writes a generation's term, state and wrapped key.
pub async fn update_project_key(connection: &mut Connection, row: &Maced<ProjectKeyRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "UPDATE project_keys SET term = $3, state = $4, wrapped = $5, retired_at = $6, mac_generation = $7, mac_layout = $8, mac = $9
         WHERE project_id = $1 AND generation = $2",
        r.project.0,
        r.generation,
        r.term,
        r.state,
        r.wrapped,
        r.retired_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("project_keys", &result)
}
