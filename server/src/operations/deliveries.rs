//! Deliveries: which version each pod says it holds. Nothing is allowed by it; it is for people.

use super::change::look;
use crate::{
    app::{App, Caller},
    failure::Failure,
    serve::stopped,
};
use std::{sync::Arc, time::Duration};
use strongroom_api::backup::{NewerDeliveries, NewerDelivery};
use strongroom_core::{Action, Identity, SecretPath};
use strongroom_store::{DeliveryRow, newer_deliveries, prune_deliveries, upsert_deliveries};

/// Most deliveries in one answer.
const MAX_NEWER: usize = 5_000;
/// What was said before so long is forgotten: a pod that still lives has said it again.
const KEPT: time::Duration = time::Duration::hours(24);
/// How often that is looked for.
const PRUNE_EVERY: Duration = Duration::from_mins(10);

/// The pods that hold versions which the database has not given out: after a restore, what is lost here is still with them. For whoever may take backups, since it
/// names secrets of all projects.
pub async fn newer(app: &App, caller: &Caller) -> Result<NewerDeliveries, Failure> {
    look(app, caller, Action::Backup, None, |_| Ok(())).await?;
    let mut connection = app.store.reader().await?;
    let limit = i64::try_from(MAX_NEWER + 1).expect("a small number");
    let mut rows = newer_deliveries(&mut connection, limit).await?;
    let more = rows.len() > MAX_NEWER;
    rows.truncate(MAX_NEWER);
    let unsigned = |version: i64| u64::try_from(version).unwrap_or_default();
    let deliveries = rows.into_iter().map(|row| NewerDelivery {
        latest_version: unsigned(row.latest_version),
        held: unsigned(row.delivery.version),
        path: row.delivery.path,
        principal: row.delivery.principal,
        pod: row.delivery.pod,
        pod_uid: row.delivery.pod_uid,
        reported_at: row.delivery.reported_at,
    });
    Ok(NewerDeliveries { deliveries: deliveries.collect(), more })
}

/// Notes what a pod says it holds, of secrets that it may read. Where that fails it is only not known: the next watch says it again.
pub(super) async fn note(app: &App, caller: &Caller, held: Vec<(SecretPath, u64)>) {
    let Identity::Workload { pod, .. } = &caller.identity else { return };
    let (principal, now) = (caller.identity.principal(), app.clock.now());
    let rows: Vec<_> = held
        .into_iter()
        .filter_map(|(path, version)| {
            // Nothing held, or a number that no database gives out.
            let version = i64::try_from(version).ok().filter(|version| *version > 0)?;
            let (principal, pod_name) = (principal.clone(), pod.name.clone());
            Some(DeliveryRow { pod_uid: pod.uid, path, principal, pod: pod_name, version, reported_at: now })
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    let written = async {
        let mut transaction = app.store.begin().await?;
        upsert_deliveries(transaction.connection(), &rows).await?;
        transaction.commit().await
    };
    if let Err(error) = written.await {
        tracing::warn!(error = %error, "what a pod holds could not be noted");
    }
}

/// Forgets old deliveries, for as long as the server runs.
pub async fn prune(app: Arc<App>) {
    let mut stop = app.stop.clone();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(PRUNE_EVERY) => {}
        }
        let pruned = async {
            let mut transaction = app.store.begin().await?;
            let count = prune_deliveries(transaction.connection(), app.clock.now() - KEPT).await?;
            transaction.commit().await?;
            Ok::<_, strongroom_store::StoreError>(count)
        };
        match pruned.await {
            Ok(count) => tracing::debug!(count, "old deliveries were forgotten"),
            Err(error) => tracing::warn!(error = %error, "old deliveries could not be removed"),
        }
    }
}
