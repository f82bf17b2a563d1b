//! What a node thinks of itself: whether its view may be acted on, and whether it is steady. Pure.
//!
//! *Settled* is a view that had time to become complete; until then nothing new is taken. *Steady*
//! is a node that has been settled for a while; until then others that are steady go before it. Both
//! are lost by a pause of the process and by having been cut off from everybody. Steadiness alone is
//! lost when the others took the node for dead because it was absent, however short that was: its
//! addresses have moved, and moving them back at once would be a second change for the clients.

use std::time::{Duration, Instant};

/// With seeds but nobody met, the node acts alone after this.
const ALONE_AFTER: Duration = Duration::from_secs(2);
/// With nobody to meet, it acts after this.
const NOBODY_AFTER: Duration = Duration::from_millis(300);
/// A met member's facts are waited for at most this long, …
const FACTS_WITHIN: Duration = Duration::from_secs(1);
/// … and so long at least, so that more than the first one can be met.
const MEET: Duration = Duration::from_millis(200);

/// Whom the node knows now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Company {
    /// There are members besides this node.
    pub(crate) any: bool,
    /// The facts of all of them are known.
    pub(crate) all_known: bool,
    /// There are addresses at which others might be met.
    pub(crate) expected: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Since when it waits to be settled; `None` once it is.
    unsettled: Option<Instant>,
    met_at: Option<Instant>,
    /// All members were lost, and none of them has told yet what it thinks of us.
    isolated: bool,
    /// Since when steadiness is counted.
    counted_from: Option<Instant>,
}

impl Standing {
    /// A node that has just started.
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            unsettled: Some(now),
            met_at: None,
            isolated: false,
            counted_from: None,
        }
    }

    /// Whether the view may be acted on.
    pub(crate) const fn settled(&self) -> bool {
        self.unsettled.is_none()
    }

    /// Whether the node has been settled for this long.
    pub(crate) fn steady(&self, after: Duration, now: Instant) -> bool {
        self.counted_from
            .is_some_and(|at| now.saturating_duration_since(at) >= after)
    }

    /// The process did not run for a while: nothing that it believed counts any more.
    pub(crate) const fn paused(&mut self, now: Instant) {
        self.unsettled = Some(now);
        self.met_at = None;
        self.counted_from = None;
    }

    /// The last member was lost.
    pub(crate) const fn isolated(&mut self) {
        self.isolated = true;
    }

    /// The others took this node for dead, and have gone on without it. It was `absent` if that was
    /// its own delay and no quarrel in which each side takes the other for dead.
    pub(crate) fn resurrected(&mut self, absent: bool, now: Instant) {
        if std::mem::take(&mut self.isolated) {
            self.paused(now);
        } else if absent && self.counted_from.is_some() {
            self.counted_from = Some(now);
        }
    }

    /// Judges whether the view is complete enough by now.
    pub(crate) fn judge(&mut self, company: Company, now: Instant) {
        let Some(since) = self.unsettled else { return };
        let waited = now.saturating_duration_since(since);
        if company.any && self.met_at.is_none() {
            self.met_at = Some(now);
        }
        let settled = match self.met_at.map(|at| now.saturating_duration_since(at)) {
            Some(met) if company.any => met >= FACTS_WITHIN || (company.all_known && met >= MEET),
            _ if company.expected => waited >= ALONE_AFTER,
            _ => waited >= NOBODY_AFTER,
        };
        if settled {
            self.unsettled = None;
            self.isolated = false;
            self.counted_from = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEADY: Duration = Duration::from_secs(3);
    const MET: Company = Company {
        any: true,
        all_known: true,
        expected: true,
    };

    fn steady(now: Instant) -> Standing {
        let mut standing = Standing::new(now);
        standing.judge(MET, now);
        standing.judge(MET, now + MEET);
        assert!(standing.settled() && !standing.steady(STEADY, now + MEET));
        assert!(standing.steady(STEADY, now + MEET + STEADY));
        standing
    }

    #[test]
    fn a_node_that_was_taken_for_dead_goes_on_but_waits_to_be_steady() {
        let start = Instant::now();
        let mut standing = steady(start);
        let later = start + Duration::from_mins(1);
        standing.resurrected(false, later);
        assert!(standing.steady(STEADY, later), "it was not its fault");
        standing.resurrected(true, later);
        assert!(standing.settled(), "what it knows is still true");
        assert!(!standing.steady(STEADY, later + STEADY / 2));
        assert!(standing.steady(STEADY, later + STEADY));
    }

    #[test]
    fn one_that_was_paused_or_cut_off_from_all_starts_again() {
        let start = Instant::now();
        let later = start + Duration::from_mins(1);
        let mut paused = steady(start);
        paused.paused(later);
        let mut cut = steady(start);
        cut.isolated();
        assert!(cut.settled(), "it serves what it has");
        cut.resurrected(false, later);
        for mut standing in [paused, cut] {
            assert!(!standing.settled() && !standing.steady(STEADY, later));
            standing.judge(MET, later);
            standing.judge(MET, later + MEET);
            assert!(standing.settled());
        }
    }

    #[test]
    fn facts_that_do_not_come_and_members_that_are_not_met_are_not_waited_for_for_ever() {
        let start = Instant::now();
        let waits = |company: Company| {
            let mut standing = Standing::new(start);
            let mut waited = Duration::ZERO;
            while !standing.settled() {
                standing.judge(company, start + waited);
                waited += Duration::from_millis(10);
            }
            waited
        };
        let silent = Company {
            all_known: false,
            ..MET
        };
        let nobody = Company { any: false, ..MET };
        let alone = Company {
            expected: false,
            ..nobody
        };
        assert!(waits(MET) < waits(silent));
        assert!(waits(silent) < waits(nobody));
        assert!(waits(alone) < waits(nobody));
    }
}
