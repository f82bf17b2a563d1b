//! BFD's word on sessions and on what is told in them.

use super::*;
use crate::config::BfdConfig;
use crate::peer::guard::PATIENCE;

#[test]
fn bfd_ends_a_session_with_its_own_cease_and_starts_it_again() {
    let mut net = Net::plain();
    net.run(Duration::from_secs(1));
    let now = net.now;
    net.peers[0].bfd_down(now, 0.5);
    net.carry_out();
    net.run(LATENCY);
    let notified = net.peers[1].take_notified().unwrap();
    assert_eq!((notified.code, notified.subcode), (6, 10));
    let now = net.now;
    net.peers[0].bfd_is(now, true);
    net.carry_out();
    net.run(Duration::from_millis(100));
    assert_eq!(net.states(), UP);
}

fn guarded() -> Net {
    let mut net = Net::new(
        setup(0, |peer| peer.bfd = Some(BfdConfig::default())),
        setup(1, |_| {}),
    );
    net.run(Duration::from_secs(1));
    assert_eq!(net.states(), UP);
    net
}

#[test]
fn routes_are_told_once_bfd_watches_them() {
    let mut net = guarded();
    assert!(net.peers[0].outgoing().is_none());
    assert!(net.peers[1].outgoing().is_some(), "it asks for no BFD");
    let now = net.now;
    net.peers[0].bfd_is(now, true);
    assert!(net.peers[0].outgoing().is_some());
    // What is told stays told.
    net.peers[0].bfd_is(now, false);
    assert!(net.peers[0].outgoing().is_some());
}

#[test]
fn routes_do_not_wait_for_ever_for_bfd() {
    let mut net = guarded();
    net.run(PATIENCE);
    assert!(net.peers[0].outgoing().is_some());
}

#[test]
fn routes_wait_neither_without_bfd_nor_in_a_drain() {
    let mut net = guarded();
    let now = net.now;
    net.peers[0].configure(now, setup(0, |_| {}));
    assert!(net.peers[0].outgoing().is_some());
    assert_eq!(net.states(), UP);
    let mut net = guarded();
    let now = net.now;
    net.peers[0].halt(
        now,
        Halt::Drain {
            wait: Duration::from_secs(1),
            reason: String::new(),
        },
    );
    assert!(net.peers[0].outgoing().is_some());
}
