//! From what is wanted to what a given peer is told: which paths it gets, with
//! which next hop. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::config::PeerName;
use crate::family::Family;
use crate::route::{Attributes, NextHop};

/// Addresses of ours that can stand as next hop in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalAddresses {
    /// For IPv4 routes.
    pub v4: Option<Ipv4Addr>,
    /// For IPv6 routes, and IPv4 ones by RFC 8950.
    pub v6: Option<Ipv6Addr>,
    /// The link-local address that goes with `v6` (RFC 2545).
    pub link_local: Option<Ipv6Addr>,
}

impl LocalAddresses {
    /// Chooses among the local end of the session and the other addresses of
    /// its interface, most useful first.
    pub(crate) fn choose(local: IpAddr, beside: &[IpAddr]) -> Self {
        let all = || std::iter::once(&local).chain(beside);
        let is_link_local = |ip: &Ipv6Addr| ip.is_unicast_link_local();
        let v6 = || {
            all().filter_map(|ip| match ip {
                IpAddr::V6(ip) => Some(*ip),
                IpAddr::V4(_) => None,
            })
        };
        let link_local = v6().find(is_link_local);
        Self {
            v4: all().find_map(|ip| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            }),
            v6: v6().find(|ip| !is_link_local(ip)).or(link_local),
            // Only a peer on the link can use it, and then it is the session's
            // own address that says so.
            link_local: link_local.filter(|ip| local == IpAddr::V6(*ip)),
        }
    }
}

/// What a session makes of the routes it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exporter {
    /// Name of the peer.
    pub peer: PeerName,
    /// Those in which several paths may be sent.
    pub add_path: Vec<Family>,
    /// Our addresses.
    pub addresses: LocalAddresses,
    /// IPv4 routes may have IPv6 next hops, and the session runs over IPv6.
    pub extended_next_hop: bool,
    /// The session itself runs over IPv6.
    pub over_v6: bool,
    /// Routes carry GRACEFUL_SHUTDOWN.
    pub shutting_down: bool,
}

/// Attributes with the next hop made out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Exported {
    /// NEXT_HOP.
    pub next_hop: IpAddr,
    /// Link-local next hop beside a global one.
    pub link_local: Option<Ipv6Addr>,
    /// The others.
    pub attributes: Arc<Attributes>,
    /// Whether GRACEFUL_SHUTDOWN is added.
    pub shutting_down: bool,
}

impl Exporter {
    /// Makes out the next hop; `None` if there is none for this family.
    pub(crate) fn export(&self, family: Family, attributes: &Arc<Attributes>) -> Option<Exported> {
        let next_hop = self.next_hop(family, attributes.next_hop)?;
        Some(Exported {
            next_hop,
            link_local: self
                .addresses
                .link_local
                .filter(|_| attributes.next_hop == NextHop::Local && next_hop.is_ipv6()),
            attributes: Arc::clone(attributes),
            shutting_down: self.shutting_down,
        })
    }

    fn next_hop(&self, family: Family, wanted: NextHop) -> Option<IpAddr> {
        let v4 = self.addresses.v4.map(IpAddr::V4);
        let v6 = self.addresses.v6.map(IpAddr::V6);
        match (family, wanted) {
            // Over IPv6 the session's own address is the one known to work.
            (Family::Ipv4, NextHop::Local) if self.extended_next_hop && self.over_v6 => v6.or(v4),
            (Family::Ipv4, NextHop::Local) => v4.or(v6.filter(|_| self.extended_next_hop)),
            (Family::Ipv6, NextHop::Local) => v6.filter(|ip| {
                // A link-local address means nothing over an IPv4 session.
                self.over_v6 || !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
            }),
            (Family::Ipv4, NextHop::Address(ip)) => {
                (ip.is_ipv4() || self.extended_next_hop).then_some(ip)
            }
            (Family::Ipv6, NextHop::Address(ip)) => ip.is_ipv6().then_some(ip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(local: &str, beside: &[&str], extended: bool) -> Exporter {
        let local: IpAddr = local.parse().unwrap();
        let beside: Vec<IpAddr> = beside.iter().map(|ip| ip.parse().unwrap()).collect();
        Exporter {
            peer: "p".into(),
            add_path: Vec::new(),
            addresses: LocalAddresses::choose(local, &beside),
            extended_next_hop: extended,
            over_v6: local.is_ipv6(),
            shutting_down: false,
        }
    }

    fn local(exporter: &Exporter, family: Family) -> Option<String> {
        exporter
            .export(family, &Arc::default())
            .map(|exported| exported.next_hop.to_string())
    }

    #[test]
    fn the_session_address_is_the_next_hop_of_its_family() {
        let v4 = exporter("192.0.2.1", &["2001:db8::1"], false);
        assert_eq!(local(&v4, Family::Ipv4).as_deref(), Some("192.0.2.1"));
        assert_eq!(local(&v4, Family::Ipv6).as_deref(), Some("2001:db8::1"));
        let v6 = exporter("2001:db8::1", &["192.0.2.1", "fe80::1"], false);
        assert_eq!(local(&v6, Family::Ipv4).as_deref(), Some("192.0.2.1"));
        assert_eq!(local(&v6, Family::Ipv6).as_deref(), Some("2001:db8::1"));
    }

    #[test]
    fn ipv4_over_ipv6_takes_the_session_address_where_negotiated() {
        let v6 = exporter("2001:db8::1", &["192.0.2.1"], true);
        assert_eq!(local(&v6, Family::Ipv4).as_deref(), Some("2001:db8::1"));
        let alone = exporter("2001:db8::1", &[], false);
        assert_eq!(local(&alone, Family::Ipv4), None);
    }

    #[test]
    fn a_link_local_address_is_no_next_hop_over_ipv4() {
        let v4 = exporter("192.0.2.1", &["fe80::1"], false);
        assert_eq!(local(&v4, Family::Ipv6), None);
    }

    #[test]
    fn a_session_over_link_local_addresses_names_both() {
        let ll = exporter("fe80::1", &["2001:db8::1"], true);
        let exported = ll.export(Family::Ipv6, &Arc::default()).unwrap();
        assert_eq!(exported.next_hop.to_string(), "2001:db8::1");
        assert_eq!(exported.link_local, Some("fe80::1".parse().unwrap()));
    }

    #[test]
    fn a_given_next_hop_must_fit_the_family() {
        let v4 = exporter("192.0.2.1", &[], false);
        let given = |ip: &str| {
            Arc::new(Attributes {
                next_hop: NextHop::Address(ip.parse().unwrap()),
                ..Attributes::default()
            })
        };
        assert!(v4.export(Family::Ipv4, &given("192.0.2.9")).is_some());
        assert!(v4.export(Family::Ipv4, &given("2001:db8::9")).is_none());
        assert!(v4.export(Family::Ipv6, &given("2001:db8::9")).is_some());
        assert!(v4.export(Family::Ipv6, &given("192.0.2.9")).is_none());
    }
}
