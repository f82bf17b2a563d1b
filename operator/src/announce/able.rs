//! Which nodes may announce an address.
//!
//! A node announces only what it can deliver. It must be usable (not excluded, its network up) and
//! selected by the Eip; traffic that reaches it must find an endpoint (with the Local policy, one of
//! its own); and it must not have been NotReady for longer than [`super::NOT_READY_GRACE`], unless
//! that would take the last such node: then NotReady says more about the control plane than about
//! the nodes. Cordon changes nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use openelb_api::Labels;

use super::node::Node;
use super::service::TrafficPolicy;
use super::world::{Address, World};

/// What nodes, Eips and the time say about who may announce, Services apart: it changes seldom, and is then made anew.
#[derive(Default)]
pub(crate) struct Candidates {
    /// Per Eip: the usable nodes that it selects.
    by_eip: BTreeMap<String, Nodes>,
    /// The usable nodes, for addresses whose Eip is gone.
    any: Nodes,
    /// When it may next change by the passing of time alone.
    recheck_at: Option<Timestamp>,
}

/// Nodes that may announce an address as far as its Eip is concerned.
#[derive(Default)]
struct Nodes {
    /// All of them, with whether each is ready.
    all: BTreeMap<Arc<str>, bool>,
    /// The ready ones; all where none is ready.
    ready: BTreeSet<Arc<str>>,
}

impl Candidates {
    /// Those of this world at this time.
    pub(crate) fn new(world: &World, now: Timestamp) -> Self {
        let usable: Vec<(Arc<str>, &Node, bool)> = world
            .nodes
            .iter()
            .filter(|(_, node)| node.usable())
            .map(|(name, node)| (name.as_str().into(), node, node.ready(now)))
            .collect();
        let selected = |labels: Option<&Labels>| {
            let selected = |node: &Node| labels.is_some_and(|labels| labels.matches(&node.labels));
            let selected = usable.iter().filter(|(_, node, _)| selected(node));
            let all: BTreeMap<Arc<str>, bool> = selected
                .map(|(name, _, ready)| (name.clone(), *ready))
                .collect();
            let ready = ready_or_all(&all, all.keys().cloned().collect());
            Nodes { all, ready }
        };
        let changes = world.nodes.values().filter_map(Node::unready_at);
        Self {
            by_eip: world
                .pools
                .iter()
                .map(|(name, pool)| (name.clone(), selected(pool.nodes.as_ref())))
                .collect(),
            any: selected(Some(&Labels::default())),
            recheck_at: changes.filter(|at| *at > now).min(),
        }
    }

    /// When they may next change by the passing of time alone.
    pub(crate) fn recheck_at(&self) -> Option<Timestamp> {
        self.recheck_at
    }
}

/// Decides who may announce, for one world at one time.
#[derive(Clone, Copy)]
pub(crate) struct Able<'w> {
    world: &'w World,
    candidates: &'w Candidates,
    /// What one node must not announce yet, whatever the API says.
    held: Option<(&'w str, &'w BTreeSet<IpAddr>)>,
}

impl<'w> Able<'w> {
    /// Prepares the decision; the candidates must be those of this world.
    pub(crate) fn new(world: &'w World, candidates: &'w Candidates) -> Self {
        Self {
            world,
            candidates,
            held: None,
        }
    }

    /// The same, without this node for these addresses.
    pub(crate) fn without(self, node: &'w str, addresses: &'w BTreeSet<IpAddr>) -> Self {
        Self {
            held: Some((node, addresses)),
            ..self
        }
    }

