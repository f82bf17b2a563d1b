//! Cases for Eips, OpenELB's own among them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{
    v1alpha2::{AddressHolder, EipStatus},
    validate::{Holding, NodeFacts},
};

fn pool(name: &str, spec: Value) -> Eip {
    Eip::new(name, serde_json::from_value(spec).unwrap())
}

fn default_pool(name: &str, address: &str) -> Eip {
    let mut eip = pool(name, json!({ "address": address }));
    eip.annotations_mut()
        .insert(keys::DEFAULT_EIP.to_owned(), "true".to_owned());
    eip
}

fn view(eips: &[&Eip], used: &[(&str, &str, &str)]) -> View {
    let mut view = View::default();
    view.change_eips(|known| {
        for eip in eips {
            let facts = EipFacts::try_from(*eip).unwrap();
            known.insert(eip.name_any(), Arc::new(facts));
        }
    });
    view.change_holdings(|known| {
        for (address, eip, service) in used {
            let holder = AddressHolder {
                namespace: "shop".into(),
                name: (*service).into(),
                ..AddressHolder::default()
            };
            let holding = Holding {
                eip: (*eip).into(),
                services: vec![holder],
                ..Holding::default()
            };
            known.insert(address.parse().unwrap(), Arc::new(holding));
        }
    });
    view
}

fn created(spec: Value) -> Verdict {
    eip(&pool("new", spec), None, &View::default())
}

#[test]
fn every_form_of_address_is_accepted() {
    for address in [
        "192.168.0.1",
        "192.168.0.0/24",
        "192.168.0.1-192.168.0.100",
        "192.168.0.1 - 192.168.0.100, 2001:db8::/64",
    ] {
        assert_eq!(
            created(json!({ "address": address })),
            Verdict::default(),
            "{address}"
        );
    }
}

#[test]
fn what_is_no_address_is_refused_with_its_reason() {
    for (address, reason) in [
        ("192.168.0.100-192.168.0.1", "below its start"),
        ("xxxx", "no IP address"),
        ("192.168.0.1-192.168.0.2-192.168.0.3", "no IP address"),
        ("192.168.0.1,", "is empty"),
        ("192.168.0.0/33", "33"),
        ("", "at least one address"),
    ] {
        let verdict = created(json!({ "address": address }));
        assert_eq!(verdict.denials.len(), 1, "{address}: {verdict:?}");
        assert!(
            verdict.denials[0].starts_with("spec.address: "),
            "{verdict:?}"
        );
        assert!(verdict.denials[0].contains(reason), "{verdict:?}");
    }
}

#[test]
fn overlapping_eips_are_refused_and_neighbours_are_not() {
    let first = pool("first", json!({ "address": "192.168.0.100-192.168.0.200" }));
    let view = view(&[&first], &[]);
    let check = |address: &str| eip(&pool("new", json!({ "address": address })), None, &view);
    for address in [
        "192.168.0.1-192.168.0.99",
        "192.168.0.201-192.168.0.250",
        "2001:db8::/64",
    ] {
        assert_eq!(check(address), Verdict::default(), "{address}");
    }
    for (address, shared) in [
        ("192.168.0.1-192.168.0.100", "192.168.0.100"),
        ("192.168.0.200-192.168.0.250", "192.168.0.200"),
        ("192.168.0.0/24", "192.168.0.100-192.168.0.200"),
    ] {
        assert_eq!(
            check(address).denials,
            [format!(
                "spec.address: eip address overlap with first: both have {shared}; an address can belong to one \
                 Eip only"
            )]
        );
    }
}

#[test]
fn excluded_addresses_do_not_overlap() {
    let first = pool(
        "first",
        json!({ "address": "10.0.0.0/24", "exclude": ["10.0.0.128/25"] }),
    );
    let upper = pool(
        "upper",
        json!({ "address": "10.0.0.0/24", "exclude": ["10.0.0.0/25"] }),
    );
    assert_eq!(eip(&upper, None, &view(&[&first], &[])), Verdict::default());
}

#[test]
fn an_overlap_that_slipped_past_does_not_block_other_edits() {
    let (one, two) = (
        pool("one", json!({ "address": "10.0.0.0/24" })),
        pool("two", json!({ "address": "10.0.0.128/25" })),
    );
    let view = view(&[&one, &two], &[]);
    let disabled = pool(
        "two",
        json!({ "address": "10.0.0.128/25", "disable": true }),
    );
    assert!(eip(&disabled, Some(&two), &view).is_accepted());
    let smaller = pool("one", json!({ "address": "10.0.0.0/25" }));
    assert!(eip(&smaller, Some(&one), &view).is_accepted());
}

