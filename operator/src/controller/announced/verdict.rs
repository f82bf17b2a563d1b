//! Whether the addresses of a Service are announced, and by whom: pure.
//!
//! A node counts where what it reports to have sent to a peer agrees with what it should have sent.
//! Reports are digests over all routes of a node and peer, at most one a second; so that a stream of
//! changes to other Services does not make this one look doubtful, the last set of routes on which
//! both sides agreed is remembered, and an address in it stays confirmed while the session is up and
//! both sides move. Where they differ and one of them stands still, that is no delay but a doubt.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use openelb_api::bgp::Neighbor;
use openelb_api::keys::{conditions::ANNOUNCED, reasons};
use openelb_api::v1alpha2::Protocol;
use openelb_bgp::{Digest, Family, RouteSet};
use serde_json::{Value, json};

use super::silent::Silent;
use crate::announce::{Able, Address, Candidates, ServiceKey, World, routes};
use crate::peering::{PeerObject, Policy, agrees, conf, rivals};
use crate::picture::Picture;

/// How long what should be and what is reported may differ while one of them stands still.
const DOUBT: SignedDuration = SignedDuration::from_secs(5);

/// The routes that nodes and peers last agreed on, by peer, node and family.
#[derive(Default)]
pub(super) struct Agreed(BTreeMap<Side, Standing>);

/// A peer, a node, a family.
type Side = (String, String, Family);

/// One agreement, and what became of it.
struct Standing {
    sent: Arc<HashSet<IpNet>>,
    /// What should be, and since when it does not change.
    wanted: (Digest, Timestamp),
    /// What is reported, and since when it does not change.
    reported: (String, Timestamp),
}

impl Standing {
    /// The same agreement after another look that did not confirm it; `None` where it no longer counts.
    fn doubted(&self, wanted: Digest, reported: &str, now: Timestamp) -> Option<Self> {
        let since = |same: bool, since: Timestamp| if same { since } else { now };
        let standing = Self {
            sent: self.sent.clone(),
            wanted: (wanted, since(wanted == self.wanted.0, self.wanted.1)),
            reported: (
                reported.to_owned(),
                since(reported == self.reported.0, self.reported.1),
            ),
        };
        (now < standing.doubt_at()).then_some(standing)
    }

    fn doubt_at(&self) -> Timestamp {
        let still = self.wanted.1.min(self.reported.1);
        still.saturating_add(DOUBT).unwrap_or(Timestamp::MAX)
    }
}

/// What is to be said, and when it may change by time alone.
pub(super) struct Verdicts {
    pub(super) services: BTreeMap<ServiceKey, Verdict>,
    pub(super) recheck_at: Option<Timestamp>,
}

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

