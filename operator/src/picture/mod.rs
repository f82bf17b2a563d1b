//! The picture of the cluster: what the watches have shown so far, trimmed to what announcing needs.
//!
//! [`changes`] is the only I/O: one stream of all watches, which ends never and waits longer and
//! longer between attempts while the API server is away. [`Picture`] is plain data that follows it.
//! A watch that starts anew never empties the picture: objects go when a complete list lacks them,
//! so that nothing is withdrawn because the API server was gone. Speaker and controller each own
//! one picture.

mod read;
mod relist;
mod streams;
mod touched;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node as ApiNode, Pod, Secret, Service as ApiService};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::watcher::Event;
use openelb_api::v1alpha2::address_of;
use openelb_api::v1alpha2::{BgpConf, BgpConfStatus, BgpPeer, BgpPeerStatus, Eip, EipAddress};
use openelb_api::validate::EipFacts;
use openelb_api::{Tolerant, keys};

use crate::announce::{Holding, Node, Service, ServiceKey, SliceEndpoints, World};
use crate::peering::{ConfObject, Credentials, PeerObject};
pub(crate) use read::{PolicyObject, SpeakerPod};
use read::{
    announced_condition, broken, conf_entries, credential, is_foreign, is_nobodys, peer_entries,
    read_pool,
};
use relist::{Key, Relist};
pub(crate) use streams::changes;
pub(crate) use touched::Touched;

/// A kind that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Node,
    Service,
    EndpointSlice,
    Eip,
    EipAddress,
    BgpConf,
    BgpPeer,
    Secret,
    /// ConfigMaps with a policy.
    ConfigMap,
    /// The pods of speakers.
    Pod,
}

/// What a watch says.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "taken in at once, never stored")]
pub(crate) enum Change {
    Node(Event<ApiNode>),
    Service(Event<ApiService>),
    EndpointSlice(Event<EndpointSlice>),
    Eip(Event<Tolerant<Eip>>),
    EipAddress(Event<Tolerant<EipAddress>>),
    BgpConf(Event<Tolerant<BgpConf>>),
    BgpPeer(Event<Tolerant<BgpPeer>>),
    Secret(Event<Secret>),
    ConfigMap(Event<ConfigMap>),
    Pod(Event<Pod>),
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    /// What decides who announces.
    pub(crate) world: World,
    /// The BgpConf `default`, unless it is the CNI's.
    pub(crate) conf: Option<ConfObject>,
    /// The status of the BgpConf `default`, while it exists.
    pub(crate) conf_status: Option<Arc<BgpConfStatus>>,
    /// Why the BgpConf cannot be read, if so.
    pub(crate) conf_broken: Option<String>,
    /// The BgpPeers.
    pub(crate) peers: BTreeMap<String, PeerObject>,
    /// Their statuses.
    pub(crate) peer_statuses: BTreeMap<String, Arc<BgpPeerStatus>>,
    /// Passwords.
    pub(crate) secrets: Credentials,
    /// The ConfigMaps that hold a policy, by name.
    pub(crate) policies: BTreeMap<String, PolicyObject>,
    /// The addresses of the speakers' pods.
    pub(crate) speakers: BTreeMap<String, IpAddr>,
    /// The speakers' pods, where all nodes matter.
    pub(crate) pods: BTreeMap<String, SpeakerPod>,
    /// The `Announced` conditions of Services, where all nodes matter.
    pub(crate) announced: BTreeMap<ServiceKey, Condition>,
    /// The Eips as rules see them, where all nodes matter.
    pub(crate) eips: BTreeMap<String, Arc<EipFacts>>,
    /// EipAddresses that nobody holds, or that are said to be invalid, where all nodes matter.
    pub(crate) unheld: BTreeMap<String, Arc<EipAddress>>,
    relists: BTreeMap<Kind, Relist>,
    /// Kinds without which the picture is not complete.
    needed: Vec<Kind>,
    /// EndpointSlice → the Service that it belongs to.
    owners: BTreeMap<Key, ServiceKey>,
    /// The one node whose entries in statuses matter; all where `None`.
    only: Option<String>,
}

impl Picture {
    /// An empty picture that is complete once each of these kinds was listed. Where a node is named,
    /// of statuses only its own entries are kept.
    pub(crate) fn new(kinds: &[Kind], only: Option<String>) -> Self {
        Self {
            needed: kinds.to_vec(),
            only,
            ..Self::default()
        }
    }

