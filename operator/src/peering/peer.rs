//! One peer.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use openelb_api::v1alpha2::{self as api, BgpPeerSpec, DynamicAsn};
use openelb_bgp::{
    AdminState, BfdConfig, ConfigError, Family, GracefulRestart, Hops, Password, PeerAddress,
    PeerConfig, RemoteAs, Timers,
};

use super::conf::{Fault, fault, graceful_restart};

/// What applies to all peers of a node.
pub(crate) struct Defaults<'a> {
    /// The families that are announced at all.
    pub(crate) families: &'a [Family],
    /// Graceful restart of the BgpConf.
    pub(crate) graceful_restart: Option<&'a api::GracefulRestart>,
}

/// Reads a BgpPeer. The password is passed in; where it comes from is no matter of the object alone.
pub(crate) fn config(
    spec: &BgpPeerSpec,
    defaults: &Defaults<'_>,
    password: Option<&str>,
) -> Result<PeerConfig, Fault> {
    let conf = spec.conf.as_ref().ok_or_else(|| {
        fault(
            "spec.conf",
            "it is missing; set conf.neighborAddress and conf.peerAs",
        )
    })?;
    let address = address(conf)?;
    let timers = timers(spec)?;
    let families = families(spec, &address, defaults.families)?;
    let hops = hops(spec)?;
    let config = PeerConfig {
        remote_port: match spec.transport.as_ref().and_then(|t| t.remote_port) {
            None | Some(0) => openelb_bgp::BGP_PORT,
            Some(port) => u16::try_from(port)
                .map_err(|_| fault("spec.transport.remotePort", format!("{port} is no port")))?,
        },
        remote_as: remote_as(spec, conf)?,
        local_as: match conf.local_as {
            None | Some(0) => None,
            Some(asn) => Some(as_number("spec.conf.localAs", asn)?),
        },
        description: conf.description.clone(),
        password: password.map(Password::new),
        graceful_restart: restart(spec, defaults, &timers),
        timers,
        hops,
        source: source(spec)?,
        interface: None,
        passive: spec.transport.as_ref().is_some_and(|t| t.passive_mode),
        add_path_send: spec.afi_safis.iter().any(sends_several),
        extended_next_hop: true,
        bfd: spec
            .bfd
            .as_ref()
            .filter(|bfd| bfd.enabled)
            .map(|bfd| bfd_config(bfd, hops)),
        admin: if conf.admin_down {
            AdminState::Down("conf.adminDown is set".to_owned())
        } else {
            AdminState::Up
        },
        address,
        families,
    };
    config
        .check()
        .map_err(|error| fault(field_of(&error), error.to_string()))?;
    Ok(config)
}

/// The peer's identity, by which two BgpPeers collide.
pub(crate) fn address(conf: &api::PeerConf) -> Result<PeerAddress, Fault> {
    let text = conf.neighbor_address.trim();
    let interface = conf.neighbor_interface.trim();
    if text.is_empty() {
        return if interface.is_empty() {
            Err(fault(
                "spec.conf.neighborAddress",
                "it is missing; set the address of the router",
            ))
        } else {
            Ok(PeerAddress::Interface(interface.to_owned()))
        };
    }
    let (text, zone) = text.split_once('%').unwrap_or((text, interface));
    let address: IpAddr = text.parse().map_err(|_| {
        fault(
            "spec.conf.neighborAddress",
            format!("{text:?} is no IPv4 or IPv6 address"),
        )
    })?;
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => link_local(v6, zone),
        other => Ok(PeerAddress::Ip(other)),
    }
}

fn link_local(address: Ipv6Addr, zone: &str) -> Result<PeerAddress, Fault> {
    if zone.is_empty() {
        let problem = format!("{address} is link-local: set conf.neighborInterface as well");
        return Err(fault("spec.conf.neighborAddress", problem));
    }
    Ok(PeerAddress::LinkLocal(address, zone.to_owned()))
}

fn as_number(field: &'static str, asn: i64) -> Result<u32, Fault> {
    u32::try_from(asn)
        .ok()
        .filter(|asn| *asn > 0)
        .ok_or_else(|| fault(field, format!("{asn} is no AS number; set 1 to 4294967295")))
}

