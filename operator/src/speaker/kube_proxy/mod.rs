//! kube-proxy on this node: nothing is announced that it does not pass on yet.
//!
//! A packet for an address that kube-proxy has no rule for goes back to the router, and round until its time to live is
//! over; and the kernel remembers the connection as one without a pod. Two moments are in danger:
//! - *The node boots.* The speaker may be there before kube-proxy, and before the kubelet has told the API which pods were
//!   lost. Nothing starts before [`Start`] says so.
//! - *An address begins to be announced here.* kube-proxy hears of it when we do, and applies it up to a second later
//!   (its `minSyncPeriod`). [`Patience`] holds the address until it has.
//!
//! What kube-proxy does is read from its metrics: `/healthz` counts one that has never synced as healthy, and in most
//! releases does not say when it last synced. Whatever else passes traffic on (Cilium, kube-router) has no such metrics,
//! and is not waited for. No wait is for ever, and nothing that is announced is ever withdrawn because of kube-proxy: when
//! it dies its rules stay.

mod ask;
mod patience;
mod progress;
mod start;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use openelb_process::Gate;
use prometheus_client::metrics::gauge::Gauge;
use tokio::task::JoinHandle;

use patience::Patience;
use progress::{Progress, Reading};
use start::{Start, Wait};

/// How often kube-proxy is asked while something waits for it.
const WHILE_WAITING: Duration = Duration::from_millis(50);
/// How often it is asked else, in case that it comes or was not there for a moment.
const ELSE: Duration = Duration::from_mins(1);

/// What kube-proxy answered.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    /// Nobody answers.
    Silent,
    /// Somebody answers, and it is not kube-proxy.
    Strange,
    /// Its metrics.
    Told(Reading),
}

/// Whether this node's kube-proxy passes on what is to be announced.
pub(super) struct KubeProxy {
    /// Where its metrics are; `None` where nobody is to be asked.
    address: Option<SocketAddr>,
    /// Until the speaker may start.
    start: Option<Start>,
    /// Opened then.
    gate: Gate,
    /// The reason of the wait that was told last.
    told: Option<Wait>,
    /// Once it has answered.
    progress: Option<Progress>,
    /// Once it has answered and something was to be announced.
    patience: Option<Patience>,
    next: Instant,
    asking: Option<(Instant, JoinHandle<Answer>)>,
    /// How many addresses wait.
    waiting: Gauge,
}

impl KubeProxy {
    /// Nobody was asked yet.
    pub(super) fn new(address: Option<SocketAddr>, gate: Gate, waiting: Gauge) -> Self {
        let now = Instant::now();
        if address.is_none() {
            gate.open();
        }
        Self {
            address,
            gate,
            start: address.map(|_| Start::new(now, ask::uptime())),
            told: None,
            progress: None,
            patience: None,
            next: now,
            asking: None,
            waiting,
        }
    }

    /// Whether anything may be announced from this node at all.
    pub(super) fn started(&self) -> bool {
        self.start.is_none()
    }

    /// Of the addresses that this node is to announce, those that have to wait; no others than the named have come or
    /// gone since the last time. What is to be announced when nobody has waited yet may be.
    pub(super) fn held(
        &mut self,
        wanted: &BTreeSet<IpAddr>,
        changed: &BTreeSet<IpAddr>,
    ) -> BTreeSet<IpAddr> {
        if self.progress.is_none() {
            return BTreeSet::new();
        }
        let held = match &mut self.patience {
            Some(patience) => {
                let now = Instant::now();
                if patience.wish(wanted, changed, now) {
                    self.next = self.next.min(now + patience::SETTLE);
                }
                patience.held()
            }
            none => {
                *none = Some(Patience::new(wanted.clone()));
                BTreeSet::new()
            }
        };
        self.waiting
            .set(i64::try_from(held.len()).unwrap_or(i64::MAX));
        held
    }

    /// Waits until more may be announced than before; for ever where nobody is asked.
    pub(super) async fn changed(&mut self) {
        let Some(address) = self.address else {
            return std::future::pending().await;
        };
        loop {
            let (asked, asking) = match &mut self.asking {
                Some(asking) => asking,
                none => {
                    tokio::time::sleep_until(self.next.into()).await;
                    none.insert((Instant::now(), tokio::spawn(ask::ask(address))))
                }
            };
            let asked = *asked;
            let answer = asking.await.unwrap_or(Answer::Strange);
            self.asking = None;
            let now = Instant::now();
            let changed = self.take_in(&answer, asked, now);
            let waits = self.start.is_some() || self.patience.as_ref().is_some_and(Patience::waits);
            self.next = now + if waits { WHILE_WAITING } else { ELSE };
            if changed {
                return;
            }
        }
    }

    /// Takes an answer in; whether more may be announced than before.
    fn take_in(&mut self, answer: &Answer, asked: Instant, now: Instant) -> bool {
        let progress = match answer {
            Answer::Told(reading) if reading.synced() => {
                let progress = self.progress.get_or_insert_default();
                progress.take_in(reading);
                Some(&*progress)
            }
            _ => None,
        };
        let patience = self.patience.as_mut();
        let released = patience.is_some_and(|patience| patience.take_in(progress, asked, now));
        let Some(start) = &mut self.start else {
            return released;
        };
        match start.judge(answer, now) {
            None => {
                if self.told.is_some() {
                    tracing::info!("the wait for kube-proxy is over");
                }
                self.start = None;
                self.gate.open();
                true
            }
            Some(wait) => {
                if self.told != Some(wait) {
                    tracing::info!(address = ?self.address, "nothing is announced yet: {wait}");
                    self.told = Some(wait);
                }
                released
            }
        }
    }
}
