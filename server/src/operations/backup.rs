//! Taking a backup: audited before its first byte leaves, and written from one snapshot.

use super::{
    authorization::{decide, refused, rules},
    change::audited,
};
use crate::{
    access::Access,
    app::{App, Caller},
    backup::{Snapshot, Writer},
    failure::Failure,
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use strongroom_core::{Action, Decision};
use strongroom_policy::Resource;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Most bytes handed on at once.
const PIECE: usize = 256 * 1024;
/// How long the receiver may take for one piece: the snapshot holds a connection, and keeps old rows from being removed.
const PATIENCE: Duration = Duration::from_mins(1);

/// The backup was cut off: its connection must be too, so that the receiver does not take it for whole. It lacks its last line besides.
#[derive(Debug, thiserror::Error)]
#[error("the backup was cut off")]
pub struct CutOff;

/// The pieces of a backup under way.
pub type Pieces = mpsc::Receiver<Result<Bytes, CutOff>>;

/// Begins a backup. One at a time on each replica.
pub async fn begin(app: Arc<App>, caller: Caller) -> Result<Pieces, Failure> {
    let outcome = try_begin(app.clone(), &caller).await;
    audited(&app, &caller, Action::Backup, "instance".to_owned(), outcome).await
}

async fn try_begin(app: Arc<App>, caller: &Caller) -> Result<Pieces, Failure> {
    let decision = {
        let mut connection = app.store.reader().await?;
        let rules = rules(&app, &mut connection, caller, None).await?;
        decide(&app, caller, &rules, Action::Backup, Resource::Instance)
    };
    let grant = match decision {
        Ok(grant) => grant,
        Err(denied) => return Err(refused(&app, caller, Action::Backup, "instance".to_owned(), denied).await),
    };
    let under_way =
        app.backups.clone().try_acquire_owned().map_err(|_| Failure::Unavailable("a backup is under way; another"))?;
    let mut event = app.event(caller.origin, Some(caller.identity.clone()), Action::Backup, Decision::Allowed, "ok");
    event.resource = Some("instance".to_owned());
    event.policies = grant.policies().to_vec();
    app.audit.commit(event).await?;
    let snapshot = match Snapshot::take(&app.store, app.keyring(), app.clock.now()).await {
        // The keyring may have changed since it was decided.
        Err(Failure::Integrity(_)) => {
            let mut connection = app.store.reader().await?;
            Access::now(&app, &mut connection, None).await?;
            drop(connection);
            Snapshot::take(&app.store, app.keyring(), app.clock.now()).await?
        }
        taken => taken?,
    };
    let (sender, pieces) = mpsc::channel(1);
    let origin = caller.origin;
    tokio::spawn(async move {
        let outcome = write(snapshot, &sender, under_way).await;
        if let Err(why) = outcome {
            tracing::warn!(request_id = %origin.request_id, why, "a backup was cut off");
            // Nobody may be there any more.
            let _ = tokio::time::timeout(PATIENCE, sender.send(Err(CutOff))).await;
        }
    });
    Ok(pieces)
}

async fn write(
    mut snapshot: Snapshot,
    sender: &mpsc::Sender<Result<Bytes, CutOff>>,
    _under_way: OwnedSemaphorePermit,
) -> Result<(), String> {
    let mut writer = Writer::new();
    let header = snapshot.header() + "\n";
    writer.note(&header);
    send(sender, header).await?;
    while let Some(lines) = snapshot.next(&mut writer).await.map_err(|failure| failure.to_string())? {
        writer.note(&lines);
        send(sender, lines).await?;
    }
    // By the keyring that the snapshot holds, whatever came after it.
    send(sender, writer.end(&snapshot.into_keyring())).await
}

async fn send(sender: &mpsc::Sender<Result<Bytes, CutOff>>, text: String) -> Result<(), String> {
    let mut rest = Bytes::from(text);
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE));
        match tokio::time::timeout(PATIENCE, sender.send(Ok(piece))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err("the receiver went away".to_owned()),
            Err(_) => return Err(format!("the receiver took nothing for {} s", PATIENCE.as_secs())),
        }
    }
    Ok(())
}
