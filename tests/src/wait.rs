//! Waiting for a condition, with a deadline and a message of what was seen instead.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long waiting may take. Generous on purpose: a deadline says that something never happens, not that it was slow;
/// the machine may be shared. `OPENELB_PATIENCE` (a number, default 1) multiplies all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Duration);

impl Deadline {
    /// For what takes milliseconds: one process, one write, one route.
    pub const SHORT: Self = Self(Duration::from_secs(30));
    /// For what takes seconds: a control plane, a roll-out, a session that backs off.
    pub const LONG: Self = Self(Duration::from_mins(2));

    /// A deadline of so many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The time this deadline allows on this machine.
    #[must_use]
    pub fn duration(self) -> Duration {
        let patience = std::env::var("OPENELB_PATIENCE")
            .ok()
            .and_then(|factor| factor.parse::<u32>().ok())
            .unwrap_or(1)
            .max(1);
        self.0.saturating_mul(patience)
    }
}

/// Asks `probe` again and again until it says `Ok`, and returns that. What it says instead should tell what was seen:
/// the last of it is in the error.
///
/// # Errors
/// The deadline passed; the error names `what` was waited for and what was seen last.
pub async fn eventually<T, E: Display>(
    what: &str,
    deadline: Deadline,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    let began = Instant::now();
    let allowed = deadline.duration();
    let mut pause = Duration::from_millis(2);
    let mut seen = String::from("nothing: the first look did not end");
    loop {
        let left = allowed.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(instead)) => seen = format!("{instead:#}"),
            Err(_) => {}
        }
        if began.elapsed() >= allowed {
            bail!("waited {allowed:?} for {what}; last seen: {seen}");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_what_the_probe_found_at_last() {
        let mut looks = 0;
        let found = eventually("the third look", Deadline::SHORT, async || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                Err("too early")
            }
        })
        .await;
        assert_eq!(found.unwrap(), 3);
    }

    #[tokio::test]
    async fn tells_what_was_seen_when_time_is_up() {
        let outcome = eventually("a miracle", Deadline::seconds(0), async || {
            Err::<(), _>("rain")
        })
        .await;
        let message = outcome.unwrap_err().to_string();
        assert!(
            message.contains("a miracle") && message.contains("rain"),
            "{message}"
        );
    }
}
