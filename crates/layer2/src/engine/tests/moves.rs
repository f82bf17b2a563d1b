//! Addresses that go from one speaker to another, as was planned or not.

use super::*;

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
fn what_was_not_announced_yet_is_not_handed_over() {
    let mut lan = Lan::new(2);
    lan.elect(0);
    lan.advance(Duration::from_secs(10));
    // Another takes it and learns in the same moment that the first one leads, which knows of nothing.
    lan.wish(1, Role::Lead, |_| {});
    lan.wish(1, Role::Follow, |_| {});
    assert_eq!(lan.answering(VIP), [0]);
    assert_eq!(lan.answering(VIP6), [0]);
    // One that gets an address back before it has handed it over has been believed all the time.
    lan.wish(0, Role::Follow, |_| {});
    lan.wish(0, Role::Lead, |_| {});
    lan.wish(0, Role::Follow, |_| {});
    assert_eq!(lan.answering(VIP), [0]);
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
