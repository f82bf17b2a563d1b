//! No bytes make a review fail otherwise than in words, and every answer is one that an API server reads.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may panic as the test itself"
)]

use std::sync::Arc;

use openelb_api::{
    v1alpha2::{Eip, EipSpec},
    validate::{EipFacts, View},
};
use openelb_webhook::{
    admit::Admission,
    review::{Phase, read},
    server::routes::review,
    view::Known,
};
use serde_json::{Value, json};

const PHASES: [Phase; 3] = [Phase::Mutate, Phase::MutateAsked, Phase::Validate];

fn admission() -> Admission {
    let mut view = View::default();
    view.change_eips(|eips| {
        for (name, address) in [("lan", "192.0.2.0/24"), ("v6", "2001:db8::/64")] {
            let eip = Eip::new(
                name,
                EipSpec {
                    address: address.into(),
                    ..EipSpec::default()
                },
            );
            eips.insert(name.into(), Arc::new(EipFacts::try_from(&eip).unwrap()));
        }
    });
    let known = Known::default();
    known.publish(view);
    Admission {
        known,
        inject: true,
        address_writers: Vec::new(),
    }
}

/// Asks in both phases, and checks the form of the answers.
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
    bolero::check!().with_type::<(u8, u8, u8, String, Vec<i64>, bool)>().for_each(
        |(kind, field, form, text, numbers, old)| {
            let kind = kinds[usize::from(*kind) % kinds.len()];
            let field = fields[usize::from(*field) % fields.len()];
            let value = match form % 6 {
                0 => json!(text),
                1 => json!(numbers),
                2 => json!([text, text]),
                3 => json!({ "neighborAddress": text, "config": { "holdTime": text }, "enabled": old }),
                4 => json!(numbers.first()),
                _ => json!(old),
            };
            let mut spec = json!({ "address": "192.0.2.0/25", "type": "LoadBalancer" });
            spec[field] = value;
            let object = json!({
                "metadata": {
                    "name": text,
                    "annotations": {
                        "lb.kubesphere.io/v1alpha1": "openelb",
                        "eip.openelb.kubesphere.io/v1alpha1": text,
                    },
                },
                "spec": spec,
            });
            let (group, version) =
                if kind == "Service" { ("", "v1") } else { ("network.kubesphere.io", "v1alpha2") };
            for operation in ["CREATE", "UPDATE", "DELETE", "CONNECT"] {
                let review = json!({
                    "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                    "request": {
                        "uid": "u", "kind": { "group": group, "version": version, "kind": kind },
                        "operation": operation, "object": object,
                        "oldObject": if *old { object.clone() } else { Value::Null },
                    },
                });
                ask(&admission, review.to_string().as_bytes());
            }
        },
    );
}
