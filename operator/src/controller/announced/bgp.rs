//! Conditions and summaries of BgpConf and BgpPeers: pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use openelb_api::bgp::ignored;
use openelb_api::keys::conditions::{ACCEPTED, READY};
use openelb_api::keys::{self, reasons};
use openelb_api::v1alpha2::{BgpConf, BgpPeer, BgpPeerStatus};
use openelb_api::validate::{self, Verdict, View};
use serde_json::{Map, Value, json};

use crate::peering::{PeerObject, rivals};
use crate::picture::Picture;

/// The status patches that are due, by BgpPeer; `None` for the BgpConf.
pub(super) fn writes(picture: &Picture, now: Timestamp) -> Vec<(Option<String>, Value)> {
    let mut writes = Vec::new();
    if let Some(body) = conf_patch(picture, now) {
        writes.push((None, body));
    }
    let mut older: BTreeMap<&str, &str> = BTreeMap::new();
    for node in picture.world.nodes.values() {
        older.extend(rivals(&picture.peers, node));
    }
    for (name, object) in &picture.peers {
        let Some(status) = picture.peer_statuses.get(name) else {
            continue;
        };
        let rival = older.get(name.as_str()).copied();
        if let Some(body) = peer_patch(picture, (name, object), status, rival, now) {
            writes.push((Some(name.clone()), body));
        }
    }
    writes
}

fn conf_patch(picture: &Picture, now: Timestamp) -> Option<Value> {
    let status = picture.conf_status.as_ref()?;
    let conf = picture.conf.as_ref()?;
    let broken = picture.conf_broken.clone().map(Fault::unusable);
    let fault = broken.or_else(|| {
        let object = BgpConf::new(keys::BGP_CONF, (*conf.spec).clone());
        Fault::of(&validate::bgp_conf(&object, None), conf.speaker.is_ok())
    });
    let mut without = ignored::of_conf(&conf.spec);
    if !conf.spec.policy.is_empty() {
        without.push("policy");
    }
    let troubles = status
        .nodes_conf_status
        .iter()
        .filter(|(node, entry)| {
            picture.world.nodes.contains_key(*node) && !entry.message.is_empty()
        })
        .map(|(node, entry)| format!("{node}: {}", entry.message));
    let conditions = vec![
        accepted(fault, &without),
        ready(troubles.collect(), "the speakers run with it"),
    ];
    let mut body = Map::new();
    put_conditions(&mut body, &status.conditions, conditions, now);
    put_gone(
        &mut body,
        "nodesConfStatus",
        status.nodes_conf_status.keys(),
        picture,
    );
    finish(body)
}

fn peer_patch(
    picture: &Picture,
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
        view.local_as = conf.and_then(|conf| conf.speaker.as_ref().ok()?.as_number);
        let written = BgpPeer::new(name, (*object.spec).clone());
        Fault::of(
            &validate::bgp_peer(&written, None, &view),
            object.peer.is_ok(),
        )
    });
    let here = |node: &str| {
        picture
            .world
            .nodes
            .get(node)
            .is_some_and(|node| node.ready(now))
    };
    let entries = &status.nodes_peer_status;
    let meant = entries
        .keys()
        .filter(|node| picture.world.nodes.contains_key(*node))
        .count();
    let up = entries
        .iter()
        .filter(|(node, entry)| here(node) && entry.peer_state.session_state == "ESTABLISHED")
        .count();
    let summary = if meant == 0 {
        String::new()
    } else {
        format!("{up}/{meant} Established")
    };
    let troubles: Vec<String> = entries
        .iter()
        .filter(|(node, entry)| {
            picture.world.nodes.contains_key(*node)
                && entry.peer_state.session_state != "ESTABLISHED"
        })
        .map(|(node, entry)| match entry.message.as_str() {
            "" => format!("{node}: no session"),
            message => format!("{node}: {message}"),
        })
        .collect();
    let conditions = vec![
        accepted(fault, &ignored::of_peer(&object.spec)),
        ready(troubles, "every session is established"),
    ];
    let mut body = Map::new();
    put_conditions(&mut body, &status.conditions, conditions, now);
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

