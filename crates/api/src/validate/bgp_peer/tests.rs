//! Cases for BgpPeers: accepted, refused with a message, accepted with a warning.

use serde_json::{Value, json};

use super::*;
use crate::{
    bgp::Neighbor,
    validate::{NodeFacts, PeerFacts},
};

fn peer(name: &str, spec: &Value) -> BgpPeer {
    BgpPeer::new(name, serde_json::from_value(spec.clone()).unwrap())
}

/// A good peer with members put into its spec; `conf` is merged.
fn spec(members: &Value) -> Value {
    let mut spec = json!({ "conf": { "neighborAddress": "192.0.2.1", "peerAs": 65001 } });
    for (name, value) in members.as_object().unwrap() {
        match (name.as_str(), value.as_object()) {
            ("conf", Some(conf)) => {
                for (name, value) in conf {
                    spec["conf"][name] = value.clone();
                }
            }
            _ => spec[name] = value.clone(),
        }
    }
    spec
}

fn view() -> View {
    let mut view = View::default();
    view.local_as = Some(65000);
    view.change_nodes(|nodes| {
        for (name, rack) in [("w1", "a"), ("w2", "b")] {
            let labels = [("rack".to_owned(), rack.to_owned())].into();
            nodes.insert(
                name.to_owned(),
                NodeFacts {
                    labels,
                    ..NodeFacts::default()
                },
            );
        }
    });
    view.change_peers(|peers| {
        let selector = serde_json::from_value(json!({ "matchLabels": { "rack": "a" } })).unwrap();
        let facts = PeerFacts {
            neighbor: Neighbor::Address("192.0.2.254".parse().unwrap()),
            nodes: Labels::read("", &selector).unwrap(),
        };
        peers.insert("other".to_owned(), facts);
    });
    view
}

fn created(members: &Value) -> Verdict {
    bgp_peer(&peer("new", &spec(members)), None, &view())
}

