//! No bytes make a review fail otherwise than in words, and every answer is one that an API server reads.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may panic as the test itself"
)]

use std::sync::Arc;

use openelb_api::{
    Labels,
    bgp::Neighbor,
    keys,
    v1alpha2::{AddressHolder, Eip, EipSpec, HolderPort, Sharing},
    validate::{EipFacts, Holding, NodeFacts, PeerFacts, View},
};
use openelb_webhook::{
    admit::Admission,
    review::{Phase, read},
    server::routes::review,
    view::Known,
};
use serde_json::{Value, json};

const PHASES: [Phase; 3] = [Phase::Mutate, Phase::MutateAsked, Phase::Validate];

/// Knows something of everything that rules compare with.
fn admission() -> Admission {
    let mut view = View::default();
    view.change_eips(|eips| {
        for (name, address, sharing) in [
            ("lan", "192.0.2.0/24", Sharing::SameNamespace),
            ("v6", "2001:db8::/64", Sharing::AnyNamespace),
            ("own", "198.51.100.0/24", Sharing::Never),
        ] {
            let mut eip = Eip::new(
                name,
                EipSpec {
                    address: address.into(),
                    sharing: Some(sharing),
                    ..EipSpec::default()
                },
            );
            let annotations = (name == "own").then(|| (keys::DEFAULT_EIP.into(), "true".into()));
            eip.metadata.annotations = Some(annotations.into_iter().collect());
            eips.insert(name.into(), Arc::new(EipFacts::try_from(&eip).unwrap()));
        }
    });
    view.change_holdings(|holdings| {
        for (address, eip) in [
            ("192.0.2.1", "lan"),
            ("192.0.2.200", "lan"),
            ("2001:db8::1", "v6"),
            ("198.51.100.1", "own"),
        ] {
            let mail = AddressHolder {
                namespace: "shop".into(),
                name: "mail".into(),
                ports: vec![HolderPort {
                    protocol: "TCP".into(),
                    port: 80,
                }],
                local: eip == "v6",
                requested: true,
                ..AddressHolder::default()
            };
            let held = Holding {
                eip: eip.into(),
                services: vec![mail],
                ..Holding::default()
            };
            holdings.insert(address.parse().unwrap(), Arc::new(held));
        }
        let reserved = Holding {
            eip: "lan".into(),
            is_reserved: true,
            reserved_for: vec!["shop/*".into()],
            ..Holding::default()
        };
        holdings.insert("192.0.2.2".parse().unwrap(), Arc::new(reserved));
    });
    view.change_nodes(|nodes| {
        let node = NodeFacts {
            addresses: vec!["192.0.2.9".parse().unwrap()],
            ..NodeFacts::default()
        };
        nodes.insert("worker".into(), node);
    });
    view.change_peers(|peers| {
        let router = PeerFacts {
            neighbor: Neighbor::Address("203.0.113.1".parse().unwrap()),
            nodes: Labels::default(),
        };
        peers.insert("router".into(), router);
    });
    view.local_as = Some(65000);
    let known = Known::default();
    known.publish(view);
    Admission {
        known,
        inject: true,
        address_writers: Vec::new(),
    }
}

