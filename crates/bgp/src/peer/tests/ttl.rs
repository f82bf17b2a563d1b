//! What is said where the kernel of one side drops what the other one sends (RFC 5082).

use super::*;
use crate::config::Hops;

/// Side 0 with these hops calls side 1, which waits; nothing gets through to `deaf`.
fn call(hops: Hops, deaf: usize) -> Net {
    let mut net = Net::new(
        setup(0, |peer| peer.hops = hops),
        setup(1, |peer| peer.passive = true),
    );
    net.deaf = Some(deaf);
    net
}

fn failure(net: &Net) -> &Failure {
    net.peers[0].failure().unwrap()
}

#[test]
fn a_call_from_too_far_is_refused_and_said_and_is_no_collision() {
    let mut net = Net::new(
        setup(0, |peer| peer.hops = Hops::Security(1)),
        setup(1, |_| {}),
    );
    let now = net.now;
    assert_eq!(net.peers[0].accepted(now, ends(0, 50_000), Some(1)), None);
    assert_eq!(failure(&net).label, "ttl-security");
    let message = &failure(&net).message;
    assert!(message.contains("TTL 1,"), "{message}");
    assert_eq!(net.peers[0].counters.read().collisions, 0);
}

#[test]
fn a_call_from_too_far_says_nothing_of_a_session_that_is_up() {
    let mut net = Net::new(
        setup(0, |peer| peer.hops = Hops::Security(1)),
        setup(1, |_| {}),
    );
    net.run(Duration::from_secs(1));
    assert_eq!(net.states(), UP);
    let before = net.peers[0].failure().cloned();
    let now = net.now;
    assert_eq!(net.peers[0].accepted(now, ends(0, 50_000), Some(1)), None);
    assert_eq!(net.peers[0].failure().cloned(), before);
}

#[test]
fn with_ttl_security_a_silent_connection_is_soon_given_up_and_said() {
    let mut net = call(Hops::Security(1), 0);
    net.run(Duration::from_millis(10_100));
    let message = &failure(&net).message;
    assert!(
        message.contains("nothing arrived with TTL 255"),
        "{message}"
    );
    // What is mended over there shows at the next attempt.
    net.deaf = None;
    net.run(Duration::from_secs(1));
    assert_eq!(net.states(), UP);
}

#[test]
fn a_peer_that_does_not_hear_us_is_said_to_ask_for_ttl_security_perhaps() {
    let mut net = call(Hops::Direct, 1);
    net.run(Duration::from_secs(10));
    let message = &failure(&net).message;
    assert!(
        message.contains("not to hear us") && message.contains("TTL security"),
        "{message}"
    );
}

#[test]
fn the_same_is_said_where_the_timer_of_the_peer_is_the_first() {
    let mut net = call(Hops::Direct, 1);
    net.run(Duration::from_secs(5));
    assert_eq!(net.states()[0], SessionState::OpenConfirm);
    let id = net.wires[0][0].unwrap();
    let mut hold_timer_expired = BytesMut::from(&[255; 16][..]);
    hold_timer_expired.extend_from_slice(&[0, 21, 3, 4, 0]);
    let now = net.now;
    net.peers[0].received(now, id, &mut hold_timer_expired, 0.5);
    let message = &failure(&net).message;
    assert!(
        message.contains("peer ended the session: Hold Timer Expired (4/0)")
            && message.contains("not to hear us"),
        "{message}"
    );
}

#[test]
fn a_session_that_was_up_and_falls_silent_says_nothing_of_ttls() {
    let mut net = call(Hops::Security(1), 0);
    net.deaf = None;
    net.run(Duration::from_secs(1));
    assert_eq!(net.states(), UP);
    net.deaf = Some(0);
    net.run(Duration::from_secs(9));
    let message = &failure(&net).message;
    assert!(
        message.contains("Hold Timer Expired") && !message.contains("TTL"),
        "{message}"
    );
}
