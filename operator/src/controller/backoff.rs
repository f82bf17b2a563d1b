//! When a Service whose plan failed is tried again: soon, then later, with jitter, each on its own.
//!
//! One ordered map for all; no timer per Service. A Service comes back at the rank it had: a conflict does
//! not put what a user just did behind the repair of ten thousand others.

use std::collections::{BTreeSet, HashMap};

use openelb_ipam::{Millis, ServiceKey};

use super::queue::Rank;

const FIRST: Millis = 50;
/// An API server that comes back is met within this time.
const LONGEST: Millis = 800;
/// What it refuses for good is tried again this seldom, unless the Service changes.
const LONGEST_REFUSED: Millis = 60_000;

/// Why a plan was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Something changed under it, or a request's end is not known.
    Passing,
    /// The API server refuses: a missing right, an admission webhook.
    Refused,
}

struct Failing {
    count: u32,
    due: Option<Millis>,
    rank: Rank,
    refused: bool,
}

/// Services to try again, by time.
#[derive(Default)]
pub(crate) struct Backoff {
    at: BTreeSet<(Millis, ServiceKey)>,
    failing: HashMap<ServiceKey, Failing>,
}

impl Backoff {
    /// Notes a failure at this rank. True where it is the first refusal in a row, which is worth telling.
    pub(crate) fn failed(
        &mut self,
        key: &ServiceKey,
        rank: Rank,
        why: Why,
        now: Millis,
        jitter: f64,
    ) -> bool {
        let refused = why == Why::Refused;
        let failing = self.failing.entry(key.clone()).or_insert(Failing {
            count: 0,
            due: None,
            rank,
            refused: false,
        });
        if let Some(due) = failing.due.take() {
            self.at.remove(&(due, key.clone()));
        }
        let bound = if refused { LONGEST_REFUSED } else { LONGEST };
        let longest = (FIRST << failing.count.min(16)).min(bound);
        failing.count += 1;
        failing.rank = rank;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "below 2^53 and positive"
        )]
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let wait = (longest as f64 * (0.5 + jitter.clamp(0.0, 1.0) / 2.0)) as Millis;
        let due = now.saturating_add(wait);
        failing.due = Some(due);
        self.at.insert((due, key.clone()));
        refused && !std::mem::replace(&mut failing.refused, refused)
    }

    /// Forgets a Service that went well.
    pub(crate) fn succeeded(&mut self, key: &ServiceKey) {
        if let Some(due) = self.failing.remove(key).and_then(|failing| failing.due) {
            self.at.remove(&(due, key.clone()));
        }
    }

    /// A Service changed: what was refused may be granted now, so it does not wait for long.
    pub(crate) fn changed(&mut self, key: &ServiceKey, now: Millis) {
        let soon = now.saturating_add(LONGEST);
        let Some(failing) = self.failing.get_mut(key) else {
            return;
        };
        if let Some(due) = failing.due.filter(|due| *due > soon) {
            self.at.remove(&(due, key.clone()));
            failing.due = None;
            failing.count = 0;
        }
    }

    /// Whether a Service has to wait for its turn; if so, it will then come at this rank or a better one.
    pub(crate) fn holds(&mut self, key: &ServiceKey, rank: Rank) -> bool {
        let Some(failing) = self
            .failing
            .get_mut(key)
            .filter(|failing| failing.due.is_some())
        else {
            return false;
        };
        failing.rank = failing.rank.min(rank);
        true
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Millis> {
        self.at.first().map(|(due, _)| *due)
    }

    /// Those that are due, each with its rank.
    pub(crate) fn due(&mut self, now: Millis) -> Vec<(ServiceKey, Rank)> {
        let mut due = Vec::new();
        while self.at.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.at.pop_first() else {
                break;
            };
            let mut rank = Rank::Repair;
            if let Some(failing) = self.failing.get_mut(&key) {
                failing.due = None;
                rank = failing.rank;
            }
            due.push((key, rank));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(why: Why, rounds: usize) -> Vec<Millis> {
        let key = ServiceKey::new("a", "b");
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..rounds {
            backoff.failed(&key, Rank::User, why, 0, 1.0);
            assert!(backoff.holds(&key, Rank::Repair));
            waits.push(backoff.next().unwrap());
            assert_eq!(
                backoff.due(LONGEST_REFUSED),
                [(key.clone(), Rank::User)],
                "it comes back at its rank"
            );
            assert!(!backoff.holds(&key, Rank::Repair));
        }
        waits
    }

    #[test]
    fn waits_grow_up_to_a_bound_and_success_forgets_them() {
        let passing = waits(Why::Passing, 8);
        assert_eq!(passing, [50, 100, 200, 400, 800, 800, 800, 800]);
        let key = ServiceKey::new("a", "b");
        let mut backoff = Backoff::default();
        for _ in 0..3 {
            backoff.failed(&key, Rank::User, Why::Passing, 0, 0.0);
        }
        backoff.succeeded(&key);
        assert_eq!(backoff.next(), None);
        backoff.failed(&key, Rank::User, Why::Passing, 0, 1.0);
        assert_eq!(backoff.next(), Some(50));
    }

    #[test]
    fn what_is_refused_for_good_is_tried_seldom_and_told_once() {
        let refused = waits(Why::Refused, 14);
        assert_eq!(refused[..4], [50, 100, 200, 400]);
        assert_eq!(refused[12..], [60_000, 60_000]);
        let key = ServiceKey::new("a", "b");
        let mut backoff = Backoff::default();
        let mut told = |why| backoff.failed(&key, Rank::User, why, 0, 1.0);
        assert_eq!(
            [told(Why::Passing), told(Why::Refused), told(Why::Refused)],
            [false, true, false]
        );
    }

    #[test]
    fn a_change_is_tried_at_once_where_the_wait_had_grown_long() {
        let key = ServiceKey::new("a", "b");
        let mut backoff = Backoff::default();
        backoff.failed(&key, Rank::User, Why::Passing, 0, 1.0);
        backoff.changed(&key, 0);
        assert!(backoff.holds(&key, Rank::User), "a short wait is waited");
        for _ in 0..12 {
            backoff.failed(&key, Rank::User, Why::Refused, 0, 1.0);
        }
        backoff.changed(&key, 0);
        assert!(!backoff.holds(&key, Rank::User));
        assert_eq!(backoff.next(), None);
    }

    #[test]
    fn who_asks_again_while_it_waits_comes_back_at_the_better_rank() {
        let key = ServiceKey::new("a", "b");
        let mut backoff = Backoff::default();
        backoff.failed(&key, Rank::Repair, Why::Passing, 0, 1.0);
        assert!(backoff.holds(&key, Rank::User));
        assert_eq!(backoff.due(LONGEST), [(key, Rank::User)]);
    }
}
