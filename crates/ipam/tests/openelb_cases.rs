//! OpenELB's own cases of requests, assignment and release, restated with our verdicts, for both families.

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

use std::collections::BTreeMap;

use openelb_api::Family;
use openelb_api::v1alpha2::EipSpec;
use openelb_ipam::Request;
use world::{World, key, wish};

/// A family's pools: the usual one, another one, and a host in the usual one.
struct Set {
    family: Family,
    pool: &'static str,
    other: &'static str,
    host: fn(u32) -> String,
}

const SETS: [Set; 2] = [
    Set {
        family: Family::V4,
        pool: "192.168.1.0/24",
        other: "192.168.10.0/24",
        host: |n| format!("192.168.1.{n}"),
    },
    Set {
        family: Family::V6,
        pool: "2001:db8::/120",
        other: "2001:db8:1::/120",
        host: |n| {
            if n == 0 {
                "2001:db8::".to_owned()
            } else {
                format!("2001:db8::{n:x}")
            }
        },
    },
];

impl Set {
    fn wish(&self) -> Request {
        Request {
            families: vec![self.family],
            ..wish(80)
        }
    }

    fn from(&self, eip: &str) -> Request {
        Request {
            eip: Some(eip.into()),
            ..self.wish()
        }
    }

    fn named(&self, eip: &str, n: u32) -> Request {
        Request {
            addresses: vec![(self.host)(n).parse().unwrap()],
            ..self.from(eip)
        }
    }

    fn world(&self) -> World {
        let mut world = World::default();
        world.eip("eip", self.spec(self.pool));
        world
    }

    #[allow(clippy::unused_self, reason = "reads as the others do")]
    fn spec(&self, address: &str) -> EipSpec {
        EipSpec {
            address: address.to_owned(),
            auto_assign: Some(false),
            ..EipSpec::default()
        }
    }

    fn served(&self, request: Request, n: u32) -> World {
        let mut world = self.world();
        self.ask(&mut world, request, &[n]);
        world
    }

    fn ask(&self, world: &mut World, request: Request, expect: &[u32]) {
        world.ask("testsvc", Some(request));
        world.settle();
        let expect: Vec<_> = expect.iter().map(|n| (self.host)(*n)).collect();
        assert_eq!(
            world.shown("testsvc"),
            expect,
            "{}",
            world.reason("testsvc")
        );
    }
}

#[test]
fn a_service_that_does_not_ask_gets_nothing_and_gives_back_what_it_has() {
    for set in SETS {
        let mut world = set.world();
        world.ask("testsvc", None);
        world.settle();
        assert!(world.shown("testsvc").is_empty() && world.records.is_empty());
        let mut world = set.served(set.from("eip"), 0);
        world.ask("testsvc", None);
        world.settle();
        assert!(world.shown("testsvc").is_empty() && world.records.is_empty());
    }
}

#[test]
fn a_pool_that_cannot_be_selected_any_more_takes_nothing_away() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        set.ask(&mut world, set.wish(), &[0]);
    }
}

#[test]
fn the_eip_named_the_address_named_and_both() {
    for set in SETS {
        let world = set.served(set.from("eip"), 0);
        assert_eq!(world.records.len(), 1);
        let mut world = set.served(set.named("eip", 50), 50);
        let writes = world.writes;
        world.settle();
        assert_eq!(world.writes, writes);
        set.ask(&mut world, set.named("eip", 100), &[100]);
        assert_eq!(world.records.len(), 1);
    }
}

#[test]
fn a_cleared_status_is_put_back() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        world.services.get_mut(&key("testsvc")).unwrap().status =
            openelb_ipam::ServiceStatus::default();
        set.ask(&mut world, set.from("eip"), &[0]);
    }
}

#[test]
fn an_eip_that_does_not_exist_is_waited_for_and_costs_nothing() {
    for set in SETS {
        let mut world = set.world();
        set.ask(&mut world, set.from("missing"), &[]);
        assert_eq!(world.reason("testsvc"), "NoEip");
        let mut world = set.served(set.from("eip"), 0);
        set.ask(&mut world, set.from("missing"), &[0]);
        assert_eq!(world.reason("testsvc"), "NoEip");
    }
}

#[test]
fn another_eip_named_moves_the_service_there() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        world.eip("eip1", set.spec(set.other));
        world.ask("testsvc", Some(set.from("eip1")));
        world.settle();
        assert_ne!(world.shown("testsvc"), [(set.host)(0)]);
        assert_eq!(world.records.len(), 1);
        world.now += 60_000;
        set.ask(&mut world, set.from("eip"), &[0]);
    }
}

#[test]
fn a_deleted_service_gives_back_what_it_had() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        world.delete("testsvc");
        world.settle();
        assert!(world.records.is_empty());
    }
}

#[test]
fn eips_bound_by_name_by_labels_and_by_priority() {
    for set in SETS {
        let mut world = World::default();
        let bound = EipSpec {
            namespaces: vec!["default".to_owned()],
            priority: 20,
            ..set.spec(set.other)
        };
        world.eip("late", bound);
        let labels = BTreeMap::from([("label".to_owned(), "test".to_owned())]);
        world.index.apply_namespace("default", labels.clone());
        let first = EipSpec {
            namespace_selector: labels,
            priority: 10,
            ..set.spec(set.pool)
        };
        world.eip("first", first);
        set.ask(&mut world, set.wish(), &[0]);
    }
}

#[test]
fn disabled_outside_and_full_are_refused_for_what_they_are() {
    for set in SETS {
        let mut world = World::default();
        world.eip(
            "eip",
            EipSpec {
                disable: true,
                ..set.spec(set.pool)
            },
        );
        set.ask(&mut world, set.from("eip"), &[]);
        world.eip(
            "eip",
            set.spec(&format!("{}-{}", (set.host)(0), (set.host)(1))),
        );
        set.ask(&mut world, set.named("eip", 9), &[]);
        assert_eq!(world.reason("testsvc"), "AddressOutsideEip");
        for name in ["one", "two"] {
            world.ask(name, Some(set.from("eip")));
        }
        world.settle();
        set.ask(&mut world, set.from("eip"), &[]);
        assert_eq!(world.reason("testsvc"), "EipExhausted");
        world.delete("one");
        world.settle();
        assert_eq!(
            world.shown("testsvc").len(),
            1,
            "who waits is served, even while the address rests"
        );
    }
}

#[test]
fn an_address_in_use_is_shared_only_where_both_named_it_and_agree() {
    for set in SETS {
        let mut world = set.served(set.named("eip", 100), 100);
        let other = Request {
            terms: wish(443).terms,
            ..set.named("eip", 100)
        };
        world.ask("other", Some(other));
        world.ask("same", Some(set.named("eip", 100)));
        world.settle();
        assert_eq!(world.shown("other"), [(set.host)(100)]);
        assert_eq!(world.reason("same"), "AddressInUse");
    }
}
