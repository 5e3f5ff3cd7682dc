//! The versions of a secret.

use super::{VersionRow, VersionState};
use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{Maced, RowMac, SecretId, Unverified};

/// Adds a version.
pub async fn insert_version(connection: &mut Connection, row: &Maced<VersionRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO secret_versions (secret_id, version, author, reason, media_type, created_at, project_key_generation, wrapped_key, sealed_value, state,
                                      mac_generation, mac_layout, mac)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        r.secret.0,
        r.version,
        r.author,
        r.reason,
        r.media_type,
        r.created_at,
        r.project_key_generation,
        r.wrapped_key,
        r.sealed_value,
        r.state.as_str(),
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("secret_versions", &result)
}

/// Writes what can change of a version: its state, its wrapped key and, once destroyed, its value.
pub async fn update_version(connection: &mut Connection, row: &Maced<VersionRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let destroyed = r.state == VersionState::Destroyed;
    let result = sqlx::query!(
        "UPDATE secret_versions SET state = $3, project_key_generation = $4, wrapped_key = $5, sealed_value = CASE WHEN $6 THEN ''::bytea ELSE sealed_value END,
                                    mac_generation = $7, mac_layout = $8, mac = $9
         WHERE secret_id = $1 AND version = $2",
        r.secret.0,
        r.version,
        r.state.as_str(),
        r.project_key_generation,
        r.wrapped_key,
        destroyed,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("secret_versions", &result)
}

/// A secret's newest versions below `before`, without their values: what comes back has an empty `sealed_value`, which the MAC does not cover.
pub async fn versions_of(
    connection: &mut Connection,
    secret: SecretId,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Unverified<VersionRow>>, StoreError> {
    let rows = sqlx::query!(
        "SELECT version, author, reason, media_type, created_at, project_key_generation, wrapped_key, state, mac_generation, mac_layout, mac
         FROM secret_versions WHERE secret_id = $1 AND version < coalesce($2, 9223372036854775807) ORDER BY version DESC LIMIT $3",
        secret.0,
        before,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|r| {
            Ok(Unverified::new(
                VersionRow {
                    secret,
                    version: r.version,
                    author: r.author,
                    reason: r.reason,
                    media_type: r.media_type,
                    created_at: r.created_at,
                    project_key_generation: r.project_key_generation,
                    wrapped_key: r.wrapped_key,
                    sealed_value: Vec::new(),
                    state: VersionState::parse(&r.state)?,
                },
                RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
            ))
        })
        .collect()
}