fn remote_as(spec: &BgpPeerSpec, conf: &api::PeerConf) -> Result<RemoteAs, Fault> {
    match (spec.dynamic_asn, conf.peer_as) {
        (Some(DynamicAsn::Internal), _) => Ok(RemoteAs::Internal),
        (Some(DynamicAsn::External), _) => Ok(RemoteAs::External),
        (None, Some(asn)) => as_number("spec.conf.peerAs", asn).map(RemoteAs::Exactly),
        (None, None) => Err(fault(
            "spec.conf.peerAs",
            "it is missing; set the router's AS number, or dynamicAsn",
        )),
    }
}

fn timers(spec: &BgpPeerSpec) -> Result<Timers, Fault> {
    let none = api::TimersConfig::default();
    let config = spec
        .timers
        .as_ref()
        .and_then(|timers| timers.config.as_ref())
        .unwrap_or(&none);
    let defaults = Timers::default();
    // GoBGP takes 0 of the retry and keepalive timers for "not given".
    let positive =
        |field, text| Ok(seconds(field, text)?.filter(|time: &Duration| !time.is_zero()));
    Ok(Timers {
        hold: seconds("spec.timers.config.holdTime", &config.hold_time)?.unwrap_or(defaults.hold),
        keepalive: positive(
            "spec.timers.config.keepaliveInterval",
            &config.keepalive_interval,
        )?,
        connect_retry: positive("spec.timers.config.connectRetry", &config.connect_retry)?
            .unwrap_or(defaults.connect_retry),
    })
}

/// Seconds written as a string, as protobuf's JSON has its 64-bit integers.
fn seconds(field: &'static str, text: &str) -> Result<Option<Duration>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.trim().parse::<u32>().map_err(|_| {
        fault(
            field,
            format!("{text:?} is no number of seconds; write it as \"90\""),
        )
    })?;
    Ok(Some(Duration::from_secs(number.into())))
}

fn hops(spec: &BgpPeerSpec) -> Result<Hops, Fault> {
    let multihop = spec
        .ebgp_multihop
        .as_ref()
        .filter(|multihop| multihop.enabled);
    let security = spec.ttl_security.filter(|hops| *hops > 0);
    let byte = |field, value: i64| {
        u8::try_from(value).map_err(|_| fault(field, format!("{value} is not within 1 to 255")))
    };
    match (multihop, security) {
        (None, None) => Ok(Hops::Direct),
        (None, Some(hops)) => Ok(Hops::Security(byte("spec.ttlSecurity", hops)?)),
        (Some(multihop), None) => match multihop.multihop_ttl {
            None | Some(0) => Ok(Hops::Multihop(255)),
            Some(ttl) => Ok(Hops::Multihop(byte("spec.ebgpMultihop.multihopTtl", ttl)?)),
        },
        (Some(_), Some(_)) => Err(fault(
            "spec.ttlSecurity",
            "it cannot be combined with ebgpMultihop; say the distance in ttlSecurity alone",
        )),
    }
}

fn source(spec: &BgpPeerSpec) -> Result<Option<IpAddr>, Fault> {
    let text = spec
        .source_address
        .as_deref()
        .map(str::trim)
        .filter(|text| !text.is_empty());
    text.map(|text| {
        text.parse().map_err(|_| {
            fault(
                "spec.sourceAddress",
                format!("{text:?} is no IPv4 or IPv6 address"),
            )
        })
    })
    .transpose()
}

/// The families asked for (the one of the address where none is), as far as they are announced.
fn families(
    spec: &BgpPeerSpec,
    address: &PeerAddress,
    announced: &[Family],
) -> Result<Vec<Family>, Fault> {
    let own = match address {
        PeerAddress::Ip(IpAddr::V4(_)) => Family::Ipv4,
        _ => Family::Ipv6,
    };
    let mut wanted = Vec::new();
    for entry in &spec.afi_safis {
        let family = entry
            .config
            .as_ref()
            .and_then(|config| config.family.as_ref());
        match family.map(|family| (family.afi.as_str(), family.safi.as_str())) {
            None | Some(("", "")) => wanted.push(own),
            Some(("AFI_IP", "SAFI_UNICAST")) => wanted.push(Family::Ipv4),
            Some(("AFI_IP6", "SAFI_UNICAST")) => wanted.push(Family::Ipv6),
            // Families that carry no addresses of Services.
            Some(_) => {}
        }
    }
    if spec.afi_safis.is_empty() {
        wanted.push(own);
    }
    wanted.sort_unstable();
    wanted.dedup();
    wanted.retain(|family| announced.contains(family));
    if wanted.is_empty() {
        let problem = "no family is left to announce: list AFI_IP or AFI_IP6 with SAFI_UNICAST, and look at families of the BgpConf";
        return Err(fault("spec.afiSafis", problem));
    }
    Ok(wanted)
}

