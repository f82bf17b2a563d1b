//! For which addresses a node has a usable interface.
//!
//! An [`Ability`] is the small extract of a node's interfaces that every other node needs in order
//! to answer that question for it. The speaker attaches its encoded form to the membership
//! messages; the same pure function, [`Ability::usable`], then decides on all nodes alike, and on
//! the node itself which interface it answers on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bytes::Bytes;
use ipnet::IpNet;
use openelb_net::{Link, Links, MacAddr};
use serde::{Deserialize, Serialize};

use crate::choice::{InterfaceChoice, matches};

/// A usable interface: up, with carrier, with an Ethernet address, not loopback, not a port of a
/// bridge or bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbleLink {
    /// Name.
    pub name: String,
    /// Hardware address, by which frames of this node are known on the LAN.
    pub mac: [u8; 6],
    /// Subnets of its addresses (host bits cleared), at most [`Ability::MAX_SUBNETS`].
    pub subnets: Vec<(IpAddr, u8)>,
    /// It is the IPv4 default route's interface.
    pub default_v4: bool,
    /// It is the IPv6 default route's interface.
    pub default_v6: bool,
}

/// What a node can answer for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    /// Usable interfaces that an expression names or that have addresses, in name order; of too many
    /// the most important.
    links: Vec<AbleLink>,
    /// For each `can_reach` expression in use: the interface the node routes by.
    reach: BTreeMap<IpAddr, String>,
    /// The node's kernel answers ARP by itself for the addresses of all Services, whoever leads them.
    pub kernel_answers: bool,
}

