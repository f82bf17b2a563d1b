//! Takes OpenELB's finalizers off the objects that carry them, so that nothing hangs when we are gone. We
//! never add any. What fails is tried again until it is done.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Debug;
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use openelb_api::keys;
use openelb_api::v1alpha2::{BgpConf, BgpPeer};
use openelb_ipam::{Millis, ServiceKey};
use openelb_process::patience;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::execute::FIELD_MANAGER;
use crate::process::Context;

/// How long an object whose finalizer could not be taken off is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Services that OpenELB's finalizers are taken off.
#[derive(Default)]
pub(crate) struct Services {
    busy: HashSet<ServiceKey>,
    running: JoinSet<(ServiceKey, bool)>,
    again: BTreeMap<ServiceKey, Millis>,
}

impl Services {
    /// Begins with a Service, unless it is under way or waits to be tried again.
    pub(crate) fn begin(&mut self, client: &Client, key: &ServiceKey) {
        if self.again.contains_key(key) || !self.busy.insert(key.clone()) {
            return;
        }
        let api: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
        let key = key.clone();
        self.running.spawn(async move {
            let done = take_off(&api, &key.name, &keys::OPENELB_SERVICE_FINALIZERS).await;
            if let Err(error) = &done {
                tracing::warn!(service = %key, %error, "cannot take OpenELB's finalizer off; trying again");
            }
            (key, done.is_ok())
        });
    }

    /// Waits until one has ended; for ever when none runs. One that failed is due again in a second.
    pub(crate) async fn ended(&mut self, began: Instant) {
        match self.running.join_next().await {
            Some(Ok((key, done))) => {
                self.busy.remove(&key);
                if !done {
                    let due = began.elapsed() + PAUSE;
                    let due = Millis::try_from(due.as_millis()).unwrap_or(Millis::MAX);
                    self.again.insert(key, due);
                }
            }
            Some(Err(error)) => tracing::error!(%error, "a task ended unexpectedly"),
            None => std::future::pending().await,
        }
    }

    /// When the next one is due again.
    pub(crate) fn next(&self) -> Option<Millis> {
        self.again.values().min().copied()
    }

    /// Those that are due again.
    pub(crate) fn due(&mut self, now: Millis) -> Vec<ServiceKey> {
        let due = self.again.extract_if(.., |_, at| *at <= now);
        due.map(|(key, _)| key).collect()
    }
}

/// Watches BgpConfs and BgpPeers for as long as the process runs; acts while it leads.
pub(crate) fn watch_bgp(context: &Context, leading: watch::Receiver<bool>) {
    watch_kind::<BgpConf>(context, leading.clone());
    watch_kind::<BgpPeer>(context, leading);
}

fn watch_kind<K>(context: &Context, leading: watch::Receiver<bool>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let metadata: Api<PartialObjectMeta<K>> = Api::all(context.client.clone());
    let api: Api<K> = Api::all(context.client.clone());
    let shutdown = context.shutdown.clone();
    let work = async move {
        let stream = watcher::watcher(metadata, watcher::Config::default());
        let stream = std::pin::pin!(stream.backoff(patience()));
        follow(stream, &api, leading).await;
    };
    let name = format!("the finalizers of {}", K::kind(&()));
    let work = context.pulses.of_task(&name, work);
    tokio::spawn(shutdown.run_until_cancelled_owned(work));
}

async fn follow<K>(
    mut stream: impl futures::Stream<Item = watcher::Result<Event<PartialObjectMeta<K>>>> + Unpin,
    api: &Api<K>,
    mut leading: watch::Receiver<bool>,
) where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    // What carries one, also while another process leads.
    let mut carrying = BTreeSet::new();
    let mut not_before = Instant::now();
    loop {
        let acts = *leading.borrow_and_update() && !carrying.is_empty();
        tokio::select! {
            event = stream.try_next() => match event {
                Ok(None) => return,
                Ok(Some(Event::Init)) => carrying.clear(),
                Ok(Some(Event::Apply(object) | Event::InitApply(object))) => {
                    let mut finalizers = object.finalizers().iter();
                    if finalizers.any(|known| known == keys::OPENELB_FINALIZER) {
                        carrying.insert(object.name_any());
                    } else {
                        carrying.remove(&object.name_any());
                    }
                }
                Ok(Some(Event::Delete(object))) => {
                    carrying.remove(&object.name_any());
                }
                Ok(Some(Event::InitDone)) | Err(_) => {}
            },
            changed = leading.changed() => if changed.is_err() {
                return;
            },
            () = sleep_until(not_before), if acts => {
                for name in std::mem::take(&mut carrying) {
                    if let Err(error) = take_off(api, &name, &[keys::OPENELB_FINALIZER]).await {
                        tracing::warn!(%name, %error, "cannot take OpenELB's finalizer off; trying again");
                        carrying.insert(name);
                        not_before = Instant::now() + PAUSE;
                    }
                }
            }
        }
    }
}

/// Attempts to take a finalizer off against others who write the object too.
const ATTEMPTS: u8 = 8;

/// Takes finalizers off an object, as far as they are there. A conflict with another writer is tried again on a
/// fresh read; the object is most often being written by ourselves at that moment.
pub(crate) async fn take_off<K>(api: &Api<K>, name: &str, finalizers: &[&str]) -> kube::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut attempt = 1;
    loop {
        match try_take_off(api, name, finalizers).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() && attempt < ATTEMPTS => {
                attempt += 1;
            }
            other => return other,
        }
    }
}

async fn try_take_off<K>(api: &Api<K>, name: &str, finalizers: &[&str]) -> kube::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let Some(found) = api.get_metadata_opt(name).await? else {
        return Ok(());
    };
    let stays = |known: &&String| !finalizers.contains(&known.as_str());
    let left: Vec<_> = found.finalizers().iter().filter(stays).collect();
    if left.len() == found.finalizers().len() {
        return Ok(());
    }
    let body =
        json!({"metadata": {"resourceVersion": found.resource_version(), "finalizers": left}});
    api.patch_metadata(
        name,
        &PatchParams::apply(FIELD_MANAGER),
        &Patch::Merge(body),
    )
    .await
    .map(drop)
}
