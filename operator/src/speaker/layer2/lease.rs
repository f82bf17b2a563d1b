//! Membership by one Lease for each speaker, for networks where speakers cannot talk to each other.
//!
//! Each speaker renews the Lease of its own node and watches those of all. Who is alive is decided by
//! [`Leases`], on the own clock. While the API server is away nobody's Lease changes, and nobody is
//! given up for that. A speaker that leaves deletes its Lease.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{StreamExt as _, TryFutureExt as _};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_leases};
use kube::{Client, ResourceExt as _};
use openelb_api::keys;
use openelb_membership::{Facts, LeaseTiming, LeaseView, Leases, Members, Renewal};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

/// What the membership is started with.
pub(super) struct Config {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) node: String,
    /// This node's address, for display.
    pub(super) address: SocketAddr,
    pub(super) timing: LeaseTiming,
}

/// A running membership.
pub(super) struct LeaseMembership {
    members: watch::Receiver<Arc<Members>>,
    own: watch::Sender<Own>,
    task: JoinHandle<()>,
}

/// What this node decides about itself.
#[derive(Clone, Debug, Default, PartialEq)]
struct Own {
    leaving: bool,
    left: bool,
    attachment: Bytes,
}

/// What a speaker says about itself, in its Lease's annotation.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Said {
    address: SocketAddr,
    steady: bool,
    leaving: bool,
    attachment: Vec<u8>,
}

impl LeaseMembership {
    pub(super) fn spawn(config: Config) -> Self {
        let now = Instant::now();
        let mut leases = Leases::new(config.node.clone(), config.timing.duration, now);
        let (sender, members) = watch::channel(Arc::new(leases.look(now).members));
        let (own, own_rx) = watch::channel(Own::default());
        let task = Task {
            api: Api::namespaced(config.client.clone(), &config.namespace),
            config,
            leases,
            members: sender,
            listed: None,
            last: now,
        };
        let task = tokio::spawn(task.run(own_rx));
        Self { members, own, task }
    }

    pub(super) fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    pub(super) fn attach(&self, attachment: Bytes) {
        self.own.send_if_modified(|own| {
            let differs = own.attachment != attachment;
            own.attachment = attachment;
            differs
        });
    }

    pub(super) fn set_leaving(&self) {
        self.own.send_modify(|own| own.leaving = true);
    }

    pub(super) async fn leave(self) {
        self.own.send_modify(|own| own.left = true);
        // A task that failed has nothing more to say.
        drop(self.task.await);
    }
}

struct Task {
    config: Config,
    api: Api<Lease>,
    leases: Leases,
    members: watch::Sender<Arc<Members>>,
    /// The nodes of a list that is being read.
    listed: Option<BTreeSet<String>>,
    last: Instant,
}

impl Task {
    async fn run(mut self, mut own: watch::Receiver<Own>) {
        let config = watcher::Config::default().labels(keys::SPEAKER_LEASE_LABEL);
        let mut leases: BoxStream<'_, _> = watch_leases(self.api.clone(), config)
            .default_backoff()
            .boxed();
        let mut beat = interval(self.config.timing.renew);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut writing = FuturesUnordered::new();
        let mut due = true;
        let mut steady = false;
        loop {
            let now = Instant::now();
            self.wake(now);
            let is_steady = self.publish(now);
            due |= is_steady != steady;
            steady = is_steady;
            if due && writing.is_empty() {
                due = false;
                let lease = self.lease(&own.borrow(), steady);
                writing.push(renew(self.api.clone(), lease, self.config.timing));
            }
            let wake = self.leases.deadline(now);
            let timer = async {
                match wake {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = leases.next() => match event {
                    Some(Ok(event)) => self.apply(event, Instant::now()),
                    Some(Err(error)) => tracing::warn!(%error, "the watch of the speakers' Leases is interrupted; nobody is given up for that"),
                    None => return,
                },
                _ = beat.tick() => due = true,
                Some(result) = writing.next(), if !writing.is_empty() => {
                    if let Err(error) = result {
                        tracing::warn!(error, "this speaker's Lease is not renewed; trying again");
                    }
                }
                () = timer => {}
                changed = own.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if own.borrow_and_update().left {
                        break;
                    }
                    due = true;
                }
            }
        }
        // A renewal under way would bring the Lease back.
        while writing.next().await.is_some() {}
        let name = lease_name(&self.config.node);
        let params = DeleteParams::default();
        let deleted = timeout(self.config.timing.duration, self.api.delete(&name, &params));
        if !matches!(deleted.await, Ok(Ok(_))) {
            tracing::warn!(
                lease = name,
                "the Lease could not be deleted; the others wait until it has run out"
            );
        }
    }

