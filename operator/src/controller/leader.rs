//! Which process works: the holder of the Lease `openelb-controller`, which is OpenELB's own, so that the
//! two never allocate side by side.
//!
//! The Lease only keeps two processes from doing the same work; what keeps them from harm is the ledger.
//! So a standby need not be patient: it watches the Lease and takes it the moment it ends, by its own
//! clock where it saw the last renewal. The holder renews it three times in its life.

use std::time::Duration;

use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use openelb_api::keys;
use openelb_ipam::Version;
use openelb_process::{Watches, patience};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::execute::FIELD_MANAGER;
use crate::process::Context;

/// How long giving the Lease back may take at the end.
const RESIGNATION: Duration = Duration::from_secs(3);
/// Between attempts to write the Lease, and how long one may take.
const RETRY: Duration = Duration::from_millis(200);
const REQUEST: Duration = Duration::from_secs(1);
/// As `/metrics` calls the watch.
const KIND: &str = "Lease";

/// Taking part in the election.
pub(crate) struct Election {
    leading: watch::Receiver<bool>,
    resign: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// A name that no other process has: the host's (in a pod, the pod's).
pub(crate) fn default_identity() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("controller-{:08x}", rand::random::<u32>()))
}

impl Election {
    /// Without an election: this process always works.
    pub(crate) fn won() -> Self {
        Self {
            leading: watch::channel(true).1,
            resign: CancellationToken::new(),
            task: None,
        }
    }

    /// Takes part until [`resign`](Self::resign). A leader that is gone is waited for `seconds`.
    pub(crate) fn join(context: &Context, identity: &str, seconds: u64) -> Self {
        let (sender, leading) = watch::channel(false);
        let resign = CancellationToken::new();
        let candidate = Candidate {
            api: Api::namespaced(context.client.clone(), &context.namespace),
            identity: identity.to_owned(),
            life: Duration::from_secs(seconds),
            known: Known::default(),
            held_until: None,
            leads: sender,
            watches: context.watches.clone(),
        };
        let run = candidate.run(resign.clone());
        let task = tokio::spawn(context.pulses.of_task("the candidate for the Lease", run));
        Self {
            leading,
            resign,
            task: Some(task),
        }
    }

    /// Whether this process leads.
    pub(crate) fn leading(&self) -> watch::Receiver<bool> {
        self.leading.clone()
    }

    /// Gives the Lease back, so that a standby takes over at once.
    pub(crate) async fn resign(self) {
        self.resign.cancel();
        if let Some(task) = self.task {
            drop(task.await);
        }
    }
}

/// What is known of the Lease.
#[derive(Debug, Default)]
struct Known {
    /// Whether it was looked for at all.
    looked: bool,
    lease: Option<Lease>,
    /// When its last renewal took place, as far as we can tell.
    renewed: Option<Instant>,
}

/// What to do about the Lease.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Write ourselves into it.
    Take,
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing before it is known.
    Look,
}

impl Known {
    /// Takes in the Lease as it was read or written; `None` where there is none.
    fn learn(&mut self, lease: Option<Lease>, now: Instant, wall: Timestamp) {
        let version = |lease: &Option<Lease>| {
            let version = lease.as_ref()?.metadata.resource_version.as_deref()?;
            Some(Version::from(version))
        };
        if let (Some(new), Some(known)) = (version(&lease), version(&self.lease))
            && new.is_older_than(&known)
        {
            return;
        }
        let renewal = |lease: &Option<Lease>| {
            let spec = lease.as_ref()?.spec.as_ref()?;
            Some((spec.holder_identity.clone(), spec.renew_time.clone()))
        };
        if renewal(&lease) != renewal(&self.lease) {
            // A renewal that happened before our eyes is timed by our own clock; of one that we only find,
            // the holder's word is all there is.
            let said = renewal(&lease).and_then(|(_, at)| at);
            let age = said
                .filter(|_| !self.looked)
                .and_then(|at| Duration::try_from(wall.duration_since(at.0)).ok())
                .unwrap_or_default();
            self.renewed = Some(now.checked_sub(age).unwrap_or(now));
        }
        self.looked = true;
        self.lease = lease;
    }

    fn spec(&self) -> Option<&LeaseSpec> {
        self.lease.as_ref()?.spec.as_ref()
    }

    fn holder(&self) -> Option<&str> {
        let holder = self.spec()?.holder_identity.as_deref();
        holder.filter(|holder| !holder.is_empty())
    }

