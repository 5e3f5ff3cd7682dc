//! One secret, with or without one of its versions.

use super::{RawSecret, SecretRow, VersionRow, VersionState};
use crate::{error::StoreError, pool::Connection};
use strongroom_core::{AliasName, RowMac, SecretId, SecretPath, Unverified};

/// Which version to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// What `current` points at.
    Current,
    /// What `previous` points at.
    Previous,
    /// What `pending` points at.
    Pending,
    /// What a free alias points at.
    Alias(AliasName),
    /// This one.
    Number(i64),
}

/// What a read found.
#[derive(Debug)]
pub struct Found {
    /// The secret.
    pub secret: Unverified<SecretRow>,
    /// The version asked for, where it exists.
    pub version: Option<Unverified<VersionRow>>,
}

/// Reads a secret with one of its versions, in one query. Where that is the version `known`, its value is left out: it is empty then, which the MAC does not
/// cover.
pub async fn read_secret(
    connection: &mut Connection,
    path: &SecretPath,
    selector: &Selector,
    known: Option<i64>,
) -> Result<Option<Found>, StoreError> {
    let (pointer, number, alias) = match selector {
        Selector::Current => ("current", None, None),
        Selector::Previous => ("previous", None, None),
        Selector::Pending => ("pending", None, None),
        Selector::Alias(alias) => ("alias", None, Some(alias.as_str())),
        Selector::Number(number) => ("number", Some(*number), None),
    };
    // The canonical text of the aliases has no `=` but the one after each name, so cutting it by text finds the whole name.
    let row = sqlx::query!(
        r#"SELECT s.id, s.project_id, s.path, s.state, s.latest_version, s.current_version, s.previous_version, s.created_at, s.updated_at,
                  s.pending_version, s.aliases, s.labels, s.owner, s.expires_at, s.deletion_protected, s.keep_versions, s.oldest_version, s.skipped_versions, s.revision,
                  s.mac_generation, s.mac_layout, s.mac,
                  v.version AS "v_version?", v.author AS "v_author?", v.reason AS "v_reason?", v.media_type AS "v_media_type?",
                  v.created_at AS "v_created_at?", v.project_key_generation AS "v_generation?", v.wrapped_key AS "v_wrapped_key?",
                  CASE WHEN v.version = $5 THEN ''::bytea ELSE v.sealed_value END AS "v_sealed_value?", v.state AS "v_state?",
                  v.mac_generation AS "v_mac_generation?", v.mac_layout AS "v_mac_layout?", v.mac AS "v_mac?"
           FROM secrets s
           LEFT JOIN secret_versions v ON v.secret_id = s.id AND v.version = CASE $2
               WHEN 'current' THEN s.current_version
               WHEN 'previous' THEN s.previous_version
               WHEN 'pending' THEN s.pending_version
               WHEN 'number' THEN $3
               ELSE nullif(split_part(split_part(E'\n' || s.aliases, E'\n' || $4 || '=', 2), E'\n', 1), '')::bigint END
           WHERE s.path = $1"#,
        path.as_str(),
        pointer,
        number,
        alias,
        known
    )
    .fetch_optional(connection)
    .await?;
    let Some(r) = row else { return Ok(None) };
    let id = SecretId(r.id);
    let secret = RawSecret {
        id: r.id,
        project_id: r.project_id,
        path: r.path,
        state: r.state,
        latest_version: r.latest_version,
        current_version: r.current_version,
        previous_version: r.previous_version,
        created_at: r.created_at,
        updated_at: r.updated_at,
        pending_version: r.pending_version,
        aliases: r.aliases,
        labels: r.labels,
        owner: r.owner,
        expires_at: r.expires_at,
        deletion_protected: r.deletion_protected,
        keep_versions: r.keep_versions,
        oldest_version: r.oldest_version,
        skipped_versions: r.skipped_versions,
        revision: r.revision,
        mac_generation: r.mac_generation,
        mac_layout: r.mac_layout,
        mac: r.mac,
    };
    let missing = |column| StoreError::Corrupt { table: "secret_versions", column };
    let version = match r.v_version {
        Some(version) => Some(Unverified::new(
            VersionRow {
                secret: id,
                version,
                author: r.v_author.ok_or(missing("author"))?,
                reason: r.v_reason,
                media_type: r.v_media_type.ok_or(missing("media_type"))?,
                created_at: r.v_created_at.ok_or(missing("created_at"))?,
                project_key_generation: r.v_generation.ok_or(missing("project_key_generation"))?,
                wrapped_key: r.v_wrapped_key.ok_or(missing("wrapped_key"))?,
                sealed_value: r.v_sealed_value.ok_or(missing("sealed_value"))?,
                state: VersionState::parse(&r.v_state.ok_or(missing("state"))?)?,
            },
            RowMac {
                generation: r.v_mac_generation.ok_or(missing("mac_generation"))?,
                layout: r.v_mac_layout.ok_or(missing("mac_layout"))?,
                tag: r.v_mac.ok_or(missing("mac"))?,
            },
        )),
        None => None,
    };
    Ok(Some(Found { secret: secret.unverified()?, version }))
}

