//! Who leads each address, as this node sees it: pure.
//!
//! Able are the nodes that may announce (the rules of BGP) and have a usable interface for the
//! address; alive, those that the membership shows. Among the able and alive the election decides,
//! or the Service's annotation that prefers a node. All nodes with the same view agree.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};
use openelb_api::Interface;
use openelb_api::v1alpha2::{Probe, Protocol};
use openelb_layer2::{Ability, Desired, InterfaceChoice, ProbePolicy, Role, Vip};
use openelb_membership::{Members, leader};

use super::conditions::was_announced;
use crate::announce::{Able, Address, Pool, World};

/// The interface expressions of the layer2 Eips, by Eip. An unreadable one is left out: its
/// addresses are announced by nobody, and the webhook and the Eip's condition say why.
pub(super) fn choices(world: &World) -> BTreeMap<String, Arc<InterfaceChoice>> {
    let layer2 = world
        .pools
        .iter()
        .filter(|(_, pool)| pool.protocol == Protocol::Layer2);
    layer2
        .filter_map(|(name, pool)| {
            let choice = choice(pool.interface.as_ref()?);
            Some((name.clone(), Arc::new(choice)))
        })
        .collect()
}

/// An interface expression in the terms of the responder.
fn choice(interface: &Interface) -> InterfaceChoice {
    match interface {
        Interface::Auto => InterfaceChoice::Auto,
        Interface::Names(names) => InterfaceChoice::Names(names.clone()),
        Interface::CanReach(ip) => InterfaceChoice::CanReach(*ip),
    }
}

/// The complete wish for this node; [`amended`] keeps it up to date.
pub(super) fn desired(
    world: &World,
    able: &Able<'_>,
    members: &Members,
    choices: &BTreeMap<String, Arc<InterfaceChoice>>,
) -> Desired {
    let abilities = abilities(members);
    let mut addresses = HashMap::new();
    for address in world.addresses() {
        if let Some(vip) = elect(world, &address, able, members, &abilities, choices) {
            addresses.insert(address.ip, vip);
        }
    }
    Desired {
        addresses,
        ranges: ranges(world),
        peers: peers(members, &abilities),
        hold: !members.settled,
    }
}

/// The wish in place of this one, in a world in which nothing differs but these addresses; `None` where it stays.
pub(super) fn amended(
    before: &Desired,
    world: &World,
    able: &Able<'_>,
    members: &Members,
    choices: &BTreeMap<String, Arc<InterfaceChoice>>,
    addresses: &BTreeSet<IpAddr>,
) -> Option<Desired> {
    let abilities = abilities(members);
    let elected = addresses.iter().map(|ip| {
        let address = world.address(*ip);
        let elect = |address| elect(world, &address, able, members, &abilities, choices);
        (*ip, address.and_then(elect))
    });
    let differing: Vec<_> = elected
        .filter(|(ip, vip)| before.addresses.get(ip) != vip.as_ref())
        .collect();
    if differing.is_empty() {
        return None;
    }
    let mut desired = before.clone();
    for (ip, vip) in differing {
        match vip {
            Some(vip) => drop(desired.addresses.insert(ip, vip)),
            None => drop(desired.addresses.remove(&ip)),
        }
    }
    Some(desired)
}

/// What the living can answer for.
fn abilities(members: &Members) -> BTreeMap<&str, Ability> {
    let alive = members.alive.iter().filter_map(|(node, member)| {
        let ability = Ability::decode(&member.facts.as_ref()?.attachment).ok()?;
        Some((node.as_str(), ability))
    });
    alive.collect()
}

/// The wish for one address; `None` where layer 2 has nothing to do with it.
fn elect(
    world: &World,
    address: &Address<'_>,
    able: &Able<'_>,
    members: &Members,
    abilities: &BTreeMap<&str, Ability>,
    choices: &BTreeMap<String, Arc<InterfaceChoice>>,
) -> Option<Vip> {
    if address.protocol != Protocol::Layer2 {
        return None;
    }
    let choice = match (choices.get(address.eip), address.pool) {
        (Some(choice), _) => choice.clone(),
        // The Eip is gone, its address is kept.
        (None, None) => Arc::new(InterfaceChoice::Auto),
        (None, Some(_)) => return None,
    };
    let (role, preferred) = role(address, able, members, abilities, &choice);
    Some(Vip {
        role,
        preferred: preferred.map(Arc::from),
        proven: world.holdings.get(&address.ip).is_none_or(was_announced),
        ..vip(address.pool, choice)
    })
}

