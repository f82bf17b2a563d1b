//! What a prober saw: counts, gaps, and a timeline that can be joined with faults and logs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Outcome, Probe, Target};

/// What a prober saw.
#[derive(Debug, Clone)]
pub struct Report {
    probes: Vec<Probe>,
    marks: Vec<(Instant, String)>,
    from: [IpAddr; 2],
    began: (Instant, Timestamp),
}

impl Report {
    pub(super) fn new(
        probes: Vec<Probe>,
        marks: Vec<(Instant, String)>,
        from: [IpAddr; 2],
        began: (Instant, Timestamp),
    ) -> Self {
        Self {
            probes,
            marks,
            from,
            began,
        }
    }

    /// The same for one target alone.
    #[must_use]
    pub fn of(&self, target: Target) -> Self {
        let mut report = self.clone();
        report.probes.retain(|probe| probe.target == target);
        report
    }

    /// When a moment of the timeline was by the clock of the logs.
    #[must_use]
    pub fn clock(&self, moment: Instant) -> Timestamp {
        let (began, clock) = self.began;
        let later = jiff::SignedDuration::try_from(moment.saturating_duration_since(began));
        later.map_or(clock, |later| clock.saturating_add(later).unwrap_or(clock))
    }

    /// What was noted while the traffic ran, and when.
    #[must_use]
    pub fn marks(&self) -> &[(Instant, String)] {
        &self.marks
    }

    /// The shortest time that an answer took.
    #[must_use]
    pub fn fastest(&self) -> Option<Duration> {
        let good = self.probes.iter().filter(|probe| probe.outcome.is_good());
        good.map(|probe| probe.took).min()
    }

    /// All probes, by the time they began.
    #[must_use]
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// How many probes were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.probes
            .iter()
            .filter(|probe| probe.outcome.is_good())
            .count()
    }

    /// How many probes nobody answered in time.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.count(|outcome| *outcome == Outcome::Lost)
    }

    /// How many connections were reset.
    #[must_use]
    pub fn reset(&self) -> usize {
        self.count(|outcome| *outcome == Outcome::Reset)
    }

    /// How many probes were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Refused(_)))
    }

    /// How many probes heard that no way leads to their target.
    #[must_use]
    pub fn unreachable(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Unreachable(_)))
    }

    /// How many probes were not answered, for whatever reason.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.count(|outcome| !outcome.is_good())
    }

    /// What went wrong and how often, each in the words of the timeline.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for probe in self.probes.iter().filter(|probe| !probe.outcome.is_good()) {
            *counts.entry(probe.outcome.to_string()).or_default() += 1;
        }
        counts
    }

    /// The first error that was the prober's own.
    pub(super) fn own_failure(&self) -> Option<&'static str> {
        self.probes.iter().find_map(|probe| match probe.outcome {
            Outcome::Failed(errno) => Some(errno.desc()),
            _ => None,
        })
    }

    fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> usize {
        self.probes
            .iter()
            .filter(|probe| wanted(&probe.outcome))
            .count()
    }

    /// How many answers each node gave.
    #[must_use]
    pub fn by_node(&self) -> BTreeMap<String, usize> {
        self.tally(|node, _| node)
    }

    /// How many answers each pod gave.
    #[must_use]
    pub fn by_pod(&self) -> BTreeMap<String, usize> {
        self.tally(|_, pod| pod)
    }

    fn tally(&self, of: impl for<'a> Fn(&'a str, &'a str) -> &'a str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for probe in &self.probes {
            if let Outcome::Answered { node, pod, .. } = &probe.outcome {
                *counts.entry(of(node, pod).to_owned()).or_default() += 1;
            }
        }
        counts
    }

    /// Whether every pod that answered saw the client's own address.
    #[must_use]
    pub fn kept_client(&self) -> bool {
        self.probes.iter().all(|probe| match &probe.outcome {
            Outcome::Answered { seen, .. } => self.from.contains(seen),
            _ => true,
        })
    }

    /// The longest time without an answer on any target or long-lived connection: from the beginning of the first probe that failed to the
    /// beginning of the next that was answered (or of the last one, when none was).
    #[must_use]
    pub fn gap(&self) -> Duration {
        let mut failing: BTreeMap<(Target, usize), Instant> = BTreeMap::new();
        let mut longest = Duration::ZERO;
        for probe in &self.probes {
            let line = (probe.target, probe.connection);
            if probe.outcome.is_good() {
                if let Some(since) = failing.remove(&line) {
                    longest = longest.max(probe.at.duration_since(since));
                }
            } else {
                let since = *failing.entry(line).or_insert(probe.at);
                longest = longest.max(probe.at.duration_since(since));
            }
        }
        longest
    }

    /// How long after a moment the last failing probe began; zero when none failed after it.
    #[must_use]
    pub fn trouble_after(&self, moment: Instant) -> Duration {
        self.probes
            .iter()
            .rev()
            .find(|probe| !probe.outcome.is_good())
            .map_or(Duration::ZERO, |probe| {
                probe.at.saturating_duration_since(moment)
            })
    }

    /// How many probes had failed by a moment. One that was under way then is none of them: what happened at that
    /// moment may be the reason.
    #[must_use]
    pub fn failed_before(&self, moment: Instant) -> usize {
        let failed = self.probes.iter().filter(|probe| !probe.outcome.is_good());
        failed
            .filter(|probe| probe.at + probe.took < moment)
            .count()
    }
}

