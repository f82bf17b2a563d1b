//! Conditions and summaries of BgpConf and BgpPeers: pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use openelb_api::bgp::ignored;
use openelb_api::keys::conditions::{ACCEPTED, READY};
use openelb_api::keys::{self, reasons};
use openelb_api::v1alpha2::{BgpConf, BgpConfSpec, BgpPeer, BgpPeerStatus};
use openelb_api::validate::{self, Verdict, View};
use serde_json::{Map, Value, json};

use super::silent::Silent;
use crate::peering::{PeerObject, policy, rivals};
use crate::picture::Picture;

/// The status patches that are due, by BgpPeer; `None` for the BgpConf.
pub(super) fn writes(
    picture: &Picture,
    silent: &Silent,
    now: Timestamp,
) -> Vec<(Option<String>, Value)> {
    let mut writes = Vec::new();
    if let Some(body) = conf_patch(picture, silent, now) {
        writes.push((None, body));
    }
    let older = losers(picture);
    for (name, object) in &picture.peers {
        let Some(status) = picture.peer_statuses.get(name) else {
            continue;
        };
        let rival = older.get(name.as_str()).copied();
        if let Some(body) = peer_patch(picture, silent, (name, object), status, rival, now) {
            writes.push((Some(name.clone()), body));
        }
    }
    writes
}

/// The BgpPeers that no node uses, each with an older one that has its address. One that loses on some nodes only
/// says so in the entries of those.
fn losers(picture: &Picture) -> BTreeMap<&str, &str> {
    let mut older: BTreeMap<&str, &str> = BTreeMap::new();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for node in picture.world.nodes.values() {
        let rivals = rivals(&picture.peers, node);
        let meant = picture.peers.iter().filter(|(_, peer)| peer.selects(node));
        let names = meant.map(|(name, _)| name.as_str());
        used.extend(names.filter(|name| !rivals.contains_key(name)));
        older.extend(rivals);
    }
    older.retain(|name, _| !used.contains(name));
    older
}

/// What keeps a node's entry from being believed: it is gone, not ready, or nobody there speaks.
fn mute(picture: &Picture, silent: &Silent, node: &str, now: Timestamp) -> Option<&'static str> {
    match picture.world.nodes.get(node) {
        None => Some("the node is gone"),
        Some(view) if !view.ready(now) => Some("the node is not ready"),
        Some(_) if silent.nodes.contains(node) => Some("no speaker is ready there"),
        Some(_) => None,
    }
}

fn conf_patch(picture: &Picture, silent: &Silent, now: Timestamp) -> Option<Value> {
    let status = picture.conf_status.as_ref()?;
    let conf = picture.conf.as_ref()?;
    let broken = picture.conf_broken.clone().map(Fault::unusable);
    let fault = broken.or_else(|| {
        let object = BgpConf::new(keys::BGP_CONF, (*conf.spec).clone());
        Fault::of(&validate::bgp_conf(&object, None), conf.speaker.is_ok())
    });
    let mut without = of_conf(&conf.spec);
    without.extend(policy_without(picture, &conf.spec.policy));
    let entries = status.nodes_conf_status.iter();
    let entries = entries.filter(|(node, _)| picture.world.nodes.contains_key(*node));
    let mut speaks = false;
    let mut troubles = Vec::new();
    for (node, entry) in entries {
        let mute = mute(picture, silent, node, now);
        speaks |= mute.is_none();
        let trouble = mute.unwrap_or(&entry.message);
        if !trouble.is_empty() {
            troubles.push(format!("{node}: {trouble}"));
        }
    }
    let ready = if speaks {
        ready(troubles, "the speakers run with it")
    } else {
        let nobody = "no speaker runs with it yet: is the DaemonSet of speakers there?";
        (READY, "False", "NoSpeaker", nobody.to_owned())
    };
    let conditions = vec![accepted(fault, &without), ready];
    let mut body = Map::new();
    put_conditions(
        &mut body,
        &status.conditions,
        conditions,
        conf.generation,
        now,
    );
    put_gone(
        &mut body,
        "nodesConfStatus",
        status.nodes_conf_status.keys(),
        picture,
    );
    finish(body)
}

fn of_conf(spec: &BgpConfSpec) -> Vec<String> {
    let fields = ignored::of_conf(spec).into_iter();
    fields.map(str::to_owned).collect()
}

/// What of the policy is not applied.
fn policy_without(picture: &Picture, name: &str) -> Vec<String> {
    if name.is_empty() {
        return Vec::new();
    }
    let Some(object) = picture.policies.get(name) else {
        let key = policy::KEY;
        return vec![format!(
            "policy (there is no ConfigMap {name} with the key {key} in our namespace)"
        )];
    };
    let fault = object.fault.iter().map(|fault| match object.policy {
        Some(_) => format!("the policy as it is now ({fault}; what it was before stays in force)"),
        None => format!("policy ({fault})"),
    });
    let policy = object.policy.iter();
    let left_out = policy.flat_map(|policy| policy.left_out.iter());
    let left_out = left_out.map(|what| format!("of the policy: {what}"));
    fault.chain(left_out).collect()
}