    fn turn(&self, identity: &str, leads: bool, life: Duration, now: Instant) -> Turn {
        if !self.looked {
            return Turn::Look;
        }
        let since = self.renewed.unwrap_or(now);
        let due = match self.holder() {
            None => now,
            Some(holder) if holder == identity && !leads => now,
            Some(holder) if holder == identity => since + life / 3,
            Some(_) => {
                let seconds = self.spec().and_then(|spec| spec.lease_duration_seconds);
                let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
                since + seconds.map_or(life, Duration::from_secs)
            }
        };
        if due <= now {
            Turn::Take
        } else {
            Turn::Wait(due)
        }
    }
}

struct Candidate {
    api: Api<Lease>,
    identity: String,
    life: Duration,
    known: Known,
    /// How long the Lease is ours without another renewal.
    held_until: Option<Instant>,
    leads: watch::Sender<bool>,
    watches: Watches,
}

impl Candidate {
    async fn run(mut self, stop: CancellationToken) {
        let only =
            watcher::Config::default().fields(&format!("metadata.name={}", keys::CONTROLLER_LEASE));
        self.watches.begin(KIND);
        let (heard, failed) = (self.watches.clone(), self.watches.clone());
        let stream = watcher::watcher(self.api.clone(), only)
            .backoff(patience())
            .inspect_ok(move |_| heard.heard(KIND))
            .inspect_err(move |_| failed.failed(KIND));
        let mut stream = std::pin::pin!(stream);
        let mut not_before = Instant::now();
        let mut listed = None;
        loop {
            let now = Instant::now();
            let turn = self
                .known
                .turn(&self.identity, *self.leads.borrow(), self.life, now);
            let act_at = match turn {
                Turn::Look => None,
                Turn::Take => Some(not_before),
                Turn::Wait(until) => Some(until.max(not_before)),
            };
            let wake = act_at.into_iter().chain(self.held_until).min();
            tokio::select! {
                () = stop.cancelled() => break,
                event = stream.try_next() => match event {
                    Ok(None) => break,
                    Ok(Some(Event::Init)) => listed = None,
                    Ok(Some(Event::InitApply(lease))) => listed = Some(lease),
                    Ok(Some(Event::InitDone)) => {
                        let lease = listed.take();
                        self.learn(lease);
                    }
                    Ok(Some(Event::Apply(lease))) => self.learn(Some(lease)),
                    Ok(Some(Event::Delete(_))) => self.learn(None),
                    Err(error) => tracing::warn!(%error, "the watch of the Lease was interrupted"),
                },
                () = at(wake) => {
                    let now = Instant::now();
                    if act_at.is_some_and(|at| at <= now) {
                        self.take().await;
                        not_before = Instant::now() + RETRY;
                    }
                    if self.held_until.is_some_and(|until| until <= Instant::now()) {
                        self.held_until = None;
                        self.announce(false);
                    }
                }
            }
        }
        let led = self.leads.send_replace(false);
        if led && !matches!(timeout(RESIGNATION, self.give_back()).await, Ok(Ok(()))) {
            tracing::warn!("could not give the Lease back; the next leader waits for its end");
        }
    }

    fn learn(&mut self, lease: Option<Lease>) {
        self.known.learn(lease, Instant::now(), Timestamp::now());
        if self
            .known
            .holder()
            .is_some_and(|holder| holder != self.identity)
        {
            self.held_until = None;
            self.announce(false);
        }
    }

    fn announce(&self, leads: bool) {
        if tell(&self.leads, leads) {
            tracing::info!(leads, "leadership changed");
        }
    }

