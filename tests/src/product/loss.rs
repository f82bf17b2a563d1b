//! What users lost: a prober's report in the two numbers that stories and tables judge.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::prober::{Outcome, Probe, Report};

/// So long without a failure ends a stretch of failures: fifty connections in a row that were answered.
const QUIET: Duration = Duration::from_millis(500);
/// A client that begins a connection every 10 ms and comes so late with one shows that the machine stood still. Routers
/// and nodes are on the same machine and may stand still for longer than the 300 ms that BFD waits (seen at 140 ms here):
/// what is lost then is nobody's fault.
const STALL: Duration = Duration::from_millis(100);

/// What users lost since a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// For how long new connections failed, all of them or some: the stretches of failures, added up. A stretch lasts from
    /// its first connection that failed to the first good one after its last, with less than half a second of nothing but
    /// answers inside it. So a single connection that fails for a reason of its own, long after, counts as the hundredth
    /// of a second that it is.
    pub trouble: Duration,
    /// New connections that failed.
    pub failed: usize,
    /// Of those that failed, the ones that were open and were reset: a router that spreads its flows anew may send the rest
    /// of one to another node, which knows nothing of it.
    pub cut: usize,
    /// New connections made.
    pub tried: usize,
    /// The longest time in which the client, on the same machine as all else, did not get to begin a connection.
    pub stood_still: Duration,
}

impl Loss {
    /// What was lost since a moment: of all connections that were not over by then.
    #[must_use]
    pub fn since(moment: Instant, report: &Report) -> Self {
        let probes = report.probes().iter();
        Self::of_probes(probes.filter(|probe| probe.at + probe.took >= moment))
    }

    /// What was lost of the connections that began after a moment.
    #[must_use]
    pub fn begun_after(moment: Instant, report: &Report) -> Self {
        let probes = report.probes().iter();
        Self::of_probes(probes.filter(|probe| probe.at >= moment))
    }

    fn of_probes<'a>(probes: impl Iterator<Item = &'a Probe> + Clone) -> Self {
        let cut = probes.clone();
        let cut = cut.filter(|probe| probe.outcome == Outcome::Reset).count();
        let connections = probes.map(|probe| (probe.at, probe.outcome.is_good()));
        Self {
            cut,
            ..Self::of(connections)
        }
    }

    fn of(connections: impl Iterator<Item = (Instant, bool)>) -> Self {
        let mut loss = Self {
            trouble: Duration::ZERO,
            failed: 0,
            cut: 0,
            tried: 0,
            stood_still: Duration::ZERO,
        };
        let mut before: Option<Instant> = None;
        // A stretch: its first failure, its last one, and the first answer after that.
        let mut stretch: Option<(Instant, Instant, Option<Instant>)> = None;
        let length = |(first, last, answer): (Instant, Instant, Option<Instant>)| {
            answer.unwrap_or(last).duration_since(first)
        };
        for (at, good) in connections {
            loss.tried += 1;
            let since = before.replace(at).unwrap_or(at);
            loss.stood_still = loss.stood_still.max(at.duration_since(since));
            match &mut stretch {
                Some((_, _, answer)) if good => {
                    answer.get_or_insert(at);
                }
                _ if good => {}
                Some((_, last, answer)) if at.duration_since(*last) < QUIET => {
                    loss.failed += 1;
                    (*last, *answer) = (at, None);
                }
                other => {
                    loss.failed += 1;
                    loss.trouble += other.replace((at, at, None)).map_or(Duration::ZERO, length);
                }
            }
        }
        loss.trouble += stretch.map_or(Duration::ZERO, length);
        loss
    }

    /// What was lost of all connections of a report.
    #[must_use]
    pub fn in_all(report: &Report) -> Self {
        Self::of_probes(report.probes().iter())
    }

    /// The same, where connections failed for less than `limit`: to tell mechanisms apart, not to measure one.
    ///
    /// # Errors
    /// They failed for longer, and the machine did not stand still.
    pub fn within(self, limit: Duration) -> Result<Self> {
        ensure!(
            self.trouble < limit || self.cannot_be_judged(),
            "not within {limit:?}: {self:?}"
        );
        Ok(self)
    }

    /// The same, where no more than `most` connections failed.
    ///
    /// # Errors
    /// More did, and the machine did not stand still.
    pub fn at_most(self, most: usize) -> Result<Self> {
        ensure!(
            self.failed <= most || self.cannot_be_judged(),
            "more than {most} failed: {self:?}"
        );
        Ok(self)
    }

    /// The same, where nothing failed but no more than `most` connections that were open and were cut: nobody was led
    /// where nobody serves.
    ///
    /// # Errors
    /// Others failed, or more, and the machine did not stand still.
    pub fn only_cut(self, most: usize) -> Result<Self> {
        ensure!(
            (self.failed == self.cut && self.cut <= most) || self.cannot_be_judged(),
            "others failed than at most {most} that were open: {self:?}"
        );
        Ok(self)
    }

    /// Whether the machine stood still for so long that BFD may have ended sessions for no other reason; says so.
    #[must_use]
    pub fn cannot_be_judged(self) -> bool {
        let stalled = self.stood_still >= STALL;
        if stalled {
            println!("not judged, the machine stood still: {self:?}");
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection every 10 ms for four seconds, of which those that began at these milliseconds failed.
    fn loss(failed: impl Fn(u64) -> bool) -> Loss {
        let begin = Instant::now();
        Loss::of((0..400).map(|tick| {
            let at = tick * 10;
            (begin + Duration::from_millis(at), !failed(at))
        }))
    }

    #[test]
    fn nothing_is_lost_where_all_are_answered() {
        let loss = loss(|_| false).at_most(0).unwrap();
        assert_eq!(loss.trouble, Duration::ZERO);
        assert_eq!(loss.tried, 400);
    }

    #[test]
    fn trouble_lasts_from_the_first_failure_to_the_answer_after_the_last() {
        let loss = loss(|at| (100..400).contains(&at) && at % 30 == 0);
        assert_eq!(loss.trouble, Duration::from_millis(400 - 120));
        assert_eq!(loss.failed, 10);
    }

    #[test]
    fn a_stray_failure_later_counts_as_what_it_is() {
        let loss = loss(|at| (100..400).contains(&at) || at == 3_000);
        assert_eq!(loss.trouble, Duration::from_millis(300 + 10));
        assert_eq!(loss.failed, 31);
    }

    #[test]
    fn what_is_lost_while_the_machine_stands_still_is_not_judged() {
        let begin = Instant::now();
        let late = |at: u64| begin + Duration::from_millis(if at >= 100 { at + 200 } else { at });
        let loss = Loss::of((0..40).map(|tick| (late(tick * 10), tick != 12)));
        assert_eq!(loss.stood_still, Duration::from_millis(210));
        assert!(loss.at_most(0).is_ok());
    }

    #[test]
    fn a_few_that_were_cut_are_borne_and_one_that_was_refused_is_not() {
        let cut = |cut| Loss {
            cut,
            ..loss(|at| at == 100 || at == 110)
        };
        assert!(cut(2).only_cut(2).is_ok());
        assert!(cut(2).only_cut(1).is_err());
        assert!(cut(1).only_cut(2).is_err());
    }

    #[test]
    fn trouble_that_does_not_end_lasts_to_the_last_connection() {
        let loss = loss(|at| at >= 3_000);
        assert_eq!(loss.trouble, Duration::from_millis(990));
        assert!(loss.within(Duration::from_millis(900)).is_err());
        assert!(loss.at_most(99).is_err());
    }
}
