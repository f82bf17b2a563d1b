//! Which addresses wait until kube-proxy knows them: pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::progress::{Progress, Queued};
use super::start::PATIENCE;

/// After so long kube-proxy has heard what we have heard.
pub(super) const SETTLE: Duration = Duration::from_millis(50);
/// So long an address waits at most for a kube-proxy that answers: its `minSyncPeriod` of a second, and some syncs.
const MOST: Duration = Duration::from_secs(3);

/// The addresses that this node is to announce: those that it may, and those that wait.
#[derive(Debug)]
pub(super) struct Patience {
    admitted: BTreeSet<IpAddr>,
    waiting: Vec<Newcomers>,
}

/// Addresses that are to be announced since one moment.
#[derive(Debug)]
struct Newcomers {
    since: Instant,
    addresses: BTreeSet<IpAddr>,
    /// What kube-proxy has to have applied: all that it had heard when it was first asked after [`SETTLE`].
    goal: Option<Queued>,
}

impl Patience {
    /// All of these may be announced.
    pub(super) fn new(admitted: BTreeSet<IpAddr>) -> Self {
        Self {
            admitted,
            waiting: Vec::new(),
        }
    }

    /// Takes in the addresses that are to be announced, of which no others than the named have come or gone since the
    /// last time; whether there are newcomers, which wait.
    pub(super) fn wish(
        &mut self,
        wanted: &BTreeSet<IpAddr>,
        changed: &BTreeSet<IpAddr>,
        now: Instant,
    ) -> bool {
        let (stay, go): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) =
            changed.iter().partition(|ip| wanted.contains(ip));
        for newcomers in &mut self.waiting {
            newcomers.addresses.retain(|ip| !go.contains(ip));
        }
        self.waiting
            .retain(|newcomers| !newcomers.addresses.is_empty());
        for ip in &go {
            self.admitted.remove(ip);
        }
        let known = |ip: &IpAddr| {
            let mut waiting = self.waiting.iter();
            self.admitted.contains(ip) || waiting.any(|some| some.addresses.contains(ip))
        };
        let addresses: BTreeSet<IpAddr> = stay.into_iter().filter(|ip| !known(ip)).collect();
        let any = !addresses.is_empty();
        if any {
            self.waiting.push(Newcomers {
                since: now,
                addresses,
                goal: None,
            });
        }
        any
    }

    /// Takes in how far kube-proxy is, asked at this time (`None`: nobody knows); whether an address need not wait any more.
    pub(super) fn take_in(
        &mut self,
        progress: Option<&Progress>,
        asked: Instant,
        now: Instant,
    ) -> bool {
        let mut released = false;
        let admitted = &mut self.admitted;
        self.waiting.retain_mut(|newcomers| {
            let waited = now.saturating_duration_since(newcomers.since);
            let known = progress.is_some_and(|progress| {
                if newcomers.goal.is_none() && asked >= newcomers.since + SETTLE {
                    newcomers.goal = Some(progress.queued());
                }
                let goal = newcomers.goal.as_ref();
                goal.is_some_and(|goal| progress.reached(goal))
            });
            let most = progress.map_or(PATIENCE, |_| MOST);
            if !known && waited < most {
                return true;
            }
            if known {
                tracing::debug!(?waited, addresses = ?newcomers.addresses, "kube-proxy knows the addresses");
            } else {
                tracing::warn!(?waited, addresses = ?newcomers.addresses,
                    "kube-proxy does not say that it knows the addresses; they are announced all the same");
            }
            admitted.append(&mut newcomers.addresses);
            released = true;
            false
        });
        released
    }

    /// The addresses that wait.
    pub(super) fn held(&self) -> BTreeSet<IpAddr> {
        let waiting = self.waiting.iter();
        waiting
            .flat_map(|newcomers| newcomers.addresses.iter().copied())
            .collect()
    }

    /// Whether an address waits.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::progress::Reading;
    use super::*;

    fn set(last: &[u8]) -> BTreeSet<IpAddr> {
        last.iter().map(|last| [192, 0, 2, *last].into()).collect()
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A kube-proxy whose syncs take 0.1 s, after so many; each ended and was asked for at these seconds.
    fn progress(readings: &[(u32, f64, f64)]) -> Progress {
        let mut progress = Progress::default();
        for (syncs, synced, queued) in readings {
            progress.take_in(&Reading::after(*syncs, 0.1, *synced, *queued));
        }
        progress
    }

    /// One that waits for 192.0.2.2 since the moment that is returned.
    fn waiting() -> (Patience, Instant) {
        let since = Instant::now();
        let mut patience = Patience::new(set(&[1]));
        assert!(patience.wish(&set(&[1, 2]), &set(&[2]), since));
        assert_eq!(patience.held(), set(&[2]));
        (patience, since)
    }

    #[test]
    fn an_address_waits_for_a_sync_that_began_after_kube_proxy_heard_of_it() {
        let (mut patience, since) = waiting();
        let mut ask = |at: u64, progress: &Progress| {
            let at = since + ms(at);
            patience.take_in(Some(progress), at, at)
        };
        let idle = progress(&[(7, 100.0, 99.0)]);
        assert!(!ask(10, &idle), "it may not have heard of it yet");
        let queued = progress(&[(7, 100.0, 101.0)]);
        assert!(!ask(60, &queued));
        let under_way_by_then = progress(&[(7, 100.0, 101.0), (8, 101.05, 101.0)]);
        assert!(!ask(100, &under_way_by_then));
        let done = progress(&[(7, 100.0, 101.0), (8, 101.05, 101.0), (9, 102.0, 101.0)]);
        assert!(ask(1_000, &done));
        assert!(patience.held().is_empty() && !patience.waits());
        assert!(
            !patience.wish(&set(&[1, 2]), &set(&[1, 2]), since + ms(2_000)),
            "known for good"
        );
    }

    #[test]
    fn what_happens_afterwards_is_not_waited_for() {
        let (mut patience, since) = waiting();
        let mut ask = |at: u64, progress: &Progress| {
            let at = since + ms(at);
            patience.take_in(Some(progress), at, at)
        };
        assert!(!ask(60, &progress(&[(7, 100.0, 101.0)])));
        let others_wait = progress(&[(7, 100.0, 101.0), (8, 101.5, 101.6)]);
        assert!(ask(600, &others_wait));
    }

    #[test]
    fn an_idle_kube_proxy_is_asked_once() {
        let (mut patience, since) = waiting();
        let at = since + SETTLE;
        assert!(patience.take_in(Some(&progress(&[(7, 100.0, 99.0)])), at, at));
    }

    #[test]
    fn no_address_waits_for_ever() {
        let (mut patience, since) = waiting();
        let stuck = progress(&[(7, 100.0, 101.0)]);
        let mut ask = |at: u64, progress| {
            let at = since + ms(at);
            patience.take_in(progress, at, at)
        };
        assert!(!ask(2_999, Some(&stuck)));
        assert!(!ask(3_000, None), "it has died and may come back");
        assert!(ask(3_000, Some(&stuck)));
        let (mut patience, since) = waiting();
        assert!(patience.take_in(None, since + PATIENCE, since + PATIENCE));
    }

    #[test]
    fn an_address_that_goes_and_comes_waits_again() {
        let (mut patience, since) = waiting();
        let both = set(&[1, 2]);
        let waits = patience.wish(&set(&[2]), &both, since);
        assert!(!waits, "it waits already");
        assert!(patience.wish(&both, &both, since));
        assert_eq!(patience.held(), set(&[1, 2]));
        assert!(!patience.wish(&set(&[]), &both, since));
        assert!(!patience.waits());
    }
}
