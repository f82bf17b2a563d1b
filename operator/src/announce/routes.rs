//! The routes of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use openelb_api::v1alpha2::Protocol;
use openelb_bgp::{Attributes, Path, PeerSelection, RouteSet};

use super::able::Able;
use super::pool::Pool;
use super::world::{Address, World};

/// The complete routes that `node` is to announce by BGP: for every address in use that it may
/// announce, the address itself or the aggregate its Eip asks for, with the Eip's attributes, to
/// the Eip's peers.
///
/// [`Routes`] has the same, kept up to date address by address.
pub(crate) fn routes(world: &World, able: &Able<'_>, node: &str) -> RouteSet {
    // Two Eips may lead to one aggregate; each kind of route is kept once, in the Eips' order.
    let mut wanted: BTreeMap<IpNet, BTreeMap<&str, (Arc<Attributes>, PeerSelection)>> =
        BTreeMap::new();
    for address in world.addresses() {
        if address.protocol != Protocol::Bgp || !able.nodes(&address).contains(node) {
            continue;
        }
        if let Some(prefix) = prefix(&address, address.pool) {
            let path = path(address.pool);
            wanted
                .entry(prefix)
                .or_default()
                .insert(address.eip, (path.attributes, path.peers));
        }
    }
    let mut set = RouteSet::new();
    for (prefix, by_eip) in wanted {
        for (attributes, peers) in by_eip.into_values() {
            set.insert(prefix, attributes, peers);
        }
    }
    set
}

/// The routes of a node as [`routes`] tells them, of which only those of addresses that changed are made anew.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    set: RouteSet,
    /// The route that an address makes, and the Eip that it is of.
    made: BTreeMap<IpAddr, (IpNet, Arc<str>)>,
    /// The Eips of a route, in order.
    makers: BTreeMap<IpNet, Vec<Maker>>,
}

/// An Eip whose addresses make a route.
#[derive(Debug)]
struct Maker {
    eip: Arc<str>,
    path: Path,
    /// How many of them do.
    addresses: usize,
}

impl Routes {
    /// All of them.
    pub(crate) fn set(&self) -> &RouteSet {
        &self.set
    }

    /// Looks at these addresses again. Where an Eip has changed, all of its addresses must be looked at with
    /// [`Routes::default`] as the beginning.
    pub(crate) fn update(
        &mut self,
        world: &World,
        able: &Able<'_>,
        node: &str,
        addresses: &BTreeSet<IpAddr>,
    ) {
        for ip in addresses {
            let address = world.address(*ip).filter(|address| {
                address.protocol == Protocol::Bgp && able.nodes(address).contains(node)
            });
            let now = address
                .as_ref()
                .and_then(|address| Some((prefix(address, address.pool)?, address)));
            let before = self.made.get(ip);
            let as_before = match (&now, before) {
                (Some((prefix, address)), Some((old, eip))) => {
                    prefix == old && *address.eip == **eip
                }
                (None, None) => true,
                _ => false,
            };
            if as_before {
                continue;
            }
            if let Some((prefix, eip)) = self.made.remove(ip) {
                self.take(prefix, &eip);
            }
            if let Some((prefix, address)) = now {
                let eip = self.give(prefix, address);
                self.made.insert(*ip, (prefix, eip));
            }
        }
    }

    /// One address less makes this route.
    fn take(&mut self, prefix: IpNet, eip: &Arc<str>) {
        let Some(makers) = self.makers.get_mut(&prefix) else {
            return;
        };
        makers.retain_mut(|maker| {
            if maker.eip == *eip {
                maker.addresses -= 1;
            }
            maker.addresses > 0
        });
        self.set.set(prefix, paths(makers));
        if makers.is_empty() {
            self.makers.remove(&prefix);
        }
    }

