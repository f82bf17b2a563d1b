//! The speakers' own side: AS number, router id, listeners, defaults for peers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use openelb_api::bgp::{self, Speaker};
use openelb_api::{self as api, FieldError, keys};
use openelb_bgp::{Family, GracefulRestart};

use crate::announce::Node;

/// How long peers keep our routes as a last resort where long-lived graceful restart (RFC 9494) is
/// asked for: OpenELB's objects have no field for it.
const LONG_LIVED_STALE: Duration = Duration::from_hours(1);

/// What a BgpConf means on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The AS number.
    pub(crate) asn: u32,
    /// The BGP identifier.
    pub(crate) router_id: Ipv4Addr,
    /// Where to listen; empty for nowhere.
    pub(crate) listen: Vec<SocketAddr>,
    /// The families that are announced at all.
    pub(crate) families: Vec<Family>,
}

/// What the speakers' own side means for a node.
///
/// On a node whose rack label is set, and where `asPerRack` is given, the rack decides the AS number
/// and the node's own address is the router id, as OpenELB had it. Fails only where the rack has no
/// number and the BgpConf none for the rest.
pub(crate) fn identity(speaker: &Speaker, name: &str, node: &Node) -> Result<Identity, FieldError> {
    let rack = node.labels.get(keys::RACK).filter(|rack| !rack.is_empty());
    let rack = rack.map(String::as_str);
    let asn = speaker.as_number_in(rack).ok_or_else(|| {
        let reason = match rack {
            Some(rack) => format!("is needed: spec.asPerRack has no number for rack {rack:?}"),
            None => "is needed: this node has no rack".to_owned(),
        };
        FieldError::new("spec.as", None::<u32>, reason)
    })?;
    let given = speaker
        .router_id
        .filter(|_| speaker.as_per_rack.is_none() || rack.is_none());
    Ok(Identity {
        asn,
        router_id: given.unwrap_or_else(|| own_router_id(name, node)),
        listen: listen(speaker),
        families: families(&speaker.families.announced),
    })
}

/// The first IPv4 InternalIP, else (nodes without IPv4) a number that depends on the name alone.
fn own_router_id(name: &str, node: &Node) -> Ipv4Addr {
    let ipv4 = node.internal_ips.iter().find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    ipv4.unwrap_or_else(|| {
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        // Looks like a unicast address to the routers that insist on one: 1.x.x.x to 127.x.x.x.
        Ipv4Addr::from(hash & 0x7fff_ffff | 0x0100_0000)
    })
}

fn listen(speaker: &Speaker) -> Vec<SocketAddr> {
    let Some(port) = speaker.port else {
        return Vec::new();
    };
    let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let addresses: &[IpAddr] = if speaker.listen.is_empty() {
        &all
    } else {
        &speaker.listen
    };
    addresses
        .iter()
        .map(|ip| SocketAddr::from((*ip, port)))
        .collect()
}

/// Families in the terms of the protocol.
pub(crate) fn families(announced: &BTreeSet<api::Family>) -> Vec<Family> {
    let family = |family: &api::Family| match family {
        api::Family::V4 => Family::Ipv4,
        api::Family::V6 => Family::Ipv6,
    };
    announced.iter().map(family).collect()
}

/// Graceful restart in the terms of the protocol; a peer keeps routes for the hold time where no
/// other is given.
pub(super) fn graceful_restart(restart: bgp::GracefulRestart, hold: Duration) -> GracefulRestart {
    let given = restart.restart_time.map(u64::from).map(Duration::from_secs);
    GracefulRestart {
        restart_time: given.unwrap_or(hold).min(Duration::from_secs(4095)),
        notification: restart.notification,
        long_lived: if restart.long_lived {
            LONG_LIVED_STALE
        } else {
            Duration::ZERO
        },
    }
}

#[cfg(test)]
mod tests {
    use openelb_api::v1alpha2::{self as wire, BgpConfSpec};
    use serde_json::{Value, json};

    use super::*;

    fn node(ips: &[&str], rack: Option<&str>) -> Node {
        Node {
            internal_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            labels: rack
                .map(|rack| (keys::RACK.to_owned(), rack.to_owned()))
                .into_iter()
                .collect(),
            ..Node::default()
        }
    }

