//! Cases for reservations.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{
    v1alpha2::{AddressHolder, Eip},
    validate::{EipFacts, Holding},
};

fn holder() -> AddressHolder {
    AddressHolder {
        namespace: "shop".into(),
        name: "web".into(),
        ..AddressHolder::default()
    }
}

fn view() -> View {
    let eip: Eip = Eip::new(
        "lan",
        serde_json::from_value(
            json!({ "address": "10.0.0.0/24,2001:db8::/64", "protocol": "layer2" }),
        )
        .unwrap(),
    );
    let mut view = View::default();
    view.change_eips(|eips| {
        eips.insert("lan".into(), Arc::new(EipFacts::try_from(&eip).unwrap()));
    });
    view.change_holdings(|holdings| {
        let holding = Holding {
            eip: "lan".into(),
            services: vec![holder()],
            ..Holding::default()
        };
        holdings.insert("10.0.0.9".parse().unwrap(), Arc::new(holding));
    });
    view
}

fn object(name: &str, spec: &Value) -> EipAddress {
    EipAddress::new(name, serde_json::from_value(spec.clone()).unwrap())
}

fn reservation(name: &str, address: &str) -> EipAddress {
    object(
        name,
        &json!({ "address": address, "eip": "lan", "reserved": true, "reservedFor": ["shop/*"] }),
    )
}

fn created(object: &EipAddress) -> Verdict {
    address(object, None, &view())
}

#[test]
fn a_reservation_of_a_free_address_is_accepted() {
    assert_eq!(
        created(&reservation("10.0.0.7", "10.0.0.7")),
        Verdict::default()
    );
    let v6 = reservation("2001-0db8-0000-0000-0000-0000-0000-0007", "2001:db8::7");
    assert_eq!(created(&v6), Verdict::default());
}

#[test]
fn a_reservation_that_cannot_be_is_refused_with_its_reason() {
    for (object, message) in [
        (
            reservation("x", "10.0.0.7"),
            "metadata.name: must be 10.0.0.7",
        ),
        (
            reservation("10.0.0.7", "ten"),
            "spec.address: \"ten\" is no IP address",
        ),
        (
            reservation("2001-0db8-0000-0000-0000-0000-0000-0007", "2001:DB8::7"),
            "spec.address: \"2001:DB8::7\" must be written as 2001:db8::7",
        ),
        (
            reservation("10.0.1.7", "10.0.1.7"),
            "spec.eip: 10.0.1.7 is not in Eip lan",
        ),
        (
            reservation("10.0.0.9", "10.0.0.9"),
            "spec.address: 10.0.0.9 is in use by shop/web",
        ),
        (
            object("10.0.0.7", &json!({ "address": "10.0.0.7", "eip": "lan" })),
            "spec.reserved: EipAddresses are made by the controller",
        ),
        (
            object(
                "10.0.0.7",
                &json!({ "address": "10.0.0.7", "eip": "wan", "reserved": true, "reservedFor": ["a/b"] }),
            ),
            "spec.eip: there is no Eip \"wan\"",
        ),
        (
            object(
                "10.0.0.7",
                &json!({ "address": "10.0.0.7", "eip": "lan", "reserved": true, "reservedFor": ["web"] }),
            ),
            "spec.reservedFor[0]: \"web\" must be namespace/name",
        ),
    ] {
        let verdict = created(&object);
        assert!(
            verdict
                .denials
                .iter()
                .any(|denial| denial.starts_with(message)),
            "{message}: {verdict:?}"
        );
    }
}

#[test]
fn a_reservation_for_nobody_is_a_warning() {
    let nobody = object(
        "10.0.0.7",
        &json!({ "address": "10.0.0.7", "eip": "lan", "reserved": true }),
    );
    assert_eq!(
        created(&nobody).warnings,
        ["spec.reservedFor: is empty, so no Service gets the address"]
    );
}

#[test]
fn a_reservation_is_completed_with_its_eip() {
    let raw = object(
        "2001-0db8-0000-0000-0000-0000-0000-0007",
        &json!({ "address": "2001:DB8::7", "reserved": true, "reservedFor": ["shop/*"] }),
    );
    let mut value = serde_json::to_value(&raw).unwrap();
    for change in complete_address(&raw, &view()) {
        change.apply(&mut value);
    }
    assert_eq!(value["spec"]["address"], "2001:db8::7");
    assert_eq!(value["spec"]["eip"], "lan");
    assert_eq!(value["spec"]["protocol"], "layer2");
    let complete: EipAddress = serde_json::from_value(value).unwrap();
    assert_eq!(complete_address(&complete, &view()), []);
    assert_eq!(created(&complete), Verdict::default());
}

#[test]
fn whom_a_reservation_is_for_may_change_and_nothing_else() {
    let old = reservation("10.0.0.7", "10.0.0.7");
    let mut new = old.clone();
    new.spec.reserved_for = vec!["other/web".into()];
    assert_eq!(address(&new, Some(&old), &view()), Verdict::default());
    new.spec.address = "10.0.0.8".into();
    assert!(address(&new, Some(&old), &view()).denials[0].contains("cannot be changed"));
    let mut ended = old.clone();
    ended.spec.reserved = false;
    assert!(
        address(&ended, Some(&old), &view()).denials[0].contains("delete the object to end it")
    );
}

#[test]
fn an_address_in_use_is_the_controllers() {
    let mut old = object("10.0.0.9", &json!({ "address": "10.0.0.9", "eip": "lan" }));
    old.spec.services.push(holder());
    let mut new = old.clone();
    new.spec.services.clear();
    assert!(address(&new, Some(&old), &view()).in_use);
    let mut labelled = old.clone();
    labelled.labels_mut().insert("a".into(), "b".into());
    assert_eq!(address(&labelled, Some(&old), &view()), Verdict::default());
    let verdict = address_deletion(&old);
    assert!(
        verdict.denials[0].starts_with("10.0.0.9 is in use by shop/web; "),
        "{verdict:?}"
    );
    old.annotations_mut()
        .insert(keys::FORCE_DELETE.into(), "true".into());
    assert_eq!(address_deletion(&old), Verdict::default());
    assert_eq!(
        address_deletion(&reservation("10.0.0.7", "10.0.0.7")),
        Verdict::default()
    );
}
