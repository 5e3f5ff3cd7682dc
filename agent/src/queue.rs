//! What is to be read, and when: a change at once, what failed after a pause of its own, nothing at all while everything stands still.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// Groups, named by their place in the plan, that wait to be read.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<usize, Wait>,
    /// Before this nothing is due.
    held_until: Option<Instant>,
}

#[derive(Debug)]
struct Wait {
    due: Instant,
    failures: u32,
}

impl Queue {
    /// Makes these due at `now`, also where they are put off; how often they failed is not forgotten.
    pub(crate) fn add(&mut self, groups: impl IntoIterator<Item = usize>, now: Instant) {
        for index in groups {
            let wait = self.waiting.entry(index).or_insert(Wait { due: now, failures: 0 });
            wait.due = wait.due.min(now);
        }
    }

    /// This one was read, or need not be.
    pub(crate) fn done(&mut self, index: usize) {
        self.waiting.remove(&index);
    }

    /// This one failed. `pause` is given how often in a row it had failed before.
    pub(crate) fn put_off(&mut self, index: usize, now: Instant, pause: impl FnOnce(u32) -> Duration) {
        if let Some(wait) = self.waiting.get_mut(&index) {
            wait.due = now + pause(wait.failures);
            wait.failures = wait.failures.saturating_add(1);
        }
    }

    /// Nothing is due before this, nor before what was said earlier.
    pub(crate) fn hold_until(&mut self, until: Instant) {
        self.held_until = self.held_until.max(Some(until));
    }

    /// When something is due; `None` where nothing waits.
    pub(crate) fn next(&self) -> Option<Instant> {
        let due = self.waiting.values().map(|wait| wait.due).min()?;
        Some(self.held_until.map_or(due, |until| until.max(due)))
    }

    /// What is due. It stays until it is [done](Self::done) or put off.
    pub(crate) fn due(&self, now: Instant) -> BTreeSet<usize> {
        if self.held_until.is_some_and(|until| until > now) {
            return BTreeSet::new();
        }
        self.waiting.iter().filter(|(_, wait)| wait.due <= now).map(|(index, _)| *index).collect()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_that_failed_waits_while_another_is_due_at_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add([1, 2], now);
        queue.put_off(1, now, |failures| SECOND * (failures + 1));
        assert_eq!((queue.due(now), queue.next()), ([2].into(), Some(now)));
        queue.done(2);
        assert_eq!((queue.due(now), queue.next()), ([].into(), Some(now + SECOND)));
        queue.put_off(1, now, |failures| SECOND * (failures + 1));
        assert_eq!(queue.next(), Some(now + 2 * SECOND), "it waits longer each time");
        queue.add([1], now);
        assert_eq!(queue.due(now), [1].into(), "a change that is announced does not wait");
        queue.put_off(1, now, |failures| SECOND * (failures + 1));
        assert_eq!(queue.next(), Some(now + 3 * SECOND));
        queue.done(1);
        assert!(queue.is_empty() && queue.next().is_none());
    }

    #[test]
    fn nothing_is_due_while_everything_is_held() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.hold_until(now + SECOND);
        queue.add([1], now);
        assert_eq!((queue.due(now), queue.next()), ([].into(), Some(now + SECOND)));
        assert_eq!(queue.due(now + SECOND), [1].into());
    }
}
