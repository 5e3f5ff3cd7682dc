//! Expiry: before a secret expires, and when it does, one event is left and watchers are told. Whichever replica comes first does it.

use super::secrets::{checked_in, is_expired};
use crate::{
    access::Access,
    app::{App, Origin},
    failure::{Failure, unless_damaged},
    metrics as names,
    serve::stopped,
};
use std::{sync::Arc, time::Duration};
use strongroom_core::{Action, AuditEvent, Decision};
use strongroom_store::{
    DueExpiry, ExpiryStage, SecretRow, Transaction, claim_expiries, count_expiries, due_expiries, mark_expiry,
    next_expiry, notify_change, try_lock_secret,
};
use tokio::sync::watch::Receiver;
use uuid::Uuid;

/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_secs(30);
/// The shortest, so that many expiries one after the other are done together.
const BREATH: Duration = Duration::from_millis(200);
/// Secrets in one transaction.
const BATCH: i64 = 100;

/// Looks after expiries until the server stops.
pub async fn run(app: Arc<App>, mut stop: Receiver<bool>) {
    loop {
        let pause = match sweep(&app).await {
            Ok(pause) => pause,
            Err(failure) => {
                tracing::warn!(error = %failure, "expiries could not be looked after; trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(pause) => {}
            () = app.expiry_changed.notified() => {}
        }
    }
}

/// Leaves every event that is due, and answers how long to wait for the next.
pub async fn sweep(app: &App) -> Result<Duration, Failure> {
    let mut after = None;
    loop {
        let mut transaction = app.store.begin().await?;
        // Another server is at it, and leaves the same events.
        if !claim_expiries(transaction.connection()).await? {
            break;
        }
        let due = due_expiries(transaction.connection(), app.clock.now(), after.as_ref(), BATCH).await?;
        let more = due.len() == usize::try_from(BATCH).expect("a small number");
        let instance = Access::now(app, transaction.connection(), None).await?.instance;
        let mut events = Vec::new();
        for secret in &due {
            // What waits for an operator's word is no new alarm each time.
            if instance.project(&secret.path.project()).is_some_and(|project| instance.is_quarantined(project.id)) {
                continue;
            }
            let told = tell(app, &mut transaction, secret).await;
            events.extend(unless_damaged(told, "looking after expiries")?.flatten());
        }
        if !events.is_empty() {
            app.record_all(&mut transaction, events).await?;
            transaction.commit().await?;
        }
        after = due.into_iter().last();
        if !more {
            break;
        }
    }
    let mut connection = app.store.reader().await?;
    let now = app.clock.now();
    let counts = count_expiries(&mut connection, now).await?;
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and nobody has 2⁵² secrets")]
    for (stage, count) in [("soon", counts.soon), ("expired", counts.expired)] {
        metrics::gauge!(names::EXPIRIES, "stage" => stage).set(count as f64);
    }
    let next = next_expiry(&mut connection, now, now + PAUSE).await?;
    let pause = next.map_or(PAUSE, |next| (next - now).try_into().unwrap_or(BREATH));
    Ok(pause.clamp(BREATH, PAUSE))
}

/// The event of one secret, with its mark; none where nothing is due any more.
async fn tell(app: &App, transaction: &mut Transaction, due: &DueExpiry) -> Result<Option<AuditEvent>, Failure> {
    // Whoever has it locked may be waiting for another of this transaction's: nobody waits for anybody here, and the next look finds it.
    let Some(locked) = try_lock_secret(transaction.connection(), &due.path).await? else { return Ok(None) };
    let access = Access::now(app, transaction.connection(), Some(&due.path.project())).await?;
    let Some(project) = access.project else { return Ok(None) };
    let secret = checked_in(app, &project, locked)?;
    let now = app.clock.now();
    let notice = i64::from(project.settings().expiry_notice_seconds);
    let Some(stage) = stage(&secret, notice, now).filter(|_| secret.id == due.id && !secret.deleted) else {
        return Ok(None);
    };
    if !mark_expiry(transaction.connection(), secret.id, stage, now).await? {
        return Ok(None);
    }
    let outcome = match stage {
        ExpiryStage::Soon => "soon",
        ExpiryStage::Expired => {
            notify_change(transaction.connection(), &secret.path).await?;
            "expired"
        }
    };
    // The server's own: no caller, and no request but this.
    let origin = Origin { request_id: Uuid::now_v7(), source: None };
    let mut event = app.event(origin, None, Action::Expire, Decision::Allowed, outcome);
    event.resource = Some(secret.path.to_string());
    event.version = u64::try_from(secret.current_version).ok();
    Ok(Some(event))
}

fn stage(secret: &SecretRow, notice: i64, now: time::OffsetDateTime) -> Option<ExpiryStage> {
    let expires_at = secret.expires_at?;
    if is_expired(secret, now) {
        Some(ExpiryStage::Expired)
    } else if notice > 0 && expires_at - now <= time::Duration::seconds(notice) {
        Some(ExpiryStage::Soon)
    } else {
        None
    }
}
