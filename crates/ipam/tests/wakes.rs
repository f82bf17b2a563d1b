//! Whoever waits is woken when it helps, and by that alone: nothing looks at all Services from time to time.

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
use world::{World, key, wish};

/// A pool of these addresses; each of `names` asks in turn.
fn world(spec: EipSpec, names: &[&str]) -> World {
    let mut world = World::default();
    world.eip("lan", spec);
    for name in names {
        world.ask(name, Some(wish(80)));
        world.work();
    }
    world
}

fn pool(address: &str) -> EipSpec {
    EipSpec {
        address: address.to_owned(),
        ..EipSpec::default()
    }
}

#[test]
fn one_that_goes_before_its_turn_passes_it_on() {
    let mut world = world(pool("192.0.2.1"), &["a", "b", "c"]);
    world.delete("a");
    let release = world.index.plan(&key("a"), 0).unwrap().plan;
    let end = world.carry_out(&release);
    world.index.conclude(&release, Some(&end), 0);
    // The address is free, b is called, and is deleted in the same moment.
    world.delete("b");
    world.work();
    assert_eq!(world.shown("c"), ["192.0.2.1"]);
}

#[test]
fn one_that_is_replaced_before_its_turn_leaves_no_place_behind() {
    let mut world = world(pool("192.0.2.1"), &["a", "b", "c"]);
    // Of b the watch only says that there is another one now, which wants nothing.
    let mut facts = world.services[&key("b")].clone();
    facts.uid = "another".into();
    facts.created += 1000;
    facts.version = "1000".into();
    facts.request = None;
    world.services.insert(key("b"), facts.clone());
    world.see(facts);
    world.work();
    assert_eq!(world.index.counts().0, 1, "only c waits");
    world.delete("a");
    world.work();
    assert_eq!(world.shown("c"), ["192.0.2.1"]);
}

#[test]
fn an_address_kept_for_one_that_is_gone_serves_one_that_waits() {
    let sticky = EipSpec {
        sticky: true,
        ..pool("192.0.2.1")
    };
    let mut world = world(sticky, &["a", "b"]);
    assert_eq!(world.reason("b"), "EipExhausted");
    world.delete("a");
    world.work();
    assert_eq!(world.shown("b"), ["192.0.2.1"]);
}

#[test]
fn an_address_that_is_reserved_no_more_serves_one_that_waits() {
    let mut world = world(pool("192.0.2.1"), &["a", "b"]);
    world.edit_record("192.0.2.1", |stored| stored.record.reserved = true);
    world.delete("a");
    world.work();
    assert_eq!(world.reason("b"), "EipExhausted");
    world.edit_record("192.0.2.1", |stored| stored.record.reserved = false);
    world.work();
    assert_eq!(world.shown("b"), ["192.0.2.1"]);
}

#[test]
fn one_that_cannot_take_its_turn_passes_it_on_and_is_called_again() {
    let mut world = world(pool("192.0.2.1"), &["a", "b", "c"]);
    world.delete("a");
    let release = world.index.plan(&key("a"), 0).unwrap().plan;
    let end = world.carry_out(&release);
    world.index.conclude(&release, Some(&end), 0);
    assert_eq!(world.index.take_woken(), [key("b")].into());
    // What was to be written of b was refused a moment ago: it has to wait.
    world.index.pass_on(&key("b"));
    assert_eq!(world.index.take_woken(), [key("c")].into());
    world.index.pass_on(&key("b"));
    assert!(world.index.take_woken().is_empty(), "it had passed it on");
    let taken = world.index.plan(&key("c"), 0).unwrap().plan;
    assert_eq!(taken.reserve.len(), 1);
}

#[test]
fn an_eip_whose_only_address_somebody_else_shows_or_has_says_so_and_no_longer() {
    let mut world = world(pool("192.0.2.1"), &[]);
    let changed = |world: &mut World| {
        let named = world.index.take_changed_eips().contains("lan");
        named.then(|| world.index.eip_view("lan").unwrap().occupied)
    };
    assert_eq!(changed(&mut world), Some(false));
    world.ask("foreign", None);
    world.edit("foreign", |facts| {
        facts.status.addresses = vec!["192.0.2.1".parse().unwrap()];
    });
    assert_eq!(changed(&mut world), Some(true));
    world.delete("foreign");
    world.index.tick(40_000);
    assert_eq!(changed(&mut world), Some(false));
    world
        .index
        .set_aside("192.0.2.1".parse().unwrap(), true, 40_000);
    assert_eq!(changed(&mut world), Some(true));
}
