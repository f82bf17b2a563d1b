//! How long to wait until the next attempt to connect.

use std::time::Duration;

/// Shortest wait, after a session that held or as the first retry.
const FIRST: Duration = Duration::from_millis(250);
/// A session that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(10);

/// Waits double from a quarter of a second to the configured longest one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The wait after another failure. `jitter` (0 to 1) spreads it over its
    /// upper quarter, so that many speakers do not knock in step.
    pub(crate) fn failed(&mut self, longest: Duration, jitter: f64) -> Duration {
        let wait = FIRST
            .saturating_mul(1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX))
            .min(longest.max(FIRST));
        self.attempts = self.attempts.saturating_add(1);
        wait.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
    }

    /// A session ended after this long.
    pub(crate) fn ended(&mut self, lasted: Duration) {
        if lasted >= GOOD {
            self.attempts = 0;
        }
    }

    /// Something says that the peer is there.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_a_good_session() {
        let longest = Duration::from_secs(5);
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..7)
            .map(|_| backoff.failed(longest, 0.0).as_millis())
            .collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        backoff.ended(Duration::from_secs(1));
        assert_eq!(backoff.failed(longest, 0.0), longest);
        backoff.ended(Duration::from_mins(1));
        assert_eq!(backoff.failed(longest, 0.0).as_millis(), 250);
    }

    #[test]
    fn jitter_only_shortens_and_no_count_of_failures_overflows() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            let longest = Duration::from_mins(2);
            let wait = backoff.failed(longest, 1.0);
            assert!(wait <= longest && wait >= FIRST.mul_f64(0.75));
        }
    }
}
