//! Engines on a simulated LAN with a simulated clock.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use openelb_net::{Link, Links, MacAddr};

use super::*;
use crate::{Activity, InterfaceChoice, Role, Vip, frame};

const VIP: &str = "10.0.0.100";
const VIP6: &str = "fd00:10::100";
const NAMES: [&str; 3] = ["a", "b", "c"];

/// The alphabetically first outranks.
fn outranks(_: IpAddr, one: &str, other: &str) -> bool {
    one < other
}

fn mac(n: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, u8::try_from(n).unwrap()])
}

fn links(mac: MacAddr, running: bool) -> Arc<Links> {
    let eth0 = Link {
        index: 2,
        name: "eth0".to_owned(),
        mac: Some(mac),
        running,
        loopback: false,
        master: None,
        addresses: vec![
            "10.0.0.1/24".parse().unwrap(),
            "fd00:10::1/64".parse().unwrap(),
        ],
    };
    Arc::new(Links {
        links: [(2, eth0)].into(),
        routes: Vec::new(),
    })
}

struct Lan {
    engines: Vec<Engine>,
    /// Hosts whose frames are lost.
    cut: BTreeSet<usize>,
    now: Now,
    /// All frames with their sender.
    heard: Vec<(usize, Vec<u8>)>,
}

impl Lan {
    fn new(count: usize) -> Self {
        let now = Now {
            instant: Instant::now(),
            wall: SystemTime::now(),
        };
        let engines = (0..count)
            .map(|n| {
                let config = ResponderConfig::new(NAMES[n], outranks);
                let mut engine = Engine::new(config, Arc::default(), 7, now.instant);
                engine.set_links(links(mac(n), true), now);
                engine
            })
            .collect();
        Self {
            engines,
            cut: BTreeSet::new(),
            now,
            heard: Vec::new(),
        }
    }

    fn wish(&mut self, n: usize, role: Role, change: impl Fn(&mut Desired)) {
        let vip = Vip {
            choice: Arc::new(InterfaceChoice::Auto),
            role,
            probe: ProbePolicy::Off,
            preferred: None,
            proven: false,
            refresh: Some(Vip::REFRESH),
        };
        let peers = (0..self.engines.len())
            .filter(|other| *other != n)
            .map(|other| (mac(other), Arc::from(NAMES[other])))
            .collect();
        let mut desired = Desired {
            addresses: [VIP, VIP6]
                .map(|ip| (ip.parse().unwrap(), vip.clone()))
                .into(),
            peers,
            ..Desired::default()
        };
        change(&mut desired);
        self.engines[n].set_desired(Arc::new(desired), self.now);
    }

    /// Everybody follows the leader of this number.
    fn elect(&mut self, leader: usize) {
        for n in 0..self.engines.len() {
            let role = if n == leader {
                Role::Lead
            } else {
                Role::Follow
            };
            self.wish(n, role, |_| {});
        }
    }

