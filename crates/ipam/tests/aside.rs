//! Addresses that a speaker set aside because a foreign host has them.

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
use openelb_ipam::Request;
use world::{World, key, wish};

/// A pool with these addresses, and `web` with the first of them.
fn served(address: &str, request: Request) -> World {
    let mut world = World::default();
    let address = address.to_owned();
    world.eip(
        "lan",
        EipSpec {
            address,
            ..EipSpec::default()
        },
    );
    world.ask("web", Some(request));
    world.settle();
    assert_eq!(world.shown("web"), ["192.0.2.1"]);
    world
}

fn aside(world: &mut World, address: &str, aside: bool) {
    let address = address.parse().unwrap();
    world.index.set_aside(address, aside, world.now);
}

const TWO: &str = "192.0.2.1-192.0.2.2";

#[test]
fn a_service_whose_address_a_foreign_host_has_is_given_another() {
    let mut world = served(TWO, wish(80));
    world.index.take_woken();
    aside(&mut world, "192.0.2.1", true);
    assert!(world.index.take_woken().contains(&key("web")));
    world.settle();
    assert_eq!(world.shown("web"), ["192.0.2.2"]);
    assert_eq!(world.records.len(), 1, "the first is given back");
    // Nobody else gets it for a while, however little there is.
    world.ask("next", Some(wish(80)));
    world.now += 60_000;
    world.settle();
    assert_eq!(world.shown("next"), Vec::<String>::new());
    // Then it has another chance, without anything else that happens.
    world.work();
    assert_eq!(world.index.next_tick(), Some(600_000));
    world.now += 600_000;
    world.work();
    assert_eq!(world.shown("next"), Vec::<String>::new());
    world.index.tick(world.now);
    world.work();
    assert_eq!(world.shown("next"), ["192.0.2.1"]);
    assert_eq!(world.shown("web"), ["192.0.2.2"], "what is held stays");
}

#[test]
fn without_another_address_it_is_kept_until_there_is_one() {
    let mut world = served("192.0.2.1", wish(80));
    aside(&mut world, "192.0.2.1", true);
    world.settle();
    assert_eq!(world.shown("web"), ["192.0.2.1"]);
    world.now += 3_600_000;
    world.settle();
    assert_eq!(world.shown("web"), ["192.0.2.1"], "it is still set aside");
    let address = TWO.to_owned();
    world.eip(
        "lan",
        EipSpec {
            address,
            ..EipSpec::default()
        },
    );
    world.settle();
    assert_eq!(world.shown("web"), ["192.0.2.2"]);
}

#[test]
fn when_the_foreign_host_is_gone_nothing_moves() {
    let mut world = served("192.0.2.1", wish(80));
    aside(&mut world, "192.0.2.1", true);
    world.settle();
    aside(&mut world, "192.0.2.1", false);
    let address = TWO.to_owned();
    world.eip(
        "lan",
        EipSpec {
            address,
            ..EipSpec::default()
        },
    );
    world.settle();
    assert_eq!(world.shown("web"), ["192.0.2.1"]);
}

#[test]
fn an_address_that_was_asked_for_by_name_is_not_exchanged() {
    let by_name = Request {
        addresses: vec!["192.0.2.1".parse().unwrap()],
        ..wish(80)
    };
    let mut world = served(TWO, by_name);
    aside(&mut world, "192.0.2.1", true);
    world.settle();
    assert_eq!(world.shown("web"), ["192.0.2.1"]);
}
