//! Whether a speaker that has just begun may announce anything: pure.

use std::fmt;
use std::time::{Duration, Instant};

use super::Answer;

/// Nothing waits for kube-proxy for longer than this.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// A machine that has run for less has just booted.
const BOOTED: Duration = Duration::from_mins(5);
/// A kube-proxy that has run for less began with the speaker, when the node booted.
const YOUNG: Duration = Duration::from_mins(1);
/// How long the kubelet of a node that has just booted gets to tell which of its pods are gone; until then the API counts
/// them as ready.
const STEADY: Duration = Duration::from_secs(3);

/// Why a speaker that has just begun waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nobody answers, on a machine that has just booted.
    Silent,
    /// It has no rules yet.
    NotSynced,
    /// The node has just booted.
    Booted,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "this machine has just booted, and kube-proxy does not answer yet",
            Self::NotSynced => "kube-proxy has not applied its rules yet",
            Self::Booted => "this node has just booted, and its pods are not known yet",
        })
    }
}

/// The first moments of a speaker.
#[derive(Debug)]
pub(super) struct Start {
    began: Instant,
    /// How long the machine had run by then.
    uptime: Option<Duration>,
    /// Whether the node has just booted, as far as is known.
    booted: bool,
    /// kube-proxy has answered.
    answered: bool,
}

impl Start {
    /// The speaker began at this time.
    pub(super) fn new(began: Instant, uptime: Option<Duration>) -> Self {
        Self {
            began,
            uptime,
            booted: false,
            answered: false,
        }
    }

    /// Why the speaker has to wait after this answer; `None` when it may start.
    pub(super) fn judge(&mut self, answer: &Answer, now: Instant) -> Option<Wait> {
        let waited = now.saturating_duration_since(self.began);
        if waited >= PATIENCE {
            return None;
        }
        match answer {
            Answer::Strange => None,
            Answer::Silent => {
                // On a machine that has run for long, rules are there, or there is no kube-proxy.
                let young = self.uptime.is_some_and(|uptime| uptime < BOOTED);
                (young || self.answered).then_some(Wait::Silent)
            }
            Answer::Told(reading) => {
                if !self.answered {
                    self.answered = true;
                    self.booted = reading.age < YOUNG;
                }
                if !reading.synced() {
                    return Some(Wait::NotSynced);
                }
                (self.booted && waited < STEADY).then_some(Wait::Booted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::progress::Reading;
    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_hours(1));
    const SHORT: Option<Duration> = Some(Duration::from_secs(40));

    fn synced(age: u64) -> Answer {
        Answer::Told(Reading::synced_at(1000.0, Duration::from_secs(age)))
    }

    fn never_synced(age: u64) -> Answer {
        Answer::Told(Reading::synced_at(0.0, Duration::from_secs(age)))
    }

    /// What is said to each answer, given so many milliseconds after the start.
    fn judged(uptime: Option<Duration>, answers: &[(u64, Answer)]) -> Vec<Option<Wait>> {
        let began = Instant::now();
        let mut start = Start::new(began, uptime);
        let judge =
            |(at, answer): &(u64, Answer)| start.judge(answer, began + Duration::from_millis(*at));
        answers.iter().map(judge).collect()
    }

    #[test]
    fn a_speaker_that_is_replaced_starts_at_once() {
        assert_eq!(judged(LONG, &[(5, synced(3600))]), [None]);
    }

    #[test]
    fn a_node_without_kube_proxy_is_not_waited_for() {
        assert_eq!(judged(LONG, &[(5, Answer::Silent)]), [None]);
        assert_eq!(judged(LONG, &[(5, Answer::Strange)]), [None]);
        assert_eq!(judged(SHORT, &[(5, Answer::Strange)]), [None]);
        assert_eq!(judged(None, &[(5, Answer::Silent)]), [None]);
    }

    #[test]
    fn on_a_machine_that_has_just_booted_kube_proxy_is_expected_for_a_while() {
        let answers = [
            (5, Answer::Silent),
            (29_999, Answer::Silent),
            (30_000, Answer::Silent),
        ];
        let waits = [Some(Wait::Silent), Some(Wait::Silent), None];
        assert_eq!(judged(SHORT, &answers), waits);
    }

    #[test]
    fn a_node_that_boots_waits_for_the_rules_and_for_its_pods() {
        let answers = [
            (5, Answer::Silent),
            (900, never_synced(1)),
            (1_500, synced(1)),
            (2_999, synced(3)),
            (3_000, synced(3)),
        ];
        let waits = [
            Some(Wait::Silent),
            Some(Wait::NotSynced),
            Some(Wait::Booted),
            Some(Wait::Booted),
            None,
        ];
        assert_eq!(judged(SHORT, &answers), waits);
    }

    #[test]
    fn a_kube_proxy_that_never_syncs_is_not_waited_for_for_ever() {
        let answers = [(5, never_synced(1)), (30_000, never_synced(30))];
        assert_eq!(judged(LONG, &answers), [Some(Wait::NotSynced), None]);
    }

    #[test]
    fn one_that_answered_and_falls_silent_is_expected_back() {
        let answers = [(5, never_synced(1)), (100, Answer::Silent)];
        let waits = [Some(Wait::NotSynced), Some(Wait::Silent)];
        assert_eq!(judged(LONG, &answers), waits);
    }
}