    fn advance(&mut self, time: Duration) {
        let step = Duration::from_millis(5);
        let end = self.now.instant + time;
        while self.now.instant < end {
            self.now.instant += step;
            self.now.wall += step;
            for n in 0..self.engines.len() {
                self.engines[n].tick(self.now);
            }
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        loop {
            let mut frames = Vec::new();
            for (n, engine) in self.engines.iter_mut().enumerate() {
                frames.extend(engine.sends.drain(..).map(|send| (n, send.frame)));
            }
            if frames.is_empty() {
                return;
            }
            for (from, frame) in frames {
                for to in 0..self.engines.len() {
                    let lost = self.cut.contains(&from) || self.cut.contains(&to);
                    if to != from && !lost {
                        self.engines[to].receive(2, &frame, self.now);
                    }
                }
                self.heard.push((from, frame));
            }
        }
    }

    /// A stranger says something.
    fn say(&mut self, frame: &[u8]) {
        for engine in &mut self.engines {
            engine.receive(2, frame, self.now);
        }
        self.deliver();
    }

    /// A stranger claims the first address.
    fn claim(&mut self, by: MacAddr) {
        let claim = frame::announcement(by, VIP.parse().unwrap(), Form::Reply);
        self.say(&claim);
    }

    /// Who answers a request for the address.
    fn answering(&self, ip: &str) -> Vec<usize> {
        let ip: IpAddr = ip.parse().unwrap();
        (0..self.engines.len())
            .filter(|n| self.engines[*n].states[&ip].phase.answers())
            .collect()
    }

    fn activity(&self, n: usize, ip: &str) -> Activity {
        self.engines[n].snapshot().addresses[&ip.parse::<IpAddr>().unwrap()].activity
    }

    /// Announcements heard so far of one host.
    fn announcements(&self, by: usize, ip: &str) -> usize {
        let claim = Some((ip.parse().unwrap(), mac(by)));
        self.heard
            .iter()
            .filter(|(_, f)| frame::parse(f).is_ok_and(|m| m.claim == claim))
            .count()
    }
}

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_take_over_is_announced_at_once_repeated_and_then_refreshed_slowly() {
    let mut lan = Lan::new(1);
    lan.elect(0);
    lan.advance(MS(10));
    assert_eq!(
        (lan.announcements(0, VIP), lan.announcements(0, VIP6)),
        (2, 1),
        "both forms at once"
    );
    lan.advance(Duration::from_secs(12));
    let (v4, v6) = (lan.announcements(0, VIP), lan.announcements(0, VIP6));
    assert!(
        (8..=16).contains(&v4) && (5..=8).contains(&v6),
        "{v4} and {v6}"
    );
    lan.advance(Duration::from_mins(10));
    let refreshed = lan.announcements(0, VIP6) - v6;
    assert!(
        (7..=14).contains(&refreshed),
        "{refreshed} refreshes in ten minutes"
    );
}

#[test]
fn the_refresh_can_be_turned_off() {
    let mut lan = Lan::new(1);
    let off = |desired: &mut Desired| {
        desired
            .addresses
            .values_mut()
            .for_each(|vip| vip.refresh = None);
    };
    lan.wish(0, Role::Lead, off);
    lan.advance(Duration::from_secs(20));
    let before = lan.heard.len();
    lan.advance(Duration::from_mins(10));
    assert_eq!(lan.heard.len(), before);
}

#[test]
fn a_planned_move_is_made_before_it_is_broken() {
    let mut lan = Lan::new(2);
    lan.elect(0);
    lan.advance(MS(50));
    // The old leader learns first: it goes on until the new one is heard.
    lan.wish(0, Role::Follow, |_| {});
    lan.advance(MS(300));
    assert_eq!(lan.answering(VIP), [0]);
    lan.wish(1, Role::Lead, |_| {});
    lan.advance(MS(10));
    assert_eq!(lan.answering(VIP), [1]);
    assert_eq!(lan.answering(VIP6), [1]);
    // The new leader learns first: the old one stops as soon as it knows too, or gives way at once.
    lan.wish(0, Role::Lead, |_| {});
    lan.advance(MS(10));
    assert_eq!(lan.answering(VIP), [0], "the better node is believed");
    lan.wish(1, Role::Follow, |_| {});
    lan.advance(MS(10));
    assert_eq!(lan.activity(1, VIP), Activity::Idle);
}

#[test]
fn a_hand_over_to_nobody_ends() {
    let mut lan = Lan::new(1);
    lan.elect(0);
    lan.advance(MS(50));
    lan.wish(0, Role::Follow, |_| {});
    lan.advance(Duration::from_secs(4));
    assert_eq!(lan.answering(VIP), [0]);
    lan.advance(Duration::from_secs(2));
    assert!(lan.answering(VIP).is_empty());
}

#[test]
fn an_address_that_is_not_served_any_more_is_silent_at_once() {
    let mut lan = Lan::new(1);
    lan.elect(0);
    lan.advance(MS(50));
    lan.wish(0, Role::Silent, |_| {});
    assert!(lan.answering(VIP).is_empty());
    lan.elect(0);
    lan.advance(MS(50));
    lan.engines[0].set_desired(Arc::default(), lan.now);
    assert!(lan.engines[0].snapshot().addresses.is_empty());
}

#[test]
fn of_two_who_believe_to_lead_the_one_that_outranks_stays() {
    let mut lan = Lan::new(2);
    lan.wish(0, Role::Lead, |_| {});
    lan.advance(MS(50));
    lan.wish(1, Role::Lead, |_| {});
    lan.advance(Duration::from_secs(1));
    assert_eq!(lan.answering(VIP), [0]);
    assert_eq!(lan.activity(1, VIP), Activity::Yielded);
    lan.advance(Duration::from_mins(2));
    assert_eq!(
        lan.answering(VIP),
        [0],
        "and it stays so while the other is heard"
    );
    // The winner dies without a word of the membership.
    lan.cut.insert(0);
    lan.advance(Duration::from_secs(3));
    assert!(lan.activity(1, VIP).answers() && lan.activity(1, VIP6).answers());
}

#[test]
fn a_process_that_was_paused_listens_before_it_answers_again() {
    let mut lan = Lan::new(2);
    lan.elect(0);
    lan.advance(MS(50));
    // The first process stops; the second takes over.
    let mut paused = lan.engines.remove(0);
    lan.advance(Duration::from_secs(3));
    let vip: IpAddr = VIP.parse().unwrap();
    let mut desired = Desired::clone(&lan.engines[0].desired);
    desired
        .addresses
        .values_mut()
        .for_each(|vip| vip.role = Role::Lead);
    lan.engines[0].set_desired(Arc::new(desired), lan.now);
    lan.engines[0].tick(lan.now);
    lan.engines[0].sends.clear();
    assert!(lan.engines[0].states[&vip].phase.answers());
    assert!(paused.was_paused(lan.now.instant));
    paused.tick(lan.now);
    lan.engines.insert(0, paused);
    assert_eq!(lan.answering(VIP), [1], "silent while it listens");
    lan.deliver();
    lan.advance(Duration::from_secs(2));
    assert_eq!(lan.answering(VIP), [1], "the other was heard");

    // With nobody else on the LAN it goes on by itself.
    let mut alone = Lan::new(1);
    alone.elect(0);
    alone.advance(MS(50));
    alone.now.instant += Duration::from_secs(3);
    alone.engines[0].tick(alone.now);
    assert!(alone.answering(VIP).is_empty());
    alone.advance(Duration::from_secs(1));
    assert_eq!(alone.answering(VIP), [0]);
}

#[test]
fn a_foreign_claim_is_reported_and_contradicted_at_a_bounded_rate() {
    let mut lan = Lan::new(1);
    lan.elect(0);
    lan.advance(Duration::from_secs(10));
    let before = lan.announcements(0, VIP);
    let foreign = MacAddr([2, 0, 0, 0, 9, 9]);
    for _ in 0..500 {
        let claim = frame::announcement(foreign, VIP.parse().unwrap(), Form::Reply);
        lan.say(&claim);
        lan.advance(MS(10));
    }
    assert_eq!(lan.answering(VIP), [0]);
    let defences = lan.announcements(0, VIP) - before;
    // In 5 seconds one defence is due, of two frames.
    assert_eq!(defences, 2, "frames against 500");
    let state = &lan.engines[0].snapshot().addresses[&VIP.parse::<IpAddr>().unwrap()];
    let conflict = state.conflict.as_ref().unwrap();
    assert_eq!((conflict.mac, conflict.count), (foreign, 500));
    let reports = lan.engines[0]
        .events
        .iter()
        .filter(|e| matches!(e, Event::Conflict { .. }))
        .count();
    assert_eq!(reports, 1);
    lan.advance(Duration::from_mins(6));
    lan.engines[0].forget_conflicts(lan.now);
    let state = &lan.engines[0].snapshot().addresses[&VIP.parse::<IpAddr>().unwrap()];
    assert_eq!(state.conflict, None);
}

#[test]
fn an_address_is_probed_before_its_first_use_and_never_again() {
    for policy in [ProbePolicy::Report, ProbePolicy::Avoid] {
        let mut lan = Lan::new(1);
        let probe = |desired: &mut Desired| {
            desired
                .addresses
                .values_mut()
                .for_each(|vip| vip.probe = policy);
        };
        lan.wish(0, Role::Lead, probe);
        lan.advance(MS(300));
        assert_eq!(lan.activity(0, VIP), Activity::Probing);
        assert_eq!(lan.announcements(0, VIP), 0, "nothing is claimed yet");
        let foreign = MacAddr([2, 0, 0, 0, 9, 9]);
        lan.say(&frame::announcement(
            foreign,
            VIP.parse().unwrap(),
            Form::Reply,
        ));
        lan.advance(Duration::from_secs(2));
        let taken = lan.engines[0].states[&VIP.parse::<IpAddr>().unwrap()].probe;
        assert_eq!(taken, ProbeResult::Taken(foreign));
        assert_eq!(
            lan.activity(0, VIP).answers(),
            policy == ProbePolicy::Report
        );
        assert!(lan.activity(0, VIP6).answers(), "nobody objected");
        // It goes and comes: no second probe.
        lan.wish(0, Role::Follow, probe);
        lan.advance(Duration::from_secs(6));
        lan.wish(0, Role::Lead, probe);
        lan.advance(MS(10));
        assert!(lan.activity(0, VIP6).answers());
    }
    let mut lan = Lan::new(1);
    lan.wish(0, Role::Lead, |desired| {
        for vip in desired.addresses.values_mut() {
            vip.probe = ProbePolicy::Avoid;
            vip.proven = true;
        }
    });
    lan.advance(MS(10));
    assert_eq!(lan.answering(VIP), [0], "adopted addresses are not probed");
}

const FOREIGN: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);

