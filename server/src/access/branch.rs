//! Branches: what an instance's history splits into when its database is set back.
//!
//! Of two epochs the higher one is newer only where one state came of the other. Once a database was set back on purpose, what was left behind has the higher
//! epochs: whoever kept its rows could put them back, and they would look newer. So an epoch says in its upper bits which branch it is of. Whoever takes a
//! database that was set back begins a branch; a server that runs takes no other one than it knows, and a start takes none that its anchor does not know, but on
//! an operator's word.

use crate::failure::Failure;
use strongroom_crypto::Keyring;
use strongroom_store::{Connection, ManifestRow, ManifestScope, manifests, update_manifest};
use time::OffsetDateTime;

/// The lower bits of an epoch count the changes of a scope in its branch.
const COUNTER: u32 = 32;
/// The second from which branches are numbered: 2026-01-01. Two restores of one backup are two branches.
const FIRST: i64 = 1_767_225_600;

/// The highest epoch of a branch that a manifest is believed which nobody vouches for: no scope changes so often, and whoever makes one up leaves room to go on in.
const BELIEVED: i64 = 1 << (COUNTER - 1);
/// How far beyond all that is known of a scope it goes on once an operator vouched for it: another server may have seen more of it, and each change counts one.
const BEYOND: i64 = 1 << 20;

/// The branch of an epoch; 0 where the database was never set back.
pub(crate) fn of(epoch: i64) -> i64 {
    epoch >> COUNTER
}

/// The first epoch of a new scope in the branch of this epoch.
pub(crate) fn first_beside(epoch: i64) -> i64 {
    (of(epoch) << COUNTER) + 1
}

/// As much of an epoch as is believed of a manifest that is not authentic.
pub(crate) fn claimed(epoch: i64) -> i64 {
    epoch.min((of(epoch) << COUNTER) + BELIEVED)
}

/// The highest of what is known, as far as it is of the branch of this epoch: what was left behind with another one counts for nothing.
pub(crate) fn highest_beside(epoch: i64, known: impl IntoIterator<Item = i64>) -> i64 {
    known.into_iter().filter(|known| of(*known) == of(epoch)).fold(first_beside(epoch), i64::max)
}

/// The epoch from which a scope goes on whose rows were put back as they stood before this one, so that nobody takes it for older than what he has seen. `None`
/// where the branch ends before.
pub(crate) fn beyond(epoch: i64) -> Option<i64> {
    epoch.checked_add(BEYOND).filter(|next| of(*next) == of(epoch))
}

/// Begins a branch, beyond this epoch and every one that stands: writes each manifest anew, over the same rows. Answers what it wrote. A project's manifest that
/// is not authentic stays what it is: of no branch that anybody takes.
///
/// # Errors
/// [`Failure::Integrity`] for the instance's manifest where that is not authentic.
pub(crate) async fn begin(
    keyring: &Keyring,
    connection: &mut Connection,
    beyond: i64,
    now: OffsetDateTime,
) -> Result<Vec<ManifestRow>, Failure> {
    let mut standing = Vec::new();
    for row in manifests(connection).await? {
        let generation = row.generation();
        let scope = row.claimed(|row| row.scope);
        match keyring.verify_row(row) {
            Ok(row) => standing.push((row.into_inner(), generation)),
            Err(tampered) if scope == ManifestScope::Instance => return Err(Failure::Integrity(tampered.to_string())),
            Err(_) => {}
        }
    }
    let highest = standing.iter().map(|(row, _)| row.epoch).fold(beyond, i64::max);
    let epoch = first_after(highest, now)
        .ok_or_else(|| Failure::Internal(anyhow::anyhow!("there is no branch beyond the epoch {highest}")))?;
    let mut begun = Vec::with_capacity(standing.len());
    for (row, generation) in standing {
        let before = row.epoch;
        let row = ManifestRow { epoch, ..row };
        // By the same generation: a rotation finds by it which scopes are still to be authenticated anew.
        let maced = keyring.mac_row_by(generation, row.clone()).expect("it was just verified by this generation");
        update_manifest(connection, before, &maced).await?;
        begun.push(row);
    }
    Ok(begun)
}

/// The first epoch of the next branch.
fn first_after(epoch: i64, now: OffsetDateTime) -> Option<i64> {
    let branch = (of(epoch) + 1).max(now.unix_timestamp() - FIRST);
    branch.checked_mul(1 << COUNTER)?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;

    #[test]
    fn a_branch_is_beyond_every_epoch_of_before_and_no_two_restores_have_the_same() {
        let now = OffsetDateTime::from_unix_timestamp(FIRST).unwrap() + Duration::days(300);
        let (early, late) = (OffsetDateTime::UNIX_EPOCH, now + Duration::seconds(1));
        for epoch in [0, 1, 7, i64::from(u32::MAX), first_after(9, now).unwrap(), first_after(9, late).unwrap() + 40] {
            for now in [early, now, late] {
                let next = first_after(epoch, now).unwrap();
                assert!(next > epoch && of(next) > of(epoch), "{epoch} at {now}");
                assert_eq!((first_beside(next), of(next + 1_000_000)), (next, of(next)));
            }
        }
        let [one, two] = [now, late].map(|now| of(first_after(7, now).unwrap()));
        assert_ne!(one, two, "of one backup");
        assert_eq!(first_after(i64::MAX, now), None);
    }

    #[test]
    fn what_is_confirmed_goes_on_beyond_all_that_is_known_of_its_branch_and_within_it() {
        let branch = 9 << COUNTER;
        let last = branch + (1 << COUNTER) - 1;
        let cases: [(&[i64], Option<i64>); 5] = [
            (&[], Some(branch + 1 + BEYOND)),
            (&[branch + 7, branch + 40, branch + 8], Some(branch + 40 + BEYOND)),
            (&[7, last + 1, -1], Some(branch + 1 + BEYOND)),
            (&[branch + 7, claimed(last)], Some(branch + BELIEVED + BEYOND)),
            (&[last], None),
        ];
        for (known, expected) in cases {
            assert_eq!(beyond(highest_beside(branch + 3, known.iter().copied())), expected, "{known:?}");
        }
        assert_eq!(claimed(branch + 7), branch + 7);
    }
}
