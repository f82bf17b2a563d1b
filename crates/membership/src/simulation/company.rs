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