    /// One address more makes this route.
    fn give(&mut self, prefix: IpNet, address: &Address<'_>) -> Arc<str> {
        let makers = self
            .makers
            .entry(prefix)
            .or_insert_with(|| Vec::with_capacity(1));
        if let Some(maker) = makers.iter_mut().find(|maker| *maker.eip == *address.eip) {
            maker.addresses += 1;
            return maker.eip.clone();
        }
        let eip: Arc<str> = address.eip.into();
        let maker = Maker {
            eip: eip.clone(),
            path: path(address.pool),
            addresses: 1,
        };
        let place = makers.partition_point(|maker| *maker.eip < *eip);
        makers.insert(place, maker);
        self.set.set(prefix, paths(makers));
        eip
    }
}

fn paths(makers: &[Maker]) -> Vec<Path> {
    makers.iter().map(|maker| maker.path.clone()).collect()
}

/// Attributes and peers as the Eip has them; the usual ones where it is gone.
fn path(pool: Option<&Arc<Pool>>) -> Path {
    Path {
        attributes: pool.map_or_else(usual, |pool| pool.attributes.clone()),
        peers: pool.map_or(PeerSelection::All, |pool| pool.peers.clone()),
    }
}

/// One for all, so that routes share it.
fn usual() -> Arc<Attributes> {
    static USUAL: std::sync::LazyLock<Arc<Attributes>> = std::sync::LazyLock::new(Arc::default);
    USUAL.clone()
}

