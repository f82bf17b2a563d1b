//! Whether the addresses of a Service are announced, and by whom: pure.
//!
//! A node counts where what it reports to have sent to a peer agrees with what it should have sent.
//! Reports are digests over all routes of a node and peer, at most one a second; so that a stream of
//! changes to other Services does not make this one look doubtful, the last set of routes on which
//! both sides agreed is remembered, and an address in it stays confirmed while the session is up.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use openelb_api::keys::conditions::ANNOUNCED;
use openelb_api::v1alpha2::Protocol;
use openelb_bgp::{Family, RouteSet};
use serde_json::{Value, json};

use crate::announce::{Able, Address, ServiceKey, World, routes};
use crate::peering::{digest, rivals};
use crate::picture::Picture;

/// The routes that a node and a peer last agreed on.
#[derive(Default)]
pub(super) struct Agreed(BTreeMap<(String, String), Arc<HashSet<IpNet>>>);

/// What is to be said of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// `True`, `False` or `Unknown`.
    pub(super) status: &'static str,
    reason: &'static str,
    /// In words.
    pub(super) message: String,
    /// The nodes that announce.
    pub(super) nodes: Vec<String>,
}

impl Verdict {
    /// Whether the condition shown says the same.
    pub(super) fn is_shown_by(&self, shown: &Condition) -> bool {
        shown.status == self.status && shown.reason == self.reason && shown.message == self.message
    }

    /// The condition; the time of a status that stays is kept.
    pub(super) fn condition(&self, shown: Option<&Condition>, now: Timestamp) -> Value {
        let since = shown
            .filter(|shown| shown.status == self.status)
            .map_or_else(
                || now.round(jiff::Unit::Second).unwrap_or(now),
                |shown| shown.last_transition_time.0,
            );
        json!({
            "type": ANNOUNCED, "status": self.status, "reason": self.reason,
            "message": self.message, "lastTransitionTime": since.to_string()
        })
    }
}

/// One address of a Service.
struct Part {
    ok: Option<bool>,
    reason: &'static str,
    text: String,
    nodes: BTreeSet<String>,
}

/// What is to be said of every Service that holds addresses.
pub(super) fn verdicts(
    picture: &Picture,
    agreed: &mut Agreed,
    now: Timestamp,
) -> BTreeMap<ServiceKey, Verdict> {
    let world = &picture.world;
    let able = Able::new(world, now);
    update(picture, &able, agreed);
    let mut parts: BTreeMap<ServiceKey, Vec<Part>> = BTreeMap::new();
    for address in world.addresses() {
        for (key, _) in &address.services {
            let part = match address.protocol {
                Protocol::Bgp => by_bgp(picture, &able, agreed, &address),
                Protocol::Layer2 => by_layer2(world, &able, &address),
                Protocol::Vip => Part {
                    ok: Some(false),
                    reason: "NotSupported",
                    text: "addresses of vip Eips are not announced; use protocol layer2 or bgp"
                        .to_owned(),
                    nodes: BTreeSet::new(),
                },
            };
            parts.entry((*key).clone()).or_default().push(Part {
                text: format!("{}: {}", address.ip, part.text),
                ..part
            });
        }
    }
    parts
        .into_iter()
        .map(|(key, parts)| (key, join(&parts)))
        .collect()
}

/// The worst of the addresses decides; all of them are told of.
fn join(parts: &[Part]) -> Verdict {
    let severity = |part: &&Part| match part.ok {
        Some(false) => 2,
        None => 1,
        Some(true) => 0,
    };
    let worst = parts.iter().max_by_key(severity);
    let nodes: BTreeSet<&String> = parts.iter().flat_map(|part| &part.nodes).collect();
    Verdict {
        status: match worst.and_then(|part| part.ok) {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        },
        reason: worst.map_or("Unconfirmed", |part| part.reason),
        message: parts
            .iter()
            .map(|part| part.text.as_str())
            .collect::<Vec<_>>()
            .join("; "),
        nodes: nodes.into_iter().cloned().collect(),
    }
}

