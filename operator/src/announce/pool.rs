//! Eips and EipAddresses as far as they decide what is announced and how.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use openelb_api::bgp::{self, PathAttributes};
use openelb_api::keys;
use openelb_api::v1alpha2::{AddressHolder, Announcer, Eip, EipAddress, Probe, Protocol};
use openelb_api::{FieldError, Interface, InterfaceError, Labels, PoolAddresses, RangeSet};
use openelb_bgp::{Attributes, Community, ExtendedCommunity, LargeCommunity, PeerSelection};
use serde_json::Value;

use super::service::ServiceKey;

/// An Eip.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pool {
    /// How its addresses are announced.
    pub(crate) protocol: Protocol,
    /// Nodes that may announce; none where it cannot be read.
    pub(crate) nodes: Option<Labels>,
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
    /// Layer 2: the interface; `None` where it cannot be read.
    pub(crate) interface: Option<Interface>,
    /// Layer 2: seconds between refreshes; `None` for the default, 0 for none.
    pub(crate) announce_interval: Option<u32>,
    /// Layer 2: whether to look for another host before the first use.
    pub(crate) probe: Probe,
    /// The addresses that it names.
    pub(crate) addresses: RangeSet,
}

impl Pool {
    /// Reads the API's object. Parts that cannot be read are left out and returned in words.
    pub(crate) fn read(eip: &Eip) -> (Self, Vec<FieldError>) {
        let spec = &eip.spec;
        let (addresses, mut faults) = PoolAddresses::named_by(spec);
        let (bgp, wrong) = spec
            .bgp
            .as_ref()
            .map(PathAttributes::read)
            .unwrap_or_default();
        faults.extend(wrong);
        let selector = spec.node_selector.as_ref();
        let nodes = selector.map(|selector| Labels::read("spec.nodeSelector", selector));
        let nodes = nodes.unwrap_or_else(|| Ok(Labels::default()));
        let text = spec.interface.as_deref().unwrap_or_default();
        let interface = text
            .parse()
            .map_err(|error: InterfaceError| FieldError::new("spec.interface", Value::Null, error));
        let pool = Self {
            protocol: spec.effective_protocol(),
            nodes: nodes.map_err(|error| faults.push(error)).ok(),
            announce_without_endpoints: spec.announce_without_endpoints,
            peers: peers(&bgp),
            length_v4: bgp.length_v4,
            length_v6: bgp.length_v6,
            attributes: Arc::new(attributes(bgp)),
            interface: interface.map_err(|error| faults.push(error)).ok(),
            announce_interval: spec.announce_interval.and_then(|s| u32::try_from(s).ok()),
            probe: spec.probe.unwrap_or_default(),
            addresses,
        };
        (pool, faults)
    }

    /// Whether the address is in the pool.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.addresses.contains(address)
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

fn peers(bgp: &PathAttributes) -> PeerSelection {
    if bgp.peers.is_empty() {
        return PeerSelection::All;
    }
    let names = bgp.peers.iter().map(|name| name.as_str().into());
    PeerSelection::Only(Arc::new(names.collect()))
}

/// Path attributes in the terms of the protocol.
fn attributes(bgp: PathAttributes) -> Attributes {
    let large = |large: bgp::LargeCommunity| LargeCommunity {
        global: large.administrator,
        local1: large.first,
        local2: large.second,
    };
    let extended = |extended: bgp::ExtendedCommunity| ExtendedCommunity(extended.0);
    Attributes {
        local_pref: bgp.local_pref,
        med: bgp.med,
        prepend: bgp.prepend,
        communities: bgp
            .communities
            .into_iter()
            .map(|community| Community(community.0))
            .collect(),
        large_communities: bgp.large_communities.into_iter().map(large).collect(),
        extended_communities: bgp.extended_communities.into_iter().map(extended).collect(),
        ..Attributes::default()
    }
}

/// A Service that holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Which one.
    pub(crate) service: ServiceKey,
    /// Its UID.
    pub(crate) uid: Box<str>,
}

