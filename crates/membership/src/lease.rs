//! Who is alive by Leases, where node-to-node UDP is not wanted: the pure part.
//!
//! Each speaker renews one Lease of its own. Another is alive while its Lease *changes*, measured on
//! the own clock from the moment the change was seen; clocks of nodes are never compared. Reading
//! and writing Leases is the caller's work.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{Facts, Member, Members, Profile, forming::Forming};

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

/// What the Leases show at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Who is alive; settled once every Lease had time to be renewed.
    pub members: Members,
    /// Whether this node may take addresses that others lead now: it has had a settled view, in which it
    /// lives itself, for a whole duration, or is a founder with somebody who had. One whose renewals
    /// failed has been given up by the others and begins to count again when it is back.
    pub steady: bool,
}

/// Watches the Leases of all speakers.
///
/// # Who is dead
/// The Lease of a dead node stands still *while others change*. The clock that counts is therefore that
/// of the changes seen: a node is dead when some Lease (this node's own is one of them) was seen to
/// change a whole duration after its own last change. While no Lease changes at all the API server is
/// away, and nobody dies of that, whatever the phases in which the nodes renew. When the changes begin
/// again, everybody has a whole duration from then to renew.
#[derive(Debug)]
pub struct Leases {
    me: String,
    duration: Duration,
    started: Instant,
    seen: BTreeMap<String, (Renewal, Instant)>,
    /// When any Lease was last seen to change.
    latest: Instant,
    /// The first change after the last silence of all Leases.
    counted_from: Instant,
    /// Since when this node has had a settled view in which it lives itself.
    settled_at: Option<Instant>,
    forming: Forming,
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
            latest: now,
            counted_from: now,
            settled_at: None,
            forming: Forming::Unsettled,
        }
    }

    /// The Lease of a node was read or reported by a watch; nothing new is nothing learned.
    pub fn renewed(&mut self, node: &str, renewal: Renewal, now: Instant) {
        if self
            .seen
            .get(node)
            .is_none_or(|(old, _)| old.stamp != renewal.stamp)
        {
            // Healthy nodes renew several times in a duration, this one among them: half of it without
            // any change is a silence of the API server.
            if now.saturating_duration_since(self.latest) >= self.duration / 2 {
                self.counted_from = now;
            }
            self.latest = now;
            self.seen.insert(node.to_owned(), (renewal, now));
        }
    }

    /// The Lease of a node was deleted: it said goodbye.
    pub fn deleted(&mut self, node: &str) {
        self.seen.remove(node);
    }

    /// All Leases were read, and there are those of these nodes: any other one said goodbye.
    pub fn retain(&mut self, nodes: &BTreeSet<String>) {
        self.seen.retain(|node, _| nodes.contains(node));
    }

    /// This process did not run for a while: its view must settle anew before it may be acted on.
    pub const fn doubt(&mut self, now: Instant) {
        self.started = now;
    }

    /// What the Leases show now. To be asked whenever something may have changed.
    pub fn look(&mut self, now: Instant) -> LeaseView {
        // Which also says how far the company has formed.
        let steady = self.becomes_steady(now);
        LeaseView {
            members: self.members(now),
            steady,
        }
    }

    fn members(&self, now: Instant) -> Members {
        let mut members = Members {
            me: self.me.clone(),
            settled: now.saturating_duration_since(self.started) >= self.duration,
            formed: self.forming.formed(),
            ..Members::default()
        };
        let mut dead: Vec<_> = Vec::new();
        for (node, (renewal, at)) in &self.seen {
            if self.lives(*at) {
                let member = Member {
                    address: renewal.address,
                    facts: Some(renewal.facts.clone()),
                };
                members.alive.insert(node.clone(), member);
            } else {
                dead.push((at, node, renewal));
            }
        }
        // Of too many the latest are remembered.
        dead.sort_by_key(|(at, ..)| std::cmp::Reverse(**at));
        dead.truncate(Members::MAX_DEPARTED);
        members.departed = dead
            .into_iter()
            .map(|(_, node, renewal)| (node.clone(), renewal.facts.clone()))
            .collect();
        members
    }

    fn lives(&self, at: Instant) -> bool {
        let from = at.max(self.counted_from);
        self.latest.saturating_duration_since(from) < self.duration
    }

    fn becomes_steady(&mut self, now: Instant) -> bool {
        let lives = self
            .seen
            .get(&self.me)
            .is_none_or(|(_, at)| self.lives(*at));
        let settled = now.saturating_duration_since(self.started) >= self.duration;
        if lives && settled {
            self.settled_at.get_or_insert(now);
        } else {
            self.settled_at = None;
            self.forming.was_away();
        }
        let steady = self
            .settled_at
            .is_some_and(|at| now.saturating_duration_since(at) >= self.duration);
        let any_steady = steady
            || self
                .seen
                .values()
                .any(|(renewal, at)| renewal.facts.steady && self.lives(*at));
        // A renewal is everywhere long before it has run out.
        self.forming
            .observe(settled, any_steady, self.duration, now);
        steady || (lives && self.forming.founder_is_steady())
    }

    /// When [`Self::look`] may show something else without a renewal: a death shows only by the renewals
    /// of others.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        [Some(self.started), self.settled_at, self.forming.since()]
            .into_iter()
            .flatten()
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

    fn alive(leases: &mut Leases, now: Instant) -> Vec<String> {
        leases.look(now).members.alive.into_keys().collect()
    }

    #[test]
    fn a_lease_that_does_not_change_is_a_dead_node() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        for second in 0..8 {
            let now = start + Duration::from_secs(second);
            leases.renewed("a", renewal(second), now);
            leases.renewed("b", renewal(second.min(2)), now);
            assert_eq!(
                alive(&mut leases, now).len(),
                if second < 6 { 2 } else { 1 }
            );
        }
        let now = start + Duration::from_secs(7);
        assert_eq!(alive(&mut leases, now), ["a"]);
        assert!(leases.look(now).members.departed.contains_key("b"));
        assert!(leases.look(now).members.settled);
    }

    /// Nodes that renew once a second, each at its own phase; every 10 ms everybody must be alive.
    fn renew_between(
        leases: &mut Leases,
        (start, from, to): (Instant, u64, u64),
        phases: &[(&str, u64)],
    ) {
        for ms in (from..to).step_by(10) {
            let now = start + Duration::from_millis(ms);
            for (node, phase) in phases {
                if ms >= *phase && (ms - phase) % 1_000 == 0 {
                    leases.renewed(node, renewal(ms), now);
                }
            }
            let all: Vec<&str> = phases.iter().map(|(node, _)| *node).collect();
            if ms > from + 1_000 {
                assert_eq!(alive(leases, now), all, "at {ms} ms");
            }
        }
    }

    const PHASES: [(&str, u64); 3] = [("a", 900), ("b", 0), ("c", 450)];

    #[test]
    fn a_silent_api_server_kills_nobody_whatever_the_phases_of_the_renewals() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        renew_between(&mut leases, (start, 0, 10_000), &PHASES);
        for ms in (10_000..30_000).step_by(10) {
            let now = start + Duration::from_millis(ms);
            assert_eq!(alive(&mut leases, now), ["a", "b", "c"], "at {ms} ms");
            assert!(leases.deadline(now).is_none_or(|due| due > now));
        }
        assert_eq!(
            alive(&mut leases, start + Duration::from_mins(10)),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn when_the_api_server_is_back_everybody_has_time_to_renew() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        renew_between(&mut leases, (start, 0, 10_000), &PHASES);
        // The renewals after the outage are seen one by one, the last 3 s after the first.
        for (ms, node) in [(600_000, "c"), (601_500, "a"), (603_000, "b")] {
            let now = start + Duration::from_millis(ms);
            leases.renewed(node, renewal(ms), now);
            assert_eq!(alive(&mut leases, now), ["a", "b", "c"], "at {ms} ms");
        }
        renew_between(&mut leases, (start, 604_000, 620_000), &PHASES);
    }

    #[test]
    fn a_node_that_died_in_an_outage_is_missed_after_it() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        renew_between(&mut leases, (start, 0, 10_000), &PHASES);
        for ms in (600_000..610_000).step_by(500) {
            let node = if ms % 1_000 == 0 { "a" } else { "c" };
            let now = start + Duration::from_millis(ms);
            leases.renewed(node, renewal(ms), now);
            let missed = ms >= 604_000;
            assert_eq!(
                !alive(&mut leases, now).contains(&"b".to_owned()),
                missed,
                "{ms}"
            );
        }
        let now = start + Duration::from_secs(610);
        assert_eq!(alive(&mut leases, now), ["a", "c"]);
    }

    #[test]
    fn one_whose_renewals_failed_waits_until_it_is_steady_again() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        let at = |second| start + Duration::from_secs(second);
        for second in 0..10 {
            leases.renewed("a", renewal(second), at(second));
            leases.renewed("b", renewal(second), at(second));
            assert_eq!(leases.look(at(second)).steady, second >= 8, "{second}");
        }
        for second in 10..20 {
            leases.renewed("b", renewal(second), at(second));
        }
        assert_eq!(alive(&mut leases, at(19)), ["b"], "the others gave it up");
        assert!(!leases.look(at(19)).steady);
        for second in 20..30 {
            leases.renewed("a", renewal(second), at(second));
            leases.renewed("b", renewal(second), at(second));
            assert_eq!(leases.look(at(second)).steady, second >= 24, "{second}");
        }
    }

    #[test]
    fn founders_are_steady_together_and_go_before_newcomers_a_duration_later() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        for second in 0..20 {
            let now = start + Duration::from_secs(second);
            // The other was started two seconds earlier.
            let mut other = renewal(second);
            other.facts.steady = second >= 6;
            leases.renewed("b", other, now);
            let steady = leases.look(now).steady;
            assert_eq!(steady, second >= 6, "{second}");
            let mut own = renewal(second);
            own.facts.steady = steady;
            leases.renewed("a", own, now);
            let members = leases.look(now).members;
            assert_eq!(members.settled, second >= 4, "{second}");
            assert_eq!(members.settled && members.formed, second >= 10, "{second}");
        }
    }

    #[test]
    fn of_too_many_dead_the_latest_are_remembered() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        let most = u64::try_from(Members::MAX_DEPARTED).unwrap();
        for n in 0..=most {
            // Names fall while times rise.
            let node = format!("n{:04}", 9_000 - n);
            leases.renewed(&node, renewal(n), start + Duration::from_millis(n));
        }
        for second in 1..10 {
            leases.renewed("a", renewal(second), start + Duration::from_secs(second));
        }
        let departed = leases.look(start + Duration::from_secs(9)).members.departed;
        assert_eq!(departed.len(), Members::MAX_DEPARTED);
        assert!(departed.contains_key(&format!("n{:04}", 9_000 - most)));
        assert!(!departed.contains_key("n9000"), "the first that died");
    }

    #[test]
    fn a_process_that_was_paused_waits_before_it_trusts_its_view() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        leases.renewed("a", renewal(1), start);
        let later = start + Duration::from_mins(1);
        assert!(leases.look(later).members.settled);
        leases.doubt(later);
        assert!(!leases.look(later).members.settled);
        assert!(leases.look(later + DURATION).members.settled);
    }

    #[test]
    fn a_deleted_lease_is_a_goodbye_and_a_deadline_tells_when_to_look() {
        let start = Instant::now();
        let mut leases = Leases::new("a".to_owned(), DURATION, start);
        leases.renewed("b", renewal(1), start + Duration::from_secs(1));
        assert!(!leases.look(start).members.settled);
        assert_eq!(leases.deadline(start), Some(start + DURATION));
        leases.deleted("b");
        assert!(alive(&mut leases, start).is_empty());
    }
}
