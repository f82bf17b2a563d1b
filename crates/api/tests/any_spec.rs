//! Objects of the right form with anything in their fields: nothing panics, what is said names a field, and completing
//! an object twice changes nothing more.

// The functions beside the tests are part of them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use openelb_api::bgp::{PathAttributes, Peer, Speaker, ignored};
use openelb_api::crd::crds;
use openelb_api::v1alpha2::{BgpConf, BgpPeer, Eip, EipAddress};
use openelb_api::validate::{self, Change, Verdict, View};
use openelb_api::{Invalid, Pool};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Text that is, or nearly is, what some field holds.
fn text() -> BoxedStrategy<String> {
    let near = prop::sample::select(vec![
        "",
        " ",
        "0",
        "3",
        "65535",
        "65536",
        "-1",
        "4294967296",
        "99999999999999999999",
        "10.0.0.1",
        "10.0.0.0/24",
        "10.0.0.9-10.0.0.1",
        "0.0.0.0/0",
        "::/0",
        "::ffff:10.0.0.1",
        "2001:DB8::1",
        "fe80::1%eth0",
        "fe80::1",
        "224.0.0.1",
        "eth*",
        "can_reach:10.0.0.1",
        "AFI_IP",
        "AFI_IP6",
        "SAFI_UNICAST",
        "AFI_LS",
        "NONE",
        "ALL",
        "internal",
        "rt:65000:1",
        "soo:10.0.0.1:70000",
        "65000:100",
        "65000:1:2",
        "no-export",
        "0x0002fde800000064",
        "In",
        "Exists",
        "shop/web",
        "shop/*",
    ]);
    prop_oneof![
        6 => near.prop_map(str::to_owned),
        3 => "[0-9a-f:./,% -]{0,24}",
        1 => "(rt|soo|0x|AFI_|SAFI_)?[0-9:.]{0,16}",
        1 => any::<String>(),
    ]
    .boxed()
}

fn number() -> BoxedStrategy<i64> {
    let near = prop::sample::select(vec![
        i64::MIN,
        -1,
        0,
        1,
        2,
        23,
        32,
        128,
        254,
        255,
        256,
        23456,
        65535,
        65536,
        4_294_967_295,
        4_294_967_296,
        i64::MAX,
    ]);
    prop_oneof![4 => near, 1 => any::<i64>()].boxed()
}

/// Values of a schema, with any of the fields left out.
fn value(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(values) = schema["enum"].as_array() {
        return prop::sample::select(values.clone()).boxed();
    }
    match schema["type"].as_str() {
        Some("object") if schema["additionalProperties"].is_object() => {
            let entry = (text(), value(&schema["additionalProperties"]));
            prop::collection::vec(entry, 0..3)
                .prop_map(|entries| Value::Object(entries.into_iter().collect()))
                .boxed()
        }
        Some("object") => fields(schema),
        Some("array") => prop::collection::vec(value(&schema["items"]), 0..4)
            .prop_map(Value::from)
            .boxed(),
        Some("integer") if schema["format"] == "int32" => {
            any::<i32>().prop_map(Value::from).boxed()
        }
        Some("integer") => number().prop_map(Value::from).boxed(),
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        Some("string") if schema["format"] == "date-time" => {
            Just(json!("2024-01-02T03:04:05Z")).boxed()
        }
        _ => text().prop_map(Value::from).boxed(),
    }
}

fn fields(schema: &Value) -> BoxedStrategy<Value> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let mut whole = Just(Map::new()).boxed();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let name = name.clone();
        let some = value(field);
        let maybe = if required.contains(&json!(name)) {
            some.prop_map(Some).boxed()
        } else {
            prop::option::of(some).boxed()
        };
        whole = (whole, maybe)
            .prop_map(move |(mut whole, field)| {
                if let Some(field) = field {
                    whole.insert(name.clone(), field);
                }
                whole
            })
            .boxed();
    }
    whole.prop_map(Value::Object).boxed()
}

