//! How often one process may write the Secret.
//!
//! Replicas that disagree (a clock that is weeks ahead, certificates that somebody keeps putting
//! in) would otherwise undo each other's writes as fast as the API server takes them.

use std::time::Duration;

use tokio::time::Instant;

/// Writes in a row that nothing holds back.
const FREE: u32 = 4;
/// Doublings of the pause, at most: about a minute.
const DOUBLINGS: u32 = 6;
/// Pauses of the shortest length after which one write is forgotten.
const FORGIVING: u32 = 30;

/// Lets a few writes through at once; a process that goes on writing waits, longer each time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    shortest: Duration,
    writes: u32,
    last: Option<Instant>,
}

impl Pace {
    /// For certificates that live this long: pauses begin at a second, or at a hundredth of the
    /// life where that is less.
    #[must_use]
    pub fn new(serving_life: Duration) -> Self {
        Self {
            shortest: (serving_life / 100).min(Duration::from_secs(1)),
            writes: 0,
            last: None,
        }
    }

    /// How long the next write has to wait; zero means that it may be made now.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        let (Some(last), Some(more)) = (self.last, self.writes.checked_sub(FREE)) else {
            return Duration::ZERO;
        };
        let pause = self.shortest * 2_u32.pow(more.min(DOUBLINGS));
        pause.saturating_sub(now.duration_since(last))
    }

    /// Notes that a write was made.
    pub fn wrote(&mut self, now: Instant) {
        let since = self.last.map(|last| now.duration_since(last));
        let quiet = since.unwrap_or_default().as_millis();
        let forgiving = (self.shortest * FORGIVING).as_millis().max(1);
        let forgotten = u32::try_from(quiet / forgiving).unwrap_or(u32::MAX);
        let kept = self.writes.min(FREE + DOUBLINGS).saturating_sub(forgotten);
        self.writes = kept + 1;
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes whenever it may; returns when, since the start.
    fn eager(pace: &mut Pace, start: Instant, count: usize) -> Vec<Duration> {
        let mut now = start;
        let write = || {
            now += pace.wait(now);
            pace.wrote(now);
            now.duration_since(start)
        };
        std::iter::repeat_with(write).take(count).collect()
    }

    #[test]
    fn a_few_writes_go_at_once_and_an_endless_row_slows_down() {
        let mut pace = Pace::new(Duration::from_hours(24 * 30));
        let times = eager(&mut pace, Instant::now(), 200);
        let seconds: Vec<u64> = times.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds[..9], [0, 0, 0, 0, 1, 3, 7, 15, 31]);
        let hour = seconds.iter().filter(|at| **at < 3600).count();
        assert!(hour <= 130, "{hour} writes in an hour");
    }

    #[test]
    fn who_was_quiet_may_write_at_once_again() {
        let mut pace = Pace::new(Duration::from_hours(24 * 30));
        let start = Instant::now();
        let last = start + eager(&mut pace, start, 10)[9];
        let later = last + Duration::from_mins(10);
        assert!(pace.wait(later).is_zero());
        pace.wrote(later);
        assert!(pace.wait(later).is_zero());
    }

    #[test]
    fn renewing_in_time_is_never_held_back() {
        let life = Duration::from_secs(9);
        let mut pace = Pace::new(life);
        let mut now = Instant::now();
        for _ in 0..1000 {
            assert!(pace.wait(now).is_zero());
            pace.wrote(now);
            now += life / 3;
        }
    }
}
