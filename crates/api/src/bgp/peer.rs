//! A peer: `BgpPeer`, understood.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde_json::Value;

use super::read::{address, as_number, port};
use super::{Bfd, Families, GracefulRestart, Hops, Timers};
use crate::field::Errors;
use crate::v1alpha2::{AfiSafi, BgpPeer, BgpPeerSpec, DynamicAsn, PeerConf};
use crate::{Family, FieldError, Invalid, Labels};

/// Longest password of TCP MD5 in Linux (`TCP_MD5SIG_MAXKEYLEN`).
const LONGEST_PASSWORD: usize = 80;

/// Where a peer is found; two BgpPeers of one neighbour collide.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Neighbor {
    /// At an address.
    Address(IpAddr),
    /// At a link-local address of an interface.
    LinkLocal(Ipv6Addr, String),
    /// The one router on an interface.
    Interface(String),
}

impl Neighbor {
    /// The family of the session.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Address(address) => Family::of(*address),
            Self::LinkLocal(..) | Self::Interface(_) => Family::V6,
        }
    }
}

impl fmt::Display for Neighbor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::LinkLocal(address, interface) => write!(f, "{address}%{interface}"),
            Self::Interface(interface) => f.write_str(interface),
        }
    }
}

/// Which AS the peer may be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteAs {
    /// This one.
    Exactly(u32),
    /// Our own.
    Internal,
    /// Any but our own.
    External,
}

/// Where the TCP MD5 password is.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// In the object.
    Plain(String),
    /// In a Secret of our namespace.
    Secret {
        /// The Secret's name.
        name: String,
        /// The data key.
        key: String,
    },
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain(..)"),
            Self::Secret { name, key } => write!(f, "Secret({name}, {key})"),
        }
    }
}

/// A peer as its object describes it, the same for every node.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// Where it is.
    pub neighbor: Neighbor,
    /// Which AS it may be of.
    pub remote_as: RemoteAs,
    /// Our AS number towards it, where it is not the BgpConf's.
    pub local_as: Option<u32>,
    /// The port that it listens on.
    pub port: u16,
    /// We wait for it to connect.
    pub passive: bool,
    /// The session is kept down.
    pub admin_down: bool,
    /// A text for people.
    pub description: String,
    /// Session timers.
    pub timers: Timers,
    /// How far away it is.
    pub hops: Hops,
    /// Our address of the session, of the neighbour's family.
    pub source: Option<IpAddr>,
    /// The families of the session.
    pub families: Families,
    /// More than one path for a prefix may be sent (RFC 7911).
    pub several_paths: bool,
    /// Graceful restart; the BgpConf's where the outer `None`, off where the inner.
    pub graceful_restart: Option<Option<GracefulRestart>>,
    /// BFD.
    pub bfd: Option<Bfd>,
    /// TCP MD5.
    pub password: Option<Password>,
    /// The nodes that peer with it.
    pub nodes: Labels,
}

impl TryFrom<&BgpPeer> for Peer {
    type Error = Invalid;

    fn try_from(object: &BgpPeer) -> Result<Self, Self::Error> {
        Self::try_from(&object.spec)
    }
}

impl TryFrom<&BgpPeerSpec> for Peer {
    type Error = Invalid;

    fn try_from(spec: &BgpPeerSpec) -> Result<Self, Self::Error> {
        let mut errors = Errors::default();
        let absent = PeerConf::default();
        let conf = spec.conf.as_ref().unwrap_or(&absent);
        let neighbor = errors.take(neighbor(conf));
        let remote_as = errors.take(remote_as(spec, conf));
        let local_as = errors.take(as_number("spec.conf.localAs", conf.local_as));
        let transport = spec.transport.clone().unwrap_or_default();
        let port = errors.take(port("spec.transport.remotePort", transport.remote_port));
        let config = spec
            .timers
            .as_ref()
            .and_then(|timers| timers.config.as_ref());
        let timers = errors.take_all(config.map(Timers::try_from).transpose());
        let hops = errors.take_all(Hops::try_from(spec));
        let source = errors.take(source(spec, neighbor.as_ref()));
        let own = neighbor.as_ref().map_or(Family::V4, Neighbor::family);
        let families = errors.take(Families::of_entries(&spec.afi_safis, own));
        let restart = spec.graceful_restart.as_ref();
        let restart = errors.take(restart.map(GracefulRestart::read).transpose());
        let bfd = errors.take(spec.bfd.as_ref().map(Bfd::read).transpose());
        let nodes = spec.node_selector.as_ref();
        let nodes = errors.take(
            nodes
                .map(|selector| Labels::read("spec.nodeSelector", selector))
                .transpose(),
        );
        let password = errors.take(password(spec, conf));
        let peer = || {
            Some(Self {
                neighbor: neighbor?,
                remote_as: remote_as?,
                local_as: local_as?,
                port: port?,
                passive: transport.passive_mode,
                admin_down: conf.admin_down,
                description: conf.description.clone(),
                timers: timers?.unwrap_or_default(),
                hops: hops?,
                source: source?,
                families: families?,
                several_paths: spec.afi_safis.iter().any(sends_several),
                graceful_restart: restart?,
                bfd: bfd?.flatten(),
                password: password?,
                nodes: nodes?.unwrap_or_default(),
            })
        };
        let peer = peer();
        errors.finish(peer)
    }
}

