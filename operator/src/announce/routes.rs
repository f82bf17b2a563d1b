//! The routes of a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use openelb_api::v1alpha2::Protocol;
use openelb_bgp::{Attributes, PeerSelection, RouteSet};

use super::able::Able;
use super::pool::Pool;
use super::world::{Address, World};

/// The complete routes that `node` is to announce by BGP: for every address in use that it may
/// announce, the address itself or the aggregate its Eip asks for, with the Eip's attributes, to
/// the Eip's peers.
pub(crate) fn routes(world: &World, able: &Able<'_>, node: &str) -> RouteSet {
    let fallback = Arc::<Attributes>::default();
    // Two Eips may lead to one aggregate; each kind of route is kept once, in the Eips' order.
    let mut wanted: BTreeMap<IpNet, BTreeMap<&str, (Arc<Attributes>, PeerSelection)>> =
        BTreeMap::new();
    for address in world.addresses() {
        if address.protocol != Protocol::Bgp || !able.nodes(&address).contains(node) {
            continue;
        }
        let (attributes, peers) = address.pool.map_or_else(
            || (fallback.clone(), PeerSelection::All),
            |pool| (pool.attributes.clone(), pool.peers.clone()),
        );
        if let Some(prefix) = prefix(&address, address.pool) {
            wanted
                .entry(prefix)
                .or_default()
                .insert(address.eip, (attributes, peers));
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

fn prefix(address: &Address<'_>, pool: Option<&Arc<Pool>>) -> Option<IpNet> {
    let full = if address.ip.is_ipv4() { 32 } else { 128 };
    let length = pool.map_or(full, |pool| pool.length(address.ip));
    IpNet::new(address.ip, length).ok().map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::testing::{TestWorld, at, node, service};

    fn routes_of(world: &TestWorld, node: &str) -> Vec<(String, usize)> {
        let world = world.build();
        let able = Able::new(&world, at(0));
        let set = routes(&world, &able, node);
        set.iter()
            .map(|(prefix, paths)| (prefix.to_string(), paths.len()))
            .collect()
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
        let set = routes(&world, &Able::new(&world, at(0)), "a");
        let (_, paths) = set.iter().next().unwrap();
        assert_eq!(paths[0].attributes.med, Some(7));
        assert!(paths[0].peers.contains("spine") && !paths[0].peers.contains("leaf"));
    }

    #[test]
    fn an_address_whose_eip_is_gone_is_still_announced() {
        let world = one_node().service(service("web").ready_on("a"));
        let mut world = world.build();
        world.pools.clear();
        let set = routes(&world, &Able::new(&world, at(0)), "a");
        assert_eq!(set.len(), 1);
    }
}
