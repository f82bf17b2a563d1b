//! The interfaces of this host: links, their addresses and the routes over them.
//!
//! [`Links`] is plain data and answers questions; the task that keeps it true lives in
//! [`crate::links_watch`].

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::MacAddr;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index, unique within the network namespace; a re-created interface gets a new one.
    pub index: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// Hardware address; `None` where the link has none of Ethernet's form (tunnels).
    pub mac: Option<MacAddr>,
    /// Administratively up *and* with carrier.
    pub running: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// Index of the bridge or bond this link is a port of; none for a member of a VRF, which speaks for
    /// itself.
    pub master: Option<u32>,
    /// Addresses with their subnets, in ascending order. Tentative IPv6 addresses are included.
    pub addresses: Vec<IpNet>,
}

/// A unicast route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination; length 0 is the default route.
    pub destination: IpNet,
    /// Index of the interface it leaves by (the first of a multipath route).
    pub link: u32,
    /// Metric; lower wins among equal destinations.
    pub metric: u32,
}

/// A complete, consistent view of the host's interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Links by kernel index.
    pub links: BTreeMap<u32, Link>,
    /// Routes of the main table in the kernel's order, at most [`Links::MAX_ROUTES`].
    pub routes: Vec<Route>,
}

impl Links {
    /// How many routes are kept; a host with a full Internet table keeps the shortest prefixes.
    pub const MAX_ROUTES: usize = 4096;

    /// The link of this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The link by which the main table sends a packet to `ip`: longest prefix, then lowest metric.
    ///
    /// Directly connected subnets count through their kernel routes.
    #[must_use]
    pub fn route_to(&self, ip: IpAddr) -> Option<&Link> {
        self.routes
            .iter()
            .filter(|route| route.destination.contains(&ip))
            .filter(|route| self.links.contains_key(&route.link))
            .max_by_key(|route| {
                (
                    route.destination.prefix_len(),
                    std::cmp::Reverse(route.metric),
                )
            })
            .and_then(|route| self.links.get(&route.link))
    }

    /// The link of the default route for the family of `ip`, by lowest metric.
    #[must_use]
    pub fn default_route(&self, v6: bool) -> Option<&Link> {
        self.routes
            .iter()
            .filter(|route| route.destination.prefix_len() == 0)
            .filter(|route| matches!(route.destination, IpNet::V6(_)) == v6)
            .min_by_key(|route| route.metric)
            .and_then(|route| self.links.get(&route.link))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: None,
            running: true,
            loopback: false,
            master: None,
            addresses: Vec::new(),
        }
    }

    fn route(destination: &str, link: u32, metric: u32) -> Route {
        Route {
            destination: destination.parse().unwrap(),
            link,
            metric,
        }
    }

    #[test]
    fn the_longest_prefix_then_the_lowest_metric_wins() {
        let links = Links {
            links: [(1, link(1, "eth0")), (2, link(2, "eth1"))].into(),
            routes: vec![
                route("0.0.0.0/0", 1, 200),
                route("0.0.0.0/0", 2, 100),
                route("10.0.0.0/8", 1, 0),
                route("fd00::/64", 2, 0),
            ],
        };
        let name = |ip: &str| {
            links
                .route_to(ip.parse().unwrap())
                .map(|link| link.name.as_str())
        };
        assert_eq!(name("192.0.2.1"), Some("eth1"));
        assert_eq!(name("10.1.2.3"), Some("eth0"));
        assert_eq!(name("fd00::1"), Some("eth1"));
        assert_eq!(name("2001:db8::1"), None);
        assert_eq!(links.default_route(false).map(|link| link.index), Some(2));
        assert_eq!(links.default_route(true), None);
    }
}
