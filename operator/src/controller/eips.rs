//! Keeps `Eip.status`: a view of the index, written at most once a second for each Eip, less often where the
//! API server takes long for it, and only when it differs from what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource as _};
use openelb_api::v1alpha2::{Eip, EipStatus};
use openelb_api::{Tolerant, keys};
use openelb_ipam::{EipView, Index, Millis, Said};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::execute::FIELD_MANAGER;
use super::metrics::Metrics;
use super::wire;

/// The pause between two writes of one Eip.
const PAUSE: Millis = 1000;
/// Writes of one Eip take no more than this part of the time: where the API server is busy, addresses come first.
const SHARE: Millis = 50;
/// So long an Eip rests for that at most.
const LONGEST: Millis = 10_000;
/// How many Eips are written at the same time.
const PARALLEL: usize = 4;

/// What an Eip says of itself now.
#[derive(Default)]
struct Written {
    status: EipStatus,
    generation: Option<i64>,
    next: Millis,
    finalizer: bool,
}

/// A write that has ended.
struct Ended {
    eip: Arc<str>,
    failed: bool,
    took: Duration,
}

/// The statuses of all Eips.
pub(crate) struct Statuses {
    metrics: Metrics,
    written: BTreeMap<Arc<str>, Written>,
    due: BTreeSet<Arc<str>>,
    running: JoinSet<Ended>,
}

impl Statuses {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            written: BTreeMap::new(),
            due: BTreeSet::new(),
            running: JoinSet::new(),
        }
    }

    /// Takes in what a watch says of an Eip.
    pub(crate) fn seen(&mut self, object: &Tolerant<Eip>) {
        let Some(name) = object.metadata.name.as_deref() else {
            return;
        };
        let name: Arc<str> = name.into();
        let next = self.written.get(&name).map_or(0, |written| written.next);
        let status = object
            .parsed
            .as_ref()
            .ok()
            .and_then(|eip| eip.status.clone())
            .unwrap_or_default();
        let finalizers = object.meta().finalizers.iter().flatten();
        let finalizer = finalizers
            .into_iter()
            .any(|known| known == keys::OPENELB_IPAM_FINALIZER);
        let generation = object.metadata.generation;
        self.written.insert(
            name.clone(),
            Written {
                status,
                generation,
                next,
                finalizer,
            },
        );
        self.due.insert(name);
    }

    /// Forgets an Eip.
    pub(crate) fn gone(&mut self, name: &str) {
        self.written.remove(name);
        self.due.remove(name);
        self.metrics.eip_gone(name);
    }

    /// Eips whose view may have changed.
    pub(crate) fn changed(&mut self, names: BTreeSet<Arc<str>>) {
        self.due.extend(
            names
                .into_iter()
                .filter(|name| self.written.contains_key(name)),
        );
    }

    /// When to call [`write`](Self::write) again.
    pub(crate) fn next(&self) -> Option<Millis> {
        if self.running.len() >= PARALLEL {
            return None;
        }
        self.due
            .iter()
            .filter_map(|name| Some(self.written.get(name)?.next))
            .min()
    }

    /// Writes what is due and differs.
    pub(crate) fn write(&mut self, index: &Index, client: &Client, now: Millis) {
        let due: Vec<_> = self.due.iter().cloned().collect();
        for name in due {
            let Some(written) = self.written.get_mut(&name) else {
                continue;
            };
            if written.next > now {
                continue;
            }
            if self.running.len() >= PARALLEL {
                return;
            }
            self.due.remove(&name);
            if written.finalizer {
                self.running
                    .spawn(take_finalizer(client.clone(), name.clone()));
                written.next = now.saturating_add(PAUSE);
            }
            let Some(view) = index.eip_view(&name) else {
                continue;
            };
            self.metrics.eip(&name, &view);
            if says_the_same(&view, written) {
                continue;
            }
            written.next = now.saturating_add(PAUSE);
            let body = json!({"status": status(&view, written, jiff::Timestamp::now())});
            self.running.spawn(write(client.clone(), name, body));
        }
    }

    /// Waits until a write has ended; for ever when none runs.
    pub(crate) async fn ended(&mut self, now: impl Fn() -> Millis) {
        match self.running.join_next().await {
            Some(Ok(ended)) => self.take_in(ended, now()),
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }

    fn take_in(&mut self, ended: Ended, now: Millis) {
        let took = Millis::try_from(ended.took.as_millis()).unwrap_or(Millis::MAX);
        if let Some(written) = self.written.get_mut(&ended.eip) {
            let rest = took.saturating_mul(SHARE).min(LONGEST);
            let rested = now.saturating_add(rest);
            written.next = written.next.max(rested);
        }
        if ended.failed {
            self.due.insert(ended.eip);
        }
    }
}