/// This node's part, and the node that is preferred, if it may lead.
fn role<'a>(
    address: &Address<'a>,
    able: &Able<'_>,
    members: &Members,
    abilities: &BTreeMap<&str, Ability>,
    choice: &InterfaceChoice,
) -> (Role, Option<&'a str>) {
    let nodes = able.nodes(address);
    let candidates = members.electable(|node, _| {
        nodes.contains(node)
            && abilities
                .get(node)
                .is_some_and(|ability| ability.usable(choice, address.ip).is_some())
    });
    let preferred = address
        .services
        .iter()
        .filter_map(|(_, service)| service.preferred_node.as_deref())
        .find(|node| candidates.contains(node));
    let role = match preferred.or_else(|| leader(address.ip, candidates.iter().copied())) {
        Some(node) if node == members.me => Role::Lead,
        Some(_) => Role::Follow,
        None => Role::Silent,
    };
    (role, preferred)
}

/// What the Eip says of an address, led by nobody yet.
fn vip(pool: Option<&Arc<Pool>>, choice: Arc<InterfaceChoice>) -> Vip {
    let probe = pool.map_or(Probe::Off, |pool| pool.probe);
    let seconds = pool.and_then(|pool| pool.announce_interval);
    Vip {
        choice,
        role: Role::Silent,
        preferred: None,
        probe: match probe {
            Probe::Report => ProbePolicy::Report,
            Probe::Avoid => ProbePolicy::Avoid,
            Probe::Off => ProbePolicy::Off,
        },
        proven: false,
        refresh: match seconds {
            None => Some(Vip::REFRESH),
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds.into())),
        },
    }
}

/// The other nodes whose kernels answer ARP for the addresses of all Services.
pub(super) fn kernels_that_answer(members: &Members) -> Vec<String> {
    let others = members
        .alive
        .iter()
        .filter(|(node, _)| **node != members.me);
    others
        .filter(|(_, member)| {
            let facts = member.facts.as_ref();
            let ability = facts.and_then(|facts| Ability::decode(&facts.attachment).ok());
            ability.is_some_and(|ability| ability.kernel_answers)
        })
        .map(|(node, _)| node.clone())
        .collect()
}

/// The pools of layer 2 as prefixes, for the kernel's filter.
pub(super) fn ranges(world: &World) -> Vec<IpNet> {
    let layer2 = world
        .pools
        .values()
        .filter(|pool| pool.protocol == Protocol::Layer2);
    layer2
        .flat_map(|pool| pool.addresses.ranges())
        .flat_map(|range| match (range.first(), range.last()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                IpSubnets::from(Ipv4Subnets::new(first, last, 0)).collect::<Vec<_>>()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                IpSubnets::from(Ipv6Subnets::new(first, last, 0)).collect()
            }
            _ => Vec::new(),
        })
        .collect()
}

