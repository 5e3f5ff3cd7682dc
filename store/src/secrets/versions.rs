//! The versions of a secret.

use super::{VersionRow, VersionState};
use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{Maced, RowMac, SecretId, Unverified};
use time::OffsetDateTime;

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
    .await
    .map_err(|error| match error.as_database_error().and_then(sqlx::error::DatabaseError::constraint) {
        // The secret's row says that this number was not given out yet: it was set back.
        Some("secret_versions_pkey") => StoreError::Corrupt { table: "secret_versions", column: "version" },
        _ => error.into(),
    })?;
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
    let rows = sqlx::query_as!(
        RawVersion,
        r#"SELECT version, author, reason, media_type, created_at, project_key_generation, wrapped_key, ''::bytea AS "sealed_value!", state,
                  mac_generation, mac_layout, mac
           FROM secret_versions WHERE secret_id = $1 AND version < coalesce($2, 9223372036854775807) ORDER BY version DESC LIMIT $3"#,
        secret.0,
        before,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|raw| raw.unverified(secret)).collect()
}

/// The numbers of a secret's first versions from `from` on, in their order.
pub async fn first_versions(
    connection: &mut Connection,
    secret: SecretId,
    from: i64,
    limit: i64,
) -> Result<Vec<i64>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT version FROM secret_versions WHERE secret_id = $1 AND version >= $2 ORDER BY version LIMIT $3",
        secret.0,
        from,
        limit
    )
    .fetch_all(connection)
    .await?)
}

/// One version without its value, as in [`versions_of`].
pub async fn find_version(
    connection: &mut Connection,
    secret: SecretId,
    version: i64,
) -> Result<Option<Unverified<VersionRow>>, StoreError> {
    let row = sqlx::query_as!(
        RawVersion,
        r#"SELECT version, author, reason, media_type, created_at, project_key_generation, wrapped_key, ''::bytea AS "sealed_value!", state,
                  mac_generation, mac_layout, mac
           FROM secret_versions WHERE secret_id = $1 AND version = $2"#,
        secret.0,
        version
    )
    .fetch_optional(connection)
    .await?;
    row.map(|raw| raw.unverified(secret)).transpose()
}

/// One version without its value, as in [`versions_of`], locked until the end of the transaction.
pub async fn lock_version(
    connection: &mut Connection,
    secret: SecretId,
    version: i64,
) -> Result<Option<Unverified<VersionRow>>, StoreError> {
    let row = sqlx::query_as!(
        RawVersion,
        r#"SELECT version, author, reason, media_type, created_at, project_key_generation, wrapped_key, ''::bytea AS "sealed_value!", state,
                  mac_generation, mac_layout, mac
           FROM secret_versions WHERE secret_id = $1 AND version = $2 FOR UPDATE"#,
        secret.0,
        version
    )
    .fetch_optional(connection)
    .await?;
    row.map(|raw| raw.unverified(secret)).transpose()
}

/// One version with its value.
pub async fn read_version(
    connection: &mut Connection,
    secret: SecretId,
    version: i64,
) -> Result<Option<Unverified<VersionRow>>, StoreError> {
    let row = sqlx::query_as!(
        RawVersion,
        r#"SELECT version, author, reason, media_type, created_at, project_key_generation, wrapped_key, sealed_value AS "sealed_value!", state,
                  mac_generation, mac_layout, mac
           FROM secret_versions WHERE secret_id = $1 AND version = $2"#,
        secret.0,
        version
    )
    .fetch_optional(connection)
    .await?;
    row.map(|raw| raw.unverified(secret)).transpose()
}

/// A version that was looked for.
#[derive(Debug)]
pub struct FoundVersion {
    /// The version.
    pub version: Unverified<VersionRow>,
    /// Whether its value came with it; it is empty otherwise, which the MAC does not cover.
    pub has_value: bool,
}

/// Versions with their values, in the order they are asked for; `None` for those that are not there. Values come until they have `limit` bytes together, as they
/// are sealed; those after are not even read.
pub async fn versions_with_values(
    connection: &mut Connection,
    wanted: &[(SecretId, i64)],
    limit: usize,
) -> Result<Vec<Option<FoundVersion>>, StoreError> {
    let (secrets, versions): (Vec<_>, Vec<_>) = wanted.iter().map(|(secret, version)| (secret.0, *version)).unzip();
    let mut found: Vec<Option<FoundVersion>> = wanted.iter().map(|_| None).collect();
    let rows = sqlx::query!(
        r#"SELECT w.place AS "place!", v.secret_id, v.version, v.author, v.reason, v.media_type, v.created_at, v.project_key_generation, v.wrapped_key, v.state,
                  CASE WHEN sum(octet_length(v.sealed_value)) OVER (ORDER BY w.place) <= $3 THEN v.sealed_value END AS sealed_value,
                  v.mac_generation, v.mac_layout, v.mac
           FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS w (secret_id, version, place)
           JOIN secret_versions v ON v.secret_id = w.secret_id AND v.version = w.version"#,
        &secrets,
        &versions,
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .fetch_all(connection)
    .await?;
    for r in rows {
        let has_value = r.sealed_value.is_some();
        let raw = RawVersion {
            version: r.version,
            author: r.author,
            reason: r.reason,
            media_type: r.media_type,
            created_at: r.created_at,
            project_key_generation: r.project_key_generation,
            wrapped_key: r.wrapped_key,
            sealed_value: r.sealed_value.unwrap_or_default(),
            state: r.state,
            mac_generation: r.mac_generation,
            mac_layout: r.mac_layout,
            mac: r.mac,
        };
        let place = usize::try_from(r.place - 1).ok().and_then(|place| found.get_mut(place));
        if let Some(place) = place {
            *place = Some(FoundVersion { version: raw.unverified(SecretId(r.secret_id))?, has_value });
        }
    }
    Ok(found)
}

/// Removes the versions from `from` up to but not with `below`, except `kept`; answers how many. It costs as much as it removes.
pub async fn prune_versions(
    connection: &mut Connection,
    secret: SecretId,
    from: i64,
    below: i64,
    kept: &[i64],
) -> Result<u64, StoreError> {
    let result = sqlx::query!(
        "DELETE FROM secret_versions WHERE secret_id = $1 AND version >= $2 AND version < $3 AND version <> ALL($4)",
        secret.0,
        from,
        below,
        kept
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected())
}

/// A version's row as the queries return it.
struct RawVersion {
    version: i64,
    author: String,
    reason: Option<String>,
    media_type: String,
    created_at: OffsetDateTime,
    project_key_generation: i32,
    wrapped_key: Vec<u8>,
    sealed_value: Vec<u8>,
    state: String,
    mac_generation: i32,
    mac_layout: i16,
    mac: Vec<u8>,
}

impl RawVersion {
    fn unverified(self, secret: SecretId) -> Result<Unverified<VersionRow>, StoreError> {
        let row = VersionRow {
            secret,
            version: self.version,
            author: self.author,
            reason: self.reason,
            media_type: self.media_type,
            created_at: self.created_at,
            project_key_generation: self.project_key_generation,
            wrapped_key: self.wrapped_key,
            sealed_value: self.sealed_value,
            state: VersionState::parse(&self.state)?,
        };
        Ok(Unverified::new(row, RowMac { generation: self.mac_generation, layout: self.mac_layout, tag: self.mac }))
    }
}