    fn read(spec: Value, node: &Node) -> Result<Identity, String> {
        let spec: BgpConfSpec = serde_json::from_value(spec).unwrap();
        let speaker = Speaker::try_from(&spec).map_err(|error| error.to_string())?;
        identity(&speaker, "worker-1", node).map_err(|error| error.to_string())
    }

    #[test]
    fn the_router_id_is_the_one_given_else_the_nodes_first_ipv4_address() {
        let node = node(&["fd00::1", "10.0.0.1", "10.0.0.2"], None);
        let id = |spec| read(spec, &node).unwrap().router_id.to_string();
        assert_eq!(id(json!({"as": 65000})), "10.0.0.1");
        assert_eq!(id(json!({"as": 65000, "routerId": "8.8.8.8"})), "8.8.8.8");
    }

    #[test]
    fn a_node_without_ipv4_has_a_router_id_that_stays() {
        let id = read(json!({"as": 65000}), &node(&["fd00::1"], None))
            .unwrap()
            .router_id;
        assert_eq!(
            id,
            read(json!({"as": 1}), &node(&[], None)).unwrap().router_id
        );
        assert!((1..=127).contains(&id.octets()[0]));
    }

    #[test]
    fn a_rack_decides_as_number_and_router_id() {
        let spec =
            || json!({"as": 65000, "routerId": "8.8.8.8", "asPerRack": {"r1": 65001, "r2": 0}});
        let get = |rack| {
            let identity = read(spec(), &node(&["10.0.0.1"], rack)).unwrap();
            (identity.asn, identity.router_id.to_string())
        };
        assert_eq!(get(Some("r1")), (65001, "10.0.0.1".to_owned()));
        assert_eq!(get(Some("r2")), (65000, "10.0.0.1".to_owned()));
        assert_eq!(get(Some("unknown")), (65000, "10.0.0.1".to_owned()));
        assert_eq!(get(None), (65000, "8.8.8.8".to_owned()));
        let without = read(
            json!({"as": 7, "routerId": "8.8.8.8"}),
            &node(&["10.0.0.1"], Some("r1")),
        );
        assert_eq!(without.unwrap().router_id.to_string(), "8.8.8.8");
    }

    #[test]
    fn listens_where_it_is_told() {
        let listen = |spec| {
            let identity = read(spec, &node(&["10.0.0.1"], None)).unwrap();
            identity
                .listen
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(listen(json!({"as": 1})), ["0.0.0.0:179", "[::]:179"]);
        assert_eq!(
            listen(json!({"as": 1, "listenPort": 17900})),
            ["0.0.0.0:17900", "[::]:17900"]
        );
        assert!(listen(json!({"as": 1, "listenPort": -1})).is_empty());
        let one = json!({"as": 1, "listenAddresses": ["10.0.0.1"]});
        assert_eq!(listen(one), ["10.0.0.1:179"]);
    }

    #[test]
    fn a_node_of_a_rack_without_a_number_is_told_so() {
        let spec = json!({"asPerRack": {"r1": 65001}});
        let refusal = |rack| read(spec.clone(), &node(&["10.0.0.1"], rack)).unwrap_err();
        assert_eq!(
            refusal(Some("r2")),
            "spec.as: is needed: spec.asPerRack has no number for rack \"r2\""
        );
        assert_eq!(refusal(None), "spec.as: is needed: this node has no rack");
    }

    #[test]
    fn graceful_restart_lasts_the_hold_time_unless_told_otherwise() {
        let read = |value| {
            let spec: wire::GracefulRestart = serde_json::from_value(value).unwrap();
            let restart = bgp::GracefulRestart::read(&spec).unwrap();
            restart.map(|restart| graceful_restart(restart, Duration::from_secs(90)))
        };
        assert_eq!(read(json!({})), None);
        let plain = read(json!({"enabled": true})).unwrap();
        assert_eq!(plain.restart_time, Duration::from_secs(90));
        assert!(!plain.notification && plain.long_lived.is_zero());
        let full = json!({"enabled": true, "restartTime": 120, "notificationEnabled": true, "longlivedEnabled": true});
        let full = read(full).unwrap();
        assert_eq!(full.restart_time, Duration::from_mins(2));
        assert!(full.notification && !full.long_lived.is_zero());
    }
}
