//! Deliveries: which version each pod says it holds. Volatile, without a MAC, and only as true as the pod that says it: nothing is allowed by it.

use crate::{error::StoreError, pool::Connection};
use strongroom_core::SecretPath;
use time::OffsetDateTime;
use uuid::Uuid;

/// What one pod says it holds of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Which pod.
    pub pod_uid: Uuid,
    /// Of which secret.
    pub path: SecretPath,
    /// The pod's service account.
    pub principal: String,
    /// The pod's name.
    pub pod: String,
    /// The highest version it holds.
    pub version: i64,
    /// When it said so.
    pub reported_at: OffsetDateTime,
}

/// A pod that holds a version which the database has not given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewerDelivery {
    /// What the pod says.
    pub delivery: DeliveryRow,
    /// The highest version that the database has given out; 0 where it has no such secret.
    pub latest_version: i64,
}

/// Notes what a pod holds, many secrets in one statement; paths must differ.
pub async fn upsert_deliveries(connection: &mut Connection, rows: &[DeliveryRow]) -> Result<(), StoreError> {
    fn column<T>(rows: &[DeliveryRow], pick: impl Fn(&DeliveryRow) -> T) -> Vec<T> {
        rows.iter().map(pick).collect()
    }
    sqlx::query!(
        "INSERT INTO deliveries (pod_uid, path, principal, pod, version, reported_at)
         SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[])
         ON CONFLICT (pod_uid, path) DO UPDATE SET
             principal = excluded.principal, pod = excluded.pod, version = excluded.version, reported_at = excluded.reported_at",
        &column(rows, |r| r.pod_uid),
        &column(rows, |r| r.path.to_string()),
        &column(rows, |r| r.principal.clone()),
        &column(rows, |r| r.pod.clone()),
        &column(rows, |r| r.version),
        &column(rows, |r| r.reported_at)
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The pods that hold versions newer than the database's latest, by path and pod; at most `limit`.
pub async fn newer_deliveries(connection: &mut Connection, limit: i64) -> Result<Vec<NewerDelivery>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT d.pod_uid, d.path, d.principal, d.pod, d.version, d.reported_at, coalesce(s.latest_version, 0) AS "latest_version!"
           FROM deliveries d LEFT JOIN secrets s ON s.path = d.path
           WHERE d.version > coalesce(s.latest_version, 0) ORDER BY d.path, d.pod, d.pod_uid LIMIT $1"#,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|r| {
            let path =
                SecretPath::parse(&r.path).map_err(|_| StoreError::Corrupt { table: "deliveries", column: "path" })?;
            let delivery = DeliveryRow {
                pod_uid: r.pod_uid,
                path,
                principal: r.principal,
                pod: r.pod,
                version: r.version,
                reported_at: r.reported_at,
            };
            Ok(NewerDelivery { delivery, latest_version: r.latest_version })
        })
        .collect()
}

/// Forgets what was said before this time, and answers how much it was.
pub async fn prune_deliveries(connection: &mut Connection, before: OffsetDateTime) -> Result<u64, StoreError> {
    let result = sqlx::query!("DELETE FROM deliveries WHERE reported_at < $1", before).execute(connection).await?;
    Ok(result.rows_affected())
}
