//! What a Service asks for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use openelb_api::keys;
use openelb_api::v1alpha2::EipSpec;
use openelb_ipam::{Request, ServiceFacts, ServiceStatus};

use super::world::{World, key};
use super::{SETS, Set, is_idle};

/// Somebody cleared the status and took the label away.
fn clear(world: &mut World) {
    world.services.get_mut(&key("testsvc")).unwrap().status = ServiceStatus::default();
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
    let mut annotations = BTreeMap::from([
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