impl fmt::Display for Report {
    /// The timeline: marks, and runs of probes with the same outcome, in milliseconds since the first probe, whose
    /// time by the clock stands above.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(begin) = self.probes.first().map(|probe| probe.at) else {
            return writeln!(out, "no probes");
        };
        writeln!(out, "       0 ms  is {}", self.clock(begin))?;
        let since = |at: Instant| at.saturating_duration_since(begin).as_millis();
        let mut lines: Vec<(Instant, String)> = self
            .marks
            .iter()
            .map(|(at, what)| (*at, format!("-- {what}")))
            .collect();
        let mut runs: BTreeMap<(Target, usize), (Instant, Outcome, usize)> = BTreeMap::new();
        let mut flush = |(target, connection): (Target, usize),
                         (at, outcome, count): (Instant, Outcome, usize)| {
            let which = match connection {
                0 => String::new(),
                other => format!(" (connection {})", other + 1),
            };
            lines.push((
                at,
                format!(
                    "{:?} {}{which}: {count} × {outcome}",
                    target.traffic, target.address
                ),
            ));
        };
        for probe in &self.probes {
            let line = (probe.target, probe.connection);
            match runs.get_mut(&line) {
                Some((_, outcome, count)) if *outcome == probe.outcome => *count += 1,
                _ => {
                    if let Some(run) = runs.insert(line, (probe.at, probe.outcome.clone(), 1)) {
                        flush(line, run);
                    }
                }
            }
        }
        for (line, run) in runs {
            flush(line, run);
        }
        lines.sort_by_key(|(at, _)| *at);
        for (at, line) in lines {
            writeln!(out, "{:>8} ms  {line}", since(at))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Traffic;
    use super::*;

    fn report(outcomes: &[(u64, bool)]) -> (Report, Instant) {
        let begin = Instant::now();
        let target = Target {
            address: ([127, 0, 0, 1], 1).into(),
            traffic: Traffic::Tcp,
        };
        let good = Outcome::Answered {
            node: "n1".into(),
            pod: "p".into(),
            seen: [10, 0, 0, 1].into(),
        };
        let probes = outcomes
            .iter()
            .map(|(at, answered)| Probe {
                at: begin + Duration::from_millis(*at),
                target,
                connection: 0,
                outcome: if *answered {
                    good.clone()
                } else {
                    Outcome::Lost
                },
                took: Duration::from_millis(1),
            })
            .collect();
        let from = [
            [10, 0, 0, 1].into(),
            IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ];
        let marks = vec![(begin, "fault".into())];
        let clock = (begin, "2026-01-02T03:04:05Z".parse().unwrap());
        (Report::new(probes, marks, from, clock), begin)
    }

    #[test]
    fn the_gap_lasts_from_the_first_failure_to_the_next_answer() {
        let (report, begin) = report(&[
            (0, true),
            (10, false),
            (20, false),
            (30, true),
            (40, false),
            (50, true),
        ]);
        assert_eq!(report.gap(), Duration::from_millis(20));
        assert_eq!(report.lost(), 3);
        assert_eq!(
            report.trouble_after(begin + Duration::from_millis(15)),
            Duration::from_millis(25)
        );
        assert_eq!(report.failed_before(begin + Duration::from_millis(15)), 1);
        assert_eq!(report.failed_before(begin + Duration::from_millis(10)), 0);
        assert!(report.kept_client());
    }

    #[test]
    fn a_gap_that_never_ends_is_as_long_as_the_traffic() {
        let (report, begin) = report(&[(0, true), (10, false), (500, false)]);
        assert_eq!(report.gap(), Duration::from_millis(490));
        assert_eq!(
            report.trouble_after(begin + Duration::from_secs(1)),
            Duration::ZERO
        );
        assert!(report.to_string().contains("2 × lost"), "{report}");
        assert_eq!(report.failed(), 2);
        assert_eq!(report.failures(), BTreeMap::from([("lost".to_owned(), 2)]));
    }

    #[test]
    fn the_timeline_joins_marks_and_logs_by_the_clock() {
        let (report, begin) = report(&[(0, true), (10, false), (20, true)]);
        assert_eq!(
            report
                .clock(begin + Duration::from_millis(1500))
                .to_string(),
            "2026-01-02T03:04:06.5Z"
        );
        let text = report.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "0 ms  is 2026-01-02T03:04:05Z", "{text}");
        assert!(lines.contains(&"0 ms  -- fault"), "{text}");
        assert!(
            lines[3].starts_with("10 ms") && lines[3].ends_with("1 × lost"),
            "{text}"
        );
        assert_eq!(report.marks().len(), 1);
    }

    #[test]
    fn connections_to_one_target_have_their_own_gaps() {
        let (mut report, _) = report(&[(0, false), (10, true), (20, false), (30, true)]);
        report.probes[1].connection = 1;
        assert_eq!(report.gap(), Duration::from_millis(30));
        let text = report.to_string();
        assert!(text.contains("(connection 2): 1 × answered"), "{text}");
        assert!(text.contains(": 2 × lost"), "{text}");
    }

    #[test]
    fn targets_are_told_apart_and_the_fastest_answer_counts() {
        let (mut all, _) = report(&[(5, true), (7, true), (3, false)]);
        let other = Target {
            address: ([127, 0, 0, 1], 2).into(),
            traffic: Traffic::Flow,
        };
        all.probes[0].target = other;
        all.probes[0].took = Duration::from_millis(3);
        all.probes[1].took = Duration::from_millis(2);
        assert_eq!(all.of(other).probes().len(), 1);
        assert_eq!(all.of(all.probes[1].target).lost(), 1);
        assert_eq!(all.fastest(), Some(Duration::from_millis(2)));
    }
}