/// Objects of a kind with any spec that has the form of its definition.
fn objects(kind: &'static str) -> BoxedStrategy<Value> {
    let crd = crds()
        .into_iter()
        .find(|crd| crd["spec"]["names"]["kind"] == kind)
        .unwrap();
    let version = crd["spec"]["versions"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
    fields(spec)
        .prop_map(move |spec| {
            json!({
                "apiVersion": "network.kubesphere.io/v1alpha2", "kind": kind,
                "metadata": {"name": "default"}, "spec": spec,
            })
        })
        .boxed()
}

fn named(invalid: &Invalid) {
    for error in invalid.errors() {
        assert!(error.to_string().starts_with("spec."), "{error}");
    }
}

/// A denial names a field, and tells the value or what is allowed.
fn said(verdict: &Verdict) {
    for text in verdict.denials.iter().chain(&verdict.warnings) {
        let (path, reason) = text.split_once(": ").unwrap_or_else(|| panic!("{text}"));
        assert!(!reason.is_empty(), "{text}");
        assert!(
            path == "spec" || path.starts_with("spec.") || path.starts_with("metadata."),
            "{text}"
        );
    }
}

fn applied(mut object: Value, changes: &[Change]) -> Value {
    for change in changes {
        change.apply(&mut object);
    }
    object
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(512)
    })]

    #[test]
    fn any_eip_is_used_or_told_why_not(object in objects("Eip")) {
        let eip: Eip = serde_json::from_value(object.clone()).unwrap();
        let pool = Pool::try_from(&eip);
        if let Err(invalid) = &pool {
            named(invalid);
        }
        if let Some(Err(invalid)) = eip.spec.bgp.as_ref().map(PathAttributes::try_from) {
            named(&invalid);
        }
        let verdict = validate::eip(&eip, None, &View::default());
        if pool.is_err() {
            prop_assert!(!verdict.is_accepted(), "{:?}", pool);
        }
        prop_assert!(ignored::of_eip(&eip.spec).len() <= 1);
        let object = applied(object, &validate::complete_eip(&eip, None));
        let completed: Eip = serde_json::from_value(object).unwrap();
        prop_assert_eq!(validate::complete_eip(&completed, None), []);
    }

    #[test]
    fn any_peer_is_used_or_told_why_not(object in objects("BgpPeer")) {
        let peer: BgpPeer = serde_json::from_value(object.clone()).unwrap();
        let read = Peer::try_from(&peer);
        if let Err(invalid) = &read {
            named(invalid);
        }
        let verdict = validate::bgp_peer(&peer, None, &View::default());
        said(&verdict);
        if read.is_err() {
            prop_assert!(!verdict.is_accepted());
        }
        let named = ignored::of_peer(&peer.spec);
        let told = verdict.warnings.iter().any(|text| text.starts_with("spec: without effect: "));
        prop_assert_eq!(told, !named.is_empty());
        let object = applied(object, &validate::complete_bgp_peer(&peer, None));
        let completed: BgpPeer = serde_json::from_value(object).unwrap();
        prop_assert_eq!(validate::complete_bgp_peer(&completed, None), []);
    }

    #[test]
    fn any_configuration_is_used_or_told_why_not(object in objects("BgpConf")) {
        let conf: BgpConf = serde_json::from_value(object.clone()).unwrap();
        let read = Speaker::try_from(&conf);
        if let Err(invalid) = &read {
            named(invalid);
        }
        let verdict = validate::bgp_conf(&conf, None);
        said(&verdict);
        if read.is_err() {
            prop_assert!(!verdict.is_accepted());
        }
        let object = applied(object, &validate::complete_bgp_conf(&conf, None));
        let completed: BgpConf = serde_json::from_value(object).unwrap();
        prop_assert_eq!(validate::complete_bgp_conf(&completed, None), []);
    }

    #[test]
    fn any_reservation_is_taken_or_told_why_not(object in objects("EipAddress")) {
        let record: EipAddress = serde_json::from_value(object).unwrap();
        said(&validate::address(&record, None, &View::default()));
    }
}
