//! Running servers, and the duties that one of them does for all. Nothing is decided by this table: a row that lies delays a step, or has it wait.

use crate::{error::StoreError, pool::Connection};
use time::OffsetDateTime;
use uuid::Uuid;

/// Says that a server runs and which of the instance's manifests its keyring was read at. Rows of servers not seen since `forget_before` are removed.
pub async fn beat(
    connection: &mut Connection,
    replica: Uuid,
    started_at: OffsetDateTime,
    now: OffsetDateTime,
    instance_epoch: i64,
    forget_before: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO replicas (id, started_at, seen_at, instance_epoch) VALUES ($1, $2, $3, $4)
         ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, instance_epoch = excluded.instance_epoch",
        replica,
        started_at,
        now,
        instance_epoch
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!("DELETE FROM replicas WHERE seen_at < $1", forget_before).execute(connection).await?;
    Ok(())
}

/// Says that a server stops: no step waits for it any more.
pub async fn leave(connection: &mut Connection, replica: Uuid) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM replicas WHERE id = $1", replica).execute(connection).await?;
    Ok(())
}

/// How many servers were seen since, and the lowest manifest that one of them has read its keyring at.
pub async fn live_replicas(
    connection: &mut Connection,
    since: OffsetDateTime,
) -> Result<(i64, Option<i64>), StoreError> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "count!", min(instance_epoch) AS lowest FROM replicas WHERE seen_at >= $1"#,
        since
    )
    .fetch_one(connection)
    .await?;
    Ok((row.count, row.lowest))
}

/// Takes a duty until the transaction ends, where no other server has it now.
pub async fn try_duty(connection: &mut Connection, duty: i32) -> Result<bool, StoreError> {
    // The first number only has to differ from the other advisory locks of this schema.
    Ok(sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock(572413701, $1) AS "taken!""#, duty)
        .fetch_one(connection)
        .await?)
}
