//! Who is alive by Leases, where node-to-node UDP is not wanted: the pure part.
//!
//! Each speaker renews one Lease of its own. Another is alive while its Lease *changes*, measured on
//! the own clock from the moment the change was seen; clocks of nodes are never compared. Reading
//! and writing Leases is the caller's work.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{Facts, Member, Members, Profile};

/// How often Leases are renewed and how long they last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTiming {
    /// Each speaker renews its own this often.
    pub renew: Duration,
    /// One that did not change for so long is that of a dead node.
    pub duration: Duration,
}

impl Profile {
    /// The timing of Leases: a death is noticed after `duration` and at most `renew` more.
    #[must_use]
    pub const fn lease_timing(self) -> LeaseTiming {
        let (renew, duration) = match self {
            Self::Fast => (500, 2_000),
            Self::Default => (1_000, 4_000),
            Self::Calm => (3_000, 15_000),
        };
        LeaseTiming {
            renew: Duration::from_millis(renew),
            duration: Duration::from_millis(duration),
        }
    }
}

/// What one node's Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Anything that differs after each renewal, such as the object's resourceVersion.
    pub stamp: String,
    /// The node's address, for display.
    pub address: SocketAddr,
    /// What the node says about itself (kept in the Lease's annotations).
    pub facts: Facts,
}

/// Watches the Leases of all speakers.
#[derive(Debug)]
pub struct Leases {
    me: String,
    duration: Duration,
    started: Instant,
    seen: BTreeMap<String, (Renewal, Instant)>,
}

impl Leases {
    /// A node counts as dead when its Lease was not seen to change for `duration`.
    #[must_use]
    pub const fn new(me: String, duration: Duration, now: Instant) -> Self {
        Self {
            me,
            duration,
            started: now,
            seen: BTreeMap::new(),
        }
    }

    /// The Lease of a node was read or reported by a watch; nothing new is nothing learned.
    pub fn renewed(&mut self, node: &str, renewal: Renewal, now: Instant) {
        if self
            .seen
            .get(node)
            .is_none_or(|(old, _)| old.stamp != renewal.stamp)
        {
            self.seen.insert(node.to_owned(), (renewal, now));
        }
    }

    /// The Lease of a node was deleted: it said goodbye.
    pub fn deleted(&mut self, node: &str) {
        self.seen.remove(node);
    }

    /// This process did not run for a while: its view must settle anew before it may be acted on.
    pub const fn doubt(&mut self, now: Instant) {
        self.started = now;
    }

    /// Who is alive. The view is settled once every Lease had time to be renewed.
    ///
    /// If no Lease of another node changed for a whole duration while this node's own did not
    /// either, it is the API server that is silent: nobody is declared dead on that evidence.
    #[must_use]
    pub fn members(&self, now: Instant) -> Members {
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < self.duration;
        let blind = !self.seen.values().any(|(_, at)| fresh(at));
        let mut members = Members {
            me: self.me.clone(),
            settled: now.saturating_duration_since(self.started) >= self.duration,
            ..Members::default()
        };
        for (node, (renewal, at)) in &self.seen {
            if blind || fresh(at) {
                let member = Member {
                    address: renewal.address,
                    facts: Some(renewal.facts.clone()),
                };
                members.alive.insert(node.clone(), member);
            } else if members.departed.len() < Members::MAX_DEPARTED {
                members.departed.insert(node.clone(), renewal.facts.clone());
            }
        }
        members
    }

    /// When [`Self::members`] may differ next without a renewal.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.seen
            .values()
            .map(|(_, at)| *at)
            .chain([self.started])
            .map(|at| at + self.duration)
            .filter(|due| *due > now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(4);

    fn renewal(stamp: u64) -> Renewal {
        Renewal {
            stamp: stamp.to_string(),
            address: SocketAddr::from(([192, 0, 2, 1], 0)),
            facts: Facts {
                steady: true,
                ..Facts::default()
            },
        }
    }

    fn alive(leases: &Leases, now: Instant) -> Vec<String> {
        leases.members(now).alive.into_keys().collect()
    }

    #[test]
    fn a_lease_that_does_not_change_is_a_dead_node() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        for second in 0..8 {
            let now = start + Duration::from_secs(second);
            leases.renewed("a", renewal(second), now);
            leases.renewed("b", renewal(second.min(2)), now);
        }
        assert_eq!(alive(&leases, start + Duration::from_secs(5)), ["a", "b"]);
        let now = start + Duration::from_secs(7);
        assert_eq!(alive(&leases, now), ["a"]);
        assert!(leases.members(now).departed.contains_key("b"));
        assert!(leases.members(now).settled);
    }

    #[test]
    fn a_silent_api_server_kills_nobody() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        leases.renewed("a", renewal(1), start);
        leases.renewed("b", renewal(1), start);
        assert_eq!(alive(&leases, start + Duration::from_mins(10)), ["a", "b"]);
    }

    #[test]
    fn a_process_that_was_paused_waits_before_it_trusts_its_view() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        leases.renewed("a", renewal(1), start);
        let later = start + Duration::from_mins(1);
        assert!(leases.members(later).settled);
        leases.doubt(later);
        assert!(!leases.members(later).settled);
        assert!(leases.members(later + DURATION).settled);
    }

    #[test]
    fn a_deleted_lease_is_a_goodbye_and_a_deadline_tells_when_to_look() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        leases.renewed("b", renewal(1), start + Duration::from_secs(1));
        assert!(!leases.members(start).settled);
        assert_eq!(leases.deadline(start), Some(start + DURATION));
        leases.deleted("b");
        assert!(alive(&leases, start).is_empty());
    }
}
