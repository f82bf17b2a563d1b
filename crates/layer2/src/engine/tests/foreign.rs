//! Hosts that are none of ours and have one of the addresses: found by a probe, or heard later.

use super::*;

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

/// One host that leads, and a foreign host that claimed the first address while it was probed.
fn taken(policy: ProbePolicy) -> Lan {
    let mut lan = Lan::new(1);
    lan.wish(0, Role::Lead, probing(policy));
    lan.advance(MS(300));
    lan.claim(FOREIGN);
    lan.advance(Duration::from_secs(2));
    lan
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
