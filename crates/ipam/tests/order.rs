//! Watches and answers come in any order; what waits is served oldest first all the same.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "helpers of tests may panic, and each test uses its part of the world"
)]

mod world;

use openelb_api::v1alpha2::EipSpec;
use openelb_ipam::ledger::Stored;
use openelb_ipam::{LISTED, Request};
use world::{World, key, wish};

/// `a` has the only address, `b` and `c` wait for it, `a` is gone: what is known of the record of `a`.
fn freed() -> (World, Stored) {
    let mut world = World::default();
    let address = "192.0.2.1".to_owned();
    world.eip(
        "lan",
        EipSpec {
            address,
            ..EipSpec::default()
        },
    );
    for name in ["a", "b", "c"] {
        world.ask(name, Some(wish(80)));
        world.settle();
    }
    let stored = world.records.values().next().unwrap().clone();
    world.delete("a");
    world.index.take_woken();
    (world, stored)
}

#[test]
fn a_watch_that_is_faster_than_the_answer_frees_an_address_once() {
    let (mut world, stored) = freed();
    let release = world.index.plan(&key("a"), 1).unwrap().plan;
    let end = world.carry_out(&release);
    world
        .index
        .remove_record(stored.record.address, &stored.uid, 1);
    assert!(world.index.take_woken().contains(&key("b")));
    let b = world.index.plan(&key("b"), 1).unwrap().plan;
    assert_eq!(b.reserve.len(), 1);
    world.index.conclude(&release, Some(&end), 1);
    assert!(
        world.index.plan(&key("c"), 1).is_none(),
        "the address is given already"
    );
    let end = world.carry_out(&b);
    world.index.conclude(&b, Some(&end), 1);
    assert_eq!(world.shown("b"), ["192.0.2.1"]);
}

#[test]
fn who_shares_an_address_is_looked_at_when_another_changes_what_it_exposes_there() {
    let (mut world, _) = freed();
    for name in ["b", "c"] {
        world.delete(name);
    }
    let at = |port| Request {
        addresses: vec!["192.0.2.1".parse().unwrap()],
        ..wish(port)
    };
    for (name, port) in [("web", 80), ("mail", 25)] {
        world.ask(name, Some(at(port)));
        world.settle();
        assert_eq!(world.shown(name), ["192.0.2.1"]);
    }
    world.ask("mail", Some(at(587)));
    world.index.take_woken();
    assert!(world.index.plan(&key("mail"), 1).is_some());
    assert!(world.index.take_woken().contains(&key("web")));
}

#[test]
fn an_old_word_about_a_record_does_not_free_what_another_is_about_to_take() {
    let (mut world, stored) = freed();
    let release = world.index.plan(&key("a"), 1).unwrap().plan;
    let end = world.carry_out(&release);
    world.index.conclude(&release, Some(&end), 1);
    let b = world.index.plan(&key("b"), 1).unwrap().plan;
    world.index.apply_record(stored.clone(), 1);
    world
        .index
        .remove_record(stored.record.address, &stored.uid, 1);
    assert!(
        world.index.plan(&key("c"), 1).is_none(),
        "the address is given already"
    );
    let end = world.carry_out(&b);
    world.index.conclude(&b, Some(&end), 1);
    assert_eq!(world.shown("b"), ["192.0.2.1"]);
}

#[test]
fn status_used_is_complete_up_to_its_bound_so_that_openelb_can_take_over_again() {
    let mut world = World::default();
    let address = "10.0.0.0/16".to_owned();
    world.eip(
        "lan",
        EipSpec {
            address,
            ..EipSpec::default()
        },
    );
    for n in 0..LISTED {
        world.ask(&format!("s{n}"), Some(wish(80)));
    }
    world.settle();
    let view = world.index.eip_view("lan").unwrap();
    assert_eq!(view.used.len(), LISTED);
    assert!(!view.conditions["UsedTruncated"].holds);
    for (address, services) in &view.used {
        let service = services.strip_prefix("default/").unwrap();
        assert_eq!(&world.shown(service), std::slice::from_ref(address));
    }
    world.ask("one-more", Some(wish(80)));
    world.settle();
    let view = world.index.eip_view("lan").unwrap();
    assert_eq!(view.used.len(), LISTED);
    assert_eq!(usize::try_from(view.usage).unwrap(), LISTED + 1);
    assert!(view.conditions["UsedTruncated"].holds);
}

#[test]
fn an_eip_says_which_of_its_fields_do_nothing() {
    let mut world = World::default();
    let spec = EipSpec {
        address: "192.0.2.0/28".to_owned(),
        using_known_ips: true,
        ..EipSpec::default()
    };
    world.eip("lan", spec);
    let ready = &world.index.eip_view("lan").unwrap().conditions["Ready"];
    assert!(ready.holds);
    assert_eq!(&*ready.message, "without effect: usingKnownIPs");
}