fn accepted(fault: Option<Fault>, without: &[&str]) -> Said {
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
    now: Timestamp,
) {
    let same = |condition: &Condition, said: &Said| {
        condition.type_ == said.0
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
                observed_generation: None,
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
mod tests {
    use std::sync::Arc;

    use openelb_api::v1alpha2::BgpConfStatus;

    use super::*;
    use crate::announce::testing::{TestWorld, at, node};
    use crate::peering::ConfObject;

    #[allow(clippy::needless_pass_by_value, reason = "reads better at the calls")]
    fn picture(spec: Value, status: Value) -> Picture {
        let peer: BgpPeer = serde_json::from_value(json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer",
            "metadata": {"name": "r"}, "spec": spec, "status": status
        }))
        .unwrap();
        let mut picture = Picture::of(TestWorld::default().node(node("a")).node(node("b")).build());
        picture
            .peers
            .insert("r".to_owned(), PeerObject::read(&peer));
        picture
            .peer_statuses
            .insert("r".to_owned(), Arc::new(peer.status.unwrap_or_default()));
        picture
    }

    fn good() -> Value {
        json!({"conf": {"neighborAddress": "10.0.0.254", "peerAs": 1}})
    }

    fn session(state: &str, message: &str) -> Value {
        json!({"peerState": {"sessionState": state}, "message": message})
    }

    fn only(picture: &Picture) -> Value {
        let mut writes = writes(picture, at(0));
        assert_eq!(writes.len(), 1, "{writes:?}");
        writes.pop().unwrap().1["status"].clone()
    }

    fn condition(status: &Value, kind: &str) -> String {
        let conditions = status["conditions"].as_array().unwrap();
        let one = conditions
            .iter()
            .find(|condition| condition["type"] == kind)
            .unwrap();
        format!(
            "{} {}",
            one["status"].as_str().unwrap(),
            one["message"].as_str().unwrap()
        )
    }

    #[test]
    fn sessions_are_summed_up_and_troubles_told() {
        let status = only(&picture(
            good(),
            json!({"nodesPeerStatus": {"a": session("ESTABLISHED", ""), "b": session("ACTIVE", "connection refused")}}),
        ));
        assert_eq!(status["summary"], "1/2 Established");
        assert_eq!(condition(&status, "Ready"), "False b: connection refused");
        assert_eq!(
            condition(&status, "Accepted"),
            "True every field is honoured"
        );
    }

    #[test]
    fn entries_of_vanished_nodes_are_removed() {
        let status = only(&picture(
            good(),
            json!({"nodesPeerStatus": {"gone": session("ESTABLISHED", "")}}),
        ));
        assert_eq!(status["nodesPeerStatus"], json!({"gone": null}));
        assert!(status.get("summary").is_none());
    }

    #[test]
    fn faults_and_fields_without_effect_are_named() {
        let status = only(&picture(json!({"conf": {"peerAs": 1}}), json!({})));
        assert!(condition(&status, "Accepted").starts_with("False spec.conf.neighborAddress"));
        let mut spec = good();
        spec["transport"] = json!({"tcpMss": 1400});
        let status = only(&picture(spec, json!({})));
        assert_eq!(
            condition(&status, "Accepted"),
            "True without effect: transport.tcpMss"
        );
    }

    #[test]
    fn what_got_past_the_webhook_is_refused_in_the_webhooks_words() {
        let mut spec = good();
        spec["timers"] = json!({"config": {"holdTime": "9", "keepaliveInterval": "9"}});
        let status = only(&picture(spec.clone(), json!({})));
        let written = BgpPeer::new("r", serde_json::from_value(spec).unwrap());
        let refused = validate::bgp_peer(&written, None, &View::default()).denials;
        assert_eq!(refused.len(), 1);
        assert_eq!(
            condition(&status, "Accepted"),
            format!("False {}", refused[0])
        );
        assert_eq!(status["conditions"][0]["reason"], reasons::PARTLY_USED);

        let mut picture = Picture::of(TestWorld::default().node(node("a")).build());
        let conf = BgpConf::new(
            keys::BGP_CONF,
            serde_json::from_value(json!({"as": 23456, "routerId": "224.0.0.1"})).unwrap(),
        );
        picture.conf = Some(ConfObject::read(&conf));
        picture.conf_status = Some(Arc::default());
        let status = only(&picture);
        let refused = validate::bgp_conf(&conf, None).denials;
        assert_eq!(refused.len(), 2);
        assert_eq!(
            condition(&status, "Accepted"),
            format!("False {}", refused.join("; "))
        );
    }

    #[test]
    fn what_is_said_already_is_not_written_again() {
        let mut picture = picture(
            good(),
            json!({"nodesPeerStatus": {"a": session("ESTABLISHED", "")}}),
        );
        let status = only(&picture);
        let mut shown = (*picture.peer_statuses["r"]).clone();
        shown.summary = status["summary"].as_str().unwrap().to_owned();
        shown.conditions = serde_json::from_value(status["conditions"].clone()).unwrap();
        picture
            .peer_statuses
            .insert("r".to_owned(), Arc::new(shown));
        assert!(writes(&picture, at(99)).is_empty());
    }

    #[test]
    fn the_bgpconf_names_nodes_with_trouble_and_the_policy_that_is_not_applied() {
        let mut picture = Picture::of(TestWorld::default().node(node("a")).build());
        let spec = json!({"as": 1, "policy": "my-policy"});
        let spec = serde_json::from_value(spec).unwrap();
        picture.conf = Some(ConfObject::read(&BgpConf::new("default", spec)));
        let status = json!({"nodesConfStatus": {"a": {"message": "only outgoing sessions; 0.0.0.0:179: in use"}}});
        picture.conf_status = Some(Arc::new(
            serde_json::from_value::<BgpConfStatus>(status).unwrap(),
        ));
        let status = only(&picture);
        assert_eq!(
            condition(&status, "Accepted"),
            "True without effect: policy"
        );
        assert!(condition(&status, "Ready").contains("0.0.0.0:179"));
    }
}