/// Why an encoded ability is refused.
#[derive(Debug, thiserror::Error)]
#[error("a node's list of interfaces cannot be read: {0}")]
pub struct AbilityError(#[from] postcard::Error);

impl Ability {
    /// How many interfaces are told of. Those come first that an expression names, then those of the
    /// default routes, then those whose subnet holds an address of a pool.
    pub const MAX_LINKS: usize = 12;
    /// How many subnets of one interface are told of.
    pub const MAX_SUBNETS: usize = 6;
    /// How many `can_reach` answers are told.
    pub const MAX_REACH: usize = 16;
    /// Bound of the encoded form in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// The ability of a host with these interfaces, for these expressions and the pools' `ranges`.
    #[must_use]
    pub fn of<'a>(
        links: &Links,
        choices: impl IntoIterator<Item = &'a InterfaceChoice>,
        ranges: &[IpNet],
    ) -> Self {
        let choices: BTreeSet<&InterfaceChoice> = choices.into_iter().collect();
        let named = |name: &str| {
            choices.iter().any(|choice| match choice {
                InterfaceChoice::Names(patterns) => patterns.iter().any(|p| matches(p, name)),
                _ => false,
            })
        };
        let default_v4 = links.default_route(false).map(|link| link.index);
        let default_v6 = links.default_route(true).map(|link| link.index);
        let all: Vec<AbleLink> = links
            .links
            .values()
            .filter(|link| link.running && !link.loopback && link.master.is_none())
            .filter_map(|link| {
                Some(AbleLink {
                    name: link.name.clone(),
                    mac: link.mac?.0,
                    default_v4: default_v4 == Some(link.index),
                    default_v6: default_v6 == Some(link.index),
                    subnets: subnets(link),
                })
            })
            .collect();
        let mut able: Vec<(u8, AbleLink)> = all
            .into_iter()
            .filter_map(|able| {
                let importance = if named(&able.name) {
                    0
                } else if able.default_v4 || able.default_v6 {
                    1
                } else if able.holds_any(ranges) {
                    2
                } else if able.subnets.is_empty() {
                    return None;
                } else {
                    3
                };
                Some((importance, able))
            })
            .collect();
        able.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
        able.truncate(Self::MAX_LINKS);

        let reach = choices
            .iter()
            .filter_map(|choice| match choice {
                InterfaceChoice::CanReach(ip) => Some(*ip),
                _ => None,
            })
            .filter_map(|ip| {
                let link = links.route_to(ip)?;
                (link.running && !link.loopback).then(|| (ip, link.name.clone()))
            })
            .take(Self::MAX_REACH)
            .collect();
        let mut ability = Self {
            links: able.into_iter().map(|(_, link)| link).collect(),
            reach,
            kernel_answers: false,
        };
        // What the others are told is what this node itself goes by.
        while ability.size() > Self::MAX_BYTES && ability.links.pop().is_some() {}
        ability.links.sort_by(|a, b| a.name.cmp(&b.name));
        ability
    }

    /// The length of the encoded form.
    fn size(&self) -> usize {
        postcard::to_stdvec(self).map_or(usize::MAX, |bytes| bytes.len())
    }

    /// The interface on which this node answers for `ip` under `choice`, if any is usable.
    #[must_use]
    pub fn usable(&self, choice: &InterfaceChoice, ip: IpAddr) -> Option<&AbleLink> {
        match choice {
            InterfaceChoice::Names(patterns) => patterns
                .iter()
                .find_map(|pattern| self.links.iter().find(|link| matches(pattern, &link.name))),
            InterfaceChoice::CanReach(target) => {
                let name = self.reach.get(target)?;
                self.links.iter().find(|link| link.name == *name)
            }
            InterfaceChoice::Auto => {
                let in_subnet = self
                    .links
                    .iter()
                    .filter_map(|link| Some((link.subnet_length(ip)?, link)))
                    .max_by_key(|(length, _)| *length)
                    .map(|(_, link)| link);
                in_subnet.or_else(|| {
                    self.links.iter().find(|link| {
                        if ip.is_ipv6() {
                            link.default_v6
                        } else {
                            link.default_v4
                        }
                    })
                })
            }
        }
    }

    /// Whether `ip` lies in a subnet of the interface that [`Self::usable`] names; where it does
    /// not, neighbours reach it through a router only, which deserves a warning.
    #[must_use]
    pub fn in_subnet(&self, choice: &InterfaceChoice, ip: IpAddr) -> bool {
        self.usable(choice, ip)
            .is_some_and(|link| link.subnet_length(ip).is_some())
    }

    /// The hardware addresses by which frames of this node are recognised.
    pub fn macs(&self) -> impl Iterator<Item = MacAddr> + '_ {
        self.links.iter().map(|link| MacAddr(link.mac))
    }

    /// The usable interfaces.
    #[must_use]
    pub fn links(&self) -> &[AbleLink] {
        &self.links
    }

    /// The form that travels between nodes, at most [`Self::MAX_BYTES`]; empty if one was read that is
    /// longer.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match postcard::to_stdvec(self) {
            Ok(bytes) if bytes.len() <= Self::MAX_BYTES => bytes.into(),
            _ => Bytes::new(),
        }
    }

    /// Reads what [`Self::encode`] wrote; empty input is a node without usable interfaces.
    pub fn decode(bytes: &[u8]) -> Result<Self, AbilityError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        Ok(postcard::from_bytes(bytes)?)
    }
}

impl AbleLink {
    /// Whether one of its subnets and one of the ranges have addresses in common.
    fn holds_any(&self, ranges: &[IpNet]) -> bool {
        self.subnets
            .iter()
            .filter_map(|(network, length)| IpNet::new(*network, *length).ok())
            .any(|subnet| {
                ranges
                    .iter()
                    .any(|range| subnet.contains(range) || range.contains(&subnet))
            })
    }

    /// The length of the longest subnet of this link that holds `ip`.
    fn subnet_length(&self, ip: IpAddr) -> Option<u8> {
        self.subnets
            .iter()
            .filter_map(|(network, length)| IpNet::new(*network, *length).ok())
            .filter(|subnet| subnet.contains(&ip))
            .map(|subnet| subnet.prefix_len())
            .max()
    }
}

