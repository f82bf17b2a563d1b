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

mod world;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use openelb_api::v1alpha2::{Eip, EipSpec};
use openelb_api::{Family, keys};
use openelb_ipam::{Request, ServiceFacts, ServiceStatus};
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

/// Somebody cleared the status and took the label away.
fn clear(world: &mut World) {
    world.services.get_mut(&key("testsvc")).unwrap().status = ServiceStatus::default();
}

fn is_idle(world: &mut World) {
    let writes = world.writes;
    world.settle();
    assert_eq!(world.writes, writes, "nothing is written");
}

#[test]
fn request_01_no_service() {
    for set in SETS {
        let mut world = set.world();
        assert!(world.index.plan(&key("testsvc"), 0).is_none());
    }
}

#[test]
fn request_02_a_cluster_ip_service_without_anything_is_left_alone() {
    for set in SETS {
        let mut world = set.world();
        world.ask("testsvc", None);
        is_idle(&mut world);
    }
}

#[test]
fn request_03_a_service_that_became_cluster_ip_gives_its_address_back() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        world.ask("testsvc", None);
        world
            .services
            .get_mut(&key("testsvc"))
            .unwrap()
            .load_balancer = false;
        world.restart();
        world.settle();
        set.expect("testsvc", &world, &[]);
    }
}

/// OpenELB releases here; an address never goes because its pool cannot be selected any more.
#[test]
fn request_04_a_pool_that_cannot_be_selected_any_more_takes_nothing_away() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        set.ask(&mut world, set.wish(), &[0]);
    }
}

/// OpenELB releases and allocates anew; we put back what the ledger says.
#[test]
fn request_05_an_empty_status_is_filled_again_from_the_default_eip() {
    for set in SETS {
        let mut world = set.with_default();
        set.ask(&mut world, set.wish(), &[0]);
        clear(&mut world);
        set.ask(&mut world, set.wish(), &[0]);
    }
}

#[test]
fn request_06_an_eip_named() {
    for set in SETS {
        set.served(set.from("eip"), 0);
    }
}

#[test]
fn request_07_an_eip_named_and_an_empty_status_without_label() {
    for set in SETS {
        let mut world = set.served(set.named("eip", 7), 7);
        clear(&mut world);
        set.ask(&mut world, set.from("eip"), &[7]);
        assert_eq!(
            world.services[&key("testsvc")].status.eip.as_deref(),
            Some("eip")
        );
    }
}

#[test]
fn request_08_an_address_and_an_eip_named() {
    for set in SETS {
        set.served(set.named("eip", 50), 50);
    }
}

#[test]
fn request_09_an_address_named_and_had_is_left_alone() {
    for set in SETS {
        let mut world = set.served(set.named("eip", 50), 50);
        is_idle(&mut world);
    }
}

/// What a Service asks for by annotation and field.
fn read(set: &Set, annotation: Option<u32>, field: Option<u32>) -> Request {
    let mut annotations = std::collections::BTreeMap::from([
        (keys::OPT_IN.to_owned(), keys::OPT_IN_VALUE.to_owned()),
        (keys::EIP.to_owned(), "eip".to_owned()),
    ]);
    annotations.extend(annotation.map(|n| (keys::ADDRESS.to_owned(), (set.host)(n))));
    let service = Service {
        metadata: ObjectMeta {
            name: Some("testsvc".to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some("u".to_owned()),
            resource_version: Some("1".to_owned()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("LoadBalancer".to_owned()),
            load_balancer_ip: field.map(set.host),
            ip_families: Some(vec![set.family.as_str().to_owned()]),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    ServiceFacts::read(&service).unwrap().request.unwrap()
}

#[test]
fn request_10_an_address_named_by_annotation() {
    for set in SETS {
        set.served(read(&set, Some(100), None), 100);
    }
}

#[test]
fn request_11_the_annotation_wins_over_the_field() {
    for set in SETS {
        set.served(read(&set, Some(100), Some(50)), 100);
    }
}

/// OpenELB fails later; we say so at once, and a Service that has an address keeps it.
#[test]
fn request_12_an_eip_that_does_not_exist_is_waited_for_and_costs_nothing() {
    for set in SETS {
        let mut world = set.world();
        set.ask(&mut world, set.from("missing"), &[]);
        assert_eq!(world.reason("testsvc"), "NoEip");
        world.eip("missing", set.spec(set.other));
        world.settle();
        assert_eq!(world.shown("testsvc").len(), 1);
        let mut world = set.served(set.from("eip"), 0);
        set.ask(&mut world, set.from("missing"), &[0]);
        assert_eq!(world.reason("testsvc"), "NoEip");
    }
}

/// OpenELB has to release by the status alone; the record of ours is there without the Eip.
#[test]
fn request_13_a_deleted_service_whose_eip_is_gone() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        world.eips.clear();
        world.index.remove_eip("eip");
        world.delete("testsvc");
        world.settle();
        assert!(world.records.is_empty());
    }
}

#[test]
fn request_14_a_deleted_service_gives_back_what_it_had() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        world.delete("testsvc");
        world.settle();
        assert!(world.records.is_empty());
    }
}

