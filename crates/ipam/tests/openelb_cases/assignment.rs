//! What an Eip gives, and what it gets back.

use openelb_api::v1alpha2::EipSpec;
use openelb_ipam::Request;

use super::world::{World, wish};
use super::{SETS, is_idle};

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