/// The peers meant for a node, by name.
fn peers_of<'p>(picture: &'p Picture, node: &str) -> Vec<&'p str> {
    let Some(view) = picture.world.nodes.get(node) else {
        return Vec::new();
    };
    let rivals = rivals(&picture.peers, view);
    let names = picture.peers.iter().filter(|(_, peer)| peer.selects(view));
    names
        .map(|(name, _)| name.as_str())
        .filter(|name| !rivals.contains_key(name))
        .collect()
}

/// Compares what every node should have sent to its peers with what it reports.
fn update(picture: &Picture, able: &Able<'_>, agreed: &mut Agreed) {
    let mut now: BTreeMap<(String, String), Arc<HashSet<IpNet>>> = BTreeMap::new();
    // Nodes that announce the same share one set.
    let mut shared: BTreeMap<String, Arc<HashSet<IpNet>>> = BTreeMap::new();
    for node in picture.world.nodes.keys() {
        let mut wanted: Option<RouteSet> = None;
        for peer in peers_of(picture, node) {
            let entry = picture
                .peer_statuses
                .get(peer)
                .and_then(|status| status.nodes_peer_status.get(node));
            let Some(reported) = entry.and_then(|entry| entry.announced.as_ref()) else {
                continue;
            };
            let key = (peer.to_owned(), node.clone());
            let wanted = wanted.get_or_insert_with(|| routes(&picture.world, able, node));
            let families = Family::ALL.map(|family| (family, wanted.expected(peer, family)));
            if digest(families.into_iter()) == *reported {
                let set = shared
                    .entry(format!("{peer} {}", reported.digest))
                    .or_insert_with(|| {
                        let sent = wanted.iter().filter(|(_, paths)| {
                            paths.iter().any(|path| path.peers.contains(peer))
                        });
                        Arc::new(sent.map(|(prefix, _)| *prefix).collect())
                    });
                now.insert(key, set.clone());
            } else if let Some(before) = agreed.0.get(&key) {
                now.insert(key, before.clone());
            }
        }
    }
    agreed.0 = now;
}

fn by_bgp(picture: &Picture, able: &Able<'_>, agreed: &Agreed, address: &Address<'_>) -> Part {
    let failed = |reason, text: &str| Part {
        ok: Some(false),
        reason,
        text: text.to_owned(),
        nodes: BTreeSet::new(),
    };
    let nodes = able.nodes(address);
    if nodes.is_empty() {
        return failed(
            no_node(&picture.world, address).0,
            no_node(&picture.world, address).1,
        );
    }
    if picture.conf.is_none() {
        return failed("NoBgpConf", "there is no BgpConf named default");
    }
    let length = address.pool.map(|pool| pool.length(address.ip));
    let length = length.unwrap_or(if address.ip.is_ipv4() { 32 } else { 128 });
    let prefix =
        IpNet::new(address.ip, length).map_or_else(|_| IpNet::from(address.ip), |net| net.trunc());
    let mut peers: BTreeMap<&str, bool> = BTreeMap::new();
    let mut announcing = BTreeSet::new();
    for node in nodes.iter() {
        for peer in peers_of(picture, node) {
            if address.pool.is_some_and(|pool| !pool.peers.contains(peer)) {
                continue;
            }
            let confirmed = agreed
                .0
                .get(&(peer.to_owned(), (*node).to_owned()))
                .is_some_and(|sent| sent.contains(&prefix));
            *peers.entry(peer).or_default() |= confirmed;
            if confirmed {
                announcing.insert((*node).to_owned());
            }
        }
    }
    if peers.is_empty() {
        return failed(
            "NoPeer",
            "no BgpPeer is meant for the nodes that may announce it",
        );
    }
    let confirmed = peers.values().filter(|confirmed| **confirmed).count();
    let mut text = format!(
        "{}/{} nodes, {confirmed}/{} peers",
        announcing.len(),
        nodes.len(),
        peers.len()
    );
    if announcing.is_empty() {
        text.push_str(", unconfirmed: see the status of the BgpPeers");
    }
    Part {
        ok: (!announcing.is_empty()).then_some(true),
        reason: if announcing.is_empty() {
            "Unconfirmed"
        } else {
            "Announced"
        },
        text,
        nodes: announcing,
    }
}