#[test]
fn request_15_a_service_that_opts_out_gives_back_what_it_had() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        world.ask("testsvc", None);
        world.settle();
        set.expect("testsvc", &world, &[]);
        assert_eq!(world.services[&key("testsvc")].status.eip, None);
    }
}

#[test]
fn request_16_what_is_as_it_should_be_is_left_alone() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        world.restart();
        is_idle(&mut world);
    }
}

#[test]
fn request_17_another_eip_named_moves_the_service_there() {
    for set in SETS {
        let mut world = set.world();
        world.eip("eip1", set.spec(set.other));
        world.ask("testsvc", Some(set.from("eip1")));
        world.settle();
        assert_eq!(world.shown("testsvc").len(), 1);
        set.ask(&mut world, set.from("eip"), &[0]);
        assert_eq!(world.records.len(), 1);
    }
}

#[test]
fn request_18_an_eip_bound_to_the_namespace_by_name() {
    for set in SETS {
        let mut world = World::default();
        let namespaces = vec!["default".to_owned()];
        world.eip(
            "eip",
            EipSpec {
                namespaces,
                ..set.spec(set.pool)
            },
        );
        set.ask(&mut world, set.wish(), &[0]);
    }
}

#[test]
fn request_19_an_eip_bound_to_the_namespace_by_labels() {
    for set in SETS {
        let mut world = World::default();
        let labels = BTreeMap::from([("label".to_owned(), "test".to_owned())]);
        let spec = EipSpec {
            namespace_selector: labels.clone(),
            ..set.spec(set.pool)
        };
        world.eip("eip", spec);
        set.ask(&mut world, set.wish(), &[]);
        world.index.apply_namespace("default", labels);
        world.settle();
        set.expect("testsvc", &world, &[0]);
    }
}

#[test]
fn request_20_of_two_bound_eips_the_smaller_priority_wins() {
    for set in SETS {
        let mut world = World::default();
        let bound = |address, priority| EipSpec {
            namespaces: vec!["default".to_owned()],
            priority,
            ..set.spec(address)
        };
        world.eip("a-late", bound(set.other, 20));
        world.eip("b-first", bound(set.pool, 10));
        set.ask(&mut world, set.wish(), &[0]);
    }
}

#[test]
fn request_21_the_default_eip() {
    for set in SETS {
        let mut world = set.with_default();
        set.ask(&mut world, set.wish(), &[0]);
    }
}

#[test]
fn assign_01_nothing_to_assign() {
    for set in SETS {
        is_idle(&mut set.world());
    }
}

#[test]
fn assign_02_an_unknown_eip_is_refused() {
    for set in SETS {
        let mut world = World::default();
        set.ask(&mut world, set.from("eip"), &[]);
        assert_eq!(world.reason("testsvc"), "NoEip");
    }
}

#[test]
fn assign_03_a_static_address_is_recorded() {
    for set in SETS {
        let world = set.served(set.named("eip", 100), 100);
        let record = &world.records.values().next().unwrap().record;
        assert_eq!((&*record.eip, record.entries.len()), ("eip", 1));
    }
}

#[test]
fn assign_04_the_lowest_free_address_is_recorded() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        set.ask_as("other", &mut world, set.from("eip"), &[1]);
    }
}

#[test]
fn assign_05_an_eip_that_is_being_deleted_gives_nothing() {
    for set in SETS {
        let mut world = World::default();
        set.delete_eip(&mut world);
        set.ask(&mut world, set.from("eip"), &[]);
        assert_eq!(world.reason("testsvc"), "NoEip");
        set.ask(&mut world, set.named("eip", 1), &[]);
    }
}