/// One host that leads, and a foreign host that claimed the first address while it was probed.
fn taken(policy: ProbePolicy) -> Lan {
    let mut lan = Lan::new(1);
    lan.wish(0, Role::Lead, probing(policy));
    lan.advance(MS(300));
    lan.claim(FOREIGN);
    lan.advance(Duration::from_secs(2));
    lan
}

fn probing(policy: ProbePolicy) -> impl Fn(&mut Desired) {
    move |desired| {
        for vip in desired.addresses.values_mut() {
            vip.probe = policy;
        }
    }
}

#[test]
fn an_address_that_was_set_aside_is_taken_when_the_foreign_host_is_gone() {
    let mut lan = taken(ProbePolicy::Avoid);
    assert_eq!(lan.activity(0, VIP), Activity::SetAside);
    // It is asked for again, and the host is still there: nothing is said twice.
    for _ in 0..8_000 {
        lan.advance(MS(5));
        if lan.activity(0, VIP) == Activity::Probing {
            lan.claim(FOREIGN);
        }
    }
    assert_eq!(lan.announcements(0, VIP), 0);
    let told = |lan: &Lan| {
        let events = lan.engines[0].events.iter();
        events.filter(|e| matches!(e, Event::Taken { .. })).count()
    };
    assert_eq!(told(&lan), 1, "one host is one event");
    lan.advance(Duration::from_secs(45));
    assert_eq!(lan.answering(VIP), [0], "nobody objected any more");
}