/// Subnets of a link: link-local ones say nothing about where an address belongs, and a host
/// prefix holds nothing but the host itself.
fn subnets(link: &Link) -> Vec<(IpAddr, u8)> {
    let nets: BTreeSet<IpNet> = link
        .addresses
        .iter()
        .filter(|net| net.prefix_len() < net.max_prefix_len())
        .filter(|net| match net {
            IpNet::V4(net) => !net.addr().is_link_local(),
            IpNet::V6(net) => !net.addr().is_unicast_link_local(),
        })
        .map(IpNet::trunc)
        .collect();
    nets.into_iter()
        .map(|net| (net.addr(), net.prefix_len()))
        .take(Ability::MAX_SUBNETS)
        .collect()
}

#[cfg(test)]
mod tests {
    use openelb_net::Route;

    use super::*;

    fn link(index: u32, name: &str, addresses: &[&str]) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, u8::try_from(index).unwrap()])),
            running: true,
            loopback: name == "lo",
            master: None,
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    fn host() -> Links {
        let all = [
            link(1, "lo", &["127.0.0.1/8"]),
            link(2, "eth0", &["10.0.0.11/24", "fd00:10::11/64", "fe80::1/64"]),
            link(3, "eth1", &["192.168.1.11/24"]),
            link(4, "eth2", &[]),
        ];
        Links {
            links: all.into_iter().map(|link| (link.index, link)).collect(),
            routes: [
                ("0.0.0.0/0", 3),
                ("10.0.0.0/24", 2),
                ("::/0", 2),
                ("127.0.0.0/8", 1),
            ]
            .map(|(net, link)| Route {
                destination: net.parse().unwrap(),
                link,
                metric: 0,
            })
            .to_vec(),
        }
    }

    fn names(names: &[&str]) -> InterfaceChoice {
        InterfaceChoice::Names(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[allow(clippy::needless_pass_by_value, reason = "reads better at the calls")]
    fn name(links: &Links, choice: InterfaceChoice, ip: &str) -> Option<String> {
        let ability = Ability::of(links, [&choice], &[]);
        let told = Ability::decode(&ability.encode()).unwrap();
        assert_eq!(told, ability, "other nodes see what the node sees");
        ability
            .usable(&choice, ip.parse().unwrap())
            .map(|link| link.name.clone())
    }

    #[test]
    fn every_form_of_expression_finds_its_interface() {
        let host = host();
        let eth = |n: u8| Some(format!("eth{n}"));
        assert_eq!(name(&host, names(&["eth2"]), "10.0.0.100"), eth(2));
        assert_eq!(name(&host, names(&["nope", "eth1"]), "10.0.0.100"), eth(1));
        assert_eq!(name(&host, names(&["eth*"]), "10.0.0.100"), eth(0));
        assert_eq!(
            name(
                &host,
                InterfaceChoice::CanReach("10.0.0.1".parse().unwrap()),
                "172.16.0.1"
            ),
            eth(0)
        );
        assert_eq!(
            name(
                &host,
                InterfaceChoice::CanReach("127.0.0.1".parse().unwrap()),
                "172.16.0.1"
            ),
            None,
            "loopback reaches nobody"
        );
        assert_eq!(name(&host, InterfaceChoice::Auto, "10.0.0.100"), eth(0));
        assert_eq!(
            name(&host, InterfaceChoice::Auto, "172.16.0.1"),
            eth(1),
            "the default route's"
        );
        assert_eq!(name(&host, InterfaceChoice::Auto, "2001:db8::1"), eth(0));
        assert_eq!(name(&host, names(&["lo"]), "10.0.0.100"), None);
    }

    #[test]
    fn an_interface_without_carrier_or_in_a_bridge_is_not_usable() {
        let mut host = host();
        host.links.get_mut(&2).unwrap().running = false;
        assert_eq!(name(&host, names(&["eth0"]), "10.0.0.100"), None);
        host.links.get_mut(&2).unwrap().running = true;
        host.links.get_mut(&2).unwrap().master = Some(4);
        assert_eq!(name(&host, names(&["eth0"]), "10.0.0.100"), None);
    }

    #[test]
    fn a_bond_stands_for_its_ports_under_every_form_of_expression() {
        let mut host = host();
        let bond = Link {
            mac: host.links[&2].mac,
            addresses: std::mem::take(&mut host.links.get_mut(&2).unwrap().addresses),
            ..link(9, "bond0", &[])
        };
        host.links.insert(9, bond);
        for port in [2, 4] {
            host.links.get_mut(&port).unwrap().master = Some(9);
        }
        for route in &mut host.routes {
            route.link = if route.link == 2 { 9 } else { route.link };
        }
        let bond0 = Some("bond0".to_owned());
        let reach = InterfaceChoice::CanReach("10.0.0.1".parse().unwrap());
        assert_eq!(name(&host, InterfaceChoice::Auto, "10.0.0.100"), bond0);
        assert_eq!(name(&host, InterfaceChoice::Auto, "2001:db8::1"), bond0);
        assert_eq!(name(&host, reach, "10.0.0.100"), bond0);
        assert_eq!(name(&host, names(&["eth0", "bond0"]), "10.0.0.100"), bond0);
        assert_eq!(name(&host, names(&["eth0", "eth2"]), "10.0.0.100"), None);
        // The bond has a carrier as long as one of its ports has.
        host.links.get_mut(&2).unwrap().running = false;
        assert_eq!(name(&host, InterfaceChoice::Auto, "10.0.0.100"), bond0);
        host.links.get_mut(&9).unwrap().running = false;
        assert_eq!(name(&host, names(&["bond0"]), "10.0.0.100"), None);
    }

    #[test]
    fn an_address_outside_the_subnet_is_usable_but_noted() {
        let choice = names(&["eth0"]);
        let ability = Ability::of(&host(), [&choice], &[]);
        assert!(ability.in_subnet(&choice, "10.0.0.9".parse().unwrap()));
        assert!(!ability.in_subnet(&choice, "10.9.0.9".parse().unwrap()));
    }

    /// The usual host, and very many interfaces with many subnets.
    fn crowded() -> Links {
        let mut host = host();
        for index in 10..200 {
            let subnets: Vec<String> = (0..20)
                .map(|n| format!("fd{index:02x}:{n:x}:ffff:ffff::1/64"))
                .collect();
            let subnets: Vec<&str> = subnets.iter().map(String::as_str).collect();
            host.links
                .insert(index, link(index, &format!("a{index}"), &subnets));
        }
        host
    }

    #[test]
    fn the_encoded_form_stays_bounded_and_keeps_what_matters() {
        let mut host = crowded();
        // The last by name, each for another reason.
        host.links.insert(5, link(5, "zeth", &["172.16.0.1/16"]));
        host.links.insert(6, link(6, "zlan", &["172.17.0.1/16"]));
        host.links.insert(7, link(7, "zwan", &["172.18.0.1/16"]));
        host.routes.insert(
            0,
            Route {
                destination: "0.0.0.0/0".parse().unwrap(),
                link: 7,
                metric: 0,
            },
        );
        host.routes.retain(|route| route.link != 3);
        let named = names(&["zeth"]);
        let pool = ["172.17.3.0/24".parse().unwrap()];
        let own = Ability::of(&host, [&named, &InterfaceChoice::Auto], &pool);
        let told = Ability::decode(&own.encode()).unwrap();
        assert_eq!(told, own, "the node goes by what it tells");
        assert!(told.encode().len() <= Ability::MAX_BYTES);
        assert!(told.links().len() < Ability::MAX_LINKS, "not all fit");
        let find = |choice: &InterfaceChoice, ip: &str| {
            let link = told.usable(choice, ip.parse().unwrap())?;
            Some(link.name.clone())
        };
        assert_eq!(find(&named, "10.0.0.9").as_deref(), Some("zeth"));
        let auto = |ip| find(&InterfaceChoice::Auto, ip);
        assert_eq!(auto("172.17.3.4").as_deref(), Some("zlan"), "the pool's");
        assert_eq!(auto("192.0.2.1").as_deref(), Some("zwan"), "the default");
    }
}
