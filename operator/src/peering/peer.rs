//! One peer.

use std::time::Duration;

use openelb_api::FieldError;
use openelb_api::bgp::{self, Neighbor, Peer};
use openelb_bgp::{
    AdminState, BfdConfig, ConfigError, Family, Hops, Password, PeerAddress, PeerConfig, RemoteAs,
    Timers,
};
use serde_json::Value;

use super::conf::{self, graceful_restart};

/// What applies to all peers of a node.
pub(crate) struct Defaults<'a> {
    /// The families that are announced at all.
    pub(crate) families: &'a [Family],
    /// Graceful restart of the BgpConf.
    pub(crate) graceful_restart: Option<bgp::GracefulRestart>,
}

/// A peer in the terms of the protocol. The password is passed in; where it comes from is no matter of the object alone.
pub(crate) fn config(
    peer: &Peer,
    defaults: &Defaults<'_>,
    password: Option<&str>,
) -> Result<PeerConfig, FieldError> {
    let timers = timers(peer.timers);
    let hops = hops(peer.hops);
    let restart = peer.graceful_restart.unwrap_or(defaults.graceful_restart);
    let config = PeerConfig {
        address: address(&peer.neighbor),
        remote_port: peer.port,
        remote_as: match peer.remote_as {
            bgp::RemoteAs::Exactly(number) => RemoteAs::Exactly(number),
            bgp::RemoteAs::Internal => RemoteAs::Internal,
            bgp::RemoteAs::External => RemoteAs::External,
        },
        local_as: peer.local_as,
        description: peer.description.clone(),
        password: password.map(Password::new),
        graceful_restart: restart.map(|restart| graceful_restart(restart, timers.hold)),
        timers,
        hops,
        source: peer.source,
        interface: None,
        passive: peer.passive,
        families: families(peer, defaults.families)?,
        add_path_send: peer.several_paths,
        extended_next_hop: true,
        bfd: peer.bfd.map(|bfd| bfd_config(bfd, hops)),
        admin: if peer.admin_down {
            AdminState::Down("conf.adminDown is set".to_owned())
        } else {
            AdminState::Up
        },
    };
    config
        .check()
        .map_err(|error| FieldError::new(field_of(&error), Value::Null, error))?;
    Ok(config)
}

/// Where the protocol finds the peer.
fn address(neighbor: &Neighbor) -> PeerAddress {
    match neighbor {
        Neighbor::Address(ip) => PeerAddress::Ip(*ip),
        Neighbor::LinkLocal(ip, interface) => PeerAddress::LinkLocal(*ip, interface.clone()),
        Neighbor::Interface(interface) => PeerAddress::Interface(interface.clone()),
    }
}

fn timers(timers: bgp::Timers) -> Timers {
    let seconds = |seconds: u16| Duration::from_secs(seconds.into());
    Timers {
        hold: seconds(timers.hold),
        keepalive: timers.keepalive.map(seconds),
        connect_retry: seconds(timers.connect_retry),
    }
}

fn hops(hops: bgp::Hops) -> Hops {
    match hops {
        bgp::Hops::Direct => Hops::Direct,
        bgp::Hops::Multihop(ttl) => Hops::Multihop(ttl),
        bgp::Hops::Security(hops) => Hops::Security(hops),
    }
}

/// The peer's families, as far as they are announced at all.
fn families(peer: &Peer, announced: &[Family]) -> Result<Vec<Family>, FieldError> {
    let mut families = conf::families(&peer.families.announced);
    families.retain(|family| announced.contains(family));
    if families.is_empty() {
        let reason = "holds no family that spec.families of the BgpConf announces";
        return Err(FieldError::new("spec.afiSafis", Value::Null, reason));
    }
    Ok(families)
}

fn bfd_config(bfd: bgp::Bfd, hops: Hops) -> BfdConfig {
    BfdConfig {
        transmit: Duration::from_millis(bfd.transmit.into()),
        receive: Duration::from_millis(bfd.receive.into()),
        multiplier: bfd.multiplier,
        passive: bfd.passive,
        multihop: match hops {
            Hops::Multihop(2..) | Hops::Security(2..) => Some(bfd.minimum_ttl),
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
    use std::net::Ipv6Addr;

    use openelb_api::v1alpha2::BgpPeerSpec;
    use serde_json::json;

    use super::*;

    fn peer(spec: Value) -> Result<Peer, String> {
        let spec: BgpPeerSpec = serde_json::from_value(spec).unwrap();
        Peer::try_from(&spec).map_err(|error| error.to_string())
    }

    fn read(spec: Value) -> Result<PeerConfig, String> {
        let defaults = Defaults {
            families: &Family::ALL,
            graceful_restart: None,
        };
        config(&peer(spec)?, &defaults, None).map_err(|error| error.to_string())
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
    fn families_of_the_bgpconf_limit_those_of_a_peer() {
        let peer =
            peer(json!({"conf": {"neighborAddress": "10.0.0.254", "peerAs": 65001}})).unwrap();
        let defaults = Defaults {
            families: &[Family::Ipv6],
            graceful_restart: None,
        };
        let error = config(&peer, &defaults, None).unwrap_err();
        assert_eq!(error.path, "spec.afiSafis");
    }
}