#[test]
fn an_address_that_was_set_aside_is_probed_again_before_a_second_chance_to_lead() {
    let mut lan = taken(ProbePolicy::Avoid);
    lan.wish(0, Role::Follow, probing(ProbePolicy::Avoid));
    lan.advance(Duration::from_secs(1));
    lan.wish(0, Role::Lead, probing(ProbePolicy::Avoid));
    lan.advance(MS(300));
    assert_eq!(lan.activity(0, VIP), Activity::Probing);
    assert_eq!(lan.announcements(0, VIP), 0);
    lan.claim(FOREIGN);
    lan.advance(Duration::from_secs(2));
    assert_eq!(lan.activity(0, VIP), Activity::SetAside);
}

#[test]
fn an_address_that_was_set_aside_is_taken_when_the_policy_or_the_interface_is_another() {
    for policy in [ProbePolicy::Report, ProbePolicy::Off] {
        let mut lan = taken(ProbePolicy::Avoid);
        lan.wish(0, Role::Lead, probing(policy));
        lan.advance(MS(20));
        assert_eq!(lan.answering(VIP), [0], "{policy:?}");
    }
    let mut lan = taken(ProbePolicy::Avoid);
    lan.engines[0].set_links(links(mac(7), true), lan.now);
    assert_eq!(lan.activity(0, VIP), Activity::Probing);
    lan.advance(Duration::from_secs(2));
    assert_eq!(lan.answering(VIP), [0]);
}