#[test]
fn assign_06_a_disabled_eip_gives_nothing_and_takes_nothing() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        world.eip(
            "eip",
            EipSpec {
                disable: true,
                ..set.spec(set.pool)
            },
        );
        set.ask(&mut world, set.from("eip"), &[0]);
        set.ask_as("other", &mut world, set.from("eip"), &[]);
        assert_eq!(world.reason("other"), "NoEip");
    }
}

#[test]
fn assign_07_an_address_outside_is_refused() {
    for set in SETS {
        let mut world = World::default();
        world.eip(
            "eip",
            set.spec(&format!("{}-{}", (set.host)(0), (set.host)(1))),
        );
        set.ask(&mut world, set.named("eip", 9), &[]);
        assert_eq!(world.reason("testsvc"), "AddressOutsideEip");
    }
}

/// Who waits is served as soon as there is room, even while the address rests.
#[test]
fn assign_08_a_full_eip_is_waited_for() {
    for set in SETS {
        let mut world = World::default();
        world.eip(
            "eip",
            set.spec(&format!("{}-{}", (set.host)(0), (set.host)(1))),
        );
        set.ask_as("one", &mut world, set.from("eip"), &[0]);
        set.ask_as("two", &mut world, set.from("eip"), &[1]);
        set.ask(&mut world, set.from("eip"), &[]);
        assert_eq!(world.reason("testsvc"), "EipExhausted");
        world.delete("one");
        world.settle();
        set.expect("testsvc", &world, &[0]);
    }
}

/// OpenELB shares blindly; we share where both asked for the address and agree on it.
#[test]
fn assign_09_an_address_in_use_is_shared_only_where_both_named_it_and_agree() {
    for set in SETS {
        let mut world = set.served(set.named("eip", 100), 100);
        let https = Request {
            terms: wish(443).terms,
            ..set.named("eip", 100)
        };
        set.ask_as("other", &mut world, https, &[100]);
        set.ask_as("same", &mut world, set.named("eip", 100), &[]);
        assert_eq!(world.reason("same"), "AddressInUse");
        let mut world = set.served(set.from("eip"), 0);
        let https = Request {
            terms: wish(443).terms,
            ..set.named("eip", 0)
        };
        set.ask_as("other", &mut world, https, &[]);
    }
}

#[test]
fn assign_10_an_address_that_is_ours_already_stays_as_it_is() {
    for set in SETS {
        let mut world = set.served(set.named("eip", 100), 100);
        let version = world.records.values().next().unwrap().version.clone();
        set.ask(&mut world, set.named("eip", 100), &[100]);
        assert_eq!(world.records.values().next().unwrap().version, version);
    }
}

/// In OpenELB both stand in the pool until the release; here the old one goes with the move.
#[test]
fn assign_11_another_address_asked_for_moves_the_service() {
    for set in SETS {
        let mut world = set.served(set.named("eip", 100), 100);
        set.ask(&mut world, set.named("eip", 110), &[110]);
        assert_eq!(world.records.len(), 1);
    }
}

#[test]
fn release_01_nothing_to_release() {
    for set in SETS {
        let mut world = set.world();
        world.delete("testsvc");
        is_idle(&mut world);
    }
}

/// The record is given back all the same.
#[test]
fn release_02_of_an_eip_that_is_gone() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        world.index.remove_eip("eip");
        world.eips.clear();
        world.ask("testsvc", None);
        world.settle();
        assert!(world.records.is_empty());
        set.expect("testsvc", &world, &[]);
    }
}

/// OpenELB releases nothing there; we do.
#[test]
fn release_03_of_an_eip_that_is_being_deleted() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        set.delete_eip(&mut world);
        world.delete("testsvc");
        world.settle();
        assert!(world.records.is_empty());
    }
}

#[test]
fn release_04_of_a_service_that_has_nothing_changes_nothing() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        world.ask("other", None);
        world.delete("other");
        is_idle(&mut world);
        set.expect("testsvc", &world, &[0]);
    }
}

#[test]
fn release_05_empties_what_the_eip_says_is_in_use() {
    for set in SETS {
        let mut world = set.served(set.from("eip"), 0);
        let used = |world: &World| world.index.eip_view("eip").unwrap().used;
        assert_eq!(used(&world).len(), 1);
        world.delete("testsvc");
        world.settle();
        assert!(used(&world).is_empty());
    }
}
