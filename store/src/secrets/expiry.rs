//! Secrets that expire: which are due, and that each is told of once.

use crate::{error::StoreError, pool::Connection};
use strongroom_core::{SecretId, SecretPath};
use time::OffsetDateTime;

/// What is left of a secret's life when an event is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryStage {
    /// The notice period began.
    Soon,
    /// It expired.
    Expired,
}

/// A secret that has an event due.
#[derive(Clone, Debug)]
pub struct DueExpiry {
    /// Which; nothing here is authenticated yet.
    pub id: SecretId,
    /// Where it lies.
    pub path: SecretPath,
    /// When it expires.
    pub expires_at: OffsetDateTime,
}

/// How many secrets are near their expiry, and past it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryCounts {
    /// Within their project's notice period.
    pub soon: i64,
    /// Past their expiry.
    pub expired: i64,
}

/// Whether this transaction is the one that looks after expiries, of all servers.
pub async fn claim_expiries(connection: &mut Connection) -> Result<bool, StoreError> {
    let claimed = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock(hashtextextended('strongroom/expiries', 0)) AS "claimed!""#
    )
    .fetch_one(connection)
    .await?;
    Ok(claimed)
}

/// Live secrets with an event due and not yet left, by expiry, after the one given.
pub async fn due_expiries(
    connection: &mut Connection,
    now: OffsetDateTime,
    after: Option<&DueExpiry>,
    limit: i64,
) -> Result<Vec<DueExpiry>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT s.id, s.path, s.expires_at AS "expires_at!" FROM secrets s
           JOIN projects p ON p.id = s.project_id
           LEFT JOIN secret_activity a ON a.secret_id = s.id
           WHERE s.expires_at IS NOT NULL AND s.state = 'live'
             AND ((s.expires_at <= $1 AND a.expired_at IS NULL)
                  OR (s.expires_at > $1 AND a.expiry_noticed_at IS NULL AND p.expiry_notice_seconds > 0
                      AND s.expires_at <= $1 + make_interval(secs => p.expiry_notice_seconds)))
             AND (s.expires_at, s.id) > (coalesce($2, '-infinity'::timestamptz), coalesce($3, '00000000-0000-0000-0000-000000000000'::uuid))
           ORDER BY s.expires_at, s.id LIMIT $4"#,
        now,
        after.map(|after| after.expires_at),
        after.map(|after| after.id.0),
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|r| {
            let path =
                SecretPath::parse(&r.path).map_err(|_| StoreError::Corrupt { table: "secrets", column: "path" })?;
            Ok(DueExpiry { id: SecretId(r.id), path, expires_at: r.expires_at })
        })
        .collect()
}

/// Notes that an event is left in this transaction. `false` where one was left before.
pub async fn mark_expiry(
    connection: &mut Connection,
    secret: SecretId,
    stage: ExpiryStage,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let result = match stage {
        ExpiryStage::Soon => {
            sqlx::query!(
                "INSERT INTO secret_activity (secret_id, expiry_noticed_at) VALUES ($1, $2)
                 ON CONFLICT (secret_id) DO UPDATE SET expiry_noticed_at = $2 WHERE secret_activity.expiry_noticed_at IS NULL",
                secret.0,
                now
            )
            .execute(connection)
            .await?
        }
        ExpiryStage::Expired => {
            sqlx::query!(
                "INSERT INTO secret_activity (secret_id, expired_at) VALUES ($1, $2)
                 ON CONFLICT (secret_id) DO UPDATE SET expired_at = $2 WHERE secret_activity.expired_at IS NULL",
                secret.0,
                now
            )
            .execute(connection)
            .await?
        }
    };
    Ok(result.rows_affected() == 1)
}

/// Forgets what was left: the expiry is another one now.
pub async fn forget_expiry(connection: &mut Connection, secret: SecretId) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE secret_activity SET expiry_noticed_at = NULL, expired_at = NULL WHERE secret_id = $1",
        secret.0
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// When the next event is due, where that is before `until`.
pub async fn next_expiry(
    connection: &mut Connection,
    now: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, StoreError> {
    // Each half looks at a short range of the index only.
    let next = sqlx::query_scalar!(
        "SELECT min(due) FROM (
             SELECT expires_at AS due FROM secrets WHERE state = 'live' AND expires_at > $1 AND expires_at <= $2
             UNION ALL
             SELECT s.expires_at - make_interval(secs => p.expiry_notice_seconds) FROM projects p
             JOIN secrets s ON s.project_id = p.id AND s.state = 'live'
                 AND s.expires_at > $1 + make_interval(secs => p.expiry_notice_seconds)
                 AND s.expires_at <= $2 + make_interval(secs => p.expiry_notice_seconds)
             WHERE p.expiry_notice_seconds > 0) dues",
        now,
        until
    )
    .fetch_one(connection)
    .await?;
    Ok(next)
}

/// How many live secrets are near their expiry, and past it: for the metrics.
pub async fn count_expiries(connection: &mut Connection, now: OffsetDateTime) -> Result<ExpiryCounts, StoreError> {
    let counts = sqlx::query_as!(
        ExpiryCounts,
        r#"SELECT count(*) FILTER (WHERE s.expires_at > $1 AND s.expires_at <= $1 + make_interval(secs => p.expiry_notice_seconds)) AS "soon!",
                  count(*) FILTER (WHERE s.expires_at <= $1) AS "expired!"
           FROM secrets s JOIN projects p ON p.id = s.project_id WHERE s.expires_at IS NOT NULL AND s.state = 'live'"#,
        now
    )
    .fetch_one(connection)
    .await?;
    Ok(counts)
}