#[test]
fn a_foreign_host_that_was_reported_is_forgotten_when_it_is_heard_no_more() {
    let probe = |lan: &Lan| lan.engines[0].states[&VIP.parse::<IpAddr>().unwrap()].probe;
    let mut lan = taken(ProbePolicy::Report);
    assert_eq!(probe(&lan), ProbeResult::Taken(FOREIGN));
    let asked = |lan: &Lan| {
        let frames = lan.heard.iter();
        frames
            .filter_map(|(_, frame)| frame::parse(frame).ok()?.ask)
            .filter(|ask| ask.ip.to_string() == VIP)
            .count()
    };
    let before = asked(&lan);
    for _ in 0..36 {
        lan.advance(Duration::from_secs(10));
        lan.engines[0].forget_conflicts(lan.now);
    }
    lan.deliver();
    assert!(
        asked(&lan) > before,
        "it is looked whether it is still there"
    );
    assert_eq!(probe(&lan), ProbeResult::Free);
    let asked_for = asked(&lan);
    lan.engines[0].forget_conflicts(lan.now);
    lan.deliver();
    assert_eq!(asked(&lan), asked_for, "and no more afterwards");
}

#[test]
fn a_preferred_node_and_the_winner_of_the_order_never_both_give_way() {
    let mut lan = Lan::new(2);
    // The order has `a` first, and `a` does not know yet that `b` is preferred.
    lan.elect(0);
    lan.advance(Duration::from_secs(1));
    let prefers = |desired: &mut Desired| {
        for vip in desired.addresses.values_mut() {
            vip.preferred = Some("b".into());
        }
    };
    lan.wish(1, Role::Lead, prefers);
    for _ in 0..200 {
        lan.advance(MS(10));
        assert!(lan.answering(VIP).contains(&1), "the preferred node stays");
    }
    lan.wish(0, Role::Follow, prefers);
    lan.advance(MS(100));
    assert_eq!(lan.answering(VIP), [1]);
    // Of two that both know, the preferred one stays too.
    lan.wish(0, Role::Lead, prefers);
    lan.advance(Duration::from_secs(1));
    assert_eq!(lan.answering(VIP), [1]);
}

/// So many addresses on `eth0` in place of the usual ones.
fn many(addresses: u16) -> impl Fn(&mut Desired) {
    move |desired| {
        let vip = Vip {
            choice: Arc::new(InterfaceChoice::Names(vec!["eth0".to_owned()])),
            ..desired.addresses.values().next().unwrap().clone()
        };
        desired.addresses = (0..addresses)
            .map(|n| {
                let [high, low] = n.to_be_bytes();
                (IpAddr::from([10, 0, high, low]), vip.clone())
            })
            .collect();
    }
}