fn sends_several(entry: &api::AfiSafi) -> bool {
    let config = entry
        .add_paths
        .as_ref()
        .and_then(|paths| paths.config.as_ref());
    config
        .and_then(|config| config.send_max)
        .is_some_and(|max| max > 0)
}

fn restart(
    spec: &BgpPeerSpec,
    defaults: &Defaults<'_>,
    timers: &Timers,
) -> Option<GracefulRestart> {
    graceful_restart(
        spec.graceful_restart.as_ref().or(defaults.graceful_restart),
        timers.hold,
    )
}

fn bfd_config(bfd: &api::Bfd, hops: Hops) -> BfdConfig {
    let defaults = BfdConfig::default();
    let interval = |value: Option<i64>, default| {
        value
            .and_then(|ms| u64::try_from(ms).ok())
            .map_or(default, Duration::from_millis)
    };
    let minimum_ttl = bfd
        .minimum_ttl
        .and_then(|ttl| u8::try_from(ttl).ok())
        .unwrap_or(254);
    BfdConfig {
        transmit: interval(bfd.transmit_interval, defaults.transmit),
        receive: interval(bfd.receive_interval, defaults.receive),
        multiplier: bfd
            .detect_multiplier
            .and_then(|n| u8::try_from(n).ok())
            .unwrap_or(defaults.multiplier),
        passive: bfd.passive_mode,
        multihop: match hops {
            Hops::Multihop(2..) | Hops::Security(2..) => Some(minimum_ttl),
            _ => None,
        },
    }
}

