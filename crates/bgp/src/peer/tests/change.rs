//! A configuration that changes, or cannot be run.

use super::*;
use crate::config::Timers;
use crate::family::Family;

/// Changes what side 0 is told of its peer.
fn reconfigure(net: &mut Net, change: fn(&mut PeerConfig)) {
    let now = net.now;
    let mut peer = (*net.peers[0].setup().peer).clone();
    change(&mut peer);
    let setup = Setup {
        peer: Arc::new(peer),
        ..net.peers[0].setup().clone()
    };
    net.peers[0].configure(now, setup);
    net.carry_out();
}

#[test]
fn what_can_change_live_resets_nothing() {
    let mut net = Net::plain();
    net.run(Duration::from_secs(1));
    let changes: [fn(&mut PeerConfig); 4] = [
        |peer| peer.description = "new".to_owned(),
        |peer| peer.timers.keepalive = Some(Duration::from_secs(1)),
        |peer| peer.timers.connect_retry = Duration::from_secs(5),
        |peer| peer.passive = true,
    ];
    for change in changes {
        reconfigure(&mut net, change);
        net.run(Duration::from_secs(5));
        assert_eq!(net.states(), UP);
    }
    assert_eq!(net.peers[0].counters.read().established, 1);
}

#[test]
fn what_is_bound_to_the_session_resets_it_and_it_comes_back() {
    let mut net = Net::plain();
    net.run(Duration::from_secs(1));
    let changes: [fn(&mut PeerConfig); 3] = [
        |peer| peer.timers.hold = Duration::from_secs(30),
        |peer| peer.families = Family::ALL.to_vec(),
        |peer| peer.graceful_restart = Some(GracefulRestart::default()),
    ];
    for (round, change) in (2..).zip(changes) {
        reconfigure(&mut net, change);
        net.run(Duration::from_secs(15));
        assert_eq!(net.states(), UP);
        assert_eq!(net.peers[0].counters.read().established, round);
        let notified = net.peers[1].take_notified().unwrap();
        assert_eq!((notified.code, notified.subcode), (6, 6));
    }
}

#[test]
fn admin_down_tells_the_peer_why_and_up_brings_it_back() {
    let mut net = Net::plain();
    net.run(Duration::from_secs(1));
    let up = net.peers[0].setup().clone();
    let down = setup(0, |peer| {
        peer.admin = AdminState::Down("maintenance".to_owned());
    });
    let now = net.now;
    net.peers[0].configure(now, down);
    net.carry_out();
    net.run(Duration::from_secs(30));
    assert_eq!(net.states()[0], SessionState::Idle);
    let message = &net.peers[1].notified.take().unwrap();
    assert_eq!((message.code, message.subcode), (6, 2));
    assert_eq!(message.text.as_deref(), Some("maintenance"));
    let now = net.now;
    net.peers[0].configure(now, up);
    net.carry_out();
    net.run(Duration::from_mins(2));
    assert_eq!(net.states(), UP);
}

#[test]
fn a_wrong_configuration_is_said_and_not_tried() {
    let bad = setup(0, |peer| {
        peer.timers = Timers {
            hold: Duration::from_secs(2),
            ..Timers::default()
        }
    });
    let mut net = Net::new(bad, setup(1, |_| {}));
    net.run(Duration::from_secs(30));
    assert_eq!((net.states()[0], net.dials[0]), (SessionState::Idle, 0));
    assert!(
        net.peers[0]
            .failure()
            .unwrap()
            .message
            .contains("hold time")
    );
}
