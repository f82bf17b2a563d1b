//! The speakers' own side: AS number, router id, listeners, defaults for peers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use openelb_api::keys;
use openelb_api::v1alpha2::{self as api, BgpConfSpec};
use openelb_bgp::{BGP_PORT, Family, GracefulRestart};

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

/// What is wrong with a BgpConf or BgpPeer, with the field and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub(crate) struct Fault {
    field: &'static str,
    problem: String,
}

/// Makes a fault.
pub(crate) fn fault(field: &'static str, problem: impl Into<String>) -> Fault {
    Fault {
        field,
        problem: problem.into(),
    }
}

/// Reads a BgpConf for a node.
///
/// On a node whose rack label is set, and where `asPerRack` is given, the rack decides the AS number
/// and the node's own address is the router id, as OpenELB had it.
pub(crate) fn identity(spec: &BgpConfSpec, name: &str, node: &Node) -> Result<Identity, Fault> {
    let rack = node.labels.get(keys::RACK).filter(|rack| !rack.is_empty());
    let per_rack = spec.as_per_rack.as_ref().zip(rack);
    let rack_as = per_rack.and_then(|(map, rack)| map.get(rack).copied());
    let asn = rack_as.filter(|asn| *asn > 0).or(spec.as_number);
    let asn = match asn {
        Some(asn) => u32::try_from(asn).ok().filter(|asn| *asn > 0),
        None => None,
    };
    let asn = asn.ok_or_else(|| fault("spec.as", "set it to an AS number from 1 to 4294967295"))?;
    let router_id = if spec.router_id.is_empty() || per_rack.is_some() {
        own_router_id(name, node)
    } else {
        let id = spec
            .router_id
            .parse::<Ipv4Addr>()
            .ok()
            .filter(|id| !id.is_unspecified());
        id.ok_or_else(|| {
            let text = &spec.router_id;
            fault(
                "spec.routerId",
                format!("{text:?} is no IPv4 address; set one, or leave it out"),
            )
        })?
    };
    Ok(Identity {
        asn,
        router_id,
        listen: listen(spec)?,
        families: families(&spec.families)?,
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

fn listen(spec: &BgpConfSpec) -> Result<Vec<SocketAddr>, Fault> {
    let port = match spec.listen_port {
        None | Some(0) => BGP_PORT,
        Some(-1) => return Ok(Vec::new()),
        Some(port) => u16::try_from(port).map_err(|_| {
            fault(
                "spec.listenPort",
                format!("{port} is no port; -1 means none, 0 means 179"),
            )
        })?,
    };
    if spec.listen_addresses.is_empty() {
        return Ok(vec![
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)),
        ]);
    }
    let addresses = spec.listen_addresses.iter().map(|text| {
        let address = text.trim().parse::<IpAddr>();
        address.map(|ip| SocketAddr::from((ip, port))).map_err(|_| {
            fault(
                "spec.listenAddresses",
                format!("{text:?} is no IPv4 or IPv6 address"),
            )
        })
    });
    addresses.collect()
}

/// GoBGP's indexes: 0 and 1 are the families we announce; others are no error, they stay without use.
fn families(indexes: &[i64]) -> Result<Vec<Family>, Fault> {
    if indexes.is_empty() {
        return Ok(Family::ALL.to_vec());
    }
    let families: Vec<Family> = [(0, Family::Ipv4), (1, Family::Ipv6)]
        .into_iter()
        .filter(|(index, _)| indexes.contains(index))
        .map(|(_, family)| family)
        .collect();
    if families.is_empty() {
        let problem = "none of them is announced; use 0 (IPv4 unicast), 1 (IPv6 unicast), or both";
        return Err(fault("spec.families", problem));
    }
    Ok(families)
}

/// Graceful restart as a BgpConf or BgpPeer asks for it; `None` where it is off, or only to help
/// others (we take no routes that a restarting peer could lose).
pub(crate) fn graceful_restart(
    spec: Option<&api::GracefulRestart>,
    hold: Duration,
) -> Option<GracefulRestart> {
    let spec = spec.filter(|spec| spec.enabled && !spec.helper_only)?;
    let time = spec
        .restart_time
        .and_then(|seconds| u64::try_from(seconds).ok());
    let time = time
        .filter(|seconds| *seconds > 0)
        .map_or(hold, Duration::from_secs);
    Some(GracefulRestart {
        restart_time: time.min(Duration::from_secs(4095)),
        notification: spec.notification_enabled,
        long_lived: if spec.longlived_enabled {
            LONG_LIVED_STALE
        } else {
            Duration::ZERO
        },
    })
}

#[cfg(test)]
mod tests {
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
        identity(&spec, "worker-1", node).map_err(|fault| fault.to_string())
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
    fn says_what_is_wrong_and_where() {
        let node = node(&["10.0.0.1"], None);
        for (spec, field) in [
            (json!({}), "spec.as"),
            (json!({"as": 0}), "spec.as"),
            (json!({"as": 4_294_967_296_i64}), "spec.as"),
            (json!({"as": 1, "routerId": "fd00::1"}), "spec.routerId"),
            (json!({"as": 1, "listenPort": 70000}), "spec.listenPort"),
            (
                json!({"as": 1, "listenAddresses": ["eth0"]}),
                "spec.listenAddresses",
            ),
            (json!({"as": 1, "families": [2]}), "spec.families"),
        ] {
            assert!(read(spec, &node).unwrap_err().starts_with(field), "{field}");
        }
    }

    #[test]
    fn graceful_restart_lasts_the_hold_time_unless_told_otherwise() {
        let read = |value| {
            let spec: api::GracefulRestart = serde_json::from_value(value).unwrap();
            graceful_restart(Some(&spec), Duration::from_secs(90))
        };
        assert_eq!(read(json!({})), None);
        assert_eq!(read(json!({"enabled": true, "helperOnly": true})), None);
        let plain = read(json!({"enabled": true})).unwrap();
        assert_eq!(plain.restart_time, Duration::from_secs(90));
        assert!(!plain.notification && plain.long_lived.is_zero());
        let full = json!({"enabled": true, "restartTime": 120, "notificationEnabled": true, "longlivedEnabled": true});
        let full = read(full).unwrap();
        assert_eq!(full.restart_time, Duration::from_mins(2));
        assert!(full.notification && !full.long_lived.is_zero());
    }
}
