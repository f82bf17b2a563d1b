//! Who is met and believed: goodbyes, strangers, replays, and nobody at all.

use super::*;

#[test]
fn goodbye_is_heard_at_once_and_leaving_nodes_are_not_elected() {
    let mut net = Net::steady(3, 4);
    let now = net.now;
    net.nodes
        .get_mut(&0)
        .unwrap()
        .set_own(true, b"eth0".as_slice().into(), now);
    net.run(MS(20));
    assert_eq!(net.alive(1).len(), 3, "it lives still");
    assert_eq!(net.members(1).electable(|_, _| true), [name(1), name(2)]);
    assert_eq!(
        &*net.members(2).alive[&name(0)]
            .facts
            .as_ref()
            .unwrap()
            .attachment,
        b"eth0"
    );
    let mut gone = net.nodes.remove(&0).unwrap();
    gone.leave();
    for datagram in gone.take_datagrams() {
        net.send(0, datagram);
    }
    net.run(MS(10));
    assert_eq!(net.alive(1), [name(1), name(2)]);
    assert_eq!(
        &*net.members(2).departed[&name(0)].attachment,
        b"eth0",
        "its frames are still known"
    );
}

/// Once all have met, each sees all of them as candidates: also when the first becomes steady, and until the last is.
#[test]
fn nodes_that_start_together_are_candidates_together() {
    for seed in 0..6_u8 {
        let mut net = Net::new(0, seed.into());
        net.loss = f64::from(seed % 3) * 0.05;
        let mut order = [0, 1, 2, 3];
        order.rotate_left(usize::from(seed % 4));
        for n in order {
            net.start(n, order.len(), &[1; 32]);
            let wait = MS(net.rng.random_range(0..700));
            net.run(wait);
        }
        let all_are_elected = |net: &Net, n: usize| {
            let members = net.members(n);
            members.settled && members.electable(|_, _| true).len() == 4
        };
        let met = |net: &Net| (0..4).all(|n| all_are_elected(net, n));
        let took = net.run_until(Duration::from_secs(3), met);
        assert!(met(&net), "{seed}: not met after {took:?}");
        for _ in 0..600 {
            net.run(MS(10));
            for n in 0..4 {
                assert!(all_are_elected(&net, n), "{seed}: not for {n}");
            }
        }
        let steady = |n: &usize| {
            let members = net.members(*n);
            let all = members.alive.values();
            members.formed && all.flat_map(|m| &m.facts).all(|facts| facts.steady)
        };
        assert!((0..4).all(|n| steady(&n)), "{seed}: not formed");
    }
}

#[test]
fn a_node_with_another_key_stays_outside() {
    let mut net = Net::steady(2, 6);
    net.start(2, 3, &[2; 32]);
    for n in 0..2 {
        let now = net.now;
        net.nodes
            .get_mut(&n)
            .unwrap()
            .set_seeds((0..3).map(address).collect(), now);
    }
    net.run(Duration::from_secs(10));
    assert_eq!(net.alive(2), [name(2)]);
    assert_eq!(net.alive(0), [name(0), name(1)]);
    assert!(net.nodes[&2].counts().refused > 0);
}

#[test]
fn a_recorded_life_does_not_bring_back_the_dead() {
    let mut net = Net::steady(3, 7);
    net.recorded = Some(Vec::new());
    net.run(Duration::from_secs(2));
    let recorded = net.recorded.take().unwrap();
    net.nodes.remove(&0);
    net.run(Duration::from_secs(2));
    assert_eq!(net.alive(1).len(), 2);
    // All that the dead node said is said again, to nodes that knew it and to one that starts anew.
    net.nodes.remove(&2);
    net.start(2, 3, &[1; 32]);
    net.run(Duration::from_secs(3));
    for (from, datagram) in recorded {
        if from == 0 {
            net.send(0, datagram);
        }
    }
    net.run(Duration::from_secs(3));
    assert_eq!(net.alive(1), [name(1), name(2)]);
    assert_eq!(net.alive(2), [name(1), name(2)]);
    assert!(net.nodes[&1].counts().replayed > 0);
}

#[test]
fn a_node_alone_acts_after_a_while_and_one_with_nobody_to_meet_soon() {
    let mut net = Net::new(1, 1);
    net.run(MS(500));
    assert!(net.members(0).settled, "nobody to meet");
    let mut net = Net::new(1, 2);
    let now = net.now;
    net.nodes
        .get_mut(&0)
        .unwrap()
        .set_seeds((0..3).map(address).collect(), now);
    net.run(MS(1000));
    assert!(!net.members(0).settled);
    net.run(MS(1500));
    assert!(net.members(0).settled);
}