    /// Notices that the process did not run for a while.
    fn wake(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last) > self.config.timing.renew * 2 {
            self.leases.doubt(now);
        }
        self.last = now;
    }

    fn apply(&mut self, event: Event<Lease>, now: Instant) {
        match event {
            Event::Init => self.listed = Some(BTreeSet::new()),
            Event::InitApply(lease) => {
                if let Some((node, renewal)) = read(&lease) {
                    self.leases.renewed(&node, renewal, now);
                    if let Some(listed) = &mut self.listed {
                        listed.insert(node);
                    }
                }
            }
            Event::InitDone => {
                if let Some(listed) = self.listed.take() {
                    self.leases.retain(&listed);
                }
            }
            Event::Apply(lease) => {
                if let Some((node, renewal)) = read(&lease) {
                    self.leases.renewed(&node, renewal, now);
                }
            }
            Event::Delete(lease) => {
                if let Some(node) = lease.name_any().strip_prefix(keys::SPEAKER_LEASE) {
                    self.leases.deleted(node);
                }
            }
        }
    }

    /// Publishes the view; says whether this node is steady.
    fn publish(&mut self, now: Instant) -> bool {
        let LeaseView { members, steady } = self.leases.look(now);
        self.members.send_if_modified(|current| {
            let differs = **current != members;
            if differs {
                *current = Arc::new(members);
            }
            differs
        });
        steady
    }

    fn lease(&self, own: &Own, steady: bool) -> Lease {
        let said = Said {
            address: self.config.address,
            steady,
            leaving: own.leaving,
            attachment: own.attachment.to_vec(),
        };
        lease(
            &self.config.node,
            &said,
            self.config.timing,
            Timestamp::now(),
        )
    }
}

async fn renew(api: Api<Lease>, lease: Lease, timing: LeaseTiming) -> Result<(), String> {
    let params = PatchParams::apply("openelb-speaker").force();
    let name = lease.name_any();
    let patch = Patch::Apply(&lease);
    let write = api
        .patch(&name, &params, &patch)
        .map_ok(drop)
        .map_err(|error| error.to_string());
    // Well within a duration, so that one request which hangs does not cost this node its life.
    timeout(timing.duration / 2, write)
        .await
        .unwrap_or_else(|_| Err("the API server does not answer".to_owned()))
}

fn lease_name(node: &str) -> String {
    format!("{}{node}", keys::SPEAKER_LEASE)
}

fn lease(node: &str, said: &Said, timing: LeaseTiming, now: Timestamp) -> Lease {
    let seconds = timing.duration.as_secs().try_into().unwrap_or(i32::MAX);
    Lease {
        metadata: ObjectMeta {
            name: Some(lease_name(node)),
            labels: Some([(keys::SPEAKER_LEASE_LABEL.to_owned(), String::new())].into()),
            annotations: serde_json::to_string(said)
                .ok()
                .map(|said| [(keys::SPEAKER_FACTS.to_owned(), said)].into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

/// The node of a Lease and what it says; `None` for one that is none of ours.
fn read(lease: &Lease) -> Option<(String, Renewal)> {
    let node = lease
        .metadata
        .name
        .as_deref()?
        .strip_prefix(keys::SPEAKER_LEASE)?;
    let said = lease.annotations().get(keys::SPEAKER_FACTS)?;
    let said: Said = serde_json::from_str(said).ok()?;
    if said.attachment.len() > Facts::MAX_ATTACHMENT {
        return None;
    }
    let facts = Facts {
        steady: said.steady,
        leaving: said.leaving,
        attachment: said.attachment.into(),
    };
    Some((
        node.to_owned(),
        Renewal {
            stamp: lease.metadata.resource_version.clone()?,
            address: said.address,
            facts,
        },
    ))
}

#[cfg(test)]
mod tests {
    use openelb_membership::Profile;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let said = Said {
            address: SocketAddr::from(([10, 0, 0, 1], 7946)),
            steady: true,
            leaving: false,
            attachment: vec![1, 2, 255],
        };
        let timing = Profile::Default.lease_timing();
        let mut written = lease("n1", &said, timing, Timestamp::UNIX_EPOCH);
        assert_eq!(read(&written), None, "it was not stored yet");
        written.metadata.resource_version = Some("7".to_owned());
        let (node, renewal) = read(&written).unwrap();
        assert_eq!((node.as_str(), renewal.stamp.as_str()), ("n1", "7"));
        assert_eq!(renewal.address, said.address);
        assert!(renewal.facts.steady && !renewal.facts.leaving);
        assert_eq!(&*renewal.facts.attachment, [1, 2, 255]);
        assert_eq!(written.spec.unwrap().lease_duration_seconds, Some(4));
    }

    #[test]
    fn leases_of_others_and_nonsense_are_left_alone() {
        let mut other = Lease::default();
        other.metadata.name = Some("openelb-controller".to_owned());
        other.metadata.resource_version = Some("1".to_owned());
        assert_eq!(read(&other), None);
        other.metadata.name = Some("openelb-speaker-n1".to_owned());
        assert_eq!(read(&other), None);
        other.metadata.annotations =
            Some([(keys::SPEAKER_FACTS.to_owned(), "{".to_owned())].into());
        assert_eq!(read(&other), None);
    }
}
