//! Many plans under way at once, each stopped between any two of its requests, crashes at any point, time that
//! passes, and watches that speak when they like. Who waits is served by what the index wakes alone.

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

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openelb_api::Family;
use openelb_api::v1alpha2::EipSpec;
use openelb_ipam::ledger::{Outcome, Plan, Transaction};
use openelb_ipam::{Request, ServiceKey, ServiceStatus, sharing};
use proptest::prelude::*;
use world::{World, key, wish};

const SERVICES: u8 = 8;
const ADDRESSES: u8 = 4;

#[derive(Clone, Debug)]
enum Action {
    Ask(u8, Wish, u16),
    OptOut(u8),
    /// With a finalizer of somebody on it, or at once.
    Delete(u8, bool),
    /// The Service whose turn it is gets a plan.
    Begin,
    /// One of the plans under way makes its next request.
    Step(usize),
    /// A watch tells of an address.
    Hear(u8, bool),
    /// So many seconds pass.
    Wait(u64),
    Disable(bool),
    Sticky(bool),
    Crash,
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    Any(Family),
    Named(u8),
    Prefer,
    Require,
}

fn wishes() -> impl Strategy<Value = Wish> {
    prop_oneof![
        4 => Just(Wish::Any(Family::V4)),
        1 => Just(Wish::Any(Family::V6)),
        3 => (0..ADDRESSES).prop_map(Wish::Named),
        1 => Just(Wish::Prefer),
        1 => Just(Wish::Require),
    ]
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..SERVICES, wishes(), 80_u16..83).prop_map(|(n, wish, port)| Action::Ask(n, wish, port)),
        1 => (0..SERVICES).prop_map(Action::OptOut),
        3 => (0..SERVICES, any::<bool>()).prop_map(|(n, held)| Action::Delete(n, held)),
        8 => Just(Action::Begin),
        24 => (0_usize..8).prop_map(Action::Step),
        4 => (0..ADDRESSES, any::<bool>()).prop_map(|(n, v6)| Action::Hear(n, v6)),
        2 => (1_u64..40).prop_map(Action::Wait),
        1 => any::<bool>().prop_map(Action::Disable),
        1 => any::<bool>().prop_map(Action::Sticky),
        1 => Just(Action::Crash),
    ]
}

fn address(n: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into()
    } else {
        Ipv4Addr::new(192, 0, 2, n).into()
    }
}

fn request(wish_for: Wish, port: u16) -> Request {
    let both = vec![Family::V4, Family::V6];
    match wish_for {
        Wish::Any(family) => Request {
            families: vec![family],
            ..wish(port)
        },
        Wish::Named(n) => Request {
            addresses: vec![address(n, false)],
            ..wish(port)
        },
        Wish::Prefer => Request {
            families: both,
            ..wish(port)
        },
        Wish::Require => Request {
            families: both,
            all_families: true,
            ..wish(port)
        },
    }
}

struct Controller {
    world: World,
    running: Vec<(Plan<ServiceStatus>, Transaction<ServiceStatus>)>,
    disabled: bool,
    sticky: bool,
}

impl Controller {
    fn new() -> Self {
        let mut controller = Self {
            world: World::default(),
            running: Vec::new(),
            disabled: false,
            sticky: false,
        };
        controller.pools();
        controller
    }

    fn pools(&mut self) {
        let last = ADDRESSES - 1;
        for (name, first, last) in [
            ("four", address(0, false), address(last, false)),
            ("six", address(0, true), address(last, true)),
        ] {
            let spec = EipSpec {
                address: format!("{first}-{last}"),
                disable: self.disabled,
                sticky: self.sticky,
                ..EipSpec::default()
            };
            self.world.eip(name, spec);
        }
    }

    fn act(&mut self, action: &Action) {
        let name = |n: u8| format!("s{n}");
        match *action {
            Action::Ask(n, wish, port) => {
                let deleting = self.world.services.get(&key(&name(n)));
                if deleting.is_none_or(|service| !service.deleting) {
                    self.world.ask(&name(n), Some(request(wish, port)));
                }
            }
            Action::OptOut(n) => {
                if self.world.services.contains_key(&key(&name(n))) {
                    self.world.ask(&name(n), None);
                }
            }
            Action::Delete(n, held_back) => {
                let known = self.world.services.get(&key(&name(n)));
                if held_back && known.is_some_and(|service| !service.deleting) {
                    self.world.edit(&name(n), |service| {
                        service.deleting = true;
                        service.request = None;
                    });
                } else {
                    self.world.delete(&name(n));
                }
            }
            Action::Begin => self.begin(),
            Action::Step(n) => {
                if !self.running.is_empty() {
                    self.step(n % self.running.len());
                }
            }
            Action::Hear(n, v6) => self.hear(address(n, v6)),
            Action::Wait(seconds) => self.world.now += seconds * 1000,
            Action::Disable(disabled) => {
                self.disabled = disabled;
                self.pools();
            }
            Action::Sticky(sticky) => {
                self.sticky = sticky;
                self.pools();
            }
            Action::Crash => {
                self.running.clear();
                self.world.restart();
            }
        }
    }

