//! When a Service whose plan failed is tried again: soon, then later, with jitter, each on its own.
//!
//! One ordered map for all; no timer per Service.

use std::collections::{BTreeSet, HashMap};

use openelb_ipam::{Millis, ServiceKey};

const FIRST: Millis = 50;
/// An API server that comes back is met within this time.
const LONGEST: Millis = 800;

/// Services to try again, by time.
#[derive(Default)]
pub(crate) struct Backoff {
    at: BTreeSet<(Millis, ServiceKey)>,
    failures: HashMap<ServiceKey, (u32, Option<Millis>)>,
}

impl Backoff {
    /// Notes a failure; returns when to try again.
    pub(crate) fn failed(&mut self, key: &ServiceKey, now: Millis, jitter: f64) {
        let (count, due) = self.failures.entry(key.clone()).or_default();
        if let Some(due) = due.take() {
            self.at.remove(&(due, key.clone()));
        }
        let longest = (FIRST << (*count).min(16)).min(LONGEST);
        *count += 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "below 2^53 and positive"
        )]
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let wait = (longest as f64 * (0.5 + jitter.clamp(0.0, 1.0) / 2.0)) as Millis;
        let due_now = now.saturating_add(wait);
        *due = Some(due_now);
        self.at.insert((due_now, key.clone()));
    }

    /// Forgets a Service that went well.
    pub(crate) fn succeeded(&mut self, key: &ServiceKey) {
        if let Some((_, Some(due))) = self.failures.remove(key) {
            self.at.remove(&(due, key.clone()));
        }
    }

    /// Whether a Service has to wait for its turn.
    pub(crate) fn holds(&self, key: &ServiceKey) -> bool {
        self.failures.get(key).is_some_and(|(_, due)| due.is_some())
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Millis> {
        self.at.first().map(|(due, _)| *due)
    }

    /// Those that are due.
    pub(crate) fn due(&mut self, now: Millis) -> Vec<ServiceKey> {
        let mut due = Vec::new();
        while self.at.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.at.pop_first() else {
                break;
            };
            if let Some((_, at)) = self.failures.get_mut(&key) {
                *at = None;
            }
            due.push(key);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound_and_success_forgets_them() {
        let key = ServiceKey::new("a", "b");
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            backoff.failed(&key, 0, 1.0);
            assert!(backoff.holds(&key));
            waits.push(backoff.next().unwrap());
            assert_eq!(backoff.due(LONGEST), std::slice::from_ref(&key));
            assert!(!backoff.holds(&key));
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 800, 800, 800]);
        backoff.failed(&key, 0, 0.0);
        backoff.succeeded(&key);
        assert_eq!(backoff.next(), None);
        backoff.failed(&key, 0, 1.0);
        assert_eq!(backoff.next(), Some(50));
    }
}