#[test]
fn frames_that_nobody_asked_for_never_exceed_the_pace() {
    const ADDRESSES: u16 = 1_000;
    let mut lan = Lan::new(1);
    let many = many(ADDRESSES);
    lan.wish(0, Role::Lead, many);
    let pace = usize::try_from(lan.engines[0].config.pace).unwrap();
    // Frames sent in each 5 ms.
    let mut sent = Vec::new();
    for _ in 0..3_000 {
        let before = lan.heard.len();
        lan.advance(MS(5));
        sent.push(lan.heard.len() - before);
    }
    for window in [1, 20, 200] {
        // A burst, what the time is worth, and one announcement that was begun with its last token.
        let most = pace / 10 + pace * window / 200 + 2;
        let worst = sent.windows(window).map(|w| w.iter().sum::<usize>()).max();
        assert!(
            worst.unwrap() <= most,
            "{worst:?} frames in {} ms",
            window * 5
        );
    }
    let all: usize = sent.iter().sum();
    assert_eq!(all, usize::from(ADDRESSES) * 12, "and all are sent");
    assert_eq!(lan.engines[0].counters.taken(), u64::from(ADDRESSES));
    assert_eq!(lan.engines[0].counters.given_up(), 0);
}

#[test]
fn an_address_that_is_asked_for_is_announced_before_the_others() {
    let mut lan = Lan::new(1);
    let many = many(1_000);
    lan.engines[0].config.pace = 10;
    lan.engines[0].schedule = Schedule::new(10, lan.now.instant);
    lan.wish(0, Role::Lead, many);
    lan.advance(Duration::from_secs(1));
    let last = "10.0.3.231";
    assert_eq!(lan.announcements(0, last), 0, "its turn is far away");
    let ip = last.parse().unwrap();
    lan.say(&frame::probe(FOREIGN, ip));
    lan.advance(MS(300));
    assert_eq!(
        lan.announcements(0, last),
        2,
        "an answer and an announcement"
    );
}

#[test]
fn interfaces_that_go_take_their_addresses_with_them() {
    let mut lan = Lan::new(1);
    lan.elect(0);
    lan.advance(MS(50));
    lan.engines[0].set_links(links(mac(0), false), lan.now);
    assert_eq!(lan.activity(0, VIP), Activity::NoInterface);
    let before = lan.announcements(0, VIP);
    // It comes back with another hardware address, which is announced.
    lan.engines[0].set_links(links(mac(5), true), lan.now);
    lan.advance(MS(10));
    assert_eq!(lan.answering(VIP), [0]);
    assert_eq!(lan.announcements(0, VIP), before);
    let claim = Some((VIP.parse().unwrap(), mac(5)));
    assert!(
        lan.heard
            .iter()
            .any(|(_, f)| frame::parse(f).unwrap().claim == claim)
    );
}

#[test]
fn requests_on_other_interfaces_and_own_frames_are_ignored() {
    let mut lan = Lan::new(1);
    lan.elect(0);
    lan.advance(MS(50));
    let probe = frame::probe(MacAddr([2, 0, 0, 0, 9, 9]), VIP.parse().unwrap());
    lan.engines[0].receive(3, &probe, lan.now);
    assert!(lan.engines[0].sends.is_empty(), "another interface");
    lan.engines[0].receive(2, &frame::probe(mac(0), VIP.parse().unwrap()), lan.now);
    assert!(
        lan.engines[0].sends.is_empty(),
        "an own frame that came back"
    );
    lan.engines[0].receive(2, &probe, lan.now);
    assert_eq!(lan.engines[0].sends.len(), 1);
}

