//! What was loaded of projects, for as long as it is used: a server must not hold the keys of every project that anybody ever asked for. How new it was is
//! remembered for good, so that an older manifest is not taken for the first one.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use strongroom_core::ProjectId;

/// Most projects that are kept: memory and keys are bounded whatever is listed. Where more are in use, the one unused for longest is loaded anew, which costs some
/// ten small queries.
const MOST: usize = 4_096;
/// How long a project is kept that nobody asks for: agents look once a minute, and come again after a restart of a few.
const UNUSED: Duration = Duration::from_mins(10);

#[derive(Debug)]
pub(super) struct Recent<V> {
    since: Instant,
    kept: HashMap<ProjectId, Kept<V>>,
    /// The highest epoch that was kept, which never goes back.
    seen: HashMap<ProjectId, i64>,
}

#[derive(Debug)]
struct Kept<V> {
    value: V,
    /// In milliseconds from the beginning. It changes while others read.
    used: AtomicU64,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { since: Instant::now(), kept: HashMap::new(), seen: HashMap::new() }
    }
}

impl<V: Clone> Recent<V> {
    /// What is kept of a project, which is used now.
    pub(super) fn find(&self, project: ProjectId, now: Instant) -> Option<V> {
        let kept = self.kept.get(&project)?;
        kept.used.fetch_max(self.at(now), Ordering::Relaxed);
        Some(kept.value.clone())
    }

    /// Everything that is kept, without using it.
    pub(super) fn all(&self) -> Vec<V> {
        self.kept.values().map(|kept| kept.value.clone()).collect()
    }

    /// Whether something newer than this was kept once.
    pub(super) fn has_seen_newer(&self, project: ProjectId, than: i64) -> bool {
        self.seen.get(&project).is_some_and(|seen| than < *seen)
    }

    /// The highest epoch that was kept.
    pub(super) fn seen(&self, project: ProjectId) -> Option<i64> {
        self.seen.get(&project).copied()
    }

    /// Keeps the newer of what was seen and this.
    pub(super) fn keep(&mut self, project: ProjectId, epoch: i64, value: V, now: Instant) {
        if self.has_seen_newer(project, epoch) {
            return;
        }
        self.seen.insert(project, epoch);
        self.kept.insert(project, Kept { value, used: AtomicU64::new(self.at(now)) });
        if self.kept.len() > MOST {
            let used = |kept: &Kept<V>| kept.used.load(Ordering::Relaxed);
            let others = self.kept.iter().filter(|(id, _)| **id != project);
            let oldest = others.min_by_key(|(_, kept)| used(kept)).map(|(id, _)| *id);
            oldest.map(|id| self.kept.remove(&id));
        }
    }

    /// Lets go of what nobody asked for; the keys are wiped with it.
    pub(super) fn forget_unused(&mut self, now: Instant) {
        let unused = u64::try_from(UNUSED.as_millis()).expect("minutes are few milliseconds");
        let now = self.at(now);
        self.kept.retain(|_, kept| now.saturating_sub(kept.used.load(Ordering::Relaxed)) < unused);
    }

    /// Lets go of projects that are gone for good, and of what is not true any more of those that are there.
    pub(super) fn retain(&mut self, is_there: impl Fn(ProjectId) -> bool, holds: impl Fn(&V) -> bool) {
        self.kept.retain(|id, kept| is_there(*id) && holds(&kept.value));
        self.seen.retain(|id, _| is_there(*id));
    }

    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use uuid::Uuid;

    fn id(number: usize) -> ProjectId {
        ProjectId(Uuid::from_u128(number as u128))
    }

    #[test]
    fn what_nobody_asks_for_is_let_go_and_an_older_one_is_still_known_as_older() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let (used, unused) = (Arc::new(1), Arc::new(2));
        recent.keep(id(1), 5, used, start);
        recent.keep(id(2), 5, unused.clone(), start);
        let later = start + Duration::from_mins(9);
        assert!(recent.find(id(1), later).is_some());
        recent.forget_unused(start + UNUSED);
        assert!(recent.find(id(1), start + UNUSED).is_some());
        assert!(recent.find(id(2), start + UNUSED).is_none());
        assert_eq!(Arc::strong_count(&unused), 1, "it is dropped, and its keys with it");
        for (older, expected) in [(4, true), (5, false), (6, false)] {
            assert_eq!(recent.has_seen_newer(id(2), older), expected, "{older:?}");
        }
        recent.keep(id(2), 4, Arc::new(3), later);
        assert!(recent.find(id(2), later).is_none(), "an older one is not kept");
        recent.retain(|project| project != id(2), |_| true);
        assert!(!recent.has_seen_newer(id(2), 1));
    }

    #[test]
    fn of_too_many_the_one_unused_for_longest_goes() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        for number in 0..MOST {
            recent.keep(id(number), 1, number, start);
        }
        let later = start + Duration::from_secs(1);
        for number in (0..MOST).filter(|number| *number != 7) {
            assert_eq!(recent.find(id(number), later), Some(number));
        }
        recent.keep(id(MOST), 1, MOST, later);
        assert_eq!(recent.kept.len(), MOST);
        assert_eq!((recent.find(id(7), later), recent.find(id(MOST), later)), (None, Some(MOST)));
    }
}