fn by_layer2(world: &World, able: &Able<'_>, address: &Address<'_>) -> Part {
    let nodes = able.nodes(address);
    if nodes.is_empty() {
        let (reason, text) = no_node(world, address);
        return Part {
            ok: Some(false),
            reason,
            text: text.to_owned(),
            nodes: BTreeSet::new(),
        };
    }
    let announcers = world
        .holdings
        .get(&address.ip)
        .map(|holding| holding.announcers.as_slice());
    let able_ones = announcers
        .unwrap_or_default()
        .iter()
        .filter(|one| nodes.contains(one.node.as_str()));
    let announcing: Vec<_> = able_ones.collect();
    let text = announcing
        .iter()
        .map(|one| format!("{} on {}", one.node, one.interfaces.join(", ")));
    let text = text.collect::<Vec<_>>().join(", ");
    Part {
        ok: (!announcing.is_empty()).then_some(true),
        reason: if announcing.is_empty() {
            "Unconfirmed"
        } else {
            "Announced"
        },
        text: if announcing.is_empty() {
            "no node says that it answers: is a speaker with --enable-layer2 on a node that has the Eip's interface?".to_owned()
        } else {
            text
        },
        nodes: announcing.iter().map(|one| one.node.clone()).collect(),
    }
}

/// Why no node may announce.
fn no_node(world: &World, address: &Address<'_>) -> (&'static str, &'static str) {
    let endpoints = address
        .services
        .iter()
        .any(|(key, _)| world.placement(key, address.ip).any());
    if endpoints {
        (
            "NoNode",
            "no node may announce it: excluded, without network, not selected by the Eip, or without an endpoint of its own (externalTrafficPolicy: Local)",
        )
    } else {
        (
            "NoEndpoints",
            "no endpoint is ready, so nobody announces it (the Eip may say announceWithoutEndpoints)",
        )
    }
}

#[cfg(test)]
mod tests {
    use openelb_api::v1alpha2::{
        AnnouncedDigest, Announcer, BgpConf, BgpConfSpec, BgpPeer, BgpPeerStatus, NodePeerStatus,
    };

    use super::*;
    use crate::announce::testing::{TestWorld, at, node, service};
    use crate::peering::{ConfObject, PeerObject};

