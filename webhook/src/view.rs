//! The view of the cluster that the rules compare with, kept by watches.
//!
//! One task owns the view. It applies what the watches bring, as many events at a time as are
//! there, and publishes a copy (its parts are shared); reviews read whichever copy is current.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use openelb_api::{
    Tolerant,
    bgp::{Peer, Speaker},
    keys,
    v1alpha2::{BgpConf, BgpPeer, Eip, EipAddress, address_of},
    validate::{EipFacts, Holding, NodeFacts, PeerFacts, View},
};
use openelb_process::{Pulse, Watches, patience};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::metrics::Metrics;

/// Events that are applied before a new copy is published.
const BATCH: usize = 512;

/// The current view, and whether it is there.
#[derive(Clone, Debug, Default)]
pub struct Known {
    view: Arc<ArcSwap<View>>,
    loaded: CancellationToken,
}

impl Known {
    /// The current copy.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Whether every object that the rules compare with has been seen.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.loaded.is_cancelled()
    }

    /// Publishes a view, as complete.
    pub fn publish(&self, view: View) {
        self.view.store(Arc::new(view));
        self.loaded.cancel();
    }
}

/// What a watch brought.
enum News {
    Eip(Event<Tolerant<Eip>>),
    Address(Event<Tolerant<EipAddress>>),
    Peer(Event<Tolerant<BgpPeer>>),
    Conf(Event<Tolerant<BgpConf>>),
    Node(Box<Event<Node>>),
}

/// A change of one kind's part of the view.
enum Edit<K, V> {
    Replace(BTreeMap<K, V>),
    Put(K, V),
    Remove(K),
}

/// Collects a first list until it is complete, then passes single changes on.
struct Inbox<K, V> {
    first: BTreeMap<K, V>,
    edits: Vec<Edit<K, V>>,
    is_complete: bool,
}

impl<K, V> Default for Inbox<K, V> {
    fn default() -> Self {
        Self {
            first: BTreeMap::new(),
            edits: Vec::new(),
            is_complete: false,
        }
    }
}

impl<K: Ord, V> Inbox<K, V> {
    /// Takes an event; `read` gives the key, and the value unless the object cannot be used.
    fn take<T>(&mut self, event: Event<T>, read: impl Fn(&T) -> Option<(K, Option<V>)>) {
        match event {
            Event::Init => self.first.clear(),
            Event::InitApply(object) => {
                if let Some((key, Some(value))) = read(&object) {
                    self.first.insert(key, value);
                }
            }
            Event::InitDone => {
                self.edits = vec![Edit::Replace(std::mem::take(&mut self.first))];
                self.is_complete = true;
            }
            Event::Apply(object) => match read(&object) {
                Some((key, Some(value))) => self.edits.push(Edit::Put(key, value)),
                Some((key, None)) => self.edits.push(Edit::Remove(key)),
                None => {}
            },
            Event::Delete(object) => {
                if let Some((key, _)) = read(&object) {
                    self.edits.push(Edit::Remove(key));
                }
            }
        }
    }

    /// Applies the edits; false if there are none.
    fn apply(&mut self, change: impl FnOnce(&mut dyn FnMut(&mut BTreeMap<K, V>))) -> bool {
        let edits = std::mem::take(&mut self.edits);
        if edits.is_empty() {
            return false;
        }
        let mut edits = Some(edits);
        change(&mut |map| {
            for edit in edits.take().into_iter().flatten() {
                match edit {
                    Edit::Replace(all) => *map = all,
                    Edit::Put(key, value) => drop(map.insert(key, value)),
                    Edit::Remove(key) => drop(map.remove(&key)),
                }
            }
        });
        true
    }
}

/// The task that keeps the view.
#[derive(Default)]
struct Keeper {
    view: View,
    eips: Inbox<String, Arc<EipFacts>>,
    addresses: Inbox<IpAddr, Arc<Holding>>,
    peers: Inbox<String, PeerFacts>,
    confs: Inbox<String, Option<u32>>,
    conf: BTreeMap<String, Option<u32>>,
    nodes: Inbox<String, NodeFacts>,
}