fn neighbor(conf: &PeerConf) -> Result<Neighbor, FieldError> {
    let path = "spec.conf.neighborAddress";
    let written = Some(conf.neighbor_address.as_str()).filter(|text| !text.is_empty());
    let wrong = |reason: &str| FieldError::new(path, written, reason);
    let interface = conf.neighbor_interface.trim();
    let (text, zone) = match conf.neighbor_address.split_once('%') {
        Some((text, zone)) => (text, zone.trim()),
        None => (conf.neighbor_address.as_str(), interface),
    };
    let found = address(path, text).map_err(|_| wrong("must be an IPv4 or IPv6 address"))?;
    match found {
        None if interface.is_empty() => Err(wrong(
            "must be the peer's address (or conf.neighborInterface the interface of a peer without one)",
        )),
        None => Ok(Neighbor::Interface(interface.to_owned())),
        Some(address) if address.is_unspecified() || address.is_multicast() => {
            Err(wrong("must be the address of one host"))
        }
        Some(IpAddr::V6(v6)) if v6.is_unicast_link_local() && zone.is_empty() => Err(wrong(
            "is link-local: set conf.neighborInterface to its interface too",
        )),
        Some(IpAddr::V6(v6)) if v6.is_unicast_link_local() => {
            Ok(Neighbor::LinkLocal(v6, zone.to_owned()))
        }
        Some(_) if conf.neighbor_address.contains('%') => Err(wrong(
            "has an interface, which only link-local addresses have",
        )),
        Some(address) => Ok(Neighbor::Address(address)),
    }
}

fn remote_as(spec: &BgpPeerSpec, conf: &PeerConf) -> Result<RemoteAs, FieldError> {
    let path = "spec.conf.peerAs";
    match (spec.dynamic_asn, as_number(path, conf.peer_as)?) {
        (Some(DynamicAsn::Internal), _) => Ok(RemoteAs::Internal),
        (Some(DynamicAsn::External), _) => Ok(RemoteAs::External),
        (None, Some(number)) => Ok(RemoteAs::Exactly(number)),
        (None, None) => Err(FieldError::new(
            path,
            conf.peer_as,
            "must be the peer's AS number (or spec.dynamicAsn say internal or external)",
        )),
    }
}

fn source(spec: &BgpPeerSpec, neighbor: Option<&Neighbor>) -> Result<Option<IpAddr>, FieldError> {
    let path = "spec.sourceAddress";
    let source = address(path, spec.source_address.as_deref().unwrap_or_default())?;
    match (source, neighbor) {
        (Some(source), Some(neighbor)) if Family::of(source) != neighbor.family() => {
            let family = neighbor.family();
            Err(FieldError::new(
                path,
                source.to_string(),
                format!("must be {family}, as the peer's address is"),
            ))
        }
        _ => Ok(source),
    }
}

fn password(spec: &BgpPeerSpec, conf: &PeerConf) -> Result<Option<Password>, FieldError> {
    match &spec.password_secret_ref {
        Some(secret) if secret.name.is_empty() => Err(FieldError::new(
            "spec.passwordSecretRef.name",
            Value::Null,
            "must be the name of a Secret",
        )),
        Some(secret) => Ok(Some(Password::Secret {
            name: secret.name.clone(),
            key: secret
                .key
                .clone()
                .filter(|key| !key.is_empty())
                .unwrap_or_else(|| "password".to_owned()),
        })),
        None if conf.auth_password.is_empty() => Ok(None),
        // The value is a secret: it is not shown.
        None if conf.auth_password.len() > LONGEST_PASSWORD => Err(FieldError::new(
            "spec.conf.authPassword",
            Value::Null,
            format!(
                "has {} bytes; TCP MD5 takes at most {LONGEST_PASSWORD}",
                conf.auth_password.len()
            ),
        )),
        None => Ok(Some(Password::Plain(conf.auth_password.clone()))),
    }
}

