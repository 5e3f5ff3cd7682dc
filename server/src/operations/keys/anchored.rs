//! What the anchor says when a term may be known to somebody: whose rows go on to count.

use super::scope_name;
use crate::{
    access::{InstanceAccess, branch},
    anchor::{Checkpoint, PlaceError, hex},
    app::{App, Caller},
    failure::Failure,
    operations::change::{Change, allowed_on_instance},
};
use std::{collections::BTreeMap, time::Duration};
use strongroom_core::Action;
use strongroom_store::{ManifestScope, QuarantineRow, manifests};

/// How many looks in a row must find the same rows where the anchor says others. The anchor follows each change within a second, and these span more than two.
const STOOD: u32 = 10;
/// After how many looks it is given up: an instance in which something changes all the time gets a few more.
const LOOKS: u32 = 20;
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(300);

/// Begins the change, and names the projects whose rows are others than the anchor says.
///
/// # Errors
/// [`Failure::Invalid`] without an anchor, unless that is accepted; [`Failure::NotNow`] when the instance's own rows are others, for then nobody's rights are sure,
/// and when what differs goes on changing: that is an anchor that does not keep up, and no reason to quarantine anybody.
pub(super) async fn begin(
    app: &App,
    caller: &Caller,
    accept_unanchored: bool,
) -> Result<(Change, Vec<QuarantineRow>), Failure> {
    if accept_unanchored {
        return Ok((Change::on_instance(app, caller, Action::ManageKeys).await?, Vec::new()));
    }
    if app.anchor.is_none() {
        return Err(Failure::Invalid(
            "accept_unanchored: no anchor is configured, so that nobody can say whether access rows were forged with the key; say true to go on all the same"
                .to_owned(),
        ));
    }
    // Whoever may not do this does not have the anchor read.
    allowed_on_instance(app, caller, Action::ManageKeys).await?;
    let mut looks = Looks::default();
    for look in 1..=LOOKS {
        let (change, differing) = compare(app, caller).await?;
        looks.note(&differing);
        if looks.is_settled() {
            refuse_instance(&differing)?;
            for row in &differing {
                tracing::warn!(
                    scope = scope_name(row.scope),
                    "its access rows are others than the anchor says; it is quarantined"
                );
            }
            return Ok((change, differing));
        }
        drop(change);
        if look < LOOKS {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Err(Failure::NotNow(
        "the anchor does not keep up with what changes, so that it cannot be said whose rows are others than it says; try again once fewer access rows change, and see \
         that the anchor's place is quick"
            .to_owned(),
    ))
}

/// What the anchor says now; `None` without an anchor, or where nothing was written yet.
///
/// # Errors
/// [`Failure::Unavailable`] for a place that is away, [`Failure::Integrity`] for an anchor that is not this instance's.
pub(crate) async fn checkpoint(app: &App) -> Result<Option<Checkpoint>, Failure> {
    let unavailable = |error: PlaceError| {
        tracing::error!(error = format!("{:#}", anyhow::Error::new(error)), "the anchor cannot be read");
        Failure::Unavailable("the anchor's place")
    };
    let Some(place) = &app.anchor else { return Ok(None) };
    let text = place.read().await.map_err(unavailable)?;
    text.map(|text| Checkpoint::open(&text, app.keyring().keyring_mac())).transpose()
}

/// The highest epoch of a scope that anybody here knows of: its manifest's, the anchor's, what this server has seen. Whatever state of it is put back and confirmed
/// goes on beyond that.
pub(crate) fn known_epoch(
    app: &App,
    instance: &InstanceAccess,
    scope: ManifestScope,
    of_manifest: Option<i64>,
    anchor: Option<&Checkpoint>,
) -> i64 {
    let anchored = anchor.and_then(|anchor| anchor.manifests.get(&scope.id())).map(|mark| mark.epoch);
    let known = [of_manifest, anchored, app.access.seen(scope)];
    branch::highest_beside(instance.manifest().epoch, known.into_iter().flatten())
}

async fn compare(app: &App, caller: &Caller) -> Result<(Change, Vec<QuarantineRow>), Failure> {
    // Before the lock, which nobody else may have to wait for as long as for the anchor. A change that comes between makes another look.
    let anchor = checkpoint(app).await?;
    let mut change = Change::on_instance(app, caller, Action::ManageKeys).await?;
    let (now, mut differing) = (app.clock.now(), Vec::new());
    for row in manifests(change.connection()).await? {
        let (scope, root, claimed) = row.claimed(|row| (row.scope, row.root.clone(), branch::claimed(row.epoch)));
        // A project's that is damaged is no reason to go on using a key that somebody knows; and a project that is quarantined already stays it.
        let (is_as_anchored, of_manifest) = match app.verify_current(row) {
            Ok(row) => (anchor.as_ref().is_some_and(|anchor| anchor.is_mark_of(&row)), row.epoch),
            Err(failure) if scope == ManifestScope::Instance => return Err(failure),
            Err(_) => (false, claimed),
        };
        let is_known = change.instance().quarantines().iter().any(|quarantine| quarantine.scope == scope)
            || matches!(scope, ManifestScope::Project(id) if !change.instance().has_project(id));
        if !is_as_anchored && !is_known {
            let epoch = known_epoch(app, change.instance(), scope, Some(of_manifest), anchor.as_ref());
            differing.push(QuarantineRow { scope, root, epoch, author: caller.identity.principal(), created_at: now });
        }
    }
    differing.sort_by_key(|row| row.scope);
    Ok((change, differing))
}

fn refuse_instance(differing: &[QuarantineRow]) -> Result<(), Failure> {
    let Some(instance) = differing.iter().find(|row| row.scope == ManifestScope::Instance) else { return Ok(()) };
    let name = scope_name(instance.scope);
    Err(Failure::NotNow(format!(
        "the access rows of {name} are others than the anchor says (their root is {}): restore what the anchor says, or, where you know them to be right, say \
         accept_unanchored",
        hex(&instance.root)
    )))
}

/// What differed from the anchor at the last look, and for how many looks in a row it stood as it does.
#[derive(Default)]
struct Looks {
    stood: BTreeMap<ManifestScope, Stood>,
}

struct Stood {
    epoch: i64,
    root: Vec<u8>,
    looks: u32,
}

impl Looks {
    fn note(&mut self, differing: &[QuarantineRow]) {
        let mut before = std::mem::take(&mut self.stood);
        for row in differing {
            let same = before.remove(&row.scope).filter(|stood| stood.epoch == row.epoch && stood.root == row.root);
            let looks = same.map_or(0, |stood| stood.looks) + 1;
            self.stood.insert(row.scope, Stood { epoch: row.epoch, root: row.root.clone(), looks });
        }
    }

    /// Whether all that differs does so for longer than the anchor lags.
    fn is_settled(&self) -> bool {
        self.stood.values().all(|stood| stood.looks >= STOOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_core::ProjectId;
    use time::OffsetDateTime;
    use uuid::Uuid;

    fn differing(rows: &[(u128, i64, u8)]) -> Vec<QuarantineRow> {
        let row = |(id, epoch, root): &(u128, i64, u8)| QuarantineRow {
            scope: ManifestScope::Project(ProjectId(Uuid::from_u128(*id))),
            root: vec![*root],
            epoch: *epoch,
            author: String::new(),
            created_at: OffsetDateTime::UNIX_EPOCH,
        };
        rows.iter().map(row).collect()
    }

    /// What differs at each look: id, epoch and root.
    type Differs<'a> = &'a dyn Fn(u32) -> Vec<(u128, i64, u8)>;

    /// The look at which it is known who differs.
    fn settled_at(looks: Differs<'_>) -> Option<u32> {
        let mut state = Looks::default();
        (1..=LOOKS).find(|look| {
            state.note(&differing(&looks(*look)));
            state.is_settled()
        })
    }

    #[test]
    fn only_what_stands_as_it_is_for_longer_than_the_anchor_lags_differs_from_it() {
        let cases: [(&str, Differs<'_>, Option<u32>); 8] = [
            ("nothing differs", &|_| vec![], Some(1)),
            ("the anchor follows at the third look", &|look| if look < 3 { vec![(1, 5, 5)] } else { vec![] }, Some(3)),
            ("one stands", &|_| vec![(1, 5, 5)], Some(STOOD)),
            ("one changes at each look", &|look| vec![(1, i64::from(look), 5)], None),
            ("one has other rows at each look", &|look| vec![(1, 5, u8::try_from(look).unwrap())], None),
            (
                "one stands, another changed at the look that would be the last",
                &|look| {
                    if look == STOOD { vec![(1, 5, 5), (2, 7, 7)] } else { vec![(1, 5, 5)] }
                },
                Some(STOOD + 1),
            ),
            ("one stands, others change all the time", &|look| vec![(1, 5, 5), (2, i64::from(look), 7)], None),
            ("one was anchored between", &|look| if look == 5 { vec![] } else { vec![(1, 5, 5)] }, Some(5)),
        ];
        for (what, looks, expected) in cases {
            assert_eq!(settled_at(looks), expected, "{what}");
        }
    }
}
