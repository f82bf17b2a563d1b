use serde_json::{Value, json};

use super::*;
use crate::announce::testing::at;

fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn node(name: &str) -> ApiNode {
    read(
        json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    )
}

fn slice(name: &str, service: &str) -> EndpointSlice {
    read(json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": "a"}]
    }))
}

#[test]
fn is_complete_when_every_kind_was_listed() {
    let mut picture = Picture::new(&[Kind::Node, Kind::Service], None);
    picture.apply(Change::Node(Event::Init), at(0));
    picture.apply(Change::Node(Event::InitApply(node("a"))), at(0));
    picture.apply(Change::Node(Event::InitDone), at(0));
    assert_eq!(picture.waiting_for(), [Kind::Service]);
    picture.apply(Change::Service(Event::Init), at(0));
    assert!(!picture.complete());
    picture.apply(Change::Service(Event::InitDone), at(0));
    assert!(picture.complete());
}

#[test]
fn a_new_list_removes_what_it_lacks_and_only_when_it_is_complete() {
    let mut picture = Picture::new(&[Kind::Node], None);
    for event in [
        Event::Init,
        Event::InitApply(node("a")),
        Event::InitApply(node("b")),
        Event::InitDone,
    ] {
        picture.apply(Change::Node(event), at(0));
    }
    for event in [Event::Init, Event::InitApply(node("b"))] {
        let touched = picture.apply(Change::Node(event), at(1));
        assert_eq!(touched, Touched::Nothing, "nothing new is no change");
    }
    assert_eq!(
        picture.world.nodes.len(),
        2,
        "a is not gone before the list is complete"
    );
    assert_eq!(
        picture.apply(Change::Node(Event::InitDone), at(1)),
        Touched::Everything
    );
    assert_eq!(picture.world.nodes.keys().collect::<Vec<_>>(), ["b"]);
    assert!(
        picture.complete(),
        "it stays complete while it is listed again"
    );
}

#[test]
fn a_slice_belongs_to_the_service_its_label_names() {
    let mut picture = Picture::new(&[Kind::EndpointSlice], None);
    let of = |picture: &Picture, service: &str| {
        picture
            .world
            .placement(
                &ServiceKey::new("default", service),
                "192.0.2.1".parse().unwrap(),
            )
            .any()
    };
    picture.apply(
        Change::EndpointSlice(Event::Apply(slice("s", "web"))),
        at(0),
    );
    assert!(of(&picture, "web"));
    picture.apply(
        Change::EndpointSlice(Event::Apply(slice("s", "dns"))),
        at(0),
    );
    assert!(!of(&picture, "web") && of(&picture, "dns"));
    picture.apply(
        Change::EndpointSlice(Event::Delete(slice("s", "dns"))),
        at(0),
    );
    assert!(picture.world.slices.is_empty());
}

#[test]
fn an_object_that_cannot_be_read_keeps_what_was_known() {
    let eip = |address: Value| {
        Change::Eip(Event::Apply(read(
            json!({"metadata": {"name": "lan"}, "spec": {"address": address}}),
        )))
    };
    let mut picture = Picture::new(&[Kind::Eip], None);
    assert!(picture.apply(eip(json!("10.0.0.1")), at(0)).any());
    assert!(!picture.apply(eip(json!(7)), at(0)).any());
    assert!(picture.world.pools.contains_key("lan"));
}

#[test]
fn of_statuses_only_the_own_entry_counts() {
    let peer = |entries: Value| {
        Change::BgpPeer(Event::Apply(read(json!({
            "metadata": {"name": "r"}, "spec": {},
            "status": {"summary": "1/2", "nodesPeerStatus": entries}
        }))))
    };
    let mut picture = Picture::new(&[Kind::BgpPeer], Some("a".to_owned()));
    assert!(picture.apply(peer(json!({})), at(0)).any());
    let other = json!({"b": {"peerState": {"sessionState": "ESTABLISHED"}}});
    assert!(!picture.apply(peer(other), at(0)).any());
    assert_eq!(
        picture.apply(peer(json!({"a": {}})), at(0)),
        Touched::Settings
    );
}

#[test]
fn only_the_conf_default_counts_and_not_when_it_is_the_cnis() {
    let conf = |name: &str, labels: Value| {
        Change::BgpConf(Event::Apply(read(
            json!({"metadata": {"name": name, "labels": labels}, "spec": {"as": 1}}),
        )))
    };
    let mut picture = Picture::new(&[Kind::BgpConf], None);
    picture.apply(conf("other", json!({})), at(0));
    assert!(picture.conf.is_none());
    picture.apply(conf("default", json!({})), at(0));
    assert!(picture.conf.is_some());
    picture.apply(
        conf("default", json!({"openelb.kubesphere.io/cni": "calico"})),
        at(0),
    );
    assert!(picture.conf.is_none());
}
