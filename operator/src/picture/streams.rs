//! The watches themselves.

use std::fmt::Debug;

use futures::stream::{BoxStream, SelectAll, select_all};
use futures::{StreamExt as _, future};
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Client, Resource};
use openelb_process::Watches;
use serde::de::DeserializeOwned;

use super::{Change, Kind};

/// All changes of these kinds, in one stream that never ends. Secrets and ConfigMaps are those of `namespace`; `watches`
/// is told which are interrupted.
pub(crate) fn changes(
    client: &Client,
    namespace: &str,
    kinds: &[Kind],
    watches: &Watches,
) -> SelectAll<BoxStream<'static, Change>> {
    let all = watcher::Config::default;
    let follow = Follow(watches);
    let streams = kinds.iter().map(|kind| match kind {
        Kind::Node => follow.kind(*kind, Api::all(client.clone()), all(), Change::Node),
        Kind::Service => follow.kind(*kind, Api::all(client.clone()), all(), Change::Service),
        Kind::EndpointSlice => {
            // Headless Services have no load balancer.
            let config = all().labels("!service.kubernetes.io/headless");
            follow.kind(
                *kind,
                Api::all(client.clone()),
                config,
                Change::EndpointSlice,
            )
        }
        Kind::Eip => follow.kind(*kind, Api::all(client.clone()), all(), Change::Eip),
        Kind::EipAddress => follow.kind(*kind, Api::all(client.clone()), all(), Change::EipAddress),
        Kind::BgpConf => follow.kind(*kind, Api::all(client.clone()), all(), Change::BgpConf),
        Kind::BgpPeer => follow.kind(*kind, Api::all(client.clone()), all(), Change::BgpPeer),
        Kind::Pod => {
            let config = all().labels("app=openelb,component=speaker");
            follow.kind(
                *kind,
                Api::namespaced(client.clone(), namespace),
                config,
                Change::Pod,
            )
        }
        Kind::ConfigMap => follow.kind(
            *kind,
            Api::namespaced(client.clone(), namespace),
            all(),
            Change::ConfigMap,
        ),
        Kind::Secret => {
            let config = all().fields("type!=helm.sh/release.v1,type!=kubernetes.io/tls");
            follow.kind(
                *kind,
                Api::namespaced(client.clone(), namespace),
                config,
                Change::Secret,
            )
        }
    });
    select_all(streams)
}

/// Follows one kind after the other, and tells how each fares.
struct Follow<'a>(&'a Watches);

impl Follow<'_> {
    fn kind<K>(
        &self,
        kind: Kind,
        api: Api<K>,
        config: watcher::Config,
        wrap: fn(Event<K>) -> Change,
    ) -> BoxStream<'static, Change>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let watches = self.0.clone();
        let name = format!("{kind:?}");
        watches.begin(&name);
        watch(api, config)
            .default_backoff()
            .filter_map(move |event| {
                future::ready(match event {
                    Ok(event) => {
                        watches.heard(&name);
                        Some(wrap(event))
                    }
                    Err(error) => {
                        watches.failed(&name);
                        tracing::warn!(?kind, %error, "the watch is interrupted; nothing changes until it is back");
                        None
                    }
                })
            })
            .boxed()
    }
}
