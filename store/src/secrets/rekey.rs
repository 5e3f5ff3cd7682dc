//! Batches of secrets and versions whose keys change. Whoever changes a version holds its secret's row, so a batch takes those that nobody holds.

use super::{RawSecret, SecretRow, VersionRow, VersionState};
use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{Maced, ProjectId, RowMac, SecretId, Unverified};
use uuid::Uuid;

/// The project's secrets after `after`, in the order of their ids, locked; those that somebody else holds are left out.
pub async fn lock_secrets_after(
    connection: &mut Connection,
    project: ProjectId,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Unverified<SecretRow>>, StoreError> {
    let rows = sqlx::query_as!(
        RawSecret,
        "SELECT id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, pending_version, aliases, labels,
                owner, expires_at, deletion_protected, keep_versions, oldest_version, skipped_versions, revision, mac_generation, mac_layout, mac
         FROM secrets WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED",
        project.0,
        after.unwrap_or_default(),
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(RawSecret::unverified).collect()
}

/// The instance's secrets after `after`, in the order of their ids, that an earlier generation of the row key authenticated, or of which a version was, or is wrapped
/// by an older generation of its project's key; locked. Those that somebody else holds are left out, and those of these projects, and these secrets.
pub async fn lock_outdated_secrets_after(
    connection: &mut Connection,
    after: Option<Uuid>,
    mac_generation: i32,
    but_projects: &[Uuid],
    but_secrets: &[Uuid],
    limit: i64,
) -> Result<Vec<Unverified<SecretRow>>, StoreError> {
    let rows = sqlx::query_as!(
        RawSecret,
        "SELECT id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, pending_version, aliases, labels,
                owner, expires_at, deletion_protected, keep_versions, oldest_version, skipped_versions, revision, mac_generation, mac_layout, mac
         FROM secrets s
         WHERE id > $1 AND project_id <> ALL ($3) AND NOT EXISTS (SELECT FROM unnest($4::uuid[]) AS left_out (id) WHERE left_out.id = s.id) AND (
             mac_generation < $2
             OR EXISTS (SELECT FROM secret_versions v
                        WHERE v.secret_id = s.id AND (v.mac_generation < $2 OR (v.state <> 'destroyed' AND v.project_key_generation <
                              (SELECT k.generation FROM project_keys k WHERE k.project_id = s.project_id AND k.state = 'active')))))
         ORDER BY id LIMIT $5 FOR UPDATE SKIP LOCKED",
        after.unwrap_or_default(),
        mac_generation,
        but_projects,
        but_secrets,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(RawSecret::unverified).collect()
}

/// Versions of these secrets that an earlier generation of the project's key wraps, or of the row key authenticates, in the order of secrets and numbers. With
/// `values` as they are, else with an empty `sealed_value`, which the MAC does not cover.
pub async fn versions_before(
    connection: &mut Connection,
    secrets: &[Uuid],
    project_key_generation: i32,
    mac_generation: i32,
    values: bool,
    limit: i64,
) -> Result<Vec<Unverified<VersionRow>>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT secret_id, version, author, reason, media_type, created_at, project_key_generation, wrapped_key,
                  CASE WHEN $4 THEN sealed_value ELSE ''::bytea END AS "sealed_value!", state, mac_generation, mac_layout, mac
           FROM secret_versions
           WHERE secret_id = ANY ($1) AND ((project_key_generation < $2 AND state <> 'destroyed') OR mac_generation < $3)
           ORDER BY secret_id, version LIMIT $5"#,
        secrets,
        project_key_generation,
        mac_generation,
        values,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|r| {
            Ok(Unverified::new(
                VersionRow {
                    secret: SecretId(r.secret_id),
                    version: r.version,
                    author: r.author,
                    reason: r.reason,
                    media_type: r.media_type,
                    created_at: r.created_at,
                    project_key_generation: r.project_key_generation,
                    wrapped_key: r.wrapped_key,
                    sealed_value: r.sealed_value,
                    state: VersionState::parse(&r.state)?,
                },
                RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
            ))
        })
        .collect()
}

/// Writes the wrapped data keys of many versions; their values stay.
pub async fn rewrap_versions(connection: &mut Connection, rows: &[Maced<VersionRow>]) -> Result<(), StoreError> {
    let secrets: Vec<Uuid> = rows.iter().map(|row| row.row().secret.0).collect();
    let numbers: Vec<i64> = rows.iter().map(|row| row.row().version).collect();
    let generations: Vec<i32> = rows.iter().map(|row| row.row().project_key_generation).collect();
    let keys: Vec<Vec<u8>> = rows.iter().map(|row| row.row().wrapped_key.clone()).collect();
    let mac_generations: Vec<i32> = rows.iter().map(|row| row.mac().generation).collect();
    let layouts: Vec<i16> = rows.iter().map(|row| row.mac().layout).collect();
    let tags: Vec<Vec<u8>> = rows.iter().map(|row| row.mac().tag.clone()).collect();
    let result = sqlx::query!(
        "UPDATE secret_versions v SET project_key_generation = n.generation, wrapped_key = n.wrapped_key, mac_generation = n.mac_generation,
                                      mac_layout = n.mac_layout, mac = n.mac
         FROM unnest($1::uuid[], $2::bigint[], $3::integer[], $4::bytea[], $5::integer[], $6::smallint[], $7::bytea[])
              AS n (secret_id, version, generation, wrapped_key, mac_generation, mac_layout, mac)
         WHERE v.secret_id = n.secret_id AND v.version = n.version",
        &secrets,
        &numbers,
        &generations,
        &keys,
        &mac_generations,
        &layouts,
        &tags
    )
    .execute(connection)
    .await?;
    match usize::try_from(result.rows_affected()) {
        Ok(affected) if affected == rows.len() => Ok(()),
        _ => Err(StoreError::Affected { table: "secret_versions", affected: result.rows_affected() }),
    }
}

/// Writes a version that was sealed anew, its value too.
pub async fn reseal_version(connection: &mut Connection, row: &Maced<VersionRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "UPDATE secret_versions SET project_key_generation = $3, wrapped_key = $4, sealed_value = $5, mac_generation = $6, mac_layout = $7, mac = $8
         WHERE secret_id = $1 AND version = $2",
        r.secret.0,
        r.version,
        r.project_key_generation,
        r.wrapped_key,
        r.sealed_value,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("secret_versions", &result)
}

/// Removes some of a project's secrets with their versions, and says how many.
pub async fn delete_some_secrets(
    connection: &mut Connection,
    project: ProjectId,
    limit: i64,
) -> Result<u64, StoreError> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM secrets WHERE project_id = $1 ORDER BY id LIMIT $2 FOR UPDATE",
        project.0,
        limit
    )
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query!("DELETE FROM secret_versions WHERE secret_id = ANY ($1)", &ids).execute(&mut *connection).await?;
    sqlx::query!("DELETE FROM secret_activity WHERE secret_id = ANY ($1)", &ids).execute(&mut *connection).await?;
    Ok(sqlx::query!("DELETE FROM secrets WHERE id = ANY ($1)", &ids).execute(connection).await?.rows_affected())
}
