//! A plan whose end nobody knows, and another controller that decides meanwhile: what it gave stays where it is.

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
use openelb_ipam::ledger::Plan;
use openelb_ipam::{Index, ServiceStatus};
use world::{World, key, wish};

/// Two addresses and two Services; a plan for the first one, cut off before its first request arrived; and what
/// the second got from another controller: the same address.
fn cut_off() -> (World, Index, Plan<ServiceStatus>) {
    let mut world = World::default();
    world.eip(
        "lan",
        EipSpec {
            address: "192.0.2.1-192.0.2.2".to_owned(),
            ..EipSpec::default()
        },
    );
    world.ask("a", Some(wish(80)));
    world.ask("b", Some(wish(80)));
    let plan = world.index.plan(&key("a"), 0).unwrap().plan;
    let ours = std::mem::take(&mut world.index);
    world.restart();
    let theirs = world.index.plan(&key("b"), 0).unwrap().plan;
    world.carry_out(&theirs);
    assert_eq!(world.shown("b"), ["192.0.2.1"]);
    (world, ours, plan)
}

/// The watches of the one that was cut off go on.
fn hear(world: &World, index: &mut Index) {
    index.apply_record(world.records.values().next().unwrap().clone(), 0);
    index.apply_service(world.services[&key("b")].clone(), 0);
}

fn nothing_moves(mut world: World, ours: Index) {
    world.index = ours;
    assert_eq!(world.index.plan(&key("b"), 0), None, "b has what it shows");
    world.settle();
    assert_eq!(world.shown("b"), ["192.0.2.1"]);
    assert_eq!(world.shown("a"), ["192.0.2.2"]);
    assert_eq!(world.records.len(), 2);
}

#[test]
fn the_word_of_the_api_server_goes_before_a_plan_of_unknown_end() {
    let (world, mut ours, plan) = cut_off();
    ours.conclude(&plan, None, 0);
    hear(&world, &mut ours);
    nothing_moves(world, ours);
}

#[test]
fn who_leads_again_forgets_what_it_was_about_to_take() {
    let (world, mut ours, plan) = cut_off();
    hear(&world, &mut ours);
    ours.conclude(&plan, None, 0);
    ours.forget_unsure(0);
    nothing_moves(world, ours);
}

#[test]
fn a_plan_of_unknown_end_keeps_its_address_from_others_until_then() {
    let (_, mut ours, plan) = cut_off();
    ours.conclude(&plan, None, 0);
    let next = ours.plan(&key("b"), 0).unwrap().plan;
    let address = next.reserve[0].record.address.to_string();
    assert_eq!(address, "192.0.2.2");
}