fn peer_patch(
    picture: &Picture,
    silent: &Silent,
    (name, object): (&str, &PeerObject),
    status: &BgpPeerStatus,
    rival: Option<&str>,
    now: Timestamp,
) -> Option<Value> {
    if object.foreign {
        return None;
    }
    let fault = rival.map(|older| {
        Fault::unusable(format!(
            "BgpPeer {older} is older and has the same address; this one is not used"
        ))
    });
    let fault = fault.or_else(|| {
        let mut view = View::default();
        let conf = picture.conf.as_ref();
        view.local_as = conf.and_then(|conf| conf.speaker.as_ref().ok()?.common_as_number());
        let written = BgpPeer::new(name, (*object.spec).clone());
        Fault::of(
            &validate::bgp_peer(&written, None, &view),
            object.peer.is_ok(),
        )
    });
    let entries = &status.nodes_peer_status;
    let meant = entries
        .iter()
        .filter(|(node, _)| picture.world.nodes.contains_key(*node));
    let (mut all, mut up) = (0, 0);
    let mut troubles = Vec::new();
    for (node, entry) in meant {
        all += 1;
        let established = entry.peer_state.session_state == "ESTABLISHED";
        match mute(picture, silent, node, now) {
            Some(trouble) => troubles.push(format!("{node}: {trouble}")),
            None if established && entry.message.is_empty() => up += 1,
            None => {
                up += usize::from(established);
                let message = match entry.message.as_str() {
                    "" => "no session",
                    message => message,
                };
                troubles.push(format!("{node}: {message}"));
            }
        }
    }
    let summary = if all == 0 {
        String::new()
    } else {
        format!("{up}/{all} Established")
    };
    let selected = picture.world.nodes.values();
    let ready = if all > 0 {
        ready(troubles, "every session is established")
    } else if selected.into_iter().any(|node| object.selects(node)) {
        let nobody = "no speaker has said anything of it yet";
        (READY, "False", "NoSpeaker", nobody.to_owned())
    } else {
        let nobody = "spec.nodeSelector selects no node";
        (READY, "False", "NoNode", nobody.to_owned())
    };
    let without: Vec<String> = ignored::of_peer(&object.spec)
        .into_iter()
        .map(str::to_owned)
        .collect();
    let conditions = vec![accepted(fault, &without), ready];
    let mut body = Map::new();
    put_conditions(
        &mut body,
        &status.conditions,
        conditions,
        object.generation,
        now,
    );
    if summary != status.summary {
        body.insert("summary".to_owned(), json!(summary));
    }
    put_gone(&mut body, "nodesPeerStatus", entries.keys(), picture);
    finish(body)
}

/// Type, status, reason, message.
type Said = (&'static str, &'static str, &'static str, String);

/// What the webhook would have refused an object by.
struct Fault {
    reason: &'static str,
    text: String,
}

impl Fault {
    fn unusable(text: String) -> Self {
        let reason = reasons::INVALID;
        Self { reason, text }
    }

    fn of(verdict: &Verdict, usable: bool) -> Option<Self> {
        let reason = if usable {
            reasons::PARTLY_USED
        } else {
            reasons::INVALID
        };
        let text = verdict.denials.join("; ");
        (!text.is_empty()).then_some(Self { reason, text })
    }
}

fn accepted(fault: Option<Fault>, without: &[String]) -> Said {
    match fault {
        Some(fault) => (ACCEPTED, "False", fault.reason, fault.text),
        None if without.is_empty() => (
            ACCEPTED,
            "True",
            reasons::ACCEPTED,
            "every field is honoured".to_owned(),
        ),
        None => (
            ACCEPTED,
            "True",
            reasons::WITHOUT_EFFECT,
            format!("without effect: {}", without.join(", ")),
        ),
    }
}

/// How many nodes' troubles are told in full.
const TOLD: usize = 5;

fn ready(troubles: Vec<String>, good: &str) -> Said {
    if troubles.is_empty() {
        return (READY, "True", "Ready", good.to_owned());
    }
    let more = troubles.len().saturating_sub(TOLD);
    let mut text = troubles
        .into_iter()
        .take(TOLD)
        .collect::<Vec<_>>()
        .join("; ");
    if more > 0 {
        text = format!("{text}; and {more} more");
    }
    (READY, "False", "NotOnAllNodes", text)
}

fn put_conditions(
    body: &mut Map<String, Value>,
    shown: &[Condition],
    said: Vec<Said>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let same = |condition: &Condition, said: &Said| {
        condition.type_ == said.0
            && condition.observed_generation == generation
            && condition.status == said.1
            && condition.reason == said.2
            && condition.message == said.3
    };
    if shown.len() == said.len()
        && said
            .iter()
            .all(|said| shown.iter().any(|shown| same(shown, said)))
    {
        return;
    }
    let conditions: Vec<Condition> = said
        .into_iter()
        .map(|(kind, status, reason, message)| {
            let old = shown
                .iter()
                .find(|shown| shown.type_ == kind && shown.status == status);
            let since = old.map_or_else(
                || Time(now.round(jiff::Unit::Second).unwrap_or(now)),
                |old| old.last_transition_time.clone(),
            );
            Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message,
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect();
    body.insert("conditions".to_owned(), json!(conditions));
}

/// Removes the entries of nodes that are no more.
fn put_gone<'a>(
    body: &mut Map<String, Value>,
    field: &str,
    nodes: impl Iterator<Item = &'a String>,
    picture: &Picture,
) {
    let gone = nodes.filter(|node| !picture.world.nodes.contains_key(*node));
    let gone: Map<String, Value> = gone.map(|node| (node.clone(), Value::Null)).collect();
    if !gone.is_empty() {
        body.insert(field.to_owned(), Value::Object(gone));
    }
}

fn finish(body: Map<String, Value>) -> Option<Value> {
    (!body.is_empty()).then(|| json!({"status": Value::Object(body)}))
}

#[cfg(test)]
mod tests;