#[test]
fn usual_peers_are_accepted() {
    for members in [
        json!({}),
        json!({ "conf": { "peerAs": 4_200_000_000_i64 } }),
        json!({ "conf": { "neighborAddress": "", "neighborInterface": "eth1" } }),
        json!({ "conf": { "peerAs": 0 }, "dynamicAsn": "external" }),
        json!({ "timers": { "config": { "holdTime": "9", "keepaliveInterval": "3" } } }),
        json!({ "timers": { "config": { "holdTime": "0", "connectRetry": "0" } } }),
        json!({ "conf": { "neighborAddress": "fe80::1", "neighborInterface": "eth1" } }),
        json!({ "conf": { "neighborAddress": "fe80::1%eth1" } }),
        json!({ "ebgpMultihop": { "enabled": true, "multihopTtl": 3 } }),
        json!({ "bfd": { "enabled": true, "transmitInterval": 100, "receiveInterval": 100 } }),
        json!({ "passwordSecretRef": { "name": "bgp" } }),
        json!({ "afiSafis": [{ "config": { "family": { "afi": "AFI_IP6", "safi": "SAFI_UNICAST" } } }] }),
    ] {
        assert_eq!(created(&members), Verdict::default(), "{members}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn what_cannot_work_is_refused() {
    let family =
        |afi: &str| json!({ "config": { "family": { "afi": afi, "safi": "SAFI_UNICAST" } } });
    for (members, message) in [
        (
            json!({ "conf": { "neighborAddress": "" } }),
            "spec.conf.neighborAddress: must be the peer's address",
        ),
        (
            json!({ "conf": { "neighborAddress": "router" } }),
            "spec.conf.neighborAddress: \"router\" must be an IPv4 or IPv6 address",
        ),
        (
            json!({ "conf": { "neighborAddress": "224.0.0.5" } }),
            "spec.conf.neighborAddress: \"224.0.0.5\" must be the address of one host",
        ),
        (
            json!({ "conf": { "neighborInterface": "eth1" } }),
            "spec.conf.neighborInterface: contradicts",
        ),
        (
            json!({ "conf": { "neighborAddress": "fe80::1%eth0", "neighborInterface": "eth1" } }),
            "spec.conf.neighborInterface: contradicts",
        ),
        (
            json!({ "conf": { "neighborAddress": "fe80::1" } }),
            "spec.conf.neighborAddress: \"fe80::1\" is link-local",
        ),
        (
            json!({ "afiSafis": [{ "addPaths": { "config": { "sendMax": 256 } } }] }),
            "spec.afiSafis[0].addPaths.config.sendMax: 256 must be",
        ),
        (
            json!({ "conf": { "peerAs": 0 } }),
            "spec.conf.peerAs: 0 must be the peer's AS number",
        ),
        (
            json!({ "conf": { "peerAs": 4_294_967_296_i64 } }),
            "spec.conf.peerAs: 4294967296 must be",
        ),
        (
            json!({ "conf": { "localAs": -1 } }),
            "spec.conf.localAs: -1 must be",
        ),
        (
            json!({ "conf": { "localAs": 23456 } }),
            "spec.conf.localAs: 23456 is AS_TRANS",
        ),
        (
            json!({ "dynamicAsn": "internal" }),
            "spec.dynamicAsn: contradicts conf.peerAs",
        ),
        (
            json!({ "timers": { "config": { "holdTime": "2" } } }),
            "spec.timers.config.holdTime: 2 must be 0",
        ),
        (
            json!({ "timers": { "config": { "holdTime": "long" } } }),
            "spec.timers.config.holdTime: \"long\" must",
        ),
        (
            json!({ "timers": { "config": { "holdTime": "65536" } } }),
            "spec.timers.config.holdTime: \"65536\" must",
        ),
        (
            json!({ "timers": { "config": { "holdTime": "9", "keepaliveInterval": "9" } } }),
            "spec.timers.config.keepaliveInterval: 9 must be less",
        ),
        (
            json!({ "conf": { "peerAs": 65000 }, "ebgpMultihop": { "enabled": true } }),
            "spec.ebgpMultihop: is for peers of another AS",
        ),
        (
            json!({ "conf": { "peerAs": 65000, "removePrivateAs": "ALL" } }),
            "spec.conf.removePrivateAs: is for peers of another AS",
        ),
        (
            json!({ "conf": { "removePrivateAs": "SOME" } }),
            "spec.conf.removePrivateAs: \"SOME\" must be",
        ),
        (
            json!({ "ebgpMultihop": { "enabled": true }, "ttlSecurity": 1 }),
            "spec.ttlSecurity: 1 cannot be combined with ebgpMultihop",
        ),
        (
            json!({ "ttlSecurity": 255 }),
            "spec.ttlSecurity: 255 must be",
        ),
        (
            json!({ "transport": { "remotePort": 70000 } }),
            "spec.transport.remotePort: 70000 must be",
        ),
        (
            json!({ "bfd": { "enabled": true, "transmitInterval": 5 } }),
            "spec.bfd.transmitInterval: 5 must be",
        ),
        (
            json!({ "bfd": { "enabled": true, "detectMultiplier": 1 } }),
            "spec.bfd.detectMultiplier: 1 must be",
        ),
        (
            json!({ "conf": { "authPassword": "x".repeat(81) } }),
            "spec.conf.authPassword: has 81 bytes",
        ),
        (
            json!({ "passwordSecretRef": { "name": "" } }),
            "spec.passwordSecretRef.name: must be the name of a Secret",
        ),
        (
            json!({ "sourceAddress": "2001:db8::1" }),
            "spec.sourceAddress: \"2001:db8::1\" must be IPv4",
        ),
        (
            json!({ "sourceAddress": "eth0" }),
            "spec.sourceAddress: \"eth0\" must be an IPv4 or IPv6 address",
        ),
        (
            json!({ "afiSafis": [family("AFI_L2VPN")] }),
            "spec.afiSafis: [\"AFI_L2VPN/SAFI_UNICAST\"] must list",
        ),
        (
            json!({ "afiSafis": [family("AFI_IP"), family("AFI_IP")] }),
            "spec.afiSafis[1].config.family: AFI_IP is listed",
        ),
        (
            json!({ "conf": { "neighborAddress": "2001:db8::1%eth0" } }),
            "spec.conf.neighborAddress: \"2001:db8::1%eth0\" has an interface",
        ),
        (
            json!({ "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "Like" }] } }),
            "spec.nodeSelector.matchExpressions[0].operator: ",
        ),
    ] {
        let verdict = created(&members);
        assert!(
            verdict.denials.len() == 1 && verdict.denials[0].starts_with(message),
            "{message}: {verdict:?}"
        );
    }
}

#[test]
fn a_peer_without_conf_is_refused() {
    let empty = peer("new", &json!({}));
    assert_eq!(
        bgp_peer(&empty, None, &view()).denials,
        [
            "spec.conf.neighborAddress: must be the peer's address (or conf.neighborInterface the interface of a peer \
             without one)",
            "spec.conf.peerAs: must be the peer's AS number (or spec.dynamicAsn say internal or external)",
        ]
    );
}

#[test]
fn a_node_has_one_session_to_an_address() {
    let rack = |rack: &str| json!({ "matchLabels": { "rack": rack } });
    let same = json!({ "conf": { "neighborAddress": "192.0.2.254" }, "nodeSelector": rack("a") });
    assert_eq!(
        created(&same).denials,
        [
            "spec.conf.neighborAddress: 192.0.2.254 is the neighbour of BgpPeer other too, on node w1; narrow \
          spec.nodeSelector"
        ]
    );
    let everywhere = json!({ "conf": { "neighborAddress": "192.0.2.254" } });
    assert!(!created(&everywhere).is_accepted());
    let elsewhere =
        json!({ "conf": { "neighborAddress": "192.0.2.254" }, "nodeSelector": rack("b") });
    assert_eq!(created(&elsewhere), Verdict::default());
    let itself = peer("other", &spec(&everywhere));
    assert!(bgp_peer(&itself, None, &view()).is_accepted());
}

#[test]
fn what_works_but_surprises_is_a_warning() {
    for (members, message) in [
        (
            json!({ "conf": { "authPassword": "x" } }),
            "spec.conf.authPassword: can be read by everybody",
        ),
        (
            json!({ "conf": { "authPassword": "x" }, "passwordSecretRef": { "name": "bgp" } }),
            "spec.conf.authPassword: is ignored",
        ),
        (
            json!({ "conf": { "vrf": "red", "sendCommunity": 1 } }),
            "spec: without effect: conf.vrf, conf.sendCommunity",
        ),
        (
            json!({ "ebgpMultihop": { "multihopTtl": 5 } }),
            "spec.ebgpMultihop.multihopTtl: has no effect",
        ),
        (
            json!({ "timers": { "config": { "holdTime": "9", "keepaliveInterval": "4" } } }),
            "spec.timers.config.keepaliveInterval: 4 is more than a third",
        ),
        (
            json!({ "afiSafis": [{}, { "config": { "family": { "afi": "AFI_L2VPN", "safi": "SAFI_EVPN" } } }] }),
            "spec: without effect: afiSafis other than unicast of AFI_IP and AFI_IP6",
        ),
        (
            json!({ "bfd": { "enabled": true, "minimumTtl": 250 } }),
            "spec.bfd.minimumTtl: has no effect",
        ),
    ] {
        let verdict = created(&members);
        assert!(
            verdict.is_accepted()
                && verdict.warnings.len() == 1
                && verdict.warnings[0].starts_with(message),
            "{message}: {verdict:?}"
        );
    }
}

#[test]
fn metadata_can_always_be_written() {
    let broken = peer("new", &json!({}));
    assert_eq!(
        bgp_peer(&broken, Some(&broken), &view()),
        Verdict::default()
    );
}

#[test]
fn addresses_become_canonical_once() {
    let raw = spec(
        &json!({ "conf": { "neighborAddress": "2001:DB8::0:1" }, "sourceAddress": "2001:DB8::2" }),
    );
    let mut object = serde_json::to_value(peer("new", &raw)).unwrap();
    let complete =
        |object: &Value| complete_bgp_peer(&serde_json::from_value(object.clone()).unwrap(), None);
    for change in complete(&object) {
        change.apply(&mut object);
    }
    assert_eq!(object["spec"]["conf"]["neighborAddress"], "2001:db8::1");
    assert_eq!(object["spec"]["sourceAddress"], "2001:db8::2");
    assert_eq!(complete(&object), []);
}
