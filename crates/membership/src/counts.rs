//! What a membership counts, for metrics.

use std::time::Duration;

/// Counts what happened, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams that were not sealed with our key or were damaged.
    pub refused: u64,
    /// Datagrams seen before.
    pub replayed: u64,
    /// Members that were declared dead here.
    pub deaths: u64,
    /// How often the others took this node for dead while it lived.
    pub resurrections: u64,
    /// How often the process was found to have been paused.
    pub pauses: u64,
    /// How long dead members had been silent when they were declared dead.
    pub detection: Detection,
}

/// A histogram of the times from a member's last word to its being declared dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detection {
    /// How many took at most [`Detection::BOUNDS`] and longer than the bound before; then the rest.
    pub counts: [u64; Detection::BOUNDS.len() + 1],
    /// The sum of all.
    pub sum: Duration,
}

impl Detection {
    /// Upper bounds of the buckets.
    pub const BOUNDS: [Duration; 9] = [
        Duration::from_millis(100),
        Duration::from_millis(200),
        Duration::from_millis(300),
        Duration::from_millis(400),
        Duration::from_millis(500),
        Duration::from_millis(700),
        Duration::from_secs(1),
        Duration::from_secs(3),
        Duration::from_secs(10),
    ];

    pub(crate) fn add(&mut self, took: Duration) {
        let bucket = Self::BOUNDS
            .iter()
            .take_while(|bound| took > **bound)
            .count();
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let mut detection = Detection::default();
        for ms in [1, 100, 101, 650, 60_000] {
            detection.add(Duration::from_millis(ms));
        }
        assert_eq!(detection.counts, [2, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(detection.sum, Duration::from_millis(60_852));
    }
}
