//! Trying again: exponential back-off with full jitter, so that a thousand clients of a server that comes back do not come at once.

use crate::Error;
use std::time::Duration;

/// How the waits between tries grow. The wait before try `n` is random between nothing and `min(cap, base · 2ⁿ)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait.
    pub base: Duration,
    /// The bound of every wait.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after failed try number `attempt` (from 0), for a random number `random` in `[0, 1)`.
    pub fn delay(self, attempt: u32, random: f64) -> Duration {
        let bound = self.base.saturating_mul(2u32.saturating_pow(attempt)).min(self.cap);
        bound.mul_f64(random.clamp(0.0, 1.0))
    }
}

impl Default for Backoff {
    /// 100 ms, doubling up to 10 s.
    fn default() -> Self {
        Self { base: Duration::from_millis(100), cap: Duration::from_secs(10) }
    }
}

/// Makes a call up to `tries` times while its error [is retryable](Error::is_retryable), with waits in between; a server's `retry-after` is
/// waited for too, up to the back-off's cap. For idempotent calls only: reads, lists, deletes, and puts with a precondition.
pub async fn retry<T>(
    backoff: Backoff,
    tries: u32,
    mut call: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut attempt = 0;
    loop {
        match call().await {
            Err(error) if error.is_retryable() && attempt + 1 < tries => {
                let asked = error.retry_after().unwrap_or_default().min(backoff.cap);
                tokio::time::sleep(asked + backoff.delay(attempt, fastrand::f64())).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn waits_double_up_to_the_cap_and_are_spread_over_their_whole_range() {
        let backoff = Backoff::default();
        let bounds: Vec<_> = (0..9).map(|attempt| backoff.delay(attempt, 1.0).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(backoff.delay(u32::MAX, 0.5), Duration::from_secs(5));
        assert_eq!(backoff.delay(3, 0.0), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_and_what_cannot_is_not() {
        for (kind, expected) in [(ErrorKind::Unavailable, 4), (ErrorKind::Forbidden, 1)] {
            let mut calls = 0;
            let result: Result<(), _> = retry(Backoff::default(), 4, async || {
                calls += 1;
                Err(Error::new(kind, "no"))
            })
            .await;
            assert_eq!((result.unwrap_err().kind(), calls), (kind, expected));
        }
    }
}
