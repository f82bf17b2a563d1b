use std::sync::Arc;

use openelb_api::v1alpha2::BgpConfStatus;

use super::*;
use crate::announce::testing::{TestWorld, at, node};
use crate::peering::ConfObject;
use crate::picture::PolicyObject;

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
    let mut writes = writes(picture, &Silent::default(), at(0));
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
fn without_any_session_nothing_is_called_ready() {
    let status = only(&picture(good(), json!({})));
    assert_eq!(
        condition(&status, "Ready"),
        "False no speaker has said anything of it yet"
    );
    let mut spec = good();
    spec["nodeSelector"] = json!({"matchLabels": {"rack": "none"}});
    let status = only(&picture(spec, json!({})));
    assert_eq!(
        condition(&status, "Ready"),
        "False spec.nodeSelector selects no node"
    );
    let mut picture = Picture::of(TestWorld::default().node(node("a")).build());
    let spec = serde_json::from_value(json!({"as": 1})).unwrap();
    picture.conf = Some(ConfObject::read(&BgpConf::new("default", spec)));
    picture.conf_status = Some(Arc::default());
    assert!(condition(&only(&picture), "Ready").starts_with("False no speaker runs with it"));
}

#[test]
fn a_node_that_nobody_speaks_for_counts_in_neither_way() {
    let established = json!({"nodesPeerStatus": {"a": session("ESTABLISHED", ""), "b": session("ESTABLISHED", "")}});
    let picture = picture(good(), established);
    let silent = Silent {
        nodes: ["b".to_owned()].into(),
        recheck_at: None,
    };
    let status = writes(&picture, &silent, at(0)).pop().unwrap().1["status"].clone();
    assert_eq!(status["summary"], "1/2 Established");
    assert_eq!(
        condition(&status, "Ready"),
        "False b: no speaker is ready there"
    );
    let mut picture = picture;
    let b = picture.world.nodes.get_mut("b").unwrap();
    b.not_ready_since = Some(at(-60));
    let status = only(&picture);
    assert_eq!(status["summary"], "1/2 Established");
    assert_eq!(
        condition(&status, "Ready"),
        "False b: the node is not ready"
    );
}

#[test]
fn a_peer_that_loses_on_some_nodes_only_is_accepted() {
    let mut picture = picture(
        good(),
        json!({"nodesPeerStatus": {"a": session("ESTABLISHED", "")}}),
    );
    let mut older = good();
    older["nodeSelector"] = json!({"matchLabels": {"rack": "1"}});
    let older: BgpPeer = serde_json::from_value(json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer",
        "metadata": {"name": "older", "creationTimestamp": at(1).to_string()}, "spec": older
    }))
    .unwrap();
    let b = picture.world.nodes.get_mut("b").unwrap();
    b.labels.insert("rack".to_owned(), "1".to_owned());
    picture
        .peers
        .insert("older".to_owned(), PeerObject::read(&older));
    assert!(condition(&only(&picture), "Accepted").starts_with("True"));
    let a = picture.world.nodes.get_mut("a").unwrap();
    a.labels.insert("rack".to_owned(), "1".to_owned());
    assert!(condition(&only(&picture), "Accepted").starts_with("False BgpPeer older"));
}

#[test]
fn conditions_name_the_generation_they_speak_of() {
    let mut picture = picture(good(), json!({}));
    picture.peers.get_mut("r").unwrap().generation = Some(7);
    let status = only(&picture);
    assert_eq!(status["conditions"][0]["observedGeneration"], 7);
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
    assert!(writes(&picture, &Silent::default(), at(99)).is_empty());
}

#[test]
fn the_bgpconf_names_nodes_with_trouble_and_what_of_the_policy_is_not_applied() {
    let mut picture = Picture::of(TestWorld::default().node(node("a")).build());
    let spec = json!({"as": 1, "policy": "my-policy"});
    let spec = serde_json::from_value(spec).unwrap();
    picture.conf = Some(ConfObject::read(&BgpConf::new("default", spec)));
    let status = json!({"nodesConfStatus": {"a": {"message": "only outgoing sessions; 0.0.0.0:179: in use"}}});
    picture.conf_status = Some(Arc::new(
        serde_json::from_value::<BgpConfStatus>(status).unwrap(),
    ));
    let status = only(&picture);
    assert!(
        condition(&status, "Accepted")
            .starts_with("True without effect: policy (there is no ConfigMap my-policy")
    );
    assert!(condition(&status, "Ready").contains("0.0.0.0:179"));
    let text = r#"global.apply-policy.config.default-import-policy = "reject-route""#;
    let object = PolicyObject {
        policy: Some(Arc::new(text.parse().unwrap())),
        fault: None,
    };
    picture.policies.insert("my-policy".to_owned(), object);
    assert_eq!(
        condition(&only(&picture), "Accepted"),
        "True without effect: of the policy: import policies (no route is taken from peers)"
    );
}
