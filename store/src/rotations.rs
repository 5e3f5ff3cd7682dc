//! Rotations: work on keys that goes on while servers come and go. What one is is authenticated; how far it came is not, and no step believes it.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{Columns, MacRow, Maced, ProjectId, RowMac, Unverified};
use time::OffsetDateTime;
use uuid::Uuid;

/// What a rotation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotationKind {
    /// What the root wraps is wrapped anew.
    Root,
    /// A new term.
    Term,
    /// A new generation of a project's key.
    ProjectKey,
    /// What is left of a project whose keys were destroyed is removed.
    Shred,
}

impl RotationKind {
    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Term => "term",
            Self::ProjectKey => "project-key",
            Self::Shred => "shred",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        let all = [Self::Root, Self::Term, Self::ProjectKey, Self::Shred];
        let corrupt = StoreError::Corrupt { table: "rotations", column: "kind" };
        all.into_iter().find(|kind| kind.as_str() == text).ok_or(corrupt)
    }
}

/// What a rotation is.
#[derive(Clone, Debug)]
pub struct RotationRow {
    /// Its id.
    pub id: Uuid,
    /// What it works on.
    pub kind: RotationKind,
    /// Whose key.
    pub project: Option<ProjectId>,
    /// The term or the generation that it makes; 0 where it makes none.
    pub target: i32,
    /// Whether what came before may be known to somebody.
    pub compromised: bool,
    /// Whether it goes on without an anchor to compare with.
    pub accept_unanchored: bool,
    /// Who asked for it.
    pub author: String,
    /// When.
    pub created_at: OffsetDateTime,
}

impl MacRow for RotationRow {
    const TABLE: &'static str = "rotations";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.uuid(self.id).text(self.kind.as_str());
        out.optional(self.project, |c, project| {
            c.uuid(project.0);
        });
        out.integer(self.target.into())
            .boolean(self.compromised)
            .boolean(self.accept_unanchored)
            .text(&self.author)
            .time(self.created_at);
    }
}

/// How far a rotation came. Volatile: nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does now.
    pub stage: String,
    /// The last secret of the pass that is under way.
    pub cursor: Option<Uuid>,
    /// How many rows are done.
    pub done: i64,
    /// Of how many.
    pub total: i64,
    /// Why the last step failed.
    pub failure: Option<String>,
    /// The instance's manifest that every replica must have followed before the next stage.
    pub epoch: Option<i64>,
    /// When it last moved.
    pub updated_at: OffsetDateTime,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
}

struct Raw {
    id: Uuid,
    kind: String,
    project_id: Option<Uuid>,
    target: i32,
    compromised: bool,
    accept_unanchored: bool,
    author: String,
    created_at: OffsetDateTime,
    stage: String,
    cursor: Option<Uuid>,
    done: i64,
    total: i64,
    failure: Option<String>,
    epoch: Option<i64>,
    updated_at: OffsetDateTime,
    finished_at: Option<OffsetDateTime>,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
}

impl Raw {
    fn split(self) -> Result<(Unverified<RotationRow>, Progress), StoreError> {
        let row = RotationRow {
            id: self.id,
            kind: RotationKind::parse(&self.kind)?,
            project: self.project_id.map(ProjectId),
            target: self.target,
            compromised: self.compromised,
            accept_unanchored: self.accept_unanchored,
            author: self.author,
            created_at: self.created_at,
        };
        let progress = Progress {
            stage: self.stage,
            cursor: self.cursor,
            done: self.done,
            total: self.total,
            failure: self.failure,
            epoch: self.epoch,
            updated_at: self.updated_at,
            finished_at: self.finished_at,
        };
        let mac = RowMac { generation: self.mac_generation, layout: self.mac_layout, tag: self.mac };
        Ok((Unverified::new(row, mac), progress))
    }
}