/// Watches until `stop`, publishing to `known`.
pub async fn run(
    client: Client,
    known: Known,
    metrics: Metrics,
    pulse: Pulse,
    stop: CancellationToken,
) {
    let mut keeper = Keeper::default();
    let mut news = std::pin::pin!(news(&client, &metrics.watches).ready_chunks(BATCH));
    loop {
        pulse.beat();
        let batch = tokio::select! {
            () = stop.cancelled() => return,
            () = pulse.due() => continue,
            batch = news.next() => batch,
        };
        let Some(batch) = batch else { return };
        for item in batch {
            keeper.take(item);
        }
        if keeper.apply() {
            #[expect(clippy::cast_precision_loss, reason = "a metric")]
            metrics.view_objects.set(keeper.view.len() as f64);
            known.view.store(Arc::new(keeper.view.clone()));
        }
        if keeper.is_complete() && !known.is_loaded() {
            info!(objects = keeper.view.len(), "know the cluster");
            known.loaded.cancel();
        }
    }
}

impl Keeper {
    fn take(&mut self, news: News) {
        match news {
            News::Eip(event) => self.eips.take(event, |eip| {
                let facts = eip
                    .parsed
                    .as_ref()
                    .ok()
                    .and_then(|eip| EipFacts::try_from(&**eip).ok());
                Some((eip.name_any(), facts.map(Arc::new)))
            }),
            News::Address(event) => self.addresses.take(event, |address| {
                let holding = address
                    .parsed
                    .as_ref()
                    .ok()
                    .map(|address| Holding::from(&**address));
                Some((address_of(&address.name_any())?, holding.map(Arc::new)))
            }),
            News::Peer(event) => self.peers.take(event, |peer| {
                let facts = peer.parsed.as_ref().ok().and_then(|peer| peer_facts(peer));
                Some((peer.name_any(), facts))
            }),
            News::Conf(event) => self.confs.take(event, |conf| {
                let local_as = conf.parsed.as_ref().ok().map(|conf| {
                    let speaker = Speaker::try_from(&**conf).ok()?;
                    speaker.common_as_number()
                });
                Some((conf.name_any(), local_as))
            }),
            News::Node(event) => {
                self.nodes.take(*event, |node| {
                    Some((node.name_any(), Some(node_facts(node))))
                });
            }
        }
    }

    /// Whether the first list of every kind has come. Without the addresses in use, the peers or
    /// the nodes some rules would take anything.
    fn is_complete(&self) -> bool {
        self.eips.is_complete
            && self.addresses.is_complete
            && self.peers.is_complete
            && self.confs.is_complete
            && self.nodes.is_complete
    }

    /// Brings the view up to date; false if nothing changed.
    fn apply(&mut self) -> bool {
        let view = &mut self.view;
        let changed = [
            self.eips.apply(|edit| view.change_eips(edit)),
            self.addresses.apply(|edit| view.change_holdings(edit)),
            self.peers.apply(|edit| view.change_peers(edit)),
            self.nodes.apply(|edit| view.change_nodes(edit)),
            self.confs.apply(|edit| edit(&mut self.conf)),
        ];
        view.local_as = self.conf.get(keys::BGP_CONF).copied().flatten();
        changed.contains(&true)
    }
}

fn peer_facts(peer: &BgpPeer) -> Option<PeerFacts> {
    Peer::try_from(peer).ok().as_ref().map(PeerFacts::from)
}

fn node_facts(node: &Node) -> NodeFacts {
    let addresses = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    NodeFacts {
        labels: node.labels().clone(),
        addresses: addresses
            .filter_map(|address| address.address.parse().ok())
            .collect(),
    }
}

fn news(client: &Client, watches: &Watches) -> impl Stream<Item = News> + use<> {
    let all = [
        watch(client, watches, News::Eip).boxed(),
        watch(client, watches, News::Address).boxed(),
        watch(client, watches, News::Peer).boxed(),
        watch(client, watches, News::Conf).boxed(),
        watch(client, watches, |event| News::Node(Box::new(event))).boxed(),
    ];
    stream::select_all(all)
}

fn watch<T>(
    client: &Client,
    watches: &Watches,
    wrap: fn(Event<T>) -> News,
) -> impl Stream<Item = News> + use<T>
where
    T: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<T> = Api::all(client.clone());
    let watches = watches.clone();
    watches.begin(&T::kind(&()));
    watcher(api, watcher::Config::default())
        .backoff(patience())
        .filter_map(move |event| {
            let news = match event {
                Ok(event) => {
                    watches.heard(&T::kind(&()));
                    Some(wrap(event))
                }
                Err(error) => {
                    watches.failed(&T::kind(&()));
                    warn!(kind = %T::kind(&()), %error, "cannot watch; trying again");
                    None
                }
            };
            std::future::ready(news)
        })
}

#[cfg(test)]
mod tests {
    use openelb_api::bgp::Neighbor;
    use serde_json::json;

    use super::*;

