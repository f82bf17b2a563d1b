//! Interfaces that go, change or show what is none of theirs, and the groups joined on them.

use super::*;

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
fn solicited_node_groups_follow_the_addresses() {
    let mut lan = Lan::new(1);
    lan.elect(0);
    lan.advance(MS(10));
    let group = frame::solicited_node("fd00:10::100".parse().unwrap());
    assert_eq!(lan.engines[0].groups(), [(2, group)].into());
    lan.wish(0, Role::Silent, |_| {});
    assert!(lan.engines[0].groups().is_empty());
}

/// A bond with two ports, all of one hardware address, and the port that carries it.
fn bond(mac: MacAddr, active: u32) -> Arc<Links> {
    let links = links(mac, true);
    let eth0 = &links.links[&2];
    let port = |index| Link {
        index,
        name: format!("eth{}", index - 2),
        running: index == active,
        master: Some(9),
        addresses: Vec::new(),
        ..eth0.clone()
    };
    let bond0 = Link {
        index: 9,
        name: "bond0".to_owned(),
        ..eth0.clone()
    };
    let all = [port(2), port(3), bond0];
    Arc::new(Links {
        links: all.into_iter().map(|link| (link.index, link)).collect(),
        routes: Vec::new(),
    })
}

#[test]
fn a_frame_that_a_bond_and_its_port_show_counts_once() {
    let mut lan = Lan::new(1);
    lan.engines[0].set_links(bond(mac(0), 2), lan.now);
    lan.elect(0);
    lan.advance(MS(50));
    let engine = &mut lan.engines[0];
    for vip in [VIP, VIP6] {
        let probe = frame::probe(FOREIGN, vip.parse().unwrap());
        for link in [2, 9] {
            engine.receive(link, &probe, lan.now);
        }
        let answers: Vec<u32> = engine.sends.drain(..).map(|send| send.link).collect();
        assert_eq!(answers, [9], "{vip}: the bond answers");
        let claim = frame::announcement(FOREIGN, vip.parse().unwrap(), Form::Reply);
        for link in [2, 9] {
            engine.receive(link, &claim, lan.now);
        }
        let state = &engine.states[&vip.parse::<IpAddr>().unwrap()];
        let conflict = state.conflict.as_ref().map(|(conflict, _)| conflict.count);
        assert_eq!(conflict, Some(1), "{vip}");
        engine.sends.clear();
        // A switch may send to the one port what came from the other.
        let own = frame::announcement(mac(0), vip.parse().unwrap(), Form::Reply);
        for link in [3, 9] {
            engine.receive(link, &own, lan.now);
        }
        assert!(
            engine.sends.is_empty(),
            "{vip}: it defends itself from itself"
        );
    }
    assert_eq!(engine.counters.arp_requests(), 1);
    assert_eq!(engine.counters.ndp_requests(), 1);
}

#[test]
fn a_bond_that_fails_over_keeps_its_addresses() {
    let mut lan = Lan::new(1);
    lan.engines[0].set_links(bond(mac(0), 2), lan.now);
    lan.elect(0);
    lan.advance(Duration::from_secs(20));
    lan.engines[0].events.clear();
    let before = lan.heard.len();
    lan.engines[0].set_links(bond(mac(0), 3), lan.now);
    lan.advance(MS(500));
    assert_eq!(lan.answering(VIP), [0]);
    assert_eq!(
        lan.heard.len(),
        before,
        "its own hardware address goes with it"
    );
    // One that takes the hardware address of its new port (`fail_over_mac=active`) has something to tell.
    lan.engines[0].set_links(bond(mac(5), 2), lan.now);
    lan.advance(MS(10));
    assert_eq!(lan.answering(VIP), [0]);
    let told = |vip: &str| {
        let claim = Some((vip.parse().unwrap(), mac(5)));
        let mut heard = lan.heard.iter();
        heard.any(|(_, frame)| frame::parse(frame).unwrap().claim == claim)
    };
    assert!(told(VIP) && told(VIP6));
    assert!(
        lan.engines[0].events.is_empty(),
        "{:?}",
        lan.engines[0].events
    );
}
