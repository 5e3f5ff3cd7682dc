//! Time as a parameter. Everything that needs "now" is given a [`Clock`].

use std::sync::Mutex;
use time::OffsetDateTime;

/// Where the time comes from. Times have microsecond precision, PostgreSQL's, so that a row's MAC is the same before it is written and after it is read.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The current time, UTC, truncated to microseconds.
    fn now(&self) -> OffsetDateTime;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        #[expect(clippy::disallowed_methods, reason = "the one place that asks the system for the time")]
        truncate(OffsetDateTime::now_utc())
    }
}

/// A clock that stands still until told otherwise; for tests.
#[derive(Debug)]
pub struct FixedClock(Mutex<OffsetDateTime>);

impl FixedClock {
    /// A clock that shows `now`.
    pub fn new(now: OffsetDateTime) -> Self {
        Self(Mutex::new(truncate(now)))
    }

    /// Moves the clock, forwards or backwards.
    pub fn advance(&self, by: time::Duration) {
        let mut now = self.0.lock().expect("no holder of this lock panics");
        *now += by;
    }
}

impl Clock for FixedClock {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock().expect("no holder of this lock panics")
    }
}

fn truncate(at: OffsetDateTime) -> OffsetDateTime {
    let micros = at.microsecond();
    at.replace_microsecond(micros).expect("a microsecond taken from a time is in range")
}