/// The other speakers by their hardware addresses, those that died lately included.
fn peers(
    members: &Members,
    abilities: &BTreeMap<&str, Ability>,
) -> BTreeMap<openelb_net::MacAddr, Arc<str>> {
    let mut peers = BTreeMap::new();
    for (node, facts) in &members.departed {
        let ability = Ability::decode(&facts.attachment).unwrap_or_default();
        peers.extend(ability.macs().map(|mac| (mac, Arc::from(node.as_str()))));
    }
    for (node, ability) in abilities.iter().filter(|(node, _)| **node != members.me) {
        peers.extend(ability.macs().map(|mac| (mac, Arc::from(*node))));
    }
    peers
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use openelb_membership::{Facts, Member};
    use openelb_net::{Link, Links, MacAddr};

    use super::*;
    use crate::announce::testing::{TestWorld, at, node, service};
    use crate::announce::{Candidates, Service, ServiceKey};

    fn ability(last: u8, subnet: &str) -> Ability {
        let link = Link {
            index: 2,
            name: "eth0".to_owned(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, last])),
            running: true,
            loopback: false,
            master: None,
            addresses: vec![subnet.parse().unwrap()],
        };
        let links = Links {
            links: [(2, link)].into(),
            routes: Vec::new(),
        };
        Ability::of(&links, [&InterfaceChoice::Auto], &[])
    }

    /// Members with their subnets; the first is this node.
    fn members(all: &[(&str, &str)]) -> Members {
        let alive = all.iter().enumerate().map(|(index, (name, subnet))| {
            let facts = Facts {
                steady: true,
                leaving: false,
                attachment: ability(u8::try_from(index).unwrap(), subnet).encode(),
            };
            let address = SocketAddr::from(([10, 0, 0, 1], 7946));
            (
                (*name).to_owned(),
                Member {
                    address,
                    facts: Some(facts),
                },
            )
        });
        Members {
            me: all[0].0.to_owned(),
            settled: true,
            alive: alive.collect(),
            ..Members::default()
        }
    }

    fn three() -> TestWorld {
        TestWorld::default()
            .node(node("a"))
            .node(node("b"))
            .node(node("c"))
            .pool(|pool| pool.protocol = Protocol::Layer2)
    }

    fn roles(world: &TestWorld, members: &Members) -> Option<Role> {
        let world = world.build();
        let candidates = Candidates::new(&world, at(0));
        let able = Able::new(&world, &candidates);
        let desired = desired(&world, &able, members, &choices(&world));
        desired.addresses.values().map(|vip| vip.role).next()
    }

    const NEAR: &str = "203.0.113.250/24";
    const FAR: &str = "198.51.100.1/24";

    #[test]
    fn exactly_one_of_the_nodes_leads_and_the_others_follow() {
        let world = three().service(service("web").ready_on("a"));
        let all = [("a", NEAR), ("b", NEAR), ("c", NEAR)];
        let seen: Vec<Option<Role>> = (0..3)
            .map(|turn| {
                let mut order = all;
                order.rotate_left(turn);
                roles(&world, &members(&order))
            })
            .collect();
        let leads = seen
            .iter()
            .filter(|role| **role == Some(Role::Lead))
            .count();
        let follows = seen
            .iter()
            .filter(|role| **role == Some(Role::Follow))
            .count();
        assert_eq!((leads, follows), (1, 2));
    }

    #[test]
    fn a_node_without_a_usable_interface_cannot_lead() {
        let world = three().service(service("web").ready_on("a"));
        let only_a = [("a", NEAR), ("b", FAR), ("c", FAR)];
        assert_eq!(roles(&world, &members(&only_a)), Some(Role::Lead));
        assert_eq!(
            roles(&world, &members(&[("a", FAR), ("b", FAR)])),
            Some(Role::Silent)
        );
    }

    #[test]
    fn with_the_local_policy_a_node_with_an_endpoint_leads() {
        let all = [("b", NEAR), ("a", NEAR), ("c", NEAR)];
        let on = |node| three().service(service("web").local().ready_on(node));
        assert_eq!(roles(&on("b"), &members(&all)), Some(Role::Lead));
        assert_eq!(roles(&on("c"), &members(&all)), Some(Role::Follow));
        let nowhere = three().service(service("web").local());
        assert_eq!(roles(&nowhere, &members(&all)), Some(Role::Silent));
    }

    #[test]
    fn the_two_families_of_a_service_may_have_different_leaders() {
        let v4: IpAddr = "203.0.113.1".parse().unwrap();
        let names = ["a", "b", "c"];
        let v6 = (1..100)
            .map(|n| format!("2001:db8::{n:x}").parse().unwrap())
            .find(|v6: &IpAddr| leader(*v6, names) != leader(v4, names))
            .unwrap();
        let world = three()
            .pool(|pool| pool.interface = Some(Interface::Names(vec!["eth0".to_owned()])))
            .service(
                service("web")
                    .addresses(&[&v4.to_string(), &v6.to_string()])
                    .ready_on("a"),
            )
            .build();
        let candidates = Candidates::new(&world, at(0));
        let able = Able::new(&world, &candidates);
        let mut leads: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
        for turn in 0..3 {
            let mut order = names.map(|name| (name, NEAR));
            order.rotate_left(turn);
            let desired = desired(&world, &able, &members(&order), &choices(&world));
            for (ip, vip) in desired.addresses {
                if vip.role == Role::Lead {
                    leads.entry(ip).or_default().push(order[0].0);
                }
            }
        }
        assert_eq!((leads[&v4].len(), leads[&v6].len()), (1, 1));
        assert_ne!(leads[&v4], leads[&v6]);
    }

    #[test]
    fn the_eip_sets_the_pace_of_the_refresh() {
        let refresh = |seconds: Option<u32>| {
            let world = three()
                .pool(|pool| pool.announce_interval = seconds)
                .service(service("web").ready_on("a"))
                .build();
            let candidates = Candidates::new(&world, at(0));
            let able = Able::new(&world, &candidates);
            let members = members(&[("a", NEAR)]);
            let desired = desired(&world, &able, &members, &choices(&world));
            desired.addresses.values().map(|vip| vip.refresh).next()
        };
        assert_eq!(refresh(None), Some(Some(Duration::from_mins(1))));
        assert_eq!(refresh(Some(5)), Some(Some(Duration::from_secs(5))));
        assert_eq!(refresh(Some(0)), Some(None), "0 turns it off");
    }

    #[test]
    fn the_preferred_node_leads_while_it_is_able() {
        for preferred in ["a", "b", "c"] {
            let world = three().service(service("web").ready_on("a").prefers(preferred));
            let all = [("a", NEAR), ("b", NEAR), ("c", NEAR)];
            let expected = if preferred == "a" {
                Role::Lead
            } else {
                Role::Follow
            };
            assert_eq!(roles(&world, &members(&all)), Some(expected));
        }
        let gone = three().service(service("web").ready_on("a").prefers("z"));
        assert_eq!(roles(&gone, &members(&[("a", NEAR)])), Some(Role::Lead));
    }

    #[test]
    fn a_wish_that_is_amended_is_the_one_made_anew() {
        let key = ServiceKey::new("default", "web");
        let dns = service("dns").addresses(&["203.0.113.2"]).ready_on("b");
        let mut world = three()
            .service(service("web").ready_on("a"))
            .service(dns)
            .build();
        let members = members(&[("a", NEAR), ("b", NEAR), ("c", NEAR)]);
        let candidates = Candidates::new(&world, at(0));
        let anew = |world: &World| {
            let able = Able::new(world, &candidates);
            desired(world, &able, &members, &choices(world))
        };
        let mut kept = anew(&world);
        let before = kept.clone();
        let web = Service {
            addresses: vec!["203.0.113.1".parse().unwrap()],
            preferred_node: Some("b".to_owned()),
            ..Service::default()
        };
        for service in [Some(web), None] {
            let touched = world.set_service(&key, service);
            let able = Able::new(&world, &candidates);
            let choices = choices(&world);
            let mut amend = |touched| {
                let amended = amended(&kept, &world, &able, &members, &choices, touched);
                amended.is_some_and(|amended| {
                    kept = amended;
                    true
                })
            };
            assert!(amend(&touched) && !amend(&touched));
            assert_eq!(kept, anew(&world));
            assert_ne!(kept, before);
        }
    }

    #[test]
    fn the_filter_and_the_peers_are_complete() {
        let world = three().service(service("web").ready_on("a")).build();
        let candidates = Candidates::new(&world, at(0));
        let able = Able::new(&world, &candidates);
        let members = members(&[("a", NEAR), ("b", NEAR)]);
        let desired = desired(&world, &able, &members, &choices(&world));
        let ranges: Vec<String> = desired.ranges.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["203.0.113.0/24", "2001:db8::/64"]);
        assert_eq!(
            desired
                .peers
                .values()
                .map(|name| &**name)
                .collect::<Vec<_>>(),
            ["b"]
        );
        assert!(!desired.hold);
    }

    #[test]
    fn other_nodes_whose_kernels_answer_are_known() {
        let mut members = members(&[("a", NEAR), ("b", NEAR), ("c", NEAR)]);
        assert!(kernels_that_answer(&members).is_empty());
        for name in ["a", "c"] {
            let member = members.alive.get_mut(name).unwrap();
            let facts = member.facts.as_mut().unwrap();
            let mut ability = Ability::decode(&facts.attachment).unwrap();
            ability.kernel_answers = true;
            facts.attachment = ability.encode();
        }
        assert_eq!(
            kernels_that_answer(&members),
            ["c"],
            "this node knows itself"
        );
    }

    #[test]
    fn addresses_of_other_protocols_are_no_business_of_layer_2() {
        let world = three()
            .pool(|pool| pool.protocol = Protocol::Bgp)
            .service(service("web").ready_on("a"));
        assert_eq!(roles(&world, &members(&[("a", NEAR)])), None);
    }
}