async fn write(client: Client, name: Arc<str>, body: Value) -> Ended {
    let began = Instant::now();
    let api: Api<Eip> = Api::all(client);
    let params = PatchParams::apply(FIELD_MANAGER);
    let patch = Patch::Merge(body);
    let result = timeout(
        Duration::from_secs(10),
        api.patch_status(&name, &params, &patch),
    )
    .await;
    let failed = match result {
        Ok(Ok(_)) => false,
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => false,
        Ok(Err(error)) => {
            tracing::warn!(eip = &*name, %error, "cannot write the status of the Eip; trying again");
            true
        }
        Err(_) => true,
    };
    Ended {
        eip: name,
        failed,
        took: began.elapsed(),
    }
}

async fn take_finalizer(client: Client, name: Arc<str>) -> Ended {
    let api: Api<Eip> = Api::all(client);
    let failed = super::finalizers::take_off(&api, &name, &[keys::OPENELB_IPAM_FINALIZER]).await;
    Ended {
        eip: name,
        failed: failed.is_err(),
        took: Duration::ZERO,
    }
}

/// The conditions that are ours, as they are.
fn conditions(status: &EipStatus) -> BTreeMap<&str, Said> {
    let said = status.conditions.iter().map(|condition| {
        let said = Said {
            holds: condition.status == "True",
            reason: condition.reason.as_str().into(),
            message: condition.message.as_str().into(),
        };
        (condition.type_.as_str(), said)
    });
    said.collect()
}

fn says_the_same(view: &EipView, written: &Written) -> bool {
    let status = &written.status;
    let known = conditions(status);
    let (first, last) = ends(view);
    // `kubectl wait` believes a condition only of the generation that it was said of.
    let of_this_generation = |kind: &str| {
        let mut said = status.conditions.iter();
        said.any(|condition| {
            condition.type_ == kind && condition.observed_generation == written.generation
        })
    };
    view.conditions
        .iter()
        .all(|(kind, said)| known.get(kind) == Some(said) && of_this_generation(kind))
        && status.used == view.used
        && status.usage == view.usage
        && status.pool_size == view.pool_size
        && status.occupied == view.occupied
        && status.ready == view.ready
        && status.first_ip == first
        && status.last_ip == last
        && status.v4 == is_v4(view)
}

fn ends(view: &EipView) -> (String, String) {
    let text = |address: std::net::IpAddr| address.to_string();
    view.ends
        .map_or_else(Default::default, |(first, last)| (text(first), text(last)))
}

fn is_v4(view: &EipView) -> bool {
    view.ends.is_some_and(|(first, _)| first.is_ipv4())
}

/// A merge patch; of `used` it names what is new, other, or no longer in it. Where that was made from an old
/// word about the Eip, the next one shows the difference.
fn status(view: &EipView, written: &Written, now: jiff::Timestamp) -> Value {
    let gone = written
        .status
        .used
        .keys()
        .filter(|address| !view.used.contains_key(*address));
    let mut used: serde_json::Map<String, Value> =
        gone.map(|address| (address.clone(), Value::Null)).collect();
    // Only what differs: a full pool that changes would send all of it once a second.
    let known_used = &written.status.used;
    let news = view
        .used
        .iter()
        .filter(|(address, services)| known_used.get(*address) != Some(services));
    used.extend(news.map(|(address, services)| (address.clone(), json!(services))));
    let (first, last) = ends(view);
    let known = conditions(&written.status);
    let mut all: Vec<Value> = view
        .conditions
        .iter()
        .map(|(kind, said)| {
            let before = known.get(kind);
            let mut value = wire::condition(kind, said, before, written.generation, now);
            let since = written
                .status
                .conditions
                .iter()
                .find(|condition| condition.type_ == *kind);
            if let (Value::Object(fields), Some(since)) = (&mut value, since) {
                fields
                    .entry("lastTransitionTime")
                    .or_insert_with(|| json!(wire::time(since.last_transition_time.0)));
            }
            value
        })
        .collect();
    // Conditions of others stay.
    let others = written.status.conditions.iter();
    all.extend(
        others
            .filter(|other| !view.conditions.contains_key(other.type_.as_str()))
            .map(|other| json!(other)),
    );
    json!({
        "occupied": view.occupied,
        "usage": view.usage,
        "poolSize": view.pool_size,
        "used": used,
        "firstIP": first,
        "lastIP": last,
        "ready": view.ready,
        "v4": is_v4(view),
        "conditions": all,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eip_rests_longer_where_its_write_took_long() {
        let mut statuses = Statuses::new(Metrics::register(&openelb_process::Metrics::default()));
        statuses.written.insert("lan".into(), Written::default());
        let ended = |millis, failed| Ended {
            eip: "lan".into(),
            failed,
            took: Duration::from_millis(millis),
        };
        statuses.take_in(ended(10, false), 5_000);
        assert_eq!(
            (statuses.written["lan"].next, statuses.next()),
            (5_500, None)
        );
        statuses.take_in(ended(100, true), 6_000);
        assert_eq!(statuses.next(), Some(11_000), "what failed is tried again");
        statuses.take_in(ended(10_000, true), 20_000);
        assert_eq!(
            statuses.next(),
            Some(30_000),
            "an outage is no reason to rest for long"
        );
    }
}
