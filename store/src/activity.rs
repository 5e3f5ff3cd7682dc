//! What is volatile about secrets.

use crate::{error::StoreError, pool::Connection};
use strongroom_core::SecretId;
use time::OffsetDateTime;

/// Notes when secrets were last read, in one statement. A time that is there and later stays; a secret that is gone is left out.
pub async fn note_reads(connection: &mut Connection, reads: &[(SecretId, OffsetDateTime)]) -> Result<(), StoreError> {
    let (secrets, times): (Vec<_>, Vec<_>) = reads.iter().map(|(secret, at)| (secret.0, *at)).unzip();
    // In the order of the ids, so that two replicas never wait for each other's rows.
    sqlx::query!(
        "INSERT INTO secret_activity (secret_id, last_read_at)
         SELECT r.id, r.at FROM unnest($1::uuid[], $2::timestamptz[]) AS r (id, at) JOIN secrets s ON s.id = r.id ORDER BY r.id
         ON CONFLICT (secret_id) DO UPDATE SET last_read_at = greatest(secret_activity.last_read_at, excluded.last_read_at)",
        &secrets,
        &times
    )
    .execute(connection)
    .await?;
    Ok(())
}
