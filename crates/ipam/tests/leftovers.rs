//! Records that nobody needs go, those that are kept stay, and what somebody took out of one is put back.

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

use openelb_api::Family;
use openelb_api::v1alpha2::EipSpec;
use openelb_ipam::{Index, News, Request};
use world::{World, key, wish};

fn pool(address: &str, sticky: bool) -> EipSpec {
    EipSpec {
        address: address.to_owned(),
        sticky,
        ..EipSpec::default()
    }
}

fn served(sticky: bool) -> World {
    let mut world = World::default();
    world.eip("lan", pool("192.0.2.0/24", sticky));
    world.ask("web", Some(wish(80)));
    world.work();
    assert_eq!(world.shown("web"), ["192.0.2.0"]);
    world
}

#[test]
fn a_reservation_that_is_taken_back_leaves_nothing() {
    let mut world = served(false);
    world.edit_record("192.0.2.0", |stored| stored.record.reserved = true);
    world.delete("web");
    world.work();
    assert_eq!(world.records.len(), 1, "it is reserved");
    world.edit_record("192.0.2.0", |stored| stored.record.reserved = false);
    world.work();
    assert!(world.records.is_empty());
}

#[test]
fn what_is_kept_goes_with_its_eip_or_with_the_eips_wish_to_keep_it() {
    for sticky_no_more in [true, false] {
        let mut world = served(true);
        world.delete("web");
        world.work();
        assert_eq!(world.records.len(), 1, "it is kept");
        if sticky_no_more {
            world.eip("lan", pool("192.0.2.0/24", false));
        } else {
            world.index.remove_eip("lan");
        }
        world.work();
        assert!(world.records.is_empty());
    }
}

#[test]
fn what_is_kept_outlives_a_restart_and_an_eip_that_cannot_be_read() {
    let mut world = served(true);
    world.delete("web");
    world.work();
    world.index = Index::default();
    for stored in world.records.values() {
        world.index.apply_record(stored.clone(), 0);
    }
    world.index.reject_eip("lan", "nonsense".to_owned());
    world.work();
    assert_eq!(world.records.len(), 1);
}

#[test]
fn a_service_that_a_finalizer_holds_back_leaves_its_address_to_one_of_its_name() {
    let mut world = served(true);
    world.edit("web", |service| {
        service.deleting = true;
        service.request = None;
    });
    world.work();
    assert_eq!(world.shown("web"), Vec::<String>::new());
    world.delete("web");
    world.ask("other", Some(wish(80)));
    world.ask("web", Some(wish(80)));
    world.work();
    assert_eq!(world.shown("web"), ["192.0.2.0"]);
    assert_eq!(world.shown("other"), ["192.0.2.1"]);
}

#[test]
fn of_two_families_each_eip_decides_whether_it_keeps_its_address() {
    let mut world = World::default();
    world.eip("four", pool("192.0.2.0/24", true));
    world.eip("six", pool("2001:db8::/120", false));
    let both = Request {
        families: vec![Family::V4, Family::V6],
        ..wish(80)
    };
    world.ask("web", Some(both));
    world.work();
    assert_eq!(world.shown("web"), ["192.0.2.0", "2001:db8::"]);
    world.delete("web");
    world.work();
    let left: Vec<_> = world.records.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["192.0.2.0"]);
}

#[test]
fn what_somebody_took_out_of_a_record_is_put_back() {
    let mut world = served(false);
    world.edit_record("192.0.2.0", |stored| stored.record.entries.clear());
    world.work();
    assert_eq!(world.shown("web"), ["192.0.2.0"]);
    let record = &world.records.values().next().unwrap().record;
    assert_eq!(record.entries[0].service, key("web"));
}

#[test]
fn what_somebody_added_to_a_status_is_taken_out() {
    let mut world = served(false);
    world.edit("web", |service| service.status.more = true);
    world.work();
    assert!(!world.services[&key("web")].status.more);
    assert_eq!(world.shown("web"), ["192.0.2.0"]);
}

#[test]
fn a_service_that_is_gone_is_told_of_its_release() {
    let mut world = served(false);
    world.delete("web");
    let news = world.index.plan(&key("web"), 0).unwrap().news;
    assert_eq!(news, [News::Released("192.0.2.0".parse().unwrap())]);
}

#[test]
fn a_pool_whose_free_addresses_are_kept_for_others_is_not_exhausted() {
    let mut world = World::default();
    world.eip("lan", pool("192.0.2.1", true));
    world.ask("web", Some(wish(80)));
    world.work();
    let exhausted = |world: &World| world.index.eip_view("lan").unwrap().occupied;
    assert!(exhausted(&world));
    world.delete("web");
    world.work();
    assert!(!exhausted(&world));
}

#[test]
fn what_an_older_eip_excludes_is_a_younger_ones_to_give() {
    let mut world = World::default();
    let lower = EipSpec {
        exclude: vec!["192.0.2.128/25".to_owned()],
        ..pool("192.0.2.0/24", false)
    };
    world.eip("a", lower);
    world.eip("b", pool("192.0.2.128/25", false));
    let from_b = Request {
        eip: Some("b".into()),
        ..wish(80)
    };
    world.ask("web", Some(from_b));
    world.work();
    assert_eq!(world.shown("web"), ["192.0.2.128"]);
    let view = world.index.eip_view("b").unwrap();
    assert!(!view.conditions["Overlapping"].holds);
}

#[test]
fn what_another_writer_makes_anew_while_we_give_it_back_is_given_back_too() {
    let mut world = served(false);
    let address = "192.0.2.0".parse().unwrap();
    let mut again = world.records[&address].clone();
    world.delete("web");
    let plan = world.index.plan(&key("web"), 0).unwrap().plan;
    let end = world.carry_out(&plan);
    assert!(world.records.is_empty());
    // A leader of before, paused between its reading and its writing; the watch is faster than our own end.
    again.uid = "another".into();
    world.records.insert(address, again);
    world.edit_record("192.0.2.0", |_| ());
    world.index.conclude(&plan, Some(&end), world.now);
    world.queue.insert(key("web"));
    world.work();
    assert!(world.records.is_empty());
    assert_eq!(world.index.counts(), (0, 0));
}
