//! The rules of address management against a naive model: random pools, edits, Services, restarts.

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

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use openelb_api::v1alpha2::EipSpec;
use openelb_ipam::sharing;
use proptest::prelude::*;
use world::{World, key, wish};

#[derive(Clone, Debug)]
enum Action {
    /// Service n asks for any address, or for this one, with this port.
    Ask(u8, Option<u8>, u16),
    OptOut(u8),
    Delete(u8),
    /// The pool ends here now.
    Resize(u8),
    Disable(bool),
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0_u8..12, prop::option::weighted(0.3, 0_u8..16), 80_u16..83).prop_map(|(n, a, p)| Action::Ask(n, a, p)),
        1 => (0_u8..12).prop_map(Action::OptOut),
        3 => (0_u8..12).prop_map(Action::Delete),
        1 => (0_u8..16).prop_map(Action::Resize),
        1 => any::<bool>().prop_map(Action::Disable),
        1 => Just(Action::Restart),
    ]
}

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, n).into()
}

fn pool(last: u8, disable: bool) -> EipSpec {
    EipSpec {
        address: format!("192.0.2.0-192.0.2.{last}"),
        disable,
        ..EipSpec::default()
    }
}

fn shown(world: &World) -> BTreeMap<String, Vec<IpAddr>> {
    let services = world.services.values();
    services
        .map(|service| {
            (
                service.key.name.to_string(),
                service.status.addresses.clone(),
            )
        })
        .collect()
}

/// Records and statuses say the same, and an address has two Services only where they agree.
fn check(world: &World) {
    let mut on: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for (name, addresses) in shown(world) {
        assert!(addresses.len() <= 1, "{name} has {addresses:?}");
        for address in addresses {
            on.entry(address).or_default().insert(name.clone());
        }
    }
    let held: BTreeMap<IpAddr, BTreeSet<String>> = world
        .records
        .values()
        .map(|stored| {
            let entries = stored.record.entries.iter();
            (
                stored.record.address,
                entries
                    .map(|entry| entry.service.name.to_string())
                    .collect(),
            )
        })
        .collect();
    assert_eq!(on, held);
    for stored in world.records.values() {
        let entries = &stored.record.entries;
        for (at, one) in entries.iter().enumerate() {
            for other in entries.iter().skip(at + 1) {
                let agreed = sharing::agree(
                    (&one.service, &one.terms),
                    (&other.service, &other.terms),
                    false,
                );
                assert_eq!(agreed, Ok(()), "{}", stored.record.address);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn addresses_are_given_once_kept_and_the_lowest(actions in prop::collection::vec(action(), 1..60)) {
        let mut world = World::default();
        let (mut last, mut disabled) = (7, false);
        world.eip("lan", pool(last, disabled));
        for action in actions {
            let before = shown(&world);
            // Longer than an address rests.
            world.now += 60_000;
            let mut about = None;
            match action.clone() {
                Action::Ask(n, wanted, port) => {
                    let mut request = wish(port);
                    request.addresses.extend(wanted.map(address));
                    about = Some(format!("s{n}"));
                    world.ask(&format!("s{n}"), Some(request));
                }
                Action::OptOut(n) => {
                    about = Some(format!("s{n}"));
                    if world.services.contains_key(&key(&format!("s{n}"))) {
                        world.ask(&format!("s{n}"), None);
                    }
                }
                Action::Delete(n) => {
                    about = Some(format!("s{n}"));
                    world.delete(&format!("s{n}"));
                }
                Action::Resize(n) => { last = n; world.eip("lan", pool(last, disabled)); }
                Action::Disable(disable) => { disabled = disable; world.eip("lan", pool(last, disabled)); }
                Action::Restart => {
                    let writes = world.writes;
                    world.restart();
                    world.settle();
                    prop_assert_eq!(world.writes, writes, "a restart writes nothing");
                }
            }
            let taken: BTreeSet<IpAddr> = world.records.keys().copied().collect();
            world.settle();
            check(&world);
            let after = shown(&world);
            // Whoever asked for another address by name moves when it can be had.
            let content = |name: &String, held: &Vec<IpAddr>| {
                let request = world.services.get(&key(name)).and_then(|service| service.request.as_ref());
                request.is_none_or(|request| request.addresses.iter().all(|address| held.contains(address)))
            };
            let others = before.iter().filter(|(name, held)| {
                Some(*name) != about.as_ref() && !held.is_empty() && content(name, held)
            });
            for (name, addresses) in others {
                prop_assert_eq!(after.get(name), Some(addresses), "{} moved by {:?}", name, &action);
            }
            if let Action::Ask(n, None, _) = action {
                let name = format!("s{n}");
                let had = before.get(&name).is_some_and(|held| !held.is_empty());
                let remembered = world.services[&key(&name)].status.held.clone();
                let lowest = (0..=last).map(address).find(|address| !taken.contains(address));
                let got = after[&name].first().copied();
                if !had && !disabled && !before.contains_key(&name) {
                    prop_assert_eq!(got, lowest, "{:?}", remembered);
                }
                if disabled && !had {
                    prop_assert_eq!(got, None);
                }
            }
        }
    }
}
