//! What others gave is taken over; what somebody else was given meanwhile is not.

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
use openelb_ipam::ledger::Transaction;
use world::{World, key, wish};

const ADDRESS: &str = "192.0.2.7";

fn shows(world: &mut World, name: &str) {
    world.ask(name, Some(wish(80)));
    world.edit(name, |service| {
        service.status.addresses = vec![ADDRESS.parse().unwrap()];
    });
}

fn lan() -> World {
    let mut world = World::default();
    let spec = EipSpec {
        address: "192.0.2.0/24".to_owned(),
        ..EipSpec::default()
    };
    world.eip("lan", spec);
    world
}

#[test]
fn an_address_that_another_got_meanwhile_is_not_adopted() {
    let mut world = lan();
    shows(&mut world, "found");
    let adopt = world.index.plan(&key("found"), 0).unwrap().plan;
    // Another controller, which has not seen that yet, gives the address to somebody who asks for it.
    let first = std::mem::take(&mut world.index);
    world.eip("lan", world.eips["lan"].spec.clone());
    let mut named = wish(80);
    named.addresses = vec![ADDRESS.parse().unwrap()];
    world.ask("asked", Some(named));
    world.work();
    assert_eq!(world.shown("asked"), [ADDRESS]);
    world.index = first;
    let end = world.carry_out(&adopt);
    world.index.conclude(&adopt, Some(&end), 0);
    let asked = world.services[&key("asked")].clone();
    world.see(asked);
    world.queue.insert(key("found"));
    world.work();
    assert_eq!(world.shown("asked"), [ADDRESS]);
    assert_eq!(world.shown("found").len(), 1);
    assert_ne!(world.shown("found"), [ADDRESS]);
}

#[test]
fn an_address_that_is_kept_for_another_is_not_adopted_unseen() {
    let mut world = lan();
    shows(&mut world, "found");
    let adopt = world.index.plan(&key("found"), 0).unwrap().plan;
    let mut record = adopt.reserve[0].record.clone();
    record.entries.clear();
    record.kept_for = Some(key("kept"));
    let version = openelb_ipam::Version::from("500");
    let stored = openelb_ipam::ledger::Stored {
        uid: "r".into(),
        version,
        record,
    };
    world.records.insert(ADDRESS.parse().unwrap(), stored);
    let end = world.carry_out(&adopt);
    assert_eq!(
        end.outcome,
        openelb_ipam::ledger::Outcome::Taken(ADDRESS.parse().unwrap())
    );
}

#[test]
fn two_that_were_found_on_one_address_stay_whoever_is_written_first() {
    for second_is_faster in [false, true] {
        let mut world = lan();
        shows(&mut world, "a");
        shows(&mut world, "b");
        let mut running: Vec<_> = ["a", "b"]
            .into_iter()
            .filter_map(|name| {
                let plan = world.index.plan(&key(name), 0)?.plan;
                Some((plan.clone(), Transaction::new(plan)))
            })
            .collect();
        assert_eq!(running.len(), 2);
        if second_is_faster {
            running.reverse();
        }
        for (plan, mut transaction) in running {
            let end = loop {
                if let Some(end) = world.step(&mut transaction) {
                    break end;
                }
            };
            world.index.conclude(&plan, Some(&end), 0);
        }
        world.work();
        for name in ["a", "b"] {
            assert_eq!(world.shown(name), [ADDRESS]);
            assert_eq!(world.reason(name), "SharedWithoutAgreement");
        }
        assert_eq!(
            world.records[&ADDRESS.parse().unwrap()]
                .record
                .entries
                .len(),
            2
        );
    }
}

#[test]
fn one_that_goes_while_it_is_adopted_with_another_leaves_nothing() {
    let mut world = lan();
    shows(&mut world, "a");
    shows(&mut world, "b");
    let adopt = world.index.plan(&key("a"), 0).unwrap().plan;
    world.delete("b");
    world.work();
    let end = world.carry_out(&adopt);
    world.index.conclude(&adopt, Some(&end), 0);
    world.work();
    assert_eq!(world.shown("a"), [ADDRESS]);
    let record = &world.records[&ADDRESS.parse().unwrap()].record;
    assert_eq!(record.entries.len(), 1);
}

#[test]
fn of_two_that_are_edited_into_each_others_way_at_once_one_loses() {
    let mut world = lan();
    let named = |port| {
        let mut wish = wish(port);
        wish.addresses = vec![ADDRESS.parse().unwrap()];
        wish
    };
    world.ask("a", Some(named(80)));
    world.ask("b", Some(named(81)));
    world.work();
    assert_eq!(world.shown("b"), [ADDRESS]);
    world.ask("b", Some(named(82)));
    let edit_b = world.index.plan(&key("b"), 0).unwrap().plan;
    // Another controller carries out the same edit of the other one, and has not seen what this one plans.
    let first = std::mem::take(&mut world.index);
    world.ask("a", Some(named(82)));
    world.restart();
    let edit_a = world.index.plan(&key("a"), 0).unwrap().plan;
    world.carry_out(&edit_a);
    world.index = first;
    let end = world.carry_out(&edit_b);
    world.index.conclude(&edit_b, Some(&end), 0);
    world.restart();
    world.work();
    assert_eq!(world.shown("a"), [ADDRESS]);
    assert_eq!(world.shown("b"), Vec::<String>::new());
    assert_eq!(world.reason("b"), "AddressInUse");
}

#[test]
fn of_two_on_an_address_whose_record_is_gone_the_one_that_we_gave_it_to_stays() {
    let mut world = lan();
    let mut named = wish(80);
    named.addresses = vec![ADDRESS.parse().unwrap()];
    world.ask("given", Some(named));
    world.work();
    shows(&mut world, "forged");
    let gone = world.records.remove(&ADDRESS.parse().unwrap()).unwrap();
    world.index.remove_record(gone.record.address, &gone.uid, 0);
    world.queue.insert(key("forged"));
    world.work();
    assert_eq!(world.shown("given"), [ADDRESS]);
    assert_ne!(world.shown("forged"), [ADDRESS]);
    assert_eq!(world.reason("given"), "Allocated");
}