#[test]
fn there_is_one_default() {
    let first = default_pool("first", "10.0.0.1");
    let view = view(&[&first], &[]);
    let second = default_pool("second", "10.0.0.2");
    assert_eq!(
        eip(&second, None, &view).denials,
        [
            "metadata.annotations[eip.openelb.kubesphere.io/is-default-eip]: already exists a default EIP: first; \
          take its annotation off first"
        ]
    );
    let plain = pool("second", json!({ "address": "10.0.0.2" }));
    assert!(!eip(&second, Some(&plain), &view).is_accepted());
    // Two that slipped past can both still be edited.
    assert!(eip(&second, Some(&second), &view).is_accepted());
    assert!(
        eip(
            &first,
            Some(&pool("first", json!({ "address": "10.0.0.1" }))),
            &view
        )
        .is_accepted()
    );
}

#[test]
fn a_pool_may_grow_and_shrink_as_long_as_nothing_in_use_falls_out() {
    let old = pool("lan", json!({ "address": "10.0.0.0/24" }));
    let view = view(
        &[&old],
        &[("10.0.0.9", "lan", "web"), ("10.0.0.200", "lan", "mail")],
    );
    let edit = |spec: Value| eip(&pool("lan", spec), Some(&old), &view);
    assert_eq!(
        edit(json!({ "address": "10.0.0.0/23" })),
        Verdict::default()
    );
    assert_eq!(
        edit(json!({ "address": "10.0.0.9,10.0.0.200" })),
        Verdict::default()
    );
    let lost =
        "spec.address: these addresses are in use and would fall out: 10.0.0.200 by shop/mail; ";
    for spec in [
        json!({ "address": "10.0.0.0/25" }),
        json!({ "address": "10.0.0.0/24", "exclude": ["10.0.0.128/25"] }),
    ] {
        let verdict = edit(spec);
        assert!(verdict.denials[0].starts_with(lost), "{verdict:?}");
    }
    let moved = edit(json!({ "address": "10.0.0.0/25", "onAddressRemoved": "Reassign" }));
    assert!(moved.is_accepted());
    assert!(moved.warnings[0].contains("10.0.0.200 by shop/mail"));
}

#[test]
fn without_a_ledger_what_openelb_noted_counts() {
    let mut old = pool("lan", json!({ "address": "10.0.0.0/24" }));
    let used = [("10.0.0.200".to_owned(), "a/b;c/d".to_owned())].into();
    old.status = Some(EipStatus {
        used,
        ..EipStatus::default()
    });
    let new = pool("lan", json!({ "address": "10.0.0.0/25" }));
    let verdict = eip(&new, Some(&old), &view(&[&old], &[]));
    assert!(
        verdict.denials[0].contains("10.0.0.200 by a/b, c/d"),
        "{verdict:?}"
    );
    // One address of the ledger, such as a reservation made by hand, does not hide the others.
    let mut known = view(&[&old], &[("10.0.0.201", "lan", "mail")]);
    known.change_holdings(|known| {
        let reservation = Holding {
            eip: "lan".into(),
            is_reserved: true,
            ..Holding::default()
        };
        known.insert("10.0.0.9".parse().unwrap(), Arc::new(reservation));
    });
    let both = "10.0.0.200 by a/b, c/d, 10.0.0.201 by shop/mail";
    let verdict = eip(&new, Some(&old), &known);
    assert!(verdict.denials[0].contains(both), "{verdict:?}");
    assert!(eip_deletion(&old, &known).denials[0].contains(both));

    // A status that our controller made from the ledger says nothing that the ledger does not.
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "Ready", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    old.status.as_mut().unwrap().conditions = vec![serde_json::from_value(ready).unwrap()];
    assert!(eip_deletion(&old, &view(&[&old], &[])).is_accepted());
}

#[test]
fn an_eip_in_use_is_deleted_only_by_force() {
    let mut old = pool("lan", json!({ "address": "10.0.0.0/24" }));
    let used: Vec<(String, String)> = (1..=7)
        .map(|n| (format!("10.0.0.{n}"), format!("web{n}")))
        .collect();
    let used: Vec<(&str, &str, &str)> = used
        .iter()
        .map(|(ip, name)| (ip.as_str(), "lan", name.as_str()))
        .collect();
    let view = view(&[&old], &used);
    let verdict = eip_deletion(&old, &view);
    assert!(verdict.in_use);
    assert!(
        verdict.denials[0].starts_with("Eip lan is in use: 10.0.0.1 by shop/web1, ")
            && verdict.denials[0].contains("and 2 more; ")
            && verdict.denials[0].contains("openelb.kubesphere.io/force-delete=true"),
        "{verdict:?}"
    );
    assert!(eip_deletion(&pool("idle", json!({ "address": "10.1.0.0/24" })), &view).is_accepted());
    old.annotations_mut()
        .insert(keys::FORCE_DELETE.to_owned(), "true".to_owned());
    assert!(eip_deletion(&old, &view).is_accepted());
}

