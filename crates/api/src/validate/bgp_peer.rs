//! Rules for BgpPeers.

use std::net::IpAddr;

use kube::ResourceExt;

use super::{
    Change, Verdict, View,
    bgp_conf::{as_number, ignored_restart},
    fields, spelling,
};
use crate::{
    Labels,
    v1alpha2::{AfiSafi, BgpPeer, BgpPeerSpec, PeerConf},
};

/// Longest password of TCP MD5 in Linux (`TCP_MD5SIG_MAXKEYLEN`).
const LONGEST_PASSWORD: usize = 80;

/// Checks a BgpPeer that shall be stored. Finalizers and metadata can always be written.
#[must_use]
pub fn bgp_peer(new: &BgpPeer, old: Option<&BgpPeer>, view: &View) -> Verdict {
    let mut verdict = Verdict::default();
    let is_same = old.is_some_and(|old| old.spec == new.spec);
    if new.metadata.deletion_timestamp.is_some() || is_same {
        return verdict;
    }
    let spec = &new.spec;
    fields::check(spec, &mut verdict);
    let nodes = match &spec.node_selector {
        None => Some(Labels::default()),
        Some(selector) => match Labels::read("spec.nodeSelector", selector) {
            Ok(nodes) => Some(nodes),
            Err(error) => {
                verdict.denials.push(error.to_string());
                None
            }
        },
    };
    let Some(conf) = &spec.conf else {
        verdict.deny(
            "spec.conf",
            "is required: the neighbour's address and AS number",
        );
        return verdict;
    };
    let neighbor = neighbor(conf, &mut verdict);
    if let (Some(address), Some(nodes)) = (neighbor, &nodes) {
        unique(&new.name_any(), address, nodes, view, &mut verdict);
    }
    numbers(spec, conf, view, &mut verdict);
    timers(spec, &mut verdict);
    hops(spec, &mut verdict);
    password(spec, conf, &mut verdict);
    source(spec, neighbor, &mut verdict);
    families(&spec.afi_safis, &mut verdict);
    ignored(spec, conf, &mut verdict);
    verdict
}

/// Completes a BgpPeer: addresses in their canonical spelling.
#[must_use]
pub fn complete_bgp_peer(new: &BgpPeer, old: Option<&BgpPeer>) -> Vec<Change> {
    let mut changes = Vec::new();
    if new.metadata.deletion_timestamp.is_some() || old.is_some_and(|old| old.spec == new.spec) {
        return changes;
    }
    let neighbor = new
        .spec
        .conf
        .as_ref()
        .map(|conf| conf.neighbor_address.as_str());
    if let Some(canonical) = neighbor.and_then(spelling::address) {
        changes.push(Change::new(&["spec", "conf", "neighborAddress"], canonical));
    }
    if let Some(canonical) = new
        .spec
        .source_address
        .as_deref()
        .and_then(spelling::address)
    {
        changes.push(Change::new(&["spec", "sourceAddress"], canonical));
    }
    changes
}

fn neighbor(conf: &PeerConf, verdict: &mut Verdict) -> Option<IpAddr> {
    let path = "spec.conf.neighborAddress";
    let text = conf.neighbor_address.trim();
    match (text.is_empty(), conf.neighbor_interface.is_empty()) {
        (true, true) => {
            verdict.deny(
                path,
                "is required (or neighborInterface, for a peer without an address)",
            );
            return None;
        }
        (true, false) => return None,
        (false, false) => verdict.deny(
            "spec.conf.neighborInterface",
            "contradicts neighborAddress: a peer has an address, or is found on an interface",
        ),
        (false, true) => {}
    }
    // A link-local address may name its interface.
    let bare = match text.split_once('%') {
        Some((bare, zone)) if !zone.is_empty() => bare,
        _ => text,
    };
    let Ok(address) = bare.parse::<IpAddr>() else {
        verdict.deny(path, format!("{text:?} is no IP address"));
        return None;
    };
    if address.is_unspecified() || address.is_multicast() {
        verdict.deny(path, format!("{text:?} is nobody's address"));
    }
    Some(address.to_canonical())
}

/// A node has one session to an address: no other BgpPeer may name it for a node of this one.
fn unique(name: &str, address: IpAddr, nodes: &Labels, view: &View, verdict: &mut Verdict) {
    let others = view
        .peers()
        .filter(|(other, peer)| *other != name && peer.neighbor == Some(address));
    for (other, peer) in others {
        let both = view
            .nodes()
            .find(|(_, node)| nodes.matches(&node.labels) && peer.nodes.matches(&node.labels));
        if let Some((node, _)) = both {
            verdict.deny(
                "spec.conf.neighborAddress",
                format!("{address} is the neighbour of BgpPeer {other} too, on node {node}; narrow spec.nodeSelector"),
            );
        } else if *nodes == Labels::default() && peer.nodes == Labels::default() {
            verdict.deny(
                "spec.conf.neighborAddress",
                format!("{address} is the neighbour of BgpPeer {other} too, on every node"),
            );
        }
    }
}