/// The rotations that are not finished, oldest first.
pub async fn open_rotations(
    connection: &mut Connection,
) -> Result<Vec<(Unverified<RotationRow>, Progress)>, StoreError> {
    let rows = sqlx::query_as!(
        Raw,
        "SELECT id, kind, project_id, target, compromised, accept_unanchored, author, created_at, stage, cursor, done, total, failure, epoch, updated_at,
                finished_at, mac_generation, mac_layout, mac
         FROM rotations WHERE finished_at IS NULL ORDER BY created_at, id"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Raw::split).collect()
}

/// The newest rotations, finished or not, newest first.
pub async fn rotations(
    connection: &mut Connection,
    limit: i64,
) -> Result<Vec<(Unverified<RotationRow>, Progress)>, StoreError> {
    let rows = sqlx::query_as!(
        Raw,
        "SELECT id, kind, project_id, target, compromised, accept_unanchored, author, created_at, stage, cursor, done, total, failure, epoch, updated_at,
                finished_at, mac_generation, mac_layout, mac
         FROM rotations ORDER BY finished_at IS NULL DESC, created_at DESC, id LIMIT $1",
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Raw::split).collect()
}

/// One open rotation, locked until the transaction ends; `None` where another server works on it now, or it is finished.
pub async fn claim_rotation(
    connection: &mut Connection,
    id: Uuid,
) -> Result<Option<(Unverified<RotationRow>, Progress)>, StoreError> {
    let row = sqlx::query_as!(
        Raw,
        "SELECT id, kind, project_id, target, compromised, accept_unanchored, author, created_at, stage, cursor, done, total, failure, epoch, updated_at,
                finished_at, mac_generation, mac_layout, mac
         FROM rotations WHERE id = $1 AND finished_at IS NULL FOR UPDATE SKIP LOCKED",
        id
    )
    .fetch_optional(connection)
    .await?;
    row.map(Raw::split).transpose()
}

/// Adds a rotation. One that is open for the same key is [`crate::Conflict::Rotation`].
pub async fn insert_rotation(
    connection: &mut Connection,
    row: &Maced<RotationRow>,
    stage: &str,
) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO rotations (id, kind, project_id, target, compromised, accept_unanchored, author, created_at, stage, updated_at, mac_generation,
                                mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $8, $10, $11, $12)",
        r.id,
        r.kind.as_str(),
        r.project.map(|project| project.0),
        r.target,
        r.compromised,
        r.accept_unanchored,
        r.author,
        r.created_at,
        stage,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("rotations", &result)
}

/// Writes how far a rotation came.
pub async fn update_progress(connection: &mut Connection, id: Uuid, progress: &Progress) -> Result<(), StoreError> {
    let p = progress;
    let result = sqlx::query!(
        "UPDATE rotations SET stage = $2, cursor = $3, done = $4, total = $5, failure = $6, epoch = $7, updated_at = $8, finished_at = $9 WHERE id = $1",
        id,
        p.stage,
        p.cursor,
        p.done,
        p.total,
        p.failure,
        p.epoch,
        p.updated_at,
        p.finished_at
    )
    .execute(connection)
    .await?;
    one_row("rotations", &result)
}

/// Writes why the last step failed, or that it did not, where nobody works on the rotation now: whether it was written.
pub async fn note_failure(connection: &mut Connection, id: Uuid, failure: Option<&str>) -> Result<bool, StoreError> {
    let result = sqlx::query!(
        "UPDATE rotations SET failure = $2 WHERE id = (SELECT id FROM rotations WHERE id = $1 AND finished_at IS NULL FOR UPDATE SKIP LOCKED)",
        id,
        failure
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// Writes a rotation's new MAC.
pub async fn remac_rotation(connection: &mut Connection, row: &Maced<RotationRow>) -> Result<(), StoreError> {
    let mac = row.mac();
    let result = sqlx::query!(
        "UPDATE rotations SET mac_generation = $2, mac_layout = $3, mac = $4 WHERE id = $1",
        row.row().id,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("rotations", &result)
}

/// Removes finished rotations but for the last of them. One that somebody holds is left for the next time.
pub async fn prune_rotations(connection: &mut Connection, kept: i64) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM rotations WHERE id IN (
             SELECT id FROM rotations WHERE finished_at IS NOT NULL ORDER BY finished_at DESC, id DESC OFFSET $1 FOR UPDATE SKIP LOCKED)",
        kept
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes a rotation.
pub async fn delete_rotation(connection: &mut Connection, id: Uuid) -> Result<(), StoreError> {
    let result = sqlx::query!("DELETE FROM rotations WHERE id = $1", id).execute(connection).await?;
    one_row("rotations", &result)
}

/// Removes finished rotations whose MAC is of an older generation: nothing is left that could check it.
pub async fn delete_finished_rotations(connection: &mut Connection, before_generation: i32) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM rotations WHERE finished_at IS NOT NULL AND mac_generation < $1", before_generation)
        .execute(connection)
        .await?;
    Ok(())
}