/// What is to be said of every Service that holds addresses. Reports of silent nodes do not count.
pub(super) fn verdicts(
    picture: &Picture,
    silent: &Silent,
    agreed: &mut Agreed,
    now: Timestamp,
) -> Verdicts {
    let world = &picture.world;
    let candidates = Candidates::new(world, now);
    let able = Able::new(world, &candidates);
    let sessions = sessions(picture);
    let doubt_at = update(picture, silent, &able, &sessions, agreed, now);
    // What a policy holds back from a peer is no lack there.
    let allowed: Option<BTreeMap<&str, RouteSet>> = policy(picture).is_some().then(|| {
        let nodes = sessions.iter();
        nodes
            .map(|(node, sessions)| (*node, wanted(picture, &able, node, sessions)))
            .collect()
    });
    let mut parts: BTreeMap<ServiceKey, Vec<Part>> = BTreeMap::new();
    for address in world.addresses() {
        for (key, _) in &address.services {
            let part = match address.protocol {
                Protocol::Bgp => by_bgp(
                    picture,
                    &able,
                    (&sessions, allowed.as_ref()),
                    agreed,
                    &address,
                ),
                Protocol::Layer2 => by_layer2(world, &able, &address),
                Protocol::Vip => Part {
                    ok: Some(false),
                    reason: reasons::NOT_SUPPORTED_YET,
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
    let services = parts
        .into_iter()
        .map(|(key, parts)| (key, join(&parts)))
        .collect();
    let times = [doubt_at, candidates.recheck_at(), silent.recheck_at];
    Verdicts {
        services,
        recheck_at: times.into_iter().flatten().min(),
    }
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

/// A session that a node should have.
struct Session<'p> {
    peer: &'p str,
    address: Option<IpAddr>,
    carries: Vec<Family>,
}

fn address(peer: &PeerObject) -> Option<IpAddr> {
    match &peer.peer.as_ref().ok()?.neighbor {
        Neighbor::Address(ip) => Some(*ip),
        Neighbor::LinkLocal(ip, _) => Some(IpAddr::V6(*ip)),
        Neighbor::Interface(_) => None,
    }
}

/// The policy that the BgpConf names.
fn policy(picture: &Picture) -> Option<&Policy> {
    let speaker = picture.conf.as_ref()?.speaker.as_ref().ok()?;
    let object = picture.policies.get(speaker.policy.as_ref()?)?;
    object.policy.as_deref()
}

/// The routes of a node as its peers are to have them.
fn wanted(picture: &Picture, able: &Able<'_>, node: &str, sessions: &[Session<'_>]) -> RouteSet {
    let routes = routes(&picture.world, able, node);
    let Some(policy) = policy(picture) else {
        return routes;
    };
    let peers = sessions
        .iter()
        .map(|session| (session.peer.into(), session.address));
    // Who the AS numbers belong to changes nothing about which prefixes are announced.
    policy.apply(&routes, &peers.collect(), 0)
}

/// The sessions of every node, by its name.
type Sessions<'p> = BTreeMap<&'p str, Vec<Session<'p>>>;

/// The sessions of every node.
fn sessions(picture: &Picture) -> BTreeMap<&str, Vec<Session<'_>>> {
    let speaker = picture.conf.as_ref().map(|conf| conf.speaker.as_deref());
    let announced = match speaker {
        Some(Ok(speaker)) => conf::families(&speaker.families.announced),
        _ => Family::ALL.to_vec(),
    };
    let carries = |peer: &PeerObject| match &peer.peer {
        Ok(peer) => {
            let mut families = conf::families(&peer.families.announced);
            families.retain(|family| announced.contains(family));
            families
        }
        Err(_) => announced.clone(),
    };
    let of_node = |node| {
        let rivals = rivals(&picture.peers, node);
        let meant = picture
            .peers
            .iter()
            .filter(|(name, peer)| peer.selects(node) && !rivals.contains_key(name.as_str()));
        meant
            .map(|(name, peer)| Session {
                peer: name,
                address: address(peer),
                carries: carries(peer),
            })
            .collect()
    };
    let nodes = picture.world.nodes.iter();
    nodes
        .map(|(name, node)| (name.as_str(), of_node(node)))
        .collect()
}

/// Compares what every node should have sent to its peers with what it reports. Returns when a difference becomes
/// a doubt.
fn update(
    picture: &Picture,
    silent: &Silent,
    able: &Able<'_>,
    sessions: &BTreeMap<&str, Vec<Session<'_>>>,
    agreed: &mut Agreed,
    now: Timestamp,
) -> Option<Timestamp> {
    let mut standing: BTreeMap<Side, Standing> = BTreeMap::new();
    let mut doubt_at: Option<Timestamp> = None;
    // Nodes that announce the same share one set.
    let mut shared: BTreeMap<(&str, Family, u64, u64), Arc<HashSet<IpNet>>> = BTreeMap::new();
    let speaking = sessions
        .iter()
        .filter(|(node, _)| !silent.nodes.contains(**node));
    for (node, sessions) in speaking {
        let mut routes: Option<RouteSet> = None;
        for Session { peer, carries, .. } in sessions {
            let status = picture.peer_statuses.get(*peer);
            let entry = status.and_then(|status| status.nodes_peer_status.get(*node));
            let Some(reported) = entry.and_then(|entry| entry.announced.as_ref()) else {
                continue;
            };
            let wanted = routes.get_or_insert_with(|| wanted(picture, able, node, sessions));
            for family in carries {
                let side = ((*peer).to_owned(), (*node).to_owned(), *family);
                let expected = wanted.expected(peer, *family);
                if agrees(reported, *family, expected) {
                    let kind = (*peer, *family, expected.count(), expected.value());
                    let set = shared.entry(kind).or_insert_with(|| {
                        let sent = wanted.iter().filter(|(prefix, paths)| {
                            Family::of(prefix) == *family
                                && paths.iter().any(|path| path.peers.contains(peer))
                        });
                        Arc::new(sent.map(|(prefix, _)| *prefix).collect())
                    });
                    let new = Standing {
                        sent: set.clone(),
                        wanted: (expected, now),
                        reported: (reported.digest.clone(), now),
                    };
                    standing.insert(side, new);
                } else if let Some(before) = agreed.0.get(&side)
                    && let Some(doubted) = before.doubted(expected, &reported.digest, now)
                {
                    let due = doubted.doubt_at();
                    doubt_at = Some(doubt_at.map_or(due, |at| at.min(due)));
                    standing.insert(side, doubted);
                }
            }
        }
    }
    agreed.0 = standing;
    doubt_at
}

fn by_bgp(
    picture: &Picture,
    able: &Able<'_>,
    (sessions, allowed): (&Sessions<'_>, Option<&BTreeMap<&str, RouteSet>>),
    agreed: &Agreed,
    address: &Address<'_>,
) -> Part {
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
    let family = Family::of(&prefix);
    let mut peers: BTreeMap<&str, bool> = BTreeMap::new();
    let mut announcing = BTreeSet::new();
    let (mut other_family, mut held_back) = (false, false);
    for node in nodes.iter() {
        let allowed = allowed.and_then(|allowed| allowed.get(&**node));
        for Session { peer, carries, .. } in sessions.get(&**node).into_iter().flatten() {
            if address.pool.is_some_and(|pool| !pool.peers.contains(peer)) {
                continue;
            }
            if !carries.contains(&family) {
                other_family = true;
                continue;
            }
            let passes = |routes: &RouteSet| {
                let mut paths = routes.paths(&prefix).iter();
                paths.any(|path| path.peers.contains(peer))
            };
            if !allowed.is_none_or(passes) {
                held_back = true;
                continue;
            }
            let side = ((*peer).to_owned(), node.to_string(), family);
            let confirmed = agreed
                .0
                .get(&side)
                .is_some_and(|standing| standing.sent.contains(&prefix));
            *peers.entry(peer).or_default() |= confirmed;
            if confirmed {
                announcing.insert(node.to_string());
            }
        }
    }
    if peers.is_empty() {
        let text = match (other_family, family) {
            _ if held_back => "the policy of the BgpConf holds it back from every peer",
            (false, _) => "no BgpPeer is meant for the nodes that may announce it",
            (true, Family::Ipv4) => {
                "no BgpPeer of the nodes that may announce it carries IPv4: see afiSafis, and families of the BgpConf"
            }
            (true, Family::Ipv6) => {
                "no BgpPeer of the nodes that may announce it carries IPv6: see afiSafis, and families of the BgpConf"
            }
        };
        return failed("NoPeer", text);
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
mod tests;