    fn begin(&mut self) {
        let woken = self.world.index.take_woken();
        self.world.queue.extend(woken);
        let busy: BTreeSet<ServiceKey> = self
            .running
            .iter()
            .map(|(plan, _)| plan.subject.key.clone())
            .collect();
        let free = self
            .world
            .queue
            .iter()
            .find(|key| !busy.contains(*key))
            .cloned();
        let Some(key) = free else { return };
        self.world.queue.remove(&key);
        if let Some(decision) = self.world.index.plan(&key, self.world.now) {
            let transaction = Transaction::new(decision.plan.clone());
            self.running.push((decision.plan, transaction));
        }
    }

    fn step(&mut self, n: usize) {
        let (plan, mut transaction) = self.running.remove(n);
        let Some(end) = self.world.step(&mut transaction) else {
            self.running.push((plan, transaction));
            return;
        };
        self.world.index.conclude(&plan, Some(&end), self.world.now);
        let key = plan.subject.key;
        if end.outcome == Outcome::Again {
            match self.world.services.get(&key).cloned() {
                Some(facts) => self.world.see(facts),
                None => drop(self.world.index.remove_service(&key, None, self.world.now)),
            }
        }
        if end.outcome != Outcome::Done || self.world.index.has_leftovers(&key) {
            self.world.queue.insert(key);
        }
    }

    fn hear(&mut self, address: IpAddr) {
        let now = self.world.now;
        match self.world.records.get(&address).cloned() {
            Some(stored) => drop(self.world.index.apply_record(stored, now)),
            None => {
                if let Some(uid) = self.world.index.record_uid(address).cloned() {
                    self.world.index.remove_record(address, &uid, now);
                }
            }
        }
    }

    /// What is shown is held, and those on one address agreed when they came.
    fn check(&self) {
        for service in self.world.services.values() {
            for address in &service.status.addresses {
                let record = self.world.records.get(address);
                assert!(
                    record.is_some_and(|stored| stored.record.names(&service.uid)),
                    "{} shows {address}, held by {record:?}",
                    service.key
                );
            }
        }
        for stored in self.world.records.values() {
            let entries = &stored.record.entries;
            for (at, one) in entries.iter().enumerate() {
                for other in entries.iter().skip(at + 1) {
                    let (one, other) =
                        ((&one.service, &*one.terms), (&other.service, &*other.terms));
                    assert_eq!(
                        sharing::agree(one, other, false),
                        Ok(()),
                        "{}",
                        stored.record.address
                    );
                }
            }
        }
    }

    /// Everything under way ends, and everybody who can be served is.
    fn come_to_rest(&mut self) {
        while !self.running.is_empty() {
            self.step(0);
            self.check();
        }
        for n in 0..ADDRESSES {
            self.hear(address(n, false));
            self.hear(address(n, true));
        }
        self.world.work();
        self.check();
        let held_by_somebody = |address: IpAddr| {
            let record = self.world.records.get(&address);
            record.is_some_and(|stored| !stored.record.entries.is_empty())
        };
        for service in self.world.services.values() {
            let Some(request) = &service.request else {
                assert!(service.status.addresses.is_empty(), "{}", service.key);
                continue;
            };
            let waits = service.status.addresses.is_empty() && request.addresses.is_empty();
            if self.disabled || !waits || request.all_families {
                continue;
            }
            for family in &request.families {
                let v6 = *family == Family::V6;
                assert!(
                    (0..ADDRESSES).all(|n| held_by_somebody(address(n, v6))),
                    "{} waits although there is room",
                    service.key
                );
            }
        }
        for stored in self.world.records.values() {
            let record = &stored.record;
            for entry in &record.entries {
                let holder = self.world.services.get(&entry.service);
                let shows = holder.is_some_and(|holder| {
                    holder.uid == entry.uid && holder.status.addresses.contains(&record.address)
                });
                assert!(
                    shows,
                    "{} is held by {} in vain",
                    record.address, entry.service
                );
            }
            let kept = self.sticky && record.kept_for.is_some();
            assert!(
                !record.entries.is_empty() || kept,
                "{} is left over",
                record.address
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn nothing_is_doubled_lost_or_left_whatever_comes_between(actions in prop::collection::vec(actions(), 1..160)) {
        let mut controller = Controller::new();
        for action in &actions {
            controller.act(action);
            controller.check();
        }
        controller.come_to_rest();
        // And a restart finds nothing to do.
        let writes = controller.world.writes;
        controller.world.restart();
        controller.world.work();
        prop_assert_eq!(controller.world.writes, writes);
    }
}