    fn eip(name: &str, address: &serde_json::Value) -> Tolerant<Eip> {
        let object = json!({ "metadata": { "name": name }, "spec": { "address": address } });
        serde_json::from_value(object).unwrap()
    }

    fn names(keeper: &Keeper) -> Vec<&str> {
        keeper
            .view
            .eips()
            .map(|eip| eip.pool.name.as_str())
            .collect()
    }

    #[test]
    fn a_list_replaces_all_once_it_is_complete_and_changes_follow() {
        let mut keeper = Keeper::default();
        let first = json!("10.0.0.0/24");
        keeper.take(News::Eip(Event::Init));
        keeper.take(News::Eip(Event::InitApply(eip("a", &first))));
        assert!(!keeper.apply());
        keeper.take(News::Eip(Event::InitDone));
        assert!(keeper.apply());
        assert_eq!(names(&keeper), ["a"]);
        keeper.take(News::Eip(Event::Apply(eip("b", &json!("10.0.1.0/24")))));
        keeper.take(News::Eip(Event::Delete(eip("a", &first))));
        assert!(keeper.apply());
        assert_eq!(names(&keeper), ["b"]);
        // A watch that starts again brings a new list.
        keeper.take(News::Eip(Event::Init));
        keeper.take(News::Eip(Event::InitApply(eip("c", &first))));
        keeper.take(News::Eip(Event::InitDone));
        assert!(keeper.apply());
        assert_eq!(names(&keeper), ["c"]);
    }

    #[test]
    fn the_view_is_complete_when_every_list_has_come() {
        let mut keeper = Keeper::default();
        for done in [
            News::Eip(Event::InitDone),
            News::Address(Event::InitDone),
            News::Peer(Event::InitDone),
            News::Conf(Event::InitDone),
            News::Node(Box::new(Event::InitDone)),
        ] {
            assert!(!keeper.is_complete());
            keeper.take(done);
        }
        assert!(keeper.is_complete());
    }

    #[test]
    fn an_eip_that_cannot_be_used_is_not_compared_with() {
        let mut keeper = Keeper::default();
        keeper.take(News::Eip(Event::Apply(eip("a", &json!("10.0.0.0/24")))));
        keeper.take(News::Eip(Event::Apply(eip("a", &json!("nonsense")))));
        keeper.take(News::Eip(Event::Apply(eip("b", &json!(5)))));
        keeper.apply();
        assert!(names(&keeper).is_empty());
    }

    #[test]
    fn addresses_nodes_peers_and_the_own_as_are_known() {
        let mut keeper = Keeper::default();
        let address = json!({
            "metadata": { "name": "10.0.0.1" },
            "spec": { "address": "10.0.0.1", "eip": "a", "services": [{ "namespace": "n", "name": "s", "uid": "u" }] },
        });
        keeper.take(News::Address(Event::Apply(
            serde_json::from_value(address).unwrap(),
        )));
        let node = json!({
            "metadata": { "name": "w" },
            "status": { "addresses": [
                { "type": "Hostname", "address": "w" }, { "type": "InternalIP", "address": "10.0.0.9" },
            ] },
        });
        let node = Event::Apply(serde_json::from_value(node).unwrap());
        keeper.take(News::Node(Box::new(node)));
        let conf = json!({ "metadata": { "name": "default" }, "spec": { "as": 65_000 } });
        keeper.take(News::Conf(Event::Apply(
            serde_json::from_value(conf).unwrap(),
        )));
        let with_racks = json!({
            "metadata": { "name": "default" }, "spec": { "as": 65_000, "asPerRack": { "a": 65_001 } },
        });
        let peer = json!({ "metadata": { "name": "p" }, "spec": { "conf": { "neighborAddress": "10.0.0.254", "peerAs": 1 } } });
        keeper.take(News::Peer(Event::Apply(
            serde_json::from_value(peer).unwrap(),
        )));
        keeper.apply();
        let view = &keeper.view;
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(view.holding(ip("10.0.0.1")).unwrap().holders(), "n/s");
        assert_eq!(
            view.node_within(ip("10.0.0.0"), ip("10.0.0.255")),
            Some((ip("10.0.0.9"), "w"))
        );
        assert_eq!(view.local_as, Some(65_000));
        assert_eq!(
            view.peers().next().unwrap().1.neighbor,
            Neighbor::Address(ip("10.0.0.254"))
        );
        // Which number is a peer's own depends on the node then.
        keeper.take(News::Conf(Event::Apply(
            serde_json::from_value(with_racks).unwrap(),
        )));
        keeper.apply();
        assert_eq!(keeper.view.local_as, None);
    }
}