#[test]
fn finalizers_and_metadata_can_always_be_written() {
    let old = pool("lan", json!({ "address": "nonsense", "interface": "lo" }));
    let mut new = old.clone();
    new.metadata.finalizers = Some(vec!["example.com/f".into()]);
    assert_eq!(eip(&new, Some(&old), &View::default()), Verdict::default());
    let mut deleting = pool("lan", json!({ "address": "other nonsense" }));
    deleting.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert_eq!(
        eip(&deleting, Some(&old), &View::default()),
        Verdict::default()
    );
}

#[test]
fn fields_are_checked() {
    for (spec, path) in [
        (
            json!({ "address": "10.0.0.1", "interface": "haha:hahah" }),
            "spec.interface: ",
        ),
        (
            json!({ "address": "10.0.0.1", "namespaces": ["Shop"] }),
            "spec.namespaces[0]: ",
        ),
        (
            json!({ "address": "10.0.0.1", "exclude": ["x"] }),
            "spec.exclude[0]: ",
        ),
        (
            json!({ "address": "10.0.0.1", "announceInterval": -1 }),
            "spec.announceInterval: ",
        ),
        (
            json!({ "address": "10.0.0.1", "bgp": { "aggregationLength": 33 } }),
            "spec.bgp.aggregationLength: ",
        ),
        (
            json!({ "address": "10.0.0.1", "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "Is" }] } }),
            "spec.nodeSelector.matchExpressions[0].operator: ",
        ),
    ] {
        let verdict = created(spec);
        assert!(
            verdict.denials.len() == 1 && verdict.denials[0].starts_with(path),
            "{verdict:?}"
        );
    }
}

#[test]
fn what_works_but_surprises_is_a_warning() {
    for (spec, start) in [
        (
            json!({ "address": "192.168.0.1/24" }),
            "spec.address: \"192.168.0.1/24\" is not the start",
        ),
        (
            json!({ "address": "10.0.0.1", "priority": 5 }),
            "spec.priority: the Eip is bound to no namespace",
        ),
        (
            json!({ "address": "10.0.0.1", "usingKnownIPs": true }),
            "spec: without effect: usingKnownIPs",
        ),
        (
            json!({ "address": "10.0.0.1", "interface": "eth0" }),
            "spec.interface: has no effect",
        ),
        (
            json!({ "address": "10.0.0.1", "protocol": "vip" }),
            "spec.protocol: vip is accepted",
        ),
        (
            json!({ "address": "10.0.0.1", "protocol": "layer2", "bgp": {} }),
            "spec.bgp: has no effect",
        ),
        (
            json!({ "address": "10.0.0.1", "strictBinding": true }),
            "spec.strictBinding: the Eip is bound to no",
        ),
    ] {
        let verdict = created(spec);
        assert!(verdict.is_accepted(), "{verdict:?}");
        assert!(
            verdict.warnings.len() == 1 && verdict.warnings[0].starts_with(start),
            "{verdict:?}"
        );
    }
}

#[test]
fn a_pool_with_a_nodes_address_is_a_warning_when_it_is_added() {
    let mut view = View::default();
    view.change_nodes(|nodes| {
        let addresses = vec!["10.0.0.7".parse().unwrap()];
        nodes.insert(
            "worker-1".into(),
            NodeFacts {
                addresses,
                ..NodeFacts::default()
            },
        );
    });
    let new = pool("lan", json!({ "address": "10.0.0.0/24" }));
    assert_eq!(
        eip(&new, None, &view).warnings,
        ["spec.address: 10.0.0.7 is the address of node worker-1; list it in spec.exclude"]
    );
    let excluded = pool(
        "lan",
        json!({ "address": "10.0.0.0/24", "exclude": ["10.0.0.7"] }),
    );
    assert_eq!(eip(&excluded, None, &view), Verdict::default());
}

#[test]
fn defaults_are_written_only_where_absent_and_only_once() {
    let raw = pool(
        "lan",
        json!({ "address": " 2001:DB8::/64", "exclude": ["2001:DB8::1"] }),
    );
    let mut object = serde_json::to_value(&raw).unwrap();
    for change in complete_eip(&raw, None) {
        change.apply(&mut object);
    }
    assert_eq!(
        object["spec"],
        json!({ "address": "2001:db8::/64", "protocol": "bgp", "exclude": ["2001:db8::1"] })
    );
    assert_eq!(
        complete_eip(&serde_json::from_value(object).unwrap(), None),
        []
    );
    assert_eq!(complete_eip(&raw, Some(&raw)), []);
}

#[test]
fn communities_must_be_ones() {
    let verdict = created(json!({
        "address": "192.168.0.1",
        "bgp": {"communities": ["65000:100", "99999:1"], "aggregationLength": 33},
    }));
    let denials = verdict.denials.join("; ");
    assert!(
        denials.contains("spec.bgp.communities[1]: \"99999:1\" must be two numbers up to 65535")
    );
    assert_eq!(denials.matches("aggregationLength").count(), 1, "{denials}");
}