    /// Creates the Lease, takes it, or renews it.
    async fn take(&mut self) {
        let lease = self.written(Some(&self.identity), Timestamp::now());
        match timeout(REQUEST, self.write(&lease)).await {
            Ok(Ok(lease)) => {
                self.learn(Some(lease));
                self.held_until = Some(Instant::now() + self.life);
                self.announce(true);
            }
            Ok(Err(kube::Error::Api(status)))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                if let Ok(Ok(lease)) =
                    timeout(REQUEST, self.api.get_opt(keys::CONTROLLER_LEASE)).await
                {
                    self.learn(lease);
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot write the Lease; trying again"),
            Err(_) => tracing::warn!("the Lease could not be written in time; trying again"),
        }
    }

    async fn give_back(&self) -> kube::Result<()> {
        let lease = self.written(None, Timestamp::now());
        self.write(&lease).await.map(drop)
    }

    async fn write(&self, lease: &Lease) -> kube::Result<Lease> {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        if lease.metadata.resource_version.is_some() {
            self.api
                .replace(keys::CONTROLLER_LEASE, &params, lease)
                .await
        } else {
            self.api.create(&params, lease).await
        }
    }

    /// The Lease as `holder` writes it, at the version that is known.
    fn written(&self, holder: Option<&str>, wall: Timestamp) -> Lease {
        let before = self.known.spec().cloned().unwrap_or_default();
        let stays = before.holder_identity.as_deref() == holder;
        let transitions = before.lease_transitions.unwrap_or(0);
        let metadata = self.known.lease.as_ref().map(|lease| ObjectMeta {
            managed_fields: None,
            ..lease.metadata.clone()
        });
        Lease {
            metadata: metadata.unwrap_or_else(|| ObjectMeta {
                name: Some(keys::CONTROLLER_LEASE.to_owned()),
                ..ObjectMeta::default()
            }),
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: i32::try_from(self.life.as_secs()).ok(),
                acquire_time: before
                    .acquire_time
                    .filter(|_| stays)
                    .or(Some(MicroTime(wall))),
                renew_time: Some(MicroTime(wall)),
                lease_transitions: Some(transitions.saturating_add(i32::from(!stays))),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// Tells who listens whether this process leads, if that is news. A renewal is none: whoever is told looks at every
/// Service.
fn tell(listeners: &watch::Sender<bool>, leads: bool) -> bool {
    listeners.send_if_modified(|before| std::mem::replace(before, leads) != leads)
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(2);

    fn lease(version: &str, holder: &str, renewed: &str) -> Lease {
        Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(2),
                renew_time: Some(MicroTime(renewed.parse().unwrap())),
                ..LeaseSpec::default()
            }),
        }
    }

    const NOON: &str = "2026-01-01T12:00:00Z";
    const LATER: &str = "2026-01-01T12:00:01Z";

    fn noon() -> Timestamp {
        NOON.parse().unwrap()
    }

    #[test]
    fn nothing_is_done_before_the_lease_was_looked_for_and_a_free_one_is_taken() {
        let now = Instant::now();
        let mut known = Known::default();
        assert_eq!(known.turn("me", false, LIFE, now), Turn::Look);
        known.learn(None, now, noon());
        assert_eq!(known.turn("me", false, LIFE, now), Turn::Take);
        known.learn(Some(lease("1", "", NOON)), now, noon());
        assert_eq!(known.turn("me", false, LIFE, now), Turn::Take);
    }

    #[test]
    fn a_lease_that_is_only_found_ends_by_its_own_word() {
        let now = Instant::now() + LIFE;
        let second = Duration::from_secs(1);
        let mut known = Known::default();
        known.learn(Some(lease("1", "other", NOON)), now, LATER.parse().unwrap());
        assert_eq!(known.turn("me", false, LIFE, now), Turn::Wait(now + second));
        assert_eq!(known.turn("me", false, LIFE, now + second), Turn::Take);
    }

    #[test]
    fn a_renewal_that_is_seen_counts_by_our_clock_whatever_it_says() {
        let now = Instant::now();
        let mut known = Known::default();
        known.learn(Some(lease("1", "other", NOON)), now, noon());
        // The other's clock is a day behind.
        known.learn(
            Some(lease("2", "other", "2025-12-31T12:00:00Z")),
            now + LIFE / 2,
            noon(),
        );
        assert_eq!(
            known.turn("me", false, LIFE, now + LIFE),
            Turn::Wait(now + LIFE / 2 + LIFE)
        );
        // An old event says nothing.
        known.learn(Some(lease("1", "other", NOON)), now + LIFE, noon());
        assert_eq!(
            known.turn("me", false, LIFE, now + LIFE),
            Turn::Wait(now + LIFE / 2 + LIFE)
        );
    }

    #[test]
    fn our_own_is_renewed_in_time_and_one_of_an_earlier_life_is_taken_at_once() {
        let now = Instant::now();
        let mut known = Known::default();
        known.learn(Some(lease("1", "me", NOON)), now, noon());
        assert_eq!(known.turn("me", false, LIFE, now), Turn::Take);
        assert_eq!(
            known.turn("me", true, LIFE, now),
            Turn::Wait(now + LIFE / 3)
        );
    }

    #[test]
    fn a_renewal_wakes_nobody() {
        let (leads, mut listener) = watch::channel(false);
        assert!(tell(&leads, true));
        assert!(listener.has_changed().unwrap());
        assert!(*listener.borrow_and_update());
        assert!(!tell(&leads, true));
        assert!(!listener.has_changed().unwrap());
    }
}
