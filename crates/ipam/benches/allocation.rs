//! What one decision costs: in a pool of a million addresses that is 99 % full, and in pools of any size.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark may panic, and uses its part of the tests' world"
)]

#[path = "../tests/world/mod.rs"]
mod world;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};

use divan::Bencher;
use openelb_api::Family;
use openelb_api::v1alpha2::EipSpec;
use openelb_ipam::ledger::{Entry, Record, Stored};
use openelb_ipam::{Request, Uid, Version};
use world::{World, key, wish};

fn main() {
    divan::main();
}

fn world(pool: &str) -> World {
    let mut world = World::default();
    let address = pool.to_owned();
    world.eip(
        "lan",
        EipSpec {
            address,
            ..EipSpec::default()
        },
    );
    world
}

/// A record of a Service that is not looked at.
fn held(n: u32) -> Stored {
    let text = n.to_string();
    let uid = Uid::from(text.as_str());
    Stored {
        record: Record {
            address: IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n)),
            eip: "lan".into(),
            protocol: "bgp".into(),
            entries: vec![Entry {
                service: key(&text),
                uid: uid.clone(),
                terms: wish(80).terms,
            }],
            reserved: false,
            reserved_for: vec![],
            kept_for: None,
            revision: 1,
        },
        uid,
        version: Version::from("1"),
    }
}

/// Plans for a new Service, and forgets the plan again: what is measured is both.
fn decide(bencher: Bencher<'_, '_>, mut world: World, request: Request) {
    world.ask("new", Some(request));
    let world = RefCell::new((world, 0));
    bencher.bench_local(|| {
        let (world, now) = &mut *world.borrow_mut();
        // Longer than an address rests.
        *now += 60_000;
        let plan = world.index.plan(&key("new"), *now).unwrap().plan;
        assert_eq!(plan.reserve.len(), 1);
        let end = openelb_ipam::ledger::Conclusion {
            outcome: openelb_ipam::ledger::Outcome::Again,
            published: None,
            records: vec![],
        };
        world.index.conclude(&plan, Some(&end), *now);
        plan
    });
}

/// 990,000 of 1,048,576 addresses are held, all but every hundredth of the first million: as many gaps as
/// there can be.
#[divan::bench]
fn a_million_addresses_99_percent_full(bencher: Bencher<'_, '_>) {
    let mut world = world("10.0.0.0/12");
    for n in (0..1_048_576).filter(|n| n % 100 != 99) {
        world.index.apply_record(held(n), 0);
    }
    world.index.take_woken();
    decide(bencher, world, wish(80));
}

/// The same, where the free ones are the last.
#[divan::bench]
fn a_million_addresses_full_but_for_the_last(bencher: Bencher<'_, '_>) {
    let mut world = world("10.0.0.0/12");
    for n in 0..1_038_000 {
        world.index.apply_record(held(n), 0);
    }
    world.index.take_woken();
    decide(bencher, world, wish(80));
}

#[divan::bench(args = ["192.0.2.0/24", "10.0.0.0/8", "2001:db8::/120", "2001:db8::/64", "2001:db8::/32"])]
fn an_empty_pool(bencher: Bencher<'_, '_>, pool: &str) {
    let families = vec![if pool.contains(':') {
        Family::V6
    } else {
        Family::V4
    }];
    decide(
        bencher,
        world(pool),
        Request {
            families,
            ..wish(80)
        },
    );
}
