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
