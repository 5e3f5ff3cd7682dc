//! When each secret was last read. It is kept in memory and written down every few seconds: a read must not cost a write of its own.
//!
//! What was read in the last period before a crash is lost, and so is what is read of more than [`MAX_KEPT`] secrets while the database is away. Nothing is
//! decided by it: it says which secrets nobody uses any more.

use crate::failure::Failure;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};
use strongroom_core::SecretId;
use strongroom_store::{Store, note_reads};
use time::OffsetDateTime;
use tokio::sync::Notify;

/// How often it is written down.
const EVERY: Duration = Duration::from_secs(10);
/// Most secrets whose reads are kept in memory: some 10 MiB.
const MAX_KEPT: usize = 100_000;
/// From so many on it is written down at once.
const EARLY: usize = MAX_KEPT / 2;
/// Most secrets of one statement.
const CHUNK: usize = 10_000;

/// The reads that are not written down yet.
#[derive(Debug, Default)]
pub struct Activity {
    reads: Mutex<HashMap<SecretId, OffsetDateTime>>,
    many: Notify,
}

impl Activity {
    /// Notes that a secret's value was released. It never waits.
    pub fn note_read(&self, secret: SecretId, at: OffsetDateTime) {
        let mut reads = self.lock();
        if reads.len() < MAX_KEPT || reads.contains_key(&secret) {
            note(&mut reads, secret, at);
        }
        if reads.len() == EARLY {
            self.many.notify_one();
        }
    }

    /// Writes down what was noted. What could not be written stays for the next time, and later reads of the same secrets count.
    ///
    /// # Errors
    /// What the database says; nothing is lost by it.
    pub async fn flush(&self, store: &Store) -> Result<(), Failure> {
        let mut taken: Vec<_> = std::mem::take(&mut *self.lock()).into_iter().collect();
        while !taken.is_empty() {
            let chunk = taken.split_off(taken.len().saturating_sub(CHUNK));
            if let Err(failure) = write(store, &chunk).await {
                let mut reads = self.lock();
                for (secret, at) in taken.into_iter().chain(chunk) {
                    if reads.len() < MAX_KEPT || reads.contains_key(&secret) {
                        note(&mut reads, secret, at);
                    }
                }
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Writes down every [`EVERY`], until the task is aborted.
    pub(crate) async fn keep_flushing(&self, store: &Store) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.many.notified() => {}
            }
            if let Err(failure) = self.flush(store).await {
                tracing::warn!(%failure, "when secrets were last read could not be written down; it is tried again");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SecretId, OffsetDateTime>> {
        self.reads.lock().expect("nothing panics while it holds this lock")
    }
}

fn note(reads: &mut HashMap<SecretId, OffsetDateTime>, secret: SecretId, at: OffsetDateTime) {
    reads.entry(secret).and_modify(|kept| *kept = at.max(*kept)).or_insert(at);
}

async fn write(store: &Store, reads: &[(SecretId, OffsetDateTime)]) -> Result<(), Failure> {
    let mut transaction = store.begin().await?;
    note_reads(transaction.connection(), reads).await?;
    Ok(transaction.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_store::Options;
    use uuid::Uuid;

    const fn id(number: u128) -> SecretId {
        SecretId(Uuid::from_u128(number))
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_later_read_counts() {
        let (activity, at) = (Activity::default(), OffsetDateTime::UNIX_EPOCH);
        for number in 0..=MAX_KEPT as u128 {
            activity.note_read(id(number), at);
        }
        activity.note_read(id(0), at + Duration::from_secs(2));
        activity.note_read(id(0), at + Duration::from_secs(1));
        let reads = activity.lock();
        assert_eq!(reads.len(), MAX_KEPT);
        assert_eq!(reads[&id(0)], at + Duration::from_secs(2));
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_kept_with_what_came_meanwhile() {
        let (activity, at) = (Activity::default(), OffsetDateTime::UNIX_EPOCH);
        activity.note_read(id(1), at);
        let store = Store::connect("postgres://nobody@localhost/none?host=/nowhere", &Options::default()).unwrap();
        activity.flush(&store).await.unwrap_err();
        activity.note_read(id(2), at);
        assert_eq!(activity.lock().len(), 2);
    }
}