/// The inputs of the fuzz target reach the rules that compare, not only those that read.
#[test]
fn the_view_has_something_to_compare_with() {
    let admission = admission();
    let mut said = String::new();
    for (kind, operation, name, address) in [
        ("Service", "CREATE", "web", "192.0.2.1"),
        ("Service", "CREATE", "web", "198.51.100.1"),
        ("Eip", "DELETE", "lan", "192.0.2.0/24"),
        ("Eip", "UPDATE", "lan", "192.0.2.0/25"),
        ("BgpPeer", "CREATE", "new", ""),
    ] {
        let group = if kind == "Service" {
            ""
        } else {
            "network.kubesphere.io"
        };
        let version = if kind == "Service" { "v1" } else { "v1alpha2" };
        let object = json!({
            "metadata": {
                "name": name, "namespace": "shop",
                "annotations": {
                    "lb.kubesphere.io/v1alpha1": "openelb", "eip.openelb.kubesphere.io/v1alpha1": address,
                },
            },
            "spec": {
                "type": "LoadBalancer", "ports": [{ "port": 80 }], "address": address,
                "conf": { "neighborAddress": "203.0.113.1", "peerAs": 65001 },
            },
        });
        let mut old = object.clone();
        old["spec"]["address"] = json!("192.0.2.0/24");
        let old = if operation == "CREATE" {
            Value::Null
        } else {
            old
        };
        let review_of = json!({ "request": {
            "uid": "u", "kind": { "group": group, "version": version, "kind": kind },
            "operation": operation, "object": object, "oldObject": old,
        } });
        let (answer, _) = review(
            &admission,
            Phase::Validate,
            review_of.to_string().as_bytes(),
        )
        .unwrap();
        said += &answer["response"]["status"]["message"].to_string();
    }
    for part in [
        "exposes port 80/TCP too",
        "lets nobody share an address",
        "Eip lan is in use",
        "would fall out: 192.0.2.200 by shop/mail",
        "is the neighbour of BgpPeer router too",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

/// Asks in every phase, and checks the form of the answers.
fn ask(admission: &Admission, bytes: &[u8]) {
    let readable = read(bytes);
    for phase in PHASES {
        match (review(admission, phase, bytes), &readable) {
            (Ok((answer, _)), Ok(request)) => {
                let response = &answer["response"];
                assert_eq!(response["uid"], request.uid.as_str());
                assert!(response["allowed"].is_boolean());
                if response["allowed"] == false {
                    assert!(!response["status"]["message"].as_str().unwrap().is_empty());
                }
                let warnings = response["warnings"].as_array().map_or(0, Vec::len);
                assert!(warnings <= 15);
            }
            (Err(error), Err(_)) => assert!(!error.to_string().is_empty()),
            (answer, readable) => panic!("{answer:?} for {readable:?}"),
        }
    }
}

#[test]
fn any_bytes() {
    let admission = admission();
    bolero::check!().for_each(|bytes: &[u8]| ask(&admission, bytes));
}

/// Reviews that are right in form, with any text in any place and values of any type.
#[test]
fn any_values_in_a_review() {
    let kinds = ["Eip", "EipAddress", "BgpConf", "BgpPeer", "Service", "Pod"];
    let fields = [
        "address",
        "eip",
        "exclude",
        "interface",
        "protocol",
        "as",
        "routerId",
        "families",
        "conf",
        "timers",
        "bfd",
        "loadBalancerIP",
        "ipFamilies",
        "nodeSelector",
        "namespaces",
        "reservedFor",
        "services",
        "type",
    ];
    let admission = admission();
    // What there is to meet: names, addresses in use, and whatever else comes.
    let names = ["lan", "v6", "own", "router", "192.0.2.2", "mail"];
    let addresses = [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.1,2001:db8::1",
        "198.51.100.1",
        "192.0.2.9",
    ];
    bolero::check!().with_type::<(u8, u8, u8, u8, String, Vec<i64>, bool)>().for_each(
        |(kind, field, form, known, text, numbers, old)| {
            let known = usize::from(*known);
            let name = names.get(known % 8).map_or(text.as_str(), |name| *name);
            let asked = addresses.get(known / 8 % 8).map_or(text.as_str(), |address| *address);
            let kind = kinds[usize::from(*kind) % kinds.len()];
            let field = fields[usize::from(*field) % fields.len()];
            let value = match form % 6 {
                0 => json!(text),
                1 => json!(numbers),
                2 => json!([text, text]),
                3 => json!({
                    "neighborAddress": if *old { "203.0.113.1" } else { text },
                    "peerAs": numbers.first().unwrap_or(&65000), "config": { "holdTime": text }, "enabled": old,
                    "removePrivateAs": "ALL", "replacePeerAs": old,
                }),
                4 => json!(numbers.first()),
                _ => json!(old),
            };
            let mut spec = json!({
                "address": if *old { asked } else { "192.0.2.0/25" }, "type": "LoadBalancer",
                "ports": [{ "port": if *old { 80 } else { 25 } }], "reserved": true,
            });
            let mut before = spec.clone();
            before["address"] = json!("192.0.2.0/24");
            spec[field] = value;
            let object = json!({
                "metadata": {
                    "name": name, "namespace": if known % 2 == 0 { "shop" } else { "other" },
                    "annotations": {
                        "lb.kubesphere.io/v1alpha1": "openelb",
                        "eip.openelb.kubesphere.io/v1alpha1": asked,
                        "eip.openelb.kubesphere.io/is-default-eip": "true",
                    },
                },
                "spec": spec, "status": { "used": { text: "shop/web", "192.0.2.3": text } },
            });
            let mut previous = object.clone();
            previous["spec"] = before;
            let (group, version) =
                if kind == "Service" { ("", "v1") } else { ("network.kubesphere.io", "v1alpha2") };
            for operation in ["CREATE", "UPDATE", "DELETE", "CONNECT"] {
                let review = json!({
                    "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                    "request": {
                        "uid": "u", "kind": { "group": group, "version": version, "kind": kind },
                        "operation": operation, "object": object,
                        "oldObject": if *old || operation == "DELETE" { previous.clone() } else { Value::Null },
                    },
                });
                ask(&admission, review.to_string().as_bytes());
            }
        },
    );
}
