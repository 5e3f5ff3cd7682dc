//! What the anchor says when a term may be known to somebody: whose rows go on to count.

use super::scope_name;
use crate::{
    anchor::{Checkpoint, PlaceError, hex},
    app::{App, Caller},
    failure::Failure,
    operations::change::{Change, allowed_on_instance},
};
use std::time::Duration;
use strongroom_core::Action;
use strongroom_store::{ManifestScope, QuarantineRow, manifests};

/// How often the anchor is read until it says what the database does: it follows each change, a moment later.
const LOOKS: u32 = 10;
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(300);

/// Begins the change, and names the projects whose rows are others than the anchor says.
///
/// # Errors
/// [`Failure::Invalid`] without an anchor, unless that is accepted; [`Failure::NotNow`] when the instance's own rows are others: then nobody's rights are sure.
pub(super) async fn begin(
    app: &App,
    caller: &Caller,
    accept_unanchored: bool,
) -> Result<(Change, Vec<QuarantineRow>), Failure> {
    if accept_unanchored {
        return Ok((Change::on_instance(app, caller, Action::ManageKeys).await?, Vec::new()));
    }
    // Whoever may not do this does not have the anchor read.
    allowed_on_instance(app, caller, Action::ManageKeys).await?;
    for look in 1.. {
        let (change, mut differing) = compare(app, caller).await?;
        if differing.is_empty() {
            return Ok((change, differing));
        }
        if look < LOOKS {
            drop(change);
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        if let Some(instance) = differing.iter().find(|row| row.scope == ManifestScope::Instance) {
            let name = scope_name(instance.scope);
            return Err(Failure::NotNow(format!(
                "the access rows of {name} are others than the anchor says (their root is {}): restore what the anchor says, or, where you know them to be right, \
                 say accept_unanchored",
                hex(&instance.root)
            )));
        }
        differing.sort_by_key(|row| row.scope);
        for row in &differing {
            tracing::warn!(
                scope = scope_name(row.scope),
                "its access rows are others than the anchor says; it is quarantined"
            );
        }
        return Ok((change, differing));
    }
    unreachable!("the loop ends by itself")
}

async fn compare(app: &App, caller: &Caller) -> Result<(Change, Vec<QuarantineRow>), Failure> {
    let Some(place) = &app.anchor else {
        return Err(Failure::Invalid(
            "accept_unanchored: no anchor is configured, so that nobody can say whether access rows were forged with the key; say true to go on all the same"
                .to_owned(),
        ));
    };
    let unavailable = |error: PlaceError| {
        tracing::error!(error = format!("{:#}", anyhow::Error::new(error)), "the anchor cannot be read");
        Failure::Unavailable("the anchor's place")
    };
    // Before the lock, which nobody else may have to wait for as long as for the anchor. A change that comes between makes another look.
    let text = place.read().await.map_err(unavailable)?;
    let checkpoint = text.map(|text| Checkpoint::open(&text, app.keyring().keyring_mac())).transpose()?;
    let mut change = Change::on_instance(app, caller, Action::ManageKeys).await?;
    let (now, mut differing) = (app.clock.now(), Vec::new());
    for row in manifests(change.connection()).await? {
        let (scope, root) = row.claimed(|row| (row.scope, row.root.clone()));
        // A project's that is damaged is no reason to go on using a key that somebody knows; and a project that is quarantined already stays it.
        let is_as_anchored = match app.verify_current(row) {
            Ok(row) => checkpoint.as_ref().is_some_and(|anchor| anchor.is_mark_of(&row)),
            Err(failure) if scope == ManifestScope::Instance => return Err(failure),
            Err(_) => false,
        };
        let is_known = change.instance().quarantines().iter().any(|quarantine| quarantine.scope == scope)
            || matches!(scope, ManifestScope::Project(id) if !change.instance().has_project(id));
        if !is_as_anchored && !is_known {
            differing.push(QuarantineRow { scope, root, author: caller.identity.principal(), created_at: now });
        }
    }
    Ok((change, differing))
}