    fn picture(world: &TestWorld) -> Picture {
        let peer: BgpPeer = serde_json::from_value(json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": "r"},
            "spec": {"conf": {"neighborAddress": "10.0.0.254", "peerAs": 1}}
        }))
        .unwrap();
        let mut picture = Picture::of(world.build());
        let spec = BgpConfSpec {
            as_number: Some(1),
            ..BgpConfSpec::default()
        };
        picture.conf = Some(ConfObject::read(&BgpConf::new("default", spec)));
        picture
            .peers
            .insert("r".to_owned(), PeerObject::read(&peer));
        picture
    }

    /// Nodes report to have sent these prefixes to `r`.
    fn report(picture: &mut Picture, nodes: &[&str], prefixes: &[&str]) {
        let sent = prefixes
            .iter()
            .map(|prefix| prefix.parse().unwrap())
            .collect();
        let digest: AnnouncedDigest = digest([(Family::Ipv4, sent)].into_iter());
        let entry = NodePeerStatus {
            announced: Some(digest),
            ..NodePeerStatus::default()
        };
        let entries = nodes.iter().map(|node| ((*node).to_owned(), entry.clone()));
        let status = BgpPeerStatus {
            nodes_peer_status: entries.collect(),
            ..BgpPeerStatus::default()
        };
        picture
            .peer_statuses
            .insert("r".to_owned(), Arc::new(status));
    }

    fn of(picture: &Picture, agreed: &mut Agreed) -> (String, String) {
        let verdict = verdicts(picture, agreed, at(0))
            .remove(&ServiceKey::new("default", "web"))
            .unwrap();
        (
            format!("{} {}", verdict.status, verdict.reason),
            verdict.message,
        )
    }

    fn two_nodes() -> TestWorld {
        TestWorld::default()
            .node(node("a"))
            .node(node("b"))
            .service(service("web").ready_on("a"))
    }

    #[test]
    fn nodes_count_where_their_report_agrees() {
        let mut picture = picture(&two_nodes());
        let mut agreed = Agreed::default();
        let (status, text) = of(&picture, &mut agreed);
        assert_eq!(status, "Unknown Unconfirmed");
        assert!(text.contains("0/2 nodes, 0/1 peers, unconfirmed"), "{text}");
        report(&mut picture, &["a"], &["203.0.113.1/32"]);
        assert_eq!(
            of(&picture, &mut agreed).1,
            "203.0.113.1: 1/2 nodes, 1/1 peers"
        );
        report(&mut picture, &["a", "b"], &["203.0.113.1/32"]);
        let expected = (
            "True Announced".to_owned(),
            "203.0.113.1: 2/2 nodes, 1/1 peers".to_owned(),
        );
        assert_eq!(of(&picture, &mut agreed), expected);
    }

    #[test]
    fn a_change_to_another_service_does_not_cast_doubt() {
        let mut picture = picture(&two_nodes());
        let mut agreed = Agreed::default();
        report(&mut picture, &["a", "b"], &["203.0.113.1/32"]);
        of(&picture, &mut agreed);
        picture.world = two_nodes()
            .service(service("dns").addresses(&["203.0.113.2"]).ready_on("a"))
            .build();
        assert_eq!(of(&picture, &mut agreed).0, "True Announced");
        let dns = verdicts(&picture, &mut agreed, at(0)).remove(&ServiceKey::new("default", "dns"));
        assert_eq!(dns.unwrap().status, "Unknown");
        report(&mut picture, &[], &[]);
        assert_eq!(
            of(&picture, &mut agreed).0,
            "Unknown Unconfirmed",
            "the sessions are down"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut agreed = Agreed::default();
        let idle = TestWorld::default().node(node("a")).service(service("web"));
        assert_eq!(of(&picture(&idle), &mut agreed).0, "False NoEndpoints");
        let excluded = TestWorld::default()
            .node(node("a").excluded())
            .service(service("web").ready_on("a"));
        assert_eq!(of(&picture(&excluded), &mut agreed).0, "False NoNode");
        let mut without = picture(&two_nodes());
        without.peers.clear();
        assert_eq!(of(&without, &mut agreed).0, "False NoPeer");
        without.conf = None;
        assert_eq!(of(&without, &mut agreed).0, "False NoBgpConf");
    }

    #[test]
    fn layer_2_is_told_by_the_announcer() {
        let world = two_nodes().pool(|pool| pool.protocol = Protocol::Layer2);
        let mut picture = picture(&world);
        let mut agreed = Agreed::default();
        assert_eq!(of(&picture, &mut agreed).0, "Unknown Unconfirmed");
        for holding in picture.world.holdings.values_mut() {
            holding.announcers = vec![Announcer {
                node: "b".to_owned(),
                interfaces: vec!["eth0".to_owned()],
                since: None,
            }];
        }
        let expected = (
            "True Announced".to_owned(),
            "203.0.113.1: b on eth0".to_owned(),
        );
        assert_eq!(of(&picture, &mut agreed), expected);
    }
}