fn numbers(spec: &BgpPeerSpec, conf: &PeerConf, view: &View, verdict: &mut Verdict) {
    let peer_as = conf.peer_as.filter(|number| *number != 0);
    let local_as = conf.local_as.filter(|number| *number != 0);
    // Negative and too large is what the fields' own rules refuse.
    let in_range = |number: &i64| u32::try_from(*number).is_ok();
    match (peer_as, spec.dynamic_asn) {
        (Some(_), Some(_)) => verdict.deny(
            "spec.dynamicAsn",
            "contradicts conf.peerAs: give one of them",
        ),
        (None, None) => verdict.deny(
            "spec.conf.peerAs",
            "is required (or dynamicAsn, to take what the peer says)",
        ),
        _ => {}
    }
    if let Some(number) = peer_as.filter(in_range) {
        as_number("spec.conf.peerAs", number, verdict);
    }
    if let Some(number) = local_as.filter(in_range) {
        as_number("spec.conf.localAs", number, verdict);
    }
    let own = local_as.or(view.local_as.map(i64::from));
    let is_internal = peer_as.is_some() && peer_as == own;
    let is_multihop = spec
        .ebgp_multihop
        .as_ref()
        .is_some_and(|multihop| multihop.enabled);
    if is_internal && is_multihop {
        verdict.deny(
            "spec.ebgpMultihop",
            "is for peers of another AS; one of the same AS may be any number of hops away as it is",
        );
    }
    let removal = conf.remove_private_as.as_str();
    if !["", "NONE", "ALL", "REPLACE"].contains(&removal) {
        verdict.deny(
            "spec.conf.removePrivateAs",
            format!("{removal:?} must be NONE, ALL or REPLACE"),
        );
    } else if is_internal && ["ALL", "REPLACE"].contains(&removal) {
        verdict.deny("spec.conf.removePrivateAs", "is for peers of another AS");
    }
    if is_internal && conf.replace_peer_as {
        verdict.deny("spec.conf.replacePeerAs", "is for peers of another AS");
    }
}

fn timers(spec: &BgpPeerSpec, verdict: &mut Verdict) {
    let Some(timers) = spec
        .timers
        .as_ref()
        .and_then(|timers| timers.config.as_ref())
    else {
        return;
    };
    let mut read = |name: &str, text: &str| -> Option<u64> {
        let number = text.trim();
        if number.is_empty() {
            return None;
        }
        let seconds = number.parse().ok().filter(|seconds| *seconds <= 65535);
        if seconds.is_none() {
            verdict.deny(
                &format!("spec.timers.config.{name}"),
                format!("{text:?} must be a number of seconds up to 65535, in quotes"),
            );
        }
        seconds
    };
    let hold = read("holdTime", &timers.hold_time);
    let keepalive = read("keepaliveInterval", &timers.keepalive_interval);
    let retry = read("connectRetry", &timers.connect_retry);
    let ignored = read(
        "minimumAdvertisementInterval",
        &timers.minimum_advertisement_interval,
    );
    if let Some(hold @ 1..=2) = hold {
        verdict.deny(
            "spec.timers.config.holdTime",
            format!("{hold} must be 0 (off) or at least 3 seconds"),
        );
    }
    if retry == Some(0) {
        verdict.deny(
            "spec.timers.config.connectRetry",
            "must be at least 1 second",
        );
    }
    // The hold time is 90 s where nothing is said (RFC 4271).
    let hold = hold.unwrap_or(90);
    if let Some(keepalive) = keepalive
        && hold >= 3
    {
        let path = "spec.timers.config.keepaliveInterval";
        if keepalive >= hold {
            verdict.deny(
                path,
                format!("{keepalive} must be less than the hold time of {hold} seconds"),
            );
        } else if keepalive > hold / 3 {
            verdict.warn(
                path,
                format!("{keepalive} is more than a third of the hold time of {hold} seconds"),
            );
        }
    }
    if ignored.is_some() {
        verdict.warn(
            "spec.timers.config.minimumAdvertisementInterval",
            "has no effect",
        );
    }
}

