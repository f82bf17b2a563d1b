//! Rules for BgpPeers.

use std::net::Ipv6Addr;

use kube::ResourceExt;

use super::{Change, Verdict, View, bgp_conf::as_number, fields, spelling};
use crate::{
    Labels,
    bgp::{Hops, Peer, RemoteAs, Timers, ignored},
    v1alpha2::{AfiSafi, BgpPeer, BgpPeerSpec, PeerConf},
};

/// Checks a BgpPeer that shall be stored. Finalizers and metadata can always be written.
#[must_use]
pub fn bgp_peer(new: &BgpPeer, old: Option<&BgpPeer>, view: &View) -> Verdict {
    let mut verdict = Verdict::default();
    let is_same = old.is_some_and(|old| old.spec == new.spec);
    if new.metadata.deletion_timestamp.is_some() || is_same {
        return verdict;
    }
    let spec = &new.spec;
    match Peer::try_from(new) {
        Ok(peer) => {
            unique(&new.name_any(), &peer, view, &mut verdict);
            with_ours(spec, &peer, view, &mut verdict);
        }
        Err(invalid) => verdict.deny_all(&invalid),
    }
    fields::check(spec, &mut verdict);
    if let Some(conf) = &spec.conf {
        contradictions(spec, conf, &mut verdict);
        password(spec, conf, &mut verdict);
    }
    timers(spec, &mut verdict);
    distance(spec, &mut verdict);
    families(&spec.afi_safis, &mut verdict);
    verdict.warn_without_effect(&ignored::of_peer(spec));
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

/// A node has one session to a neighbour: no other BgpPeer may name it for a node of this one.
fn unique(name: &str, peer: &Peer, view: &View, verdict: &mut Verdict) {
    let neighbor = &peer.neighbor;
    let others = view
        .peers()
        .filter(|(other, facts)| *other != name && facts.neighbor == *neighbor);
    for (other, facts) in others {
        let both = view.nodes().find(|(_, node)| {
            peer.nodes.matches(&node.labels) && facts.nodes.matches(&node.labels)
        });
        if let Some((node, _)) = both {
            verdict.deny(
                "spec.conf.neighborAddress",
                format!("{neighbor} is the neighbour of BgpPeer {other} too, on node {node}; narrow spec.nodeSelector"),
            );
        } else if peer.nodes == Labels::default() && facts.nodes == Labels::default() {
            verdict.deny(
                "spec.conf.neighborAddress",
                format!("{neighbor} is the neighbour of BgpPeer {other} too, on every node"),
            );
        }
    }
}

/// What does not go with our own AS number.
fn with_ours(spec: &BgpPeerSpec, peer: &Peer, view: &View, verdict: &mut Verdict) {
    let own = peer.local_as.or(view.local_as);
    let is_internal = match peer.remote_as {
        RemoteAs::Exactly(number) => Some(number) == own,
        RemoteAs::Internal => true,
        RemoteAs::External => false,
    };
    if !is_internal {
        return;
    }
    if matches!(peer.hops, Hops::Multihop(_)) {
        verdict.deny(
            "spec.ebgpMultihop",
            "is for peers of another AS; one of the same AS may be any number of hops away as it is",
        );
    }
    let Some(conf) = &spec.conf else { return };
    if ["ALL", "REPLACE"].contains(&conf.remove_private_as.as_str()) {
        verdict.deny("spec.conf.removePrivateAs", "is for peers of another AS");
    }
    if conf.replace_peer_as {
        verdict.deny("spec.conf.replacePeerAs", "is for peers of another AS");
    }
}

/// Fields that say different things.
fn contradictions(spec: &BgpPeerSpec, conf: &PeerConf, verdict: &mut Verdict) {
    let has_interface = !conf.neighbor_interface.trim().is_empty();
    let address = conf.neighbor_address.trim();
    if let Some((_, zone)) = address.split_once('%')
        && has_interface
        && zone.trim() != conf.neighbor_interface.trim()
    {
        verdict.deny(
            "spec.conf.neighborInterface",
            "contradicts neighborAddress, which names another interface",
        );
    }
    let is_link_local = address
        .split('%')
        .next()
        .and_then(|text| text.parse::<Ipv6Addr>().ok())
        .is_some_and(|ip| ip.is_unicast_link_local());
    if has_interface && !address.is_empty() && !is_link_local {
        verdict.deny(
            "spec.conf.neighborInterface",
            "contradicts neighborAddress: a peer has an address, or is found on an interface",
        );
    }
    let peer_as = conf.peer_as.filter(|number| *number != 0);
    if peer_as.is_some() && spec.dynamic_asn.is_some() {
        verdict.deny(
            "spec.dynamicAsn",
            "contradicts conf.peerAs: give one of them",
        );
    }
    if let Some(number) = peer_as {
        as_number("spec.conf.peerAs", number, verdict);
    }
    if let Some(number) = conf.local_as {
        as_number("spec.conf.localAs", number, verdict);
    }
    let removal = conf.remove_private_as.as_str();
    if !["", "NONE", "ALL", "REPLACE"].contains(&removal) {
        verdict.deny(
            "spec.conf.removePrivateAs",
            format!("{removal:?} must be NONE, ALL or REPLACE"),
        );
    }
}

fn timers(spec: &BgpPeerSpec, verdict: &mut Verdict) {
    let timers = spec.timers.as_ref();
    let Some(config) = timers.and_then(|timers| timers.config.as_ref()) else {
        return;
    };
    let Ok(Timers {
        hold, keepalive, ..
    }) = Timers::try_from(config)
    else {
        return;
    };
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
}

fn distance(spec: &BgpPeerSpec, verdict: &mut Verdict) {
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
    let Some(bfd) = &spec.bfd else { return };
    let is_near = !is_multihop && spec.ttl_security.is_none_or(|hops| hops < 2);
    if bfd.minimum_ttl.is_some() && is_near && bfd.enabled {
        verdict.warn(
            "spec.bfd.minimumTtl",
            "has no effect: the peer is one hop away, so BFD wants a TTL of 255",
        );
    }
}

fn password(spec: &BgpPeerSpec, conf: &PeerConf, verdict: &mut Verdict) {
    if conf.auth_password.is_empty() {
        return;
    }
    let message = match &spec.password_secret_ref {
        Some(_) => "is ignored, because passwordSecretRef is set; remove it",
        None => "can be read by everybody who can read BgpPeers; use spec.passwordSecretRef",
    };
    verdict.warn("spec.conf.authPassword", message);
}

/// Families that are listed twice.
fn families(entries: &[AfiSafi], verdict: &mut Verdict) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let config = entry.config.as_ref();
        let Some(named) = config.and_then(|config| config.family.as_ref()) else {
            continue;
        };
        let path = format!("spec.afiSafis[{index}].config.family");
        let (afi, safi) = (named.afi.as_str(), named.safi.as_str());
        if seen.contains(&(afi, safi)) {
            verdict.deny(&path, format!("{afi} is listed twice"));
        }
        seen.push((afi, safi));
    }
}

#[cfg(test)]
mod tests;