    /// A picture of this world alone.
    #[cfg(test)]
    pub(crate) fn of(world: World) -> Self {
        Self {
            world,
            ..Self::default()
        }
    }

    /// Kinds that were not listed completely yet.
    pub(crate) fn waiting_for(&self) -> Vec<Kind> {
        let loaded = |kind: &Kind| self.relists.get(kind).is_some_and(Relist::loaded);
        let waiting = self.needed.iter().copied();
        waiting.filter(|kind| !loaded(kind)).collect()
    }

    /// Whether every kind was listed at least once.
    pub(crate) fn complete(&self) -> bool {
        self.waiting_for().is_empty()
    }

    /// Takes a change in; says what differs afterwards.
    #[allow(clippy::too_many_lines, reason = "one arm for each kind")]
    pub(crate) fn apply(&mut self, change: Change, now: Timestamp) -> Touched {
        let Self {
            world,
            conf,
            conf_status,
            conf_broken,
            peers,
            peer_statuses,
            secrets,
            policies,
            speakers,
            pods,
            announced,
            eips,
            unheld,
            relists,
            owners,
            only,
            needed: _,
        } = self;
        match change {
            Change::Node(event) => {
                relists
                    .entry(Kind::Node)
                    .or_default()
                    .follow(event, |(_, name), node| {
                        let node = node.map(|node| Node::read(&node, world.nodes.get(name), now));
                        Touched::everything(set(&mut world.nodes, name.clone(), node))
                    })
            }
            Change::Service(event) => {
                relists
                    .entry(Kind::Service)
                    .or_default()
                    .follow(event, |key, service| {
                        let key = service_key(key);
                        let shown = service.as_ref().filter(|_| only.is_none());
                        let shown = shown.and_then(announced_condition);
                        let said = set(announced, key.clone(), shown);
                        let service = service.as_ref().and_then(Service::read);
                        let mut touched = Touched::from(world.set_service(&key, service));
                        touched |= Touched::settings(said);
                        touched
                    })
            }
            Change::EndpointSlice(event) => relists
                .entry(Kind::EndpointSlice)
                .or_default()
                .follow(event, |key, slice| {
                    slice_change(world, owners, key, slice.as_ref())
                }),
            Change::Eip(event) => {
                relists
                    .entry(Kind::Eip)
                    .or_default()
                    .follow(event, |(_, name), eip| {
                        let mut facts = None;
                        let pool = match eip {
                            None => None,
                            Some(eip) => match eip.parsed {
                                Ok(eip) => {
                                    facts =
                                        EipFacts::try_from(&*eip).ok().filter(|_| only.is_none());
                                    Some(read_pool(name, &eip))
                                }
                                // What was known of it stays in force.
                                Err(error) => return broken("Eip", name, &error),
                            },
                        };
                        let ruled = set(eips, name.clone(), facts.map(Arc::new));
                        let mut touched = Touched::settings(ruled);
                        touched |= Touched::everything(set(&mut world.pools, name.clone(), pool));
                        touched
                    })
            }
            Change::EipAddress(event) => {
                relists
                    .entry(Kind::EipAddress)
                    .or_default()
                    .follow(event, |(_, name), object| {
                        let mut nobodys = None;
                        let holding = match object.map(|object| object.parsed) {
                            None => None,
                            Some(Ok(object)) => {
                                let holding = Holding::read(&object);
                                nobodys = Some(object)
                                    .filter(|object| only.is_none() && is_nobodys(object));
                                holding
                            }
                            Some(Err(error)) => {
                                return broken("EipAddress", name, &error);
                            }
                        };
                        let unheld = set(unheld, name.clone(), nobodys);
                        let (address, holding) = match holding {
                            Some((address, holding)) => (Some(address), Some(holding)),
                            None => (address_of(name), None),
                        };
                        let mut touched = Touched::settings(unheld);
                        if let Some(address) = address
                            && set(&mut world.holdings, address, holding)
                        {
                            touched |= Touched::Addresses([address].into());
                        }
                        touched
                    })
            }
            Change::BgpConf(event) => {
                relists
                    .entry(Kind::BgpConf)
                    .or_default()
                    .follow(event, |(_, name), object| {
                        if name != keys::BGP_CONF {
                            return Touched::Nothing;
                        }
                        let foreign = object
                            .as_ref()
                            .is_some_and(|object| is_foreign(&object.metadata));
                        let (spec, status, fault) = match object.map(|object| object.parsed) {
                            None => (None, None, None),
                            Some(Ok(object)) => {
                                let status = Arc::new(conf_entries(&object, only.as_deref()));
                                let spec = (!foreign).then(|| ConfObject::read(&object));
                                (spec, Some(status), None)
                            }
                            Some(Err(error)) => {
                                // Said in its status too.
                                let _ = broken("BgpConf", name, &error);
                                (conf.clone(), conf_status.clone(), Some(error))
                            }
                        };
                        let differs =
                            *conf != spec || *conf_status != status || *conf_broken != fault;
                        (*conf, *conf_status, *conf_broken) = (spec, status, fault);
                        Touched::settings(differs)
                    })
            }
            Change::BgpPeer(event) => {
                relists
                    .entry(Kind::BgpPeer)
                    .or_default()
                    .follow(event, |(_, name), object| {
                        let object = match object.map(|object| object.parsed) {
                            None => None,
                            Some(Ok(object)) => Some(object),
                            Some(Err(error)) => {
                                return broken("BgpPeer", name, &error);
                            }
                        };
                        let status = object
                            .as_ref()
                            .map(|object| Arc::new(peer_entries(object, only.as_deref())));
                        let peer = object.map(|object| PeerObject::read(&object));
                        let a = set(peers, name.clone(), peer);
                        Touched::settings(set(peer_statuses, name.clone(), status) || a)
                    })
            }
            Change::Pod(event) => {
                relists
                    .entry(Kind::Pod)
                    .or_default()
                    .follow(event, |(_, name), pod| {
                        let seen = pod.as_ref().filter(|_| only.is_none());
                        let seen = set(pods, name.clone(), seen.and_then(SpeakerPod::read));
                        let ip = pod.and_then(|pod| pod.status?.pod_ip?.parse().ok());
                        Touched::settings(set(speakers, name.clone(), ip) || seen)
                    })
            }
            Change::ConfigMap(event) => {
                relists
                    .entry(Kind::ConfigMap)
                    .or_default()
                    .follow(event, |(_, name), map| {
                        let read = map.and_then(|map| PolicyObject::read(&map, policies.get(name)));
                        Touched::settings(set(policies, name.clone(), read))
                    })
            }
            Change::Secret(event) => {
                relists
                    .entry(Kind::Secret)
                    .or_default()
                    .follow(event, |(_, name), secret| {
                        let credential = secret.map(credential);
                        Touched::settings(set(&mut secrets.0, name.clone(), credential))
                    })
            }
        }
    }
}