fn sends_several(entry: &AfiSafi) -> bool {
    let config = entry
        .add_paths
        .as_ref()
        .and_then(|paths| paths.config.as_ref());
    config
        .and_then(|config| config.send_max)
        .is_some_and(|most| most > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> Result<Peer, String> {
        let object = BgpPeer::new("router", serde_json::from_value(spec).unwrap());
        Peer::try_from(&object).map_err(|error| error.to_string())
    }

    #[test]
    fn openelbs_sample_has_openelbs_defaults() {
        let peer =
            read(json!({"conf": {"peerAs": 50000, "neighborAddress": "172.22.0.2"}})).unwrap();
        assert_eq!(
            peer.neighbor,
            Neighbor::Address("172.22.0.2".parse().unwrap())
        );
        assert_eq!(peer.remote_as, RemoteAs::Exactly(50000));
        assert_eq!((peer.port, peer.timers), (179, Timers::default()));
        assert_eq!(peer.families.announced, [Family::V4].into());
        assert_eq!(
            (peer.hops, peer.graceful_restart, peer.bfd),
            (Hops::Direct, None, None)
        );
        assert!(peer.nodes.matches(&std::collections::BTreeMap::new()));
    }

    #[test]
    fn a_peer_is_found_at_an_address_or_on_an_interface() {
        let neighbor = |conf: Value| {
            read(json!({"conf": conf, "dynamicAsn": "external"})).map(|peer| peer.neighbor)
        };
        let local = Neighbor::LinkLocal("fe80::1".parse().unwrap(), "eth0".to_owned());
        assert_eq!(
            neighbor(json!({"neighborAddress": "fe80::1%eth0"})),
            Ok(local.clone())
        );
        assert_eq!(
            neighbor(json!({"neighborAddress": "fe80::1", "neighborInterface": "eth0"})),
            Ok(local)
        );
        assert_eq!(
            neighbor(json!({"neighborInterface": "eth0"})),
            Ok(Neighbor::Interface("eth0".to_owned()))
        );
        for wrong in [
            "fe80::1",
            "224.0.0.1",
            "0.0.0.0",
            "router",
            "",
            "192.0.2.1%eth0",
            "2001:db8::1%eth0",
        ] {
            assert!(
                neighbor(json!({"neighborAddress": wrong})).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let message = read(json!({
            "conf": {"neighborAddress": "192.0.2.1", "localAs": -1},
            "sourceAddress": "2001:db8::1",
            "transport": {"remotePort": 70000},
            "timers": {"config": {"holdTime": "x", "connectRetry": "y"}},
            "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]},
        }))
        .unwrap_err();
        for path in [
            "spec.conf.peerAs",
            "spec.conf.localAs",
            "spec.transport.remotePort",
            "spec.timers.config.holdTime",
            "spec.timers.config.connectRetry",
            "spec.sourceAddress: \"2001:db8::1\" must be IPv4",
            "spec.nodeSelector.matchExpressions[0].operator",
        ] {
            assert!(message.contains(path), "{path} in {message}");
        }
    }

    #[test]
    fn a_peer_without_conf_harms_only_itself() {
        assert!(
            read(json!({}))
                .unwrap_err()
                .starts_with("spec.conf.neighborAddress: must be")
        );
    }

    #[test]
    fn a_secret_wins_over_a_password_and_neither_is_shown() {
        let conf = json!({"neighborAddress": "192.0.2.1", "peerAs": 1, "authPassword": "hush"});
        let plain = read(json!({"conf": conf})).unwrap();
        assert!(!format!("{plain:?}").contains("hush"));
        let secret = read(json!({"conf": conf, "passwordSecretRef": {"name": "s"}})).unwrap();
        let expected = Password::Secret {
            name: "s".to_owned(),
            key: "password".to_owned(),
        };
        assert_eq!(secret.password, Some(expected));
    }
}