    /// The nodes that may announce the address, by name.
    pub(crate) fn nodes(&self, address: &Address<'w>) -> Cow<'w, BTreeSet<Arc<str>>> {
        let mut nodes = self.nodes_by_the_api(address);
        if let Some((node, held)) = self.held
            && held.contains(&address.ip)
            && nodes.contains(node)
        {
            nodes.to_mut().remove(node);
        }
        nodes
    }

    fn nodes_by_the_api(&self, address: &Address<'w>) -> Cow<'w, BTreeSet<Arc<str>>> {
        let candidates = self.candidates;
        let nodes = candidates
            .by_eip
            .get(address.eip)
            .unwrap_or(&candidates.any);
        let keep = address
            .pool
            .is_some_and(|pool| pool.announce_without_endpoints);
        let mut wanted: BTreeSet<Arc<str>> = BTreeSet::new();
        for (key, service) in &address.services {
            let placement = self.world.placement(key, address.ip);
            match service.policy {
                _ if !placement.any() => {
                    if keep {
                        return Cow::Borrowed(&nodes.ready);
                    }
                }
                TrafficPolicy::Cluster => return Cow::Borrowed(&nodes.ready),
                TrafficPolicy::Local => wanted.extend(
                    placement
                        .nodes()
                        .iter()
                        .filter_map(|name| nodes.all.get_key_value(&**name))
                        .map(|(name, _)| name.clone()),
                ),
            }
        }
        Cow::Owned(ready_or_all(&nodes.all, wanted))
    }
}

/// The ready ones among `wanted`, or all of them where none is.
fn ready_or_all(
    nodes: &BTreeMap<Arc<str>, bool>,
    wanted: BTreeSet<Arc<str>>,
) -> BTreeSet<Arc<str>> {
    let is_ready = |name: &Arc<str>| nodes.get(name).copied().unwrap_or(false);
    if wanted.iter().any(is_ready) {
        wanted.into_iter().filter(is_ready).collect()
    } else {
        wanted
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use proptest::prelude::*;

    use super::*;
    use crate::announce::testing::{TestWorld, at, node, service};

    fn announcers(world: &TestWorld) -> Vec<String> {
        let world = world.build();
        let candidates = Candidates::new(&world, at(100));
        let addresses: Vec<_> = world.addresses().collect();
        let [address] = addresses.as_slice() else {
            panic!("one address expected, found {addresses:?}");
        };
        Able::new(&world, &candidates)
            .nodes(address)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn three_nodes() -> TestWorld {
        TestWorld::default()
            .node(node("a"))
            .node(node("b"))
            .node(node("c"))
    }

    #[test]
    fn with_the_cluster_policy_every_usable_node_announces() {
        let world = three_nodes().service(service("web").ready_on("a"));
        assert_eq!(announcers(&world), ["a", "b", "c"]);
    }

    #[test]
    fn excluded_nodes_and_nodes_without_network_do_not() {
        let world = TestWorld::default()
            .node(node("a").excluded())
            .node(node("b").network_unavailable())
            .node(node("c"))
            .service(service("web").ready_on("a"));
        assert_eq!(announcers(&world), ["c"]);
    }

    #[test]
    fn exclusion_may_take_the_last_node() {
        let world = TestWorld::default()
            .node(node("a").excluded())
            .service(service("web").ready_on("a"));
        assert!(announcers(&world).is_empty());
    }

    #[test]
    fn a_node_not_ready_for_longer_than_the_grace_gives_way_to_ready_ones() {
        let world = TestWorld::default()
            .node(node("a").not_ready_since(90))
            .node(node("b").not_ready_since(91))
            .node(node("c"))
            .service(service("web").ready_on("a"));
        assert_eq!(announcers(&world), ["b", "c"]);
    }

    #[test]
    fn when_all_are_not_ready_all_stay() {
        let world = TestWorld::default()
            .node(node("a").not_ready_since(1))
            .node(node("b").not_ready_since(1))
            .node(node("c").not_ready_since(1))
            .service(service("web").ready_on("a"));
        assert_eq!(announcers(&world), ["a", "b", "c"]);
    }

    #[test]
    fn not_ready_never_takes_the_last_node_that_could_deliver() {
        let world = TestWorld::default()
            .node(node("a").not_ready_since(1))
            .node(node("b"))
            .service(service("web").local().ready_on("a"));
        assert_eq!(announcers(&world), ["a"], "b is ready but has no endpoint");
    }

    #[test]
    fn with_the_local_policy_nodes_with_ready_endpoints_announce() {
        let world = three_nodes().service(
            service("web")
                .local()
                .ready_on("b")
                .terminating_on("c")
                .down_on("a"),
        );
        assert_eq!(announcers(&world), ["b"]);
    }

    #[test]
    fn with_the_local_policy_the_last_terminating_endpoints_keep_their_node() {
        let world = three_nodes().service(service("web").local().terminating_on("c").down_on("a"));
        assert_eq!(announcers(&world), ["c"]);
    }

    #[test]
    fn without_any_endpoint_nobody_announces_unless_the_eip_says_so() {
        let down = || service("web").down_on("a");
        assert!(announcers(&three_nodes().service(down())).is_empty());
        assert!(announcers(&three_nodes().service(down().local())).is_empty());
        let keep = three_nodes().pool(|pool| pool.announce_without_endpoints = true);
        assert_eq!(announcers(&keep.clone().service(down())), ["a", "b", "c"]);
        assert_eq!(announcers(&keep.service(down().local())), ["a", "b", "c"]);
    }

    #[test]
    fn the_eip_may_select_nodes() {
        let world = TestWorld::default()
            .node(node("a").label("edge", "yes"))
            .node(node("b"))
            .pool(|pool| {
                let selector = LabelSelector {
                    match_labels: Some([("edge".to_owned(), "yes".to_owned())].into()),
                    ..LabelSelector::default()
                };
                pool.nodes = Labels::read("spec.nodeSelector", &selector).ok();
            })
            .service(service("web").ready_on("b"));
        assert_eq!(announcers(&world), ["a"]);
    }

    #[test]
    fn a_shared_address_is_announced_where_any_of_its_services_is() {
        let world = three_nodes()
            .service(service("web").local().ready_on("a"))
            .service(service("dns").local().ready_on("c"))
            .service(service("idle").local());
        assert_eq!(announcers(&world), ["a", "c"]);
    }

    #[test]
    fn what_a_node_must_not_announce_yet_the_others_do() {
        let world = three_nodes()
            .service(service("web").ready_on("a"))
            .service(service("dns").addresses(&["203.0.113.2"]).ready_on("a"))
            .build();
        let held = BTreeSet::from(["203.0.113.2".parse().unwrap()]);
        let candidates = Candidates::new(&world, at(100));
        let able = Able::new(&world, &candidates).without("b", &held);
        let seen = world.addresses().map(|address| {
            let nodes = able.nodes(&address);
            let nodes: Vec<&str> = nodes.iter().map(|node| &**node).collect();
            (address.ip.to_string(), nodes.join(" "))
        });
        let expected = [
            ("203.0.113.1".to_owned(), "a b c".to_owned()),
            ("203.0.113.2".to_owned(), "a c".to_owned()),
        ];
        assert_eq!(seen.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_next_change_by_time_is_known() {
        let world = TestWorld::default()
            .node(node("a").not_ready_since(95))
            .node(node("b").not_ready_since(10))
            .build();
        let recheck = |second| Candidates::new(&world, at(second)).recheck_at();
        assert_eq!(recheck(100), Some(at(105)));
        assert_eq!(recheck(105), None);
    }

    proptest! {
        /// The rule said once more, per node and without sets.
        #[test]
        fn agrees_with_the_rule_told_node_by_node(
            nodes in prop::collection::vec((any::<bool>(), any::<bool>(), prop::option::of(80i64..100)), 1..5),
            services in prop::collection::vec((any::<bool>(), prop::collection::vec(0u8..4, 5)), 1..4),
            keep: bool,
        ) {
            let names = ["n0", "n1", "n2", "n3", "n4"];
            let mut world = TestWorld::default().pool(|pool| pool.announce_without_endpoints = keep);
            for (name, (excluded, no_network, since)) in names.iter().zip(&nodes) {
                let mut n = node(name);
                if *excluded { n = n.excluded(); }
                if *no_network { n = n.network_unavailable(); }
                if let Some(since) = since { n = n.not_ready_since(*since); }
                world = world.node(n);
            }
            for (i, (local, endpoints)) in services.iter().enumerate() {
                let mut s = service(&format!("s{i}"));
                if *local { s = s.local(); }
                for (name, state) in names.iter().zip(endpoints) {
                    s = match state { 0 => s, 1 => s.ready_on(name), 2 => s.terminating_on(name), _ => s.down_on(name) };
                }
                world = world.service(s);
            }
            let delivers = |i: usize| services.iter().any(|(local, endpoints)| {
                let any = |state| endpoints.contains(&state);
                let level = if any(1) { 1 } else { 2 };
                match (any(1) || any(2), local) {
                    (false, _) => keep,
                    (true, false) => true,
                    (true, true) => endpoints[i] == level,
                }
            });
            let usable = |i: usize| !nodes[i].0 && !nodes[i].1 && delivers(i);
            let ready = |i: usize| nodes[i].2.is_none_or(|since| 100 < since + 10);
            let any_ready = (0..nodes.len()).any(|i| usable(i) && ready(i));
            let expected: Vec<&str> = (0..nodes.len())
                .filter(|i| usable(*i) && (ready(*i) || !any_ready))
                .map(|i| names[i])
                .collect();
            prop_assert_eq!(announcers(&world), expected);
        }
    }
}