fn hops(spec: &BgpPeerSpec, verdict: &mut Verdict) {
    let multihop = spec.ebgp_multihop.as_ref();
    let is_multihop = multihop.is_some_and(|multihop| multihop.enabled);
    let ttl = multihop
        .and_then(|multihop| multihop.multihop_ttl)
        .filter(|ttl| *ttl != 0);
    if ttl.is_some() && !is_multihop {
        verdict.warn(
            "spec.ebgpMultihop.multihopTtl",
            "has no effect while enabled is false",
        );
    }
    let secured = spec.ttl_security.is_some_and(|hops| hops > 0);
    if secured && is_multihop {
        verdict.deny(
            "spec.ttlSecurity",
            "contradicts ebgpMultihop: it sends with a TTL of 255 and counts the hops itself; give the number of hops here",
        );
    }
    let Some(bfd) = &spec.bfd else { return };
    if bfd.minimum_ttl.is_some() && !is_multihop && bfd.enabled {
        verdict.warn(
            "spec.bfd.minimumTtl",
            "has no effect: the peer is one hop away, so BFD wants a TTL of 255",
        );
    }
}

fn password(spec: &BgpPeerSpec, conf: &PeerConf, verdict: &mut Verdict) {
    let plain = conf.auth_password.as_str();
    if plain.len() > LONGEST_PASSWORD {
        verdict.deny(
            "spec.conf.authPassword",
            format!(
                "has {} bytes; TCP MD5 takes at most {LONGEST_PASSWORD}",
                plain.len()
            ),
        );
    }
    match (&spec.password_secret_ref, plain.is_empty()) {
        (Some(_), false) => {
            verdict.warn(
                "spec.conf.authPassword",
                "is ignored, because passwordSecretRef is set; remove it",
            );
        }
        (None, false) => verdict.warn(
            "spec.conf.authPassword",
            "can be read by everybody who can read BgpPeers; use spec.passwordSecretRef",
        ),
        _ => {}
    }
    if let Some(secret) = &spec.password_secret_ref
        && secret.name.is_empty()
    {
        verdict.deny("spec.passwordSecretRef.name", "is required");
    }
}

fn source(spec: &BgpPeerSpec, neighbor: Option<IpAddr>, verdict: &mut Verdict) {
    let Some(text) = spec
        .source_address
        .as_deref()
        .filter(|text| !text.is_empty())
    else {
        return;
    };
    match text.trim().parse::<IpAddr>() {
        Err(_) => verdict.deny("spec.sourceAddress", format!("{text:?} is no IP address")),
        Ok(source) => {
            if neighbor
                .is_some_and(|neighbor| neighbor.is_ipv4() != source.to_canonical().is_ipv4())
            {
                verdict.deny(
                    "spec.sourceAddress",
                    format!("{text} is of another family than conf.neighborAddress"),
                );
            }
        }
    }
}

fn families(families: &[AfiSafi], verdict: &mut Verdict) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, family) in families.iter().enumerate() {
        let path = format!("spec.afiSafis[{index}]");
        let send_max = family
            .add_paths
            .as_ref()
            .and_then(|paths| paths.config.as_ref())
            .and_then(|config| config.send_max);
        if send_max.is_some_and(|most| !(0..=255).contains(&most)) {
            verdict.deny(
                &format!("{path}.addPaths.config.sendMax"),
                "must be between 0 and 255",
            );
        }
        let Some(named) = family
            .config
            .as_ref()
            .and_then(|config| config.family.as_ref())
        else {
            continue;
        };
        let key = (named.afi.as_str(), named.safi.as_str());
        if !["AFI_IP", "AFI_IP6"].contains(&key.0) || key.1 != "SAFI_UNICAST" {
            verdict.deny(
                &format!("{path}.config.family"),
                format!(
                    "{}/{} must be AFI_IP or AFI_IP6 with SAFI_UNICAST",
                    key.0, key.1
                ),
            );
        } else if seen.contains(&key) {
            verdict.deny(
                &format!("{path}.config.family"),
                format!("{} is listed twice", key.0),
            );
        }
        seen.push(key);
    }
}

fn ignored(spec: &BgpPeerSpec, conf: &PeerConf, verdict: &mut Verdict) {
    if let Some(restart) = &spec.graceful_restart {
        ignored_restart(restart, verdict);
    }
    let transport = spec.transport.clone().unwrap_or_default();
    let fields: Vec<&str> = [
        ("conf.peerGroup", !conf.peer_group.is_empty()),
        ("conf.vrf", !conf.vrf.is_empty()),
        ("conf.peerType", conf.peer_type.is_some()),
        ("conf.routeFlapDamping", conf.route_flap_damping),
        ("conf.sendCommunity", conf.send_community.is_some()),
        ("conf.allowOwnAs", conf.allow_own_as.is_some()),
        (
            "transport.remoteAddress",
            !transport.remote_address.is_empty(),
        ),
        ("transport.mtuDiscovery", transport.mtu_discovery),
        ("transport.tcpMss", transport.tcp_mss.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, is_set)| is_set.then_some(name))
    .collect();
    if !fields.is_empty() {
        verdict.warn("spec", format!("without effect: {}", fields.join(", ")));
    }
}

#[cfg(test)]
mod tests;
