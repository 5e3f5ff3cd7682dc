//! The answers to writes that carried an idempotency key.

use crate::{
    error::{StoreError, one_row},
    pool::Connection,
};
use strongroom_core::{Columns, MacRow, Maced, RowMac, Unverified};
use time::OffsetDateTime;

/// An answer that is given again.
#[derive(Clone, Debug)]
pub struct AnswerRow {
    /// Keyed hash of caller, route and key.
    pub key: Vec<u8>,
    /// Keyed hash of the request.
    pub body: Vec<u8>,
    /// What was answered, and what was decided for it, as JSON. No values.
    pub answer: String,
    /// When.
    pub created_at: OffsetDateTime,
}

impl MacRow for AnswerRow {
    const TABLE: &'static str = "idempotency_keys";
    const LAYOUT: i16 = 1;

    fn columns(&self, out: &mut Columns) {
        out.bytes(&self.key).bytes(&self.body).text(&self.answer).time(self.created_at);
    }
}

/// Takes the lock of one key until the end of the transaction; `false` where another transaction has it. Two keys of one number only wait for each other.
pub async fn try_lock_answer(connection: &mut Connection, number: i64) -> Result<bool, StoreError> {
    // The first number keeps these locks apart from those of the instance and of migrations, which are of one number.
    let number = i32::from_be_bytes(number.to_be_bytes()[..4].try_into().expect("four of eight bytes"));
    Ok(sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock(1500, $1) AS "locked!""#, number)
        .fetch_one(connection)
        .await?)
}

/// The answer under one of these keys.
pub async fn find_answer(
    connection: &mut Connection,
    keys: &[Vec<u8>],
) -> Result<Option<Unverified<AnswerRow>>, StoreError> {
    let row = sqlx::query!(
        "SELECT key, body, answer, created_at, mac_generation, mac_layout, mac FROM idempotency_keys WHERE key = ANY($1) LIMIT 1",
        keys
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|r| {
        Unverified::new(
            AnswerRow { key: r.key, body: r.body, answer: r.answer, created_at: r.created_at },
            RowMac { generation: r.mac_generation, layout: r.mac_layout, tag: r.mac },
        )
    }))
}

/// Keeps an answer.
pub async fn insert_answer(connection: &mut Connection, row: &Maced<AnswerRow>) -> Result<(), StoreError> {
    let (r, mac) = (row.row(), row.mac());
    let result = sqlx::query!(
        "INSERT INTO idempotency_keys (key, body, answer, created_at, mac_generation, mac_layout, mac) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        r.key,
        r.body,
        r.answer,
        r.created_at,
        mac.generation,
        mac.layout,
        mac.tag
    )
    .execute(connection)
    .await?;
    one_row("idempotency_keys", &result)
}

/// Forgets one answer.
pub async fn delete_answer(connection: &mut Connection, key: &[u8]) -> Result<(), StoreError> {
    let result = sqlx::query!("DELETE FROM idempotency_keys WHERE key = $1", key).execute(connection).await?;
    one_row("idempotency_keys", &result)
}

/// Forgets answers from before a time, at most `limit`; answers how many. What another transaction has in hand is left for the next time.
pub async fn prune_answers(connection: &mut Connection, before: OffsetDateTime, limit: i64) -> Result<u64, StoreError> {
    let result = sqlx::query!(
        "DELETE FROM idempotency_keys WHERE key IN
             (SELECT key FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        before,
        limit
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected())
}
