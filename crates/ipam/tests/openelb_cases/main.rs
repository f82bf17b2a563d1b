//! OpenELB's own cases, one by one and for both families, restated with our verdicts: the 21 of requests
//! (`request_NN…`), the 11 of assignment (`assign_NN…`) and the 5 of release (`release_NN…`).
//!
//! Where OpenELB releases an address that its Service still wants, or gives one that another has, we do not.

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

mod assignment;
mod request;
#[path = "../world/mod.rs"]
mod world;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use openelb_api::v1alpha2::{Eip, EipSpec};
use openelb_api::{Family, keys};
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
        self.ask_as("testsvc", world, request, expect);
    }

    fn ask_as(&self, name: &str, world: &mut World, request: Request, expect: &[u32]) {
        world.ask(name, Some(request));
        world.settle();
        self.expect(name, world, expect);
    }

    /// What a Service shows; and the ledger says the same.
    fn expect(&self, name: &str, world: &World, expect: &[u32]) {
        let expect: Vec<_> = expect.iter().map(|n| (self.host)(*n)).collect();
        assert_eq!(world.shown(name), expect, "{}", world.reason(name));
        let held: Vec<_> = world
            .records
            .values()
            .filter(|stored| {
                stored
                    .record
                    .entries
                    .iter()
                    .any(|entry| entry.service == key(name))
            })
            .map(|stored| stored.record.address.to_string())
            .collect();
        assert_eq!(held, expect);
    }

    /// A default Eip that gives the usual addresses.
    fn with_default(&self) -> World {
        let mut world = World::default();
        let mut eip = Eip::new("eip", self.spec(self.pool));
        eip.metadata.annotations = Some([(keys::DEFAULT_EIP.to_owned(), "true".to_owned())].into());
        world.index.apply_eip(&eip);
        world.eips.insert("eip".to_owned(), eip);
        world
    }

    /// An Eip that is being deleted.
    fn delete_eip(&self, world: &mut World) {
        let mut eip = Eip::new("eip", self.spec(self.pool));
        eip.metadata.deletion_timestamp = Some(Time("2026-01-01T00:00:00Z".parse().unwrap()));
        world.index.apply_eip(&eip);
    }
}

fn is_idle(world: &mut World) {
    let writes = world.writes;
    world.settle();
    assert_eq!(world.writes, writes, "nothing is written");
}