/// A secret's row.
pub async fn find_secret(
    connection: &mut Connection,
    path: &SecretPath,
) -> Result<Option<Unverified<SecretRow>>, StoreError> {
    let row = sqlx::query_as!(
        RawSecret,
        "SELECT id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, pending_version, aliases, labels,
                owner, expires_at, deletion_protected, keep_versions, oldest_version, skipped_versions, revision, mac_generation, mac_layout, mac
         FROM secrets WHERE path = $1",
        path.as_str()
    )
    .fetch_optional(connection)
    .await?;
    row.map(RawSecret::unverified).transpose()
}

/// The secrets of these paths that are there, in no order.
pub async fn secrets_at(
    connection: &mut Connection,
    paths: &[String],
) -> Result<Vec<Unverified<SecretRow>>, StoreError> {
    let rows = sqlx::query_as!(
        RawSecret,
        "SELECT id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, pending_version, aliases, labels,
                owner, expires_at, deletion_protected, keep_versions, oldest_version, skipped_versions, revision, mac_generation, mac_layout, mac
         FROM secrets WHERE path = ANY($1)",
        paths
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(RawSecret::unverified).collect()
}

/// A secret's row, locked until the end of the transaction.
pub async fn lock_secret(
    connection: &mut Connection,
    path: &SecretPath,
) -> Result<Option<Unverified<SecretRow>>, StoreError> {
    let row = sqlx::query_as!(
        RawSecret,
        "SELECT id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, pending_version, aliases, labels,
                owner, expires_at, deletion_protected, keep_versions, oldest_version, skipped_versions, revision, mac_generation, mac_layout, mac
         FROM secrets WHERE path = $1 FOR UPDATE",
        path.as_str()
    )
    .fetch_optional(connection)
    .await?;
    row.map(RawSecret::unverified).transpose()
}

/// A secret's row, which nobody changes until the end of the transaction; others may share it.
pub async fn share_secret(
    connection: &mut Connection,
    path: &SecretPath,
) -> Result<Option<Unverified<SecretRow>>, StoreError> {
    let row = sqlx::query_as!(
        RawSecret,
        "SELECT id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, pending_version, aliases, labels,
                owner, expires_at, deletion_protected, keep_versions, oldest_version, skipped_versions, revision, mac_generation, mac_layout, mac
         FROM secrets WHERE path = $1 FOR SHARE",
        path.as_str()
    )
    .fetch_optional(connection)
    .await?;
    row.map(RawSecret::unverified).transpose()
}

/// Takes a path where nothing is, until the end of the transaction: whoever puts a secret there takes it first. So paths are held in one order, whether or not
/// there is a row to lock.
pub async fn hold_path(connection: &mut Connection, path: &SecretPath) -> Result<(), StoreError> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1::text, 2))", path.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// A secret's row, locked until the end of the transaction; `None` also where somebody else has locked it.
pub async fn try_lock_secret(
    connection: &mut Connection,
    path: &SecretPath,
) -> Result<Option<Unverified<SecretRow>>, StoreError> {
    let row = sqlx::query_as!(
        RawSecret,
        "SELECT id, project_id, path, state, latest_version, current_version, previous_version, created_at, updated_at, pending_version, aliases, labels,
                owner, expires_at, deletion_protected, keep_versions, oldest_version, skipped_versions, revision, mac_generation, mac_layout, mac
         FROM secrets WHERE path = $1 FOR UPDATE SKIP LOCKED",
        path.as_str()
    )
    .fetch_optional(connection)
    .await?;
    row.map(RawSecret::unverified).transpose()
}