/// Sets or removes an entry; says whether that made a difference.
fn set<K: Ord, V: PartialEq>(
    map: &mut BTreeMap<K, V>,
    key: K,
    value: impl Into<Option<V>>,
) -> bool {
    match value.into() {
        None => map.remove(&key).is_some(),
        Some(value) => {
            if map.get(&key) == Some(&value) {
                return false;
            }
            map.insert(key, value);
            true
        }
    }
}

fn service_key((namespace, name): &Key) -> ServiceKey {
    ServiceKey::new(namespace, name)
}

fn slice_change(
    world: &mut World,
    owners: &mut BTreeMap<Key, ServiceKey>,
    key: &Key,
    slice: Option<&EndpointSlice>,
) -> Touched {
    let read = slice.and_then(|slice| {
        let service = slice
            .metadata
            .labels
            .as_ref()?
            .get("kubernetes.io/service-name")?;
        Some((
            ServiceKey::new(&key.0, service),
            SliceEndpoints::read(slice)?,
        ))
    });
    let mut touched = Touched::Nothing;
    // The label of a slice may change: it then leaves the Service it was with.
    if let Some(old) = owners.remove(key)
        && read.as_ref().is_none_or(|(service, _)| *service != old)
        && let Some(slices) = world.slices.get_mut(&old)
    {
        let left = slices.set(&key.1, None);
        if slices.is_empty() {
            world.slices.remove(&old);
        }
        if left {
            touched |= world.shown_by(&old).into();
        }
    }
    if let Some((service, endpoints)) = read {
        let slices = world.slices.entry(service.clone()).or_default();
        if slices.set(&key.1, Some(endpoints)) {
            touched |= world.shown_by(&service).into();
        }
        owners.insert(key.clone(), service);
    }
    touched
}

#[cfg(test)]
mod tests;