#[test]
fn nothing_new_is_taken_while_the_view_is_not_settled() {
    let mut lan = Lan::new(1);
    lan.wish(0, Role::Lead, |desired| desired.hold = true);
    lan.advance(Duration::from_secs(1));
    assert!(lan.answering(VIP).is_empty());
    lan.elect(0);
    lan.advance(MS(10));
    lan.wish(0, Role::Lead, |desired| desired.hold = true);
    lan.advance(MS(10));
    assert_eq!(lan.answering(VIP), [0], "what is answered stays");
}

#[test]
fn neither_a_probe_nor_a_silent_peer_gives_an_address_to_one_whose_view_is_not_settled() {
    let mut lan = Lan::new(1);
    lan.wish(0, Role::Lead, probing(ProbePolicy::Report));
    lan.advance(MS(100));
    let held = |desired: &mut Desired| {
        probing(ProbePolicy::Report)(desired);
        desired.hold = true;
    };
    lan.wish(0, Role::Lead, held);
    lan.advance(Duration::from_secs(3));
    assert_eq!(lan.activity(0, VIP), Activity::Probing);
    lan.wish(0, Role::Lead, probing(ProbePolicy::Report));
    lan.advance(Duration::from_secs(1));
    assert_eq!(lan.answering(VIP), [0]);

    let mut lan = Lan::new(2);
    lan.wish(0, Role::Lead, |_| {});
    lan.advance(MS(50));
    lan.wish(1, Role::Lead, |_| {});
    lan.advance(Duration::from_secs(1));
    assert_eq!(lan.activity(1, VIP), Activity::Yielded);
    lan.wish(1, Role::Lead, |desired| desired.hold = true);
    lan.cut.insert(0);
    lan.advance(Duration::from_secs(3));
    assert_eq!(lan.activity(1, VIP), Activity::Yielded);
    lan.wish(1, Role::Lead, |_| {});
    lan.advance(Duration::from_secs(1));
    assert!(lan.activity(1, VIP).answers());
}

#[test]
fn solicited_node_groups_follow_the_addresses() {
    let mut lan = Lan::new(1);
    lan.elect(0);
    lan.advance(MS(10));
    let group = frame::solicited_node("fd00:10::100".parse().unwrap());
    assert_eq!(lan.engines[0].groups(), [(2, group)].into());
    lan.wish(0, Role::Silent, |_| {});
    assert!(lan.engines[0].groups().is_empty());
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Elect(usize),
        Wish(usize, bool),
        Cut(usize),
        Mend(usize),
        Carrier(usize, bool),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_usize).prop_map(Step::Elect),
            (0..3_usize, any::<bool>()).prop_map(|(n, lead)| Step::Wish(n, lead)),
            (0..3_usize).prop_map(Step::Cut),
            (0..3_usize).prop_map(Step::Mend),
            (0..3_usize, any::<bool>()).prop_map(|(n, up)| Step::Carrier(n, up)),
            (1..1500_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever happened: once all can hear each other and agree on the leader, that one alone
        /// answers.
        #[test]
        fn one_answers_in_the_end(steps in prop::collection::vec(step(), 0..20), leader in 0..3_usize) {
            let mut lan = Lan::new(3);
            for step in steps {
                match step {
                    Step::Elect(n) => lan.elect(n),
                    Step::Wish(n, lead) => {
                        lan.wish(n, if lead { Role::Lead } else { Role::Follow }, |_| {});
                    }
                    Step::Cut(n) => {
                        lan.cut.insert(n);
                    }
                    Step::Mend(n) => {
                        lan.cut.remove(&n);
                    }
                    Step::Carrier(n, up) => lan.engines[n].set_links(links(mac(n), up), lan.now),
                    Step::Wait(ms) => lan.advance(MS(ms)),
                }
            }
            lan.cut.clear();
            for n in 0..3 {
                lan.engines[n].set_links(links(mac(n), true), lan.now);
            }
            lan.elect(leader);
            lan.advance(Duration::from_secs(15));
            prop_assert_eq!(lan.answering(VIP), [leader]);
            prop_assert_eq!(lan.answering(VIP6), [leader]);
        }
    }
}