fn field_of(error: &ConfigError) -> &'static str {
    match error {
        ConfigError::Address(_) => "spec.conf.neighborAddress",
        ConfigError::SourceFamily { .. } => "spec.sourceAddress",
        ConfigError::HoldTime(_) => "spec.timers.config.holdTime",
        ConfigError::Password(_) => "spec.passwordSecretRef",
        ConfigError::RestartTime => "spec.gracefulRestart",
        ConfigError::Bfd => "spec.bfd",
        _ => "spec",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> Result<PeerConfig, String> {
        let spec: BgpPeerSpec = serde_json::from_value(spec).unwrap();
        let defaults = Defaults {
            families: &Family::ALL,
            graceful_restart: None,
        };
        config(&spec, &defaults, None).map_err(|fault| fault.to_string())
    }

    #[allow(clippy::needless_pass_by_value, reason = "reads better at the calls")]
    fn with(extra: Value) -> Result<PeerConfig, String> {
        let mut spec = json!({"conf": {"neighborAddress": "10.0.0.254", "peerAs": 65001}});
        for (key, value) in extra.as_object().unwrap() {
            match (
                spec.get_mut(key).and_then(Value::as_object_mut),
                value.as_object(),
            ) {
                (Some(old), Some(new)) => old.extend(new.clone()),
                _ => spec[key] = value.clone(),
            }
        }
        read(spec)
    }

    #[test]
    fn the_least_is_an_address_and_an_as_number() {
        let expected = PeerConfig {
            families: vec![Family::Ipv4],
            ..PeerConfig::new("10.0.0.254".parse().unwrap(), RemoteAs::Exactly(65001))
        };
        assert_eq!(with(json!({})).unwrap(), expected);
    }

    #[test]
    fn every_field_of_openelb_that_counts_is_honoured() {
        let config = with(json!({
            "conf": {"localAs": 65009, "description": "spine", "adminDown": true},
            "ebgpMultihop": {"enabled": true, "multihopTtl": 3},
            "timers": {"config": {"holdTime": "30", "keepaliveInterval": "10", "connectRetry": "5"}},
            "transport": {"passiveMode": true, "remotePort": 1790},
            "gracefulRestart": {"enabled": true, "restartTime": 60},
            "afiSafis": [
                {"config": {"family": {"afi": "AFI_IP", "safi": "SAFI_UNICAST"}}, "addPaths": {"config": {"sendMax": 10}}},
                {"config": {"family": {"afi": "AFI_IP6", "safi": "SAFI_UNICAST"}}},
                {"config": {"family": {"afi": "AFI_L2VPN", "safi": "SAFI_EVPN"}}}
            ]
        }))
        .unwrap();
        assert_eq!(config.local_as, Some(65009));
        assert_eq!(config.description, "spine");
        assert!(matches!(config.admin, AdminState::Down(_)));
        assert_eq!(config.hops, Hops::Multihop(3));
        assert_eq!(config.timers.hold.as_secs(), 30);
        assert_eq!(config.timers.keepalive, Some(Duration::from_secs(10)));
        assert_eq!(config.timers.connect_retry.as_secs(), 5);
        assert!(config.passive && config.add_path_send);
        assert_eq!(config.remote_port, 1790);
        assert_eq!(config.graceful_restart.unwrap().restart_time.as_secs(), 60);
        assert_eq!(config.families, Family::ALL);
    }

    #[test]
    fn own_fields_are_honoured() {
        let config = with(json!({
            "ttlSecurity": 2,
            "sourceAddress": "10.0.0.1",
            "dynamicAsn": "external",
            "bfd": {"enabled": true, "transmitInterval": 50, "receiveInterval": 100, "detectMultiplier": 5, "passiveMode": true}
        }))
        .unwrap();
        assert_eq!(config.hops, Hops::Security(2));
        assert_eq!(config.source, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(config.remote_as, RemoteAs::External);
        let bfd = config.bfd.unwrap();
        assert_eq!(
            (bfd.transmit.as_millis(), bfd.receive.as_millis()),
            (50, 100)
        );
        assert_eq!(
            (bfd.multiplier, bfd.passive, bfd.multihop),
            (5, true, Some(254))
        );
    }

    #[test]
    fn link_local_and_unnumbered_peers_need_an_interface() {
        let address = |value| read(json!({"conf": value})).map(|config| config.address);
        let local: Ipv6Addr = "fe80::1".parse().unwrap();
        let expected = Ok(PeerAddress::LinkLocal(local, "eth0".to_owned()));
        assert_eq!(
            address(json!({"neighborAddress": "fe80::1%eth0", "peerAs": 1})),
            expected
        );
        let split = json!({"neighborAddress": "fe80::1", "neighborInterface": "eth0", "peerAs": 1});
        assert_eq!(address(split), expected);
        assert!(address(json!({"neighborAddress": "fe80::1", "peerAs": 1})).is_err());
        let unnumbered = json!({"neighborInterface": "eth0", "peerAs": 1});
        assert_eq!(
            address(unnumbered),
            Ok(PeerAddress::Interface("eth0".to_owned()))
        );
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (spec, field) in [
            (json!({}), "spec.conf:"),
            (json!({"conf": {"peerAs": 1}}), "spec.conf.neighborAddress"),
            (
                json!({"conf": {"neighborAddress": "router", "peerAs": 1}}),
                "spec.conf.neighborAddress",
            ),
            (
                json!({"conf": {"neighborAddress": "224.0.0.1", "peerAs": 1}}),
                "spec.conf.neighborAddress",
            ),
            (
                json!({"conf": {"neighborAddress": "10.0.0.1"}}),
                "spec.conf.peerAs",
            ),
            (
                json!({"conf": {"neighborAddress": "10.0.0.1", "peerAs": -5}}),
                "spec.conf.peerAs",
            ),
        ] {
            assert!(read(spec).unwrap_err().starts_with(field), "{field}");
        }
        for (extra, field) in [
            (
                json!({"timers": {"config": {"holdTime": "soon"}}}),
                "spec.timers.config.holdTime",
            ),
            (
                json!({"timers": {"config": {"holdTime": "2"}}}),
                "spec.timers.config.holdTime",
            ),
            (
                json!({"transport": {"remotePort": 70000}}),
                "spec.transport.remotePort",
            ),
            (json!({"sourceAddress": "eth0"}), "spec.sourceAddress"),
            (json!({"sourceAddress": "fd00::1"}), "spec.sourceAddress"),
            (
                json!({"ttlSecurity": 1, "ebgpMultihop": {"enabled": true}}),
                "spec.ttlSecurity",
            ),
            (
                json!({"afiSafis": [{"config": {"family": {"afi": "AFI_L2VPN", "safi": "SAFI_EVPN"}}}]}),
                "spec.afiSafis",
            ),
        ] {
            assert!(with(extra).unwrap_err().starts_with(field), "{field}");
        }
    }

    #[test]
    fn families_of_the_bgpconf_limit_those_of_a_peer() {
        let spec: BgpPeerSpec = serde_json::from_value(
            json!({"conf": {"neighborAddress": "10.0.0.254", "peerAs": 65001}}),
        )
        .unwrap();
        let defaults = Defaults {
            families: &[Family::Ipv6],
            graceful_restart: None,
        };
        assert!(config(&spec, &defaults, None).is_err());
    }
}