/// An EipAddress that Services hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Holding {
    /// The Eip it was taken from.
    pub(crate) eip: String,
    /// The Eip's protocol when it was taken: counts while the Eip cannot be read.
    pub(crate) protocol: Protocol,
    /// The Services that hold it.
    pub(crate) holders: Vec<Holder>,
    /// It was in use before it was an object of ours.
    pub(crate) adopted: bool,
    /// Layer 2: who was last said to announce it.
    pub(crate) announcers: Vec<Announcer>,
    /// The conditions.
    pub(crate) conditions: Vec<Condition>,
    /// The version of the object that all this was read from.
    pub(crate) version: String,
}

impl Holding {
    /// Whether this Service is one of the holders.
    pub(crate) fn is_held_by(&self, service: &ServiceKey) -> bool {
        self.holders.iter().any(|holder| holder.service == *service)
    }

    /// Reads the API's object; `None` where its address is none.
    pub(crate) fn read(object: &EipAddress) -> Option<(IpAddr, Self)> {
        let spec = &object.spec;
        let address = spec.address.parse().ok()?;
        let holder = |holder: &AddressHolder| Holder {
            service: ServiceKey::new(&holder.namespace, &holder.name),
            uid: holder.uid.as_str().into(),
        };
        let status = object.status.clone().unwrap_or_default();
        Some((
            address,
            Self {
                eip: spec.eip.clone(),
                protocol: spec.protocol.unwrap_or_default(),
                holders: spec.services.iter().map(holder).collect(),
                adopted: object
                    .metadata
                    .annotations
                    .as_ref()
                    .is_some_and(|all| all.contains_key(keys::ADOPTED)),
                announcers: status.announcers,
                conditions: status.conditions,
                version: object.metadata.resource_version.clone().unwrap_or_default(),
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: Value) -> (Pool, Vec<String>) {
        let (pool, faults) = Pool::read(&Eip::new("pool", serde_json::from_value(spec).unwrap()));
        (pool, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_eips_bgp_part_is_what_its_routes_carry() {
        let (pool, faults) = read(json!({"address": "192.0.2.0/24", "bgp": {
            "aggregationLength": 24, "localPref": 200, "med": 7, "asPathPrepend": 2,
            "communities": ["no-export"], "largeCommunities": ["65000:1:2"],
            "extendedCommunities": ["rt:65000:100"], "peers": ["spine"]
        }}));
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!((pool.length_v4, pool.length_v6), (24, 128));
        let attributes = &*pool.attributes;
        assert_eq!(
            (attributes.local_pref, attributes.med),
            (Some(200), Some(7))
        );
        assert_eq!(attributes.prepend, 2);
        assert_eq!(attributes.communities, [Community::NO_EXPORT].into());
        let large = LargeCommunity {
            global: 65000,
            local1: 1,
            local2: 2,
        };
        assert_eq!(attributes.large_communities, [large].into());
        let extended = ExtendedCommunity(0x0002_fde8_0000_0064);
        assert_eq!(attributes.extended_communities, [extended].into());
        assert!(pool.peers.contains("spine") && !pool.peers.contains("other"));
    }

    #[test]
    fn what_cannot_be_read_is_left_out_and_named() {
        let (pool, faults) = read(json!({
            "address": "192.0.2.1,nonsense", "interface": "lo",
            "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]},
            "bgp": {"communities": ["no-export", "65536:1"]}
        }));
        assert!(pool.contains("192.0.2.1".parse().unwrap()));
        assert_eq!(pool.attributes.communities, [Community::NO_EXPORT].into());
        assert!(pool.nodes.is_none() && pool.interface.is_none());
        for path in [
            "spec.address: \"nonsense\"",
            "spec.bgp.communities[1]: \"65536:1\"",
            "spec.nodeSelector.matchExpressions[0].operator: \"Like\"",
            "spec.interface: ",
        ] {
            assert!(
                faults.iter().any(|fault| fault.starts_with(path)),
                "{path} in {faults:?}"
            );
        }
    }
}