fn prefix(address: &Address<'_>, pool: Option<&Arc<Pool>>) -> Option<IpNet> {
    let full = if address.ip.is_ipv4() { 32 } else { 128 };
    let length = pool.map_or(full, |pool| pool.length(address.ip));
    IpNet::new(address.ip, length).ok().map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::announce::testing::{TestWorld, at, held_by, node, service};
    use crate::announce::{Candidates, Holding, Service, ServiceKey, SliceEndpoints};

    fn routes_of(world: &TestWorld, node: &str) -> Vec<(String, usize)> {
        let world = world.build();
        let set = all(&world, node);
        set.iter()
            .map(|(prefix, paths)| (prefix.to_string(), paths.len()))
            .collect()
    }

    fn all(world: &World, node: &str) -> RouteSet {
        let candidates = Candidates::new(world, at(0));
        routes(world, &Able::new(world, &candidates), node)
    }

    fn one_node() -> TestWorld {
        TestWorld::default().node(node("a"))
    }

    #[test]
    fn an_address_is_announced_whole_in_both_families() {
        let world = one_node().service(
            service("web")
                .addresses(&["203.0.113.5", "2001:db8::5"])
                .ready_on("a"),
        );
        let expected = [
            ("203.0.113.5/32".to_owned(), 1),
            ("2001:db8::5/128".to_owned(), 1),
        ];
        assert_eq!(routes_of(&world, "a"), expected);
        assert!(routes_of(&world, "b").is_empty());
    }

    #[test]
    fn addresses_of_one_aggregate_are_one_route() {
        let world = one_node()
            .pool(|pool| (pool.length_v4, pool.length_v6) = (24, 64))
            .service(
                service("web")
                    .addresses(&["203.0.113.5", "2001:db8::5"])
                    .ready_on("a"),
            )
            .service(service("dns").addresses(&["203.0.113.9"]).ready_on("a"));
        let expected = [
            ("203.0.113.0/24".to_owned(), 1),
            ("2001:db8::/64".to_owned(), 1),
        ];
        assert_eq!(routes_of(&world, "a"), expected);
    }

    #[test]
    fn only_addresses_of_bgp_pools_are_routes() {
        let world = one_node()
            .pool(|pool| pool.protocol = Protocol::Layer2)
            .service(service("web").ready_on("a"));
        assert!(routes_of(&world, "a").is_empty());
    }

    #[test]
    fn attributes_and_peers_are_the_eips() {
        let world = one_node()
            .pool(|pool| {
                pool.attributes = Arc::new(Attributes {
                    med: Some(7),
                    ..Attributes::default()
                });
                pool.peers = PeerSelection::Only(Arc::new(["spine".into()].into()));
            })
            .service(service("web").ready_on("a"))
            .build();
        let set = all(&world, "a");
        let (_, paths) = set.iter().next().unwrap();
        assert_eq!(paths[0].attributes.med, Some(7));
        assert!(paths[0].peers.contains("spine") && !paths[0].peers.contains("leaf"));
    }

    #[test]
    fn an_address_whose_eip_is_gone_is_still_announced() {
        let world = one_node().service(service("web").ready_on("a"));
        let mut world = world.build();
        world.pools.clear();
        assert_eq!(all(&world, "a").len(), 1);
    }

    /// A step of a world: a Service shows these addresses on this node, or goes; or an Eip takes up or loses an address.
    #[derive(Clone, Debug)]
    enum Step {
        Service(u8, Option<(Vec<u8>, bool)>),
        Holding(u8, Option<bool>),
        Aggregate(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let address = || 0_u8..6;
        let shows = (prop::collection::vec(address(), 1..3), any::<bool>());
        prop_oneof![
            4 => (0_u8..4, prop::option::weighted(0.8, shows)).prop_map(|(n, shows)| Step::Service(n, shows)),
            3 => (address(), prop::option::of(any::<bool>())).prop_map(|(ip, eip)| Step::Holding(ip, eip)),
            1 => (29_u8..33).prop_map(Step::Aggregate),
        ]
    }

    proptest! {
        #[test]
        fn routes_kept_up_to_date_are_those_made_anew(steps in prop::collection::vec(step(), 1..40)) {
            let ip = |last: u8| IpAddr::from([203, 0, 113, last]);
            let mut world = one_node().build();
            let other = world.pools["pool"].clone();
            world.pools.insert("other".to_owned(), other);
            let mut kept = Routes::default();
            let mut before = kept.set().clone();
            for step in steps {
                let touched = match step {
                    Step::Service(n, shows) => {
                        let key = ServiceKey::new("default", &format!("s{n}"));
                        let here = shows.as_ref().is_some_and(|(_, here)| *here);
                        let slice = serde_json::from_value(serde_json::json!({
                            "metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": if here {
                                serde_json::json!([{"addresses": ["10.1.0.1"], "nodeName": "a"}])
                            } else {
                                serde_json::json!([])
                            }
                        }));
                        let read = SliceEndpoints::read(&slice.unwrap()).unwrap();
                        world.slices.entry(key.clone()).or_default().set("s", Some(read));
                        let service = shows.map(|(ips, _)| Service {
                            addresses: ips.into_iter().map(ip).collect(),
                            ..Service::default()
                        });
                        let mut touched = world.shown_by(&key);
                        touched.extend(world.set_service(&key, service));
                        touched
                    }
                    Step::Holding(last, eip) => {
                        match eip {
                            Some(other) => {
                                let holders = (0..4).map(|n| held_by(&format!("s{n}")));
                                let eip = if other { "other" } else { "pool" };
                                world.holdings.insert(ip(last), Holding {
                                    eip: eip.to_owned(),
                                    holders: holders.collect(),
                                    ..Holding::default()
                                });
                            }
                            None => drop(world.holdings.remove(&ip(last))),
                        }
                        [ip(last)].into()
                    }
                    Step::Aggregate(length) => {
                        let mut pool = Pool::clone(&world.pools["other"]);
                        pool.length_v4 = length;
                        world.pools.insert("other".to_owned(), Arc::new(pool));
                        kept = Routes::default();
                        world.addresses().map(|address| address.ip).collect()
                    }
                };
                let candidates = Candidates::new(&world, at(0));
                kept.update(&world, &Able::new(&world, &candidates), "a", &touched);
                let anew = all(&world, "a");
                prop_assert_eq!(kept.set(), &anew);
                prop_assert_eq!(before == anew, before == *kept.set());
                before = anew;
            }
        }
    }
}
