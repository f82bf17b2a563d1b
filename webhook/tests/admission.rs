//! From a review's JSON to the answer's: dispatch, leniency, patches. The rules have their own tests.

#![allow(
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests: they may panic, and take what json! makes"
)]

use std::sync::Arc;

use openelb_api::{
    v1alpha2::{Eip, EipSpec},
    validate::{EipFacts, View},
};
use openelb_webhook::{admit::Admission, review::Phase, server::routes::review, view::Known};
use serde_json::{Value, json};

const WRITER: &str = "system:serviceaccount:openelb-system:openelb-controller";

fn admission() -> Admission {
    let mut view = View::default();
    view.change_eips(|eips| {
        let lan = EipSpec {
            address: "192.0.2.0/28".into(),
            ..EipSpec::default()
        };
        let facts = EipFacts::try_from(&Eip::new("lan", lan)).unwrap();
        eips.insert("lan".into(), Arc::new(facts));
    });
    let known = Known::default();
    known.publish(view);
    Admission {
        known,
        inject: true,
        address_writers: vec![WRITER.to_owned()],
    }
}

/// A review of a creation, with members replaced.
fn request(kind: &str, object: Value, members: Value) -> Value {
    let (group, version) = if kind == "Service" {
        ("", "v1")
    } else {
        ("network.kubesphere.io", "v1alpha2")
    };
    let mut request = json!({
        "uid": "u", "operation": "CREATE", "userInfo": { "username": "me" },
        "kind": { "group": group, "version": version, "kind": kind }, "object": object,
    });
    for (name, value) in members.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

fn answer(phase: Phase, request: &Value) -> Value {
    let question = json!({ "apiVersion": "admission.k8s.io/v1", "request": request });
    let (answer, _) = review(&admission(), phase, question.to_string().as_bytes()).unwrap();
    answer["response"].clone()
}

fn eip(spec: &Value) -> Value {
    json!({ "metadata": { "name": "new" }, "spec": spec })
}

#[test]
fn a_wrong_type_is_a_denial_that_names_the_field() {
    for (spec, start) in [
        (
            json!({ "address": 5 }),
            "spec.address: invalid type: integer `5`",
        ),
        (
            json!({ "address": "10.0.0.1", "disable": "yes" }),
            "spec.disable: invalid type: string",
        ),
        (
            json!({ "address": "10.0.0.1", "protocol": "ospf" }),
            "spec.protocol: unknown variant `ospf`",
        ),
        (json!("lan"), "spec: invalid type: string"),
    ] {
        let answer = answer(Phase::Validate, &request("Eip", eip(&spec), json!({})));
        let message = answer["status"]["message"].as_str().unwrap();
        assert!(message.starts_with(start), "{message}");
        assert_eq!(answer["status"]["code"], 422);
    }
}

#[test]
fn an_object_that_cannot_be_read_any_more_keeps_its_finalizers_writable() {
    let old = eip(&json!({ "address": 5 }));
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!([]);
    let update = json!({ "operation": "UPDATE", "oldObject": old });
    assert_eq!(
        answer(Phase::Validate, &request("Eip", new, update))["allowed"],
        true
    );
}

#[test]
fn unknown_kinds_pass_with_a_remark_and_unknown_versions_of_ours_do_not() {
    let pod = json!({ "kind": { "group": "", "version": "v1", "kind": "Pod" } });
    let passed = answer(Phase::Validate, &request("Pod", json!({}), pod));
    assert_eq!(passed["allowed"], true);
    assert_eq!(
        passed["warnings"],
        json!(["openelb-webhook has no rules for Pod (v1)"])
    );
    let future =
        json!({ "kind": { "group": "network.kubesphere.io", "version": "v9", "kind": "Eip" } });
    let refused = answer(Phase::Validate, &request("Eip", json!({}), future));
    assert_eq!(
        refused["status"]["message"],
        "Eip (network.kubesphere.io/v9) is not a version that openelb-webhook knows; use v1alpha2"
    );
}

#[test]
fn the_ledger_is_the_controllers_to_write() {
    let object = json!({
        "metadata": { "name": "192.0.2.1" }, "spec": { "address": "192.0.2.1", "eip": "lan" },
    });
    let by_hand = request("EipAddress", object.clone(), json!({}));
    assert_eq!(answer(Phase::Validate, &by_hand)["allowed"], false);
    let by_us = request(
        "EipAddress",
        object,
        json!({ "userInfo": { "username": WRITER } }),
    );
    assert_eq!(answer(Phase::Validate, &by_us)["allowed"], true);
}

#[test]
fn status_and_other_sub_resources_are_not_looked_at() {
    let status = request(
        "Eip",
        eip(&json!({ "address": "x" })),
        json!({ "subResource": "status" }),
    );
    assert_eq!(answer(Phase::Validate, &status)["allowed"], true);
}

#[test]
fn a_patch_says_only_what_changes_and_is_left_out_where_nothing_does() {
    let patch = |spec: &Value| {
        let answer = answer(Phase::Mutate, &request("Eip", eip(spec), json!({})));
        let patch = answer.get("patch")?.clone();
        let bytes: k8s_openapi::ByteString = serde_json::from_value(patch).unwrap();
        Some(serde_json::from_slice::<Value>(&bytes.0).unwrap())
    };
    assert_eq!(
        patch(&json!({ "address": "10.0.0.1" })),
        Some(json!([{ "op": "add", "path": "/spec/protocol", "value": "bgp" }]))
    );
    assert_eq!(
        patch(&json!({ "address": "10.0.0.1", "protocol": "layer2" })),
        None
    );
    // What the rules will refuse is not touched before.
    assert_eq!(patch(&json!({ "address": 5 })), None);
}

#[test]
fn a_deletion_is_judged_by_the_object_as_it_is() {
    let mut old = eip(&json!({ "address": "10.0.0.0/24" }));
    old["status"] = json!({ "used": { "10.0.0.1": "shop/web" } });
    let delete = json!({ "operation": "DELETE", "oldObject": old, "object": null });
    let refused = answer(Phase::Validate, &request("Eip", Value::Null, delete));
    assert_eq!(refused["status"]["code"], 403);
    assert!(
        refused["status"]["message"]
            .as_str()
            .unwrap()
            .contains("10.0.0.1 by shop/web")
    );
}
