//! The planned end, as the peer sees it.

use super::*;

fn halted(restart: Option<GracefulRestart>, halt: Halt) -> (Net, Option<Notified>) {
    let change = |peer: &mut PeerConfig| peer.graceful_restart = restart;
    let mut net = Net::new(setup(0, change), setup(1, change));
    net.run(Duration::from_secs(1));
    let now = net.now;
    net.peers[0].halt(now, halt);
    net.carry_out();
    net.run(Duration::from_secs(5));
    assert!(net.peers[0].is_done());
    let notified = net.peers[1].take_notified();
    (net, notified)
}

#[test]
fn a_restart_closes_without_a_word_where_the_peer_keeps_routes() {
    let wait = Duration::from_secs(1);
    let (_, notified) = halted(Some(GracefulRestart::default()), Halt::Restart { wait });
    assert_eq!(notified, None);
    let (_, notified) = halted(None, Halt::Restart { wait });
    assert_eq!(notified.map(|n| (n.code, n.subcode)), Some((6, 2)));
}

#[test]
fn a_drain_ends_with_cease_and_with_hard_reset_where_cease_would_keep_routes() {
    let halt = || Halt::Drain {
        wait: Duration::from_secs(1),
        reason: "node leaves".to_owned(),
    };
    let (_, notified) = halted(Some(GracefulRestart::default()), halt());
    assert_eq!(notified.map(|n| (n.code, n.subcode)), Some((6, 2)));
    let keeps = GracefulRestart {
        notification: true,
        ..GracefulRestart::default()
    };
    let (_, notified) = halted(Some(keeps), halt());
    let notified = notified.unwrap();
    assert_eq!((notified.code, notified.subcode), (6, 9));
    assert_eq!(notified.text.as_deref(), Some("node leaves"));
}

#[test]
fn a_removed_peer_is_told_so() {
    let (_, notified) = halted(None, Halt::Remove);
    assert_eq!(notified.map(|n| (n.code, n.subcode)), Some((6, 3)));
}
