//! Eips and EipAddresses as far as they decide what is announced and how.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use openelb_api::v1alpha2::{Announcer, Eip, EipAddress, Probe, Protocol};
use openelb_bgp::{Attributes, PeerSelection};

use super::service::ServiceKey;

/// An Eip.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pool {
    /// How its addresses are announced.
    pub(crate) protocol: Protocol,
    /// Nodes that may announce; all where `None`.
    pub(crate) node_selector: Option<LabelSelector>,
    /// Announce addresses whose Services have no endpoint.
    pub(crate) announce_without_endpoints: bool,
    /// Path attributes of the routes.
    pub(crate) attributes: Arc<Attributes>,
    /// BgpPeers that hear of the routes.
    pub(crate) peers: PeerSelection,
    /// Length of the IPv4 prefix that is announced, 1 to 32.
    pub(crate) length_v4: u8,
    /// Length of the IPv6 prefix that is announced, 1 to 128.
    pub(crate) length_v6: u8,
    /// Layer 2: the interface expression.
    pub(crate) interface: Option<String>,
    /// Layer 2: seconds between refreshes; `None` for the default, 0 for none.
    pub(crate) announce_interval: Option<u32>,
    /// Layer 2: whether to look for another host before the first use.
    pub(crate) probe: Probe,
    /// The addresses: ranges by first and last, in the order given.
    pub(crate) ranges: Vec<(IpAddr, IpAddr)>,
}

impl Pool {
    /// Reads the API's object. What cannot be read of its BGP part is left out and returned in words.
    pub(crate) fn read(eip: &Eip) -> (Self, Vec<String>) {
        let spec = &eip.spec;
        let bgp = spec.bgp.clone().unwrap_or_default();
        let mut faults = Vec::new();
        let attributes = Attributes {
            local_pref: number(bgp.local_pref),
            med: number(bgp.med),
            prepend: bgp
                .as_path_prepend
                .map_or(0, |n| u8::try_from(n.clamp(0, 16)).unwrap_or(0)),
            communities: parse_all(&bgp.communities, &mut faults),
            large_communities: parse_all(&bgp.large_communities, &mut faults),
            extended_communities: parse_all(&bgp.extended_communities, &mut faults),
            ..Attributes::default()
        };
        let peers = if bgp.peers.is_empty() {
            PeerSelection::All
        } else {
            PeerSelection::Only(Arc::new(
                bgp.peers.iter().map(|name| name.as_str().into()).collect(),
            ))
        };
        let pool = Self {
            protocol: spec.effective_protocol(),
            node_selector: spec.node_selector.clone(),
            announce_without_endpoints: spec.announce_without_endpoints,
            attributes: Arc::new(attributes),
            peers,
            length_v4: length(bgp.aggregation_length, 32),
            length_v6: length(bgp.aggregation_length_v6, 128),
            interface: spec.interface.clone(),
            announce_interval: spec.announce_interval.and_then(|s| u32::try_from(s).ok()),
            probe: spec.probe.unwrap_or_default(),
            ranges: ranges(&spec.address),
        };
        (pool, faults)
    }

    /// Whether the address is in the pool.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|(first, last)| {
            first.is_ipv4() == address.is_ipv4() && (first..=last).contains(&&address)
        })
    }

    /// The length of the prefix announced for an address.
    pub(crate) fn length(&self, address: IpAddr) -> u8 {
        if address.is_ipv4() {
            self.length_v4
        } else {
            self.length_v6
        }
    }
}

/// The ranges of an Eip's address; what cannot be read is left out, its controller says so.
fn ranges(text: &str) -> Vec<(IpAddr, IpAddr)> {
    let range = |part: &str| {
        if let Ok(net) = part.parse::<ipnet::IpNet>() {
            return Some((net.network(), net.broadcast()));
        }
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    text.split(',')
        .filter_map(|part| range(part.trim()))
        .collect()
}

/// A number of the API's 64-bit integers that fits the wire's 32 bits.
fn number(value: Option<i64>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok())
}

fn length(value: Option<i64>, max: u8) -> u8 {
    value
        .and_then(|value| u8::try_from(value).ok())
        .filter(|length| (1..=max).contains(length))
        .unwrap_or(max)
}

fn parse_all<T>(texts: &[String], faults: &mut Vec<String>) -> BTreeSet<T>
where
    T: std::str::FromStr<Err: std::fmt::Display> + Ord,
{
    let mut values = BTreeSet::new();
    for text in texts {
        match text.parse::<T>() {
            Ok(value) => {
                values.insert(value);
            }
            Err(error) => faults.push(error.to_string()),
        }
    }
    values
}

/// An EipAddress that Services hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Holding {
    /// The Eip it was taken from.
    pub(crate) eip: String,
    /// The Eip's protocol when it was taken: counts while the Eip cannot be read.
    pub(crate) protocol: Protocol,
    /// The Services that hold it.
    pub(crate) services: BTreeSet<ServiceKey>,
    /// Layer 2: who was last said to announce it.
    pub(crate) announcers: Vec<Announcer>,
    /// The conditions.
    pub(crate) conditions: Vec<Condition>,
    /// The version of the object that all this was read from.
    pub(crate) version: String,
}

impl Holding {
    /// Reads the API's object; `None` where its address is none.
    pub(crate) fn read(object: &EipAddress) -> Option<(IpAddr, Self)> {
        let spec = &object.spec;
        let address = spec.address.parse().ok()?;
        let services = spec
            .services
            .iter()
            .map(|holder| ServiceKey::new(&holder.namespace, &holder.name))
            .collect();
        let status = object.status.clone().unwrap_or_default();
        Some((
            address,
            Self {
                eip: spec.eip.clone(),
                protocol: spec.protocol.unwrap_or_default(),
                services,
                announcers: status.announcers,
                conditions: status.conditions,
                version: object.metadata.resource_version.clone().unwrap_or_default(),
            },
        ))
    }
}
