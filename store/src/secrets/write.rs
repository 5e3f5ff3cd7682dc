//! A secret's row, written.

use super::SecretRow;
use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{Maced, ProjectId, SecretId};

/// Adds a secret. Answers `false` when another transaction added one of this path meanwhile: lock it and go on with that.
pub async fn insert_secret(connection: &mut Connection, row: &Maced<SecretRow>) -> Result<bool, StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO secrets (id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, pending_version,
                              aliases, labels, owner, expires_at, deletion_protected, keep_versions, oldest_version, skipped_versions, revision,
                              mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
         ON CONFLICT ON CONSTRAINT secrets_path_key DO NOTHING",
        r.id.0,
        r.project.0,
        r.path.as_str(),
        r.state(),
        r.latest_version,
        r.current_version,
        r.previous_version,
        r.created_at,
        r.updated_at,
        r.pending_version,
        r.aliases.canonical(),
        r.labels.canonical(),
        r.owner.as_ref().map(strongroom_core::Owner::as_str),
        r.expires_at,
        r.deletion_protected,
        r.keep_versions,
        r.oldest_version,
        r.skipped_versions,
        r.revision,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// Writes a secret's row, path included; its id and its project stay. A path that is taken is [`crate::Conflict::Secret`].
pub async fn update_secret(connection: &mut Connection, row: &Maced<SecretRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "UPDATE secrets SET path = $2, state = $3, latest_version = $4, current_version = $5, previous_version = $6, updated_at = $7,
                            pending_version = $8, aliases = $9, labels = $10, owner = $11, expires_at = $12, deletion_protected = $13,
                            keep_versions = $14, oldest_version = $15, skipped_versions = $16, revision = $17, mac_generation = $18,
                            mac_layout = $19, mac = $20
         WHERE id = $1",
        r.id.0,
        r.path.as_str(),
        r.state(),
        r.latest_version,
        r.current_version,
        r.previous_version,
        r.updated_at,
        r.pending_version,
        r.aliases.canonical(),
        r.labels.canonical(),
        r.owner.as_ref().map(strongroom_core::Owner::as_str),
        r.expires_at,
        r.deletion_protected,
        r.keep_versions,
        r.oldest_version,
        r.skipped_versions,
        r.revision,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("secrets", &result)
}

/// Removes a secret with all its versions and whatever is known of it.
pub async fn purge_secret(connection: &mut Connection, secret: SecretId) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM secret_versions WHERE secret_id = $1", secret.0).execute(&mut *connection).await?;
    sqlx::query!("DELETE FROM secret_activity WHERE secret_id = $1", secret.0).execute(&mut *connection).await?;
    let result = sqlx::query!("DELETE FROM secrets WHERE id = $1", secret.0).execute(connection).await?;
    one_row("secrets", &result)
}

/// Whether a project has no more secrets than `most`, deleted ones counted. Until the end of the transaction nobody else is answered for this project, so that
/// what was added to it is counted by the next. It looks at few more than `most` entries of an index.
pub async fn fits(connection: &mut Connection, project: ProjectId, most: i32) -> Result<bool, StoreError> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1::text, 1))", project.0.to_string())
        .execute(&mut *connection)
        .await?;
    let found = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM (SELECT 1 FROM secrets WHERE project_id = $1 LIMIT $2) counted"#,
        project.0,
        i64::from(most) + 1
    )
    .fetch_one(connection)
    .await?;
    Ok(found <= i64::from(most))
}
