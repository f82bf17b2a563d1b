//! Every message that a session itself sends, octet by octet; UPDATEs are in `message::tests`.

use super::*;

/// The messages among events, each without its marker, which is checked.
fn sent(events: Vec<Event>) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for event in events {
        if let Event::Send(octets) = event {
            let (marker, rest) = octets.split_at(16);
            assert_eq!(marker, [0xff; 16]);
            messages.push(rest.to_vec());
        }
    }
    messages
}

/// What a session that is established sends when it is stopped.
fn stopped(stop: &Stop, capabilities: &[u8]) -> Vec<Vec<u8>> {
    let (mut session, _) = begin(config(false, all));
    establish(&mut session, 90, capabilities);
    sent(session.stop(Instant::now(), stop))
}

/// What is sent in answer to an OPEN: AS number, hold time, identifier.
fn answer(asn: u16, hold: u8, identifier: [u8; 4]) -> Vec<Vec<u8>> {
    let (mut session, _) = begin(config(false, |_| {}));
    let [high, low] = asn.to_be_bytes();
    let [a, b, c, d] = identifier;
    let mut octets = BytesMut::from(&[0xff; 16][..]);
    octets.extend_from_slice(&[0, 29, 1, 4, high, low, 0, hold, a, b, c, d, 0]);
    sent(session.receive(Instant::now(), &mut octets))
}

#[test]
fn the_lengths_of_an_open_fit() {
    for change in [all as fn(&mut PeerConfig), |_| {}] {
        let (_, open) = begin(config(false, change));
        assert_eq!(
            usize::from(u16::from_be_bytes([open[16], open[17]])),
            open.len()
        );
        assert_eq!(usize::from(open[28]), open.len() - 29);
        let mut rest = &open[29..];
        while let [kind, len, after @ ..] = rest {
            assert_eq!(*kind, 2, "capabilities are the only parameter");
            let (mut inner, after) = after.split_at(usize::from(*len));
            while let [_, len, value @ ..] = inner {
                inner = &value[usize::from(*len)..];
            }
            assert!(inner.is_empty(), "an octet is left over");
            rest = after;
        }
        assert!(rest.is_empty(), "an octet is left over");
    }
}

#[test]
fn a_good_open_is_answered_by_a_keepalive() {
    assert_eq!(answer(65002, 90, [192, 0, 2, 2]), [[0, 19, 4]]);
}

#[test]
fn a_bad_open_is_answered_by_what_is_bad_in_it() {
    let bad = |subcode: u8| -> Vec<Vec<u8>> { vec![vec![0, 21, 3, 2, subcode]] };
    assert_eq!(answer(65003, 90, [192, 0, 2, 2]), bad(2), "the AS number");
    assert_eq!(answer(65002, 90, [0; 4]), bad(3), "the identifier");
    assert_eq!(answer(65002, 1, [192, 0, 2, 2]), bad(6), "the hold time");
}

#[test]
fn silence_ends_a_session_with_hold_timer_expired() {
    let (mut session, _) = begin(config(false, all));
    establish(&mut session, 90, &[]);
    let late = Instant::now() + Duration::from_secs(91);
    let messages = sent(session.tick(late));
    assert!(messages.contains(&vec![0, 21, 3, 4, 0]), "{messages:?}");
}

#[test]
fn every_end_has_its_cease() {
    let plain: [(Stop, &[u8]); 5] = [
        (
            Stop::Shutdown("bye".to_owned()),
            &[0, 25, 3, 6, 2, 3, b'b', b'y', b'e'],
        ),
        (Stop::Deconfigured, &[0, 21, 3, 6, 3]),
        (Stop::Reconfigured, &[0, 21, 3, 6, 6]),
        (Stop::Collision, &[0, 21, 3, 6, 7]),
        (Stop::BfdDown, &[0, 21, 3, 6, 10]),
    ];
    for (stop, octets) in plain {
        assert_eq!(stopped(&stop, &[]), [octets], "{stop:?}");
    }
}

#[test]
fn a_peer_that_would_keep_routes_is_told_by_a_hard_reset_not_to() {
    // The N bit, restart time 120 s.
    let keeps = [64, 2, 0x40, 120];
    let bye = Stop::Shutdown("bye".to_owned());
    assert_eq!(
        stopped(&bye, &keeps),
        [[0, 27, 3, 6, 9, 6, 2, 3, b'b', b'y', b'e']]
    );
    assert_eq!(
        stopped(&Stop::Deconfigured, &keeps),
        [[0, 23, 3, 6, 9, 6, 3]]
    );
    assert_eq!(stopped(&Stop::BfdDown, &keeps), [[0, 21, 3, 6, 10]]);
}
