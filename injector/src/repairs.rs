//! How often `caBundle` is set. Whoever else sets it, without end, must not get an endless fight: each repair waits longer than the one before.

use time::{Duration, OffsetDateTime};

/// After so long without a repair, the next one is taken for the first again.
const CALM: Duration = Duration::minutes(10);
/// The longest pause before a repair.
const LONGEST: Duration = Duration::minutes(1);

/// The repairs of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Repairs {
    last: Option<OffsetDateTime>,
    /// How many there were with less than [`CALM`] in between.
    in_a_row: u32,
}

impl Repairs {
    /// How long the next repair has to wait; zero for one that may be made.
    pub(crate) fn pause(self, now: OffsetDateTime) -> Duration {
        match self.since_last(now) {
            Some(since) => {
                (Duration::seconds(1 << (self.in_a_row - 1).min(6)).min(LONGEST) - since).max(Duration::ZERO)
            }
            None => Duration::ZERO,
        }
    }

    /// One was made; how many there have been in a row.
    pub(crate) fn made(&mut self, now: OffsetDateTime) -> u32 {
        self.in_a_row = if self.since_last(now).is_some() { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = Some(now);
        self.in_a_row
    }

    /// `None` where that does not matter: long ago, never, or after a clock that was turned back.
    fn since_last(self, now: OffsetDateTime) -> Option<Duration> {
        let since = now - self.last?;
        (Duration::ZERO..CALM).contains(&since).then_some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repair_is_made_at_once_and_each_next_one_waits_longer() {
        let mut now = OffsetDateTime::UNIX_EPOCH;
        let mut repairs = Repairs::default();
        let mut pauses = Vec::new();
        for nth in 1..=9 {
            let pause = repairs.pause(now);
            pauses.push(pause.whole_seconds());
            now += pause;
            assert_eq!(repairs.pause(now), Duration::ZERO);
            assert_eq!(repairs.made(now), nth);
        }
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn after_a_calm_time_or_with_a_clock_turned_back_a_repair_is_the_first_again() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let mut repairs = Repairs::default();
        for _ in 0..5 {
            repairs.made(now);
        }
        for later in [now + CALM, now - Duration::seconds(1)] {
            assert_eq!(repairs.pause(later), Duration::ZERO);
            assert_eq!(Repairs::made(&mut repairs.clone(), later), 1);
        }
    }
}
