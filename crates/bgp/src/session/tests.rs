//! The OPEN by golden bytes, and what the state machine leaves to us.

mod golden;

use std::net::Ipv4Addr;

use super::*;
use crate::config::{GracefulRestart, Hops, PeerConfig, RemoteAs};

fn config(restarting: bool, change: impl FnOnce(&mut PeerConfig)) -> SessionConfig {
    let mut peer = PeerConfig::new("192.0.2.2".parse().unwrap(), RemoteAs::Exactly(65002));
    change(&mut peer);
    SessionConfig {
        local_as: 65001,
        router_id: Ipv4Addr::new(192, 0, 2, 1),
        peer: Arc::new(peer),
        restarting,
        local: "192.0.2.1:179".parse().unwrap(),
        remote: "192.0.2.2:179".parse().unwrap(),
        inbound: false,
    }
}

fn begin(config: SessionConfig) -> (Session, Vec<u8>) {
    let (session, events) = Session::begin(config, Arc::default(), Instant::now());
    let [Event::Send(open)] = &events[..] else {
        panic!("not one OPEN: {events:?}");
    };
    let open = open.to_vec();
    (session, open)
}

fn all(peer: &mut PeerConfig) {
    peer.families = Family::ALL.to_vec();
    peer.add_path_send = true;
    peer.graceful_restart = Some(GracefulRestart {
        restart_time: Duration::from_mins(2),
        notification: true,
        long_lived: Duration::from_hours(1),
    });
}

/// The capabilities of an OPEN, code and value.
fn capabilities(open: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = &open[29..];
    while let [2, len, parameter @ ..] = rest {
        let (mut inner, after) = parameter.split_at(usize::from(*len));
        while let [code, len, value @ ..] = inner {
            let (value, next) = value.split_at(usize::from(*len));
            found.push((*code, value.to_vec()));
            inner = next;
        }
        rest = after;
    }
    found.sort();
    found
}

#[test]
fn a_plain_open_says_who_we_are() {
    let (_, open) = begin(config(false, |_| {}));
    assert_eq!(open[..16], [0xff; 16]);
    // OPEN, version 4, AS 65001, hold time 90, identifier.
    assert_eq!(open[18..28], [1, 4, 0xfd, 0xe9, 0, 90, 192, 0, 2, 1]);
    assert_eq!(
        capabilities(&open),
        [
            (1, vec![0, 1, 0, 1]),
            (2, vec![]),
            (5, vec![0, 1, 0, 1, 0, 2]),
            (6, vec![]),
            (65, vec![0, 0, 0xfd, 0xe9]),
            (70, vec![]),
        ]
    );
}

#[test]
fn every_capability_we_know_by_its_octets() {
    let (_, open) = begin(config(false, all));
    assert_eq!(
        capabilities(&open),
        [
            (1, vec![0, 1, 0, 1]),
            (1, vec![0, 2, 0, 1]),
            (2, vec![]),
            (5, vec![0, 1, 0, 1, 0, 2]),
            (6, vec![]),
            // N bit, 120 s, F bits.
            (64, vec![0x40, 120, 0, 1, 1, 0x80, 0, 2, 1, 0x80]),
            (65, vec![0, 0, 0xfd, 0xe9]),
            (69, vec![0, 1, 1, 2, 0, 2, 1, 2]),
            (70, vec![]),
            (
                71,
                vec![0, 1, 1, 0x80, 0, 0x0e, 0x10, 0, 2, 1, 0x80, 0, 0x0e, 0x10]
            ),
        ]
    );
}

#[test]
fn in_the_restart_window_the_open_carries_r_too() {
    let (_, open) = begin(config(true, all));
    let restart = capabilities(&open)
        .into_iter()
        .find(|(code, _)| *code == 64)
        .unwrap();
    assert_eq!(restart.1, [0xc0, 120, 0, 1, 1, 0x80, 0, 2, 1, 0x80]);
}

#[test]
fn the_n_bit_is_ours_to_set() {
    let (_, open) = begin(config(false, |peer| {
        peer.graceful_restart = Some(GracefulRestart::default());
    }));
    assert!(capabilities(&open).contains(&(64, vec![0, 120, 0, 1, 1, 0x80])));
}

#[test]
fn a_four_octet_as_number_stands_in_its_capability() {
    let mut config = config(false, |_| {});
    config.local_as = 4_200_000_000;
    let (_, open) = begin(config);
    assert_eq!(open[20..22], [0x5b, 0xa0]);
    assert!(capabilities(&open).contains(&(65, vec![0xfa, 0x56, 0xea, 0])));
}

/// Brings a session up against an OPEN with these capabilities.
fn establish(session: &mut Session, hold: u8, capabilities: &[u8]) -> Agreement {
    let mut octets = BytesMut::from(&[0xff; 16][..]);
    let len = u8::try_from(capabilities.len()).unwrap();
    let (total, parameters) = if len == 0 {
        (29, 0)
    } else {
        (31 + len, len + 2)
    };
    octets.extend_from_slice(&[
        0, total, 1, 4, 0xfd, 0xea, 0, hold, 192, 0, 2, 2, parameters,
    ]);
    if len > 0 {
        octets.extend_from_slice(&[2, len]);
        octets.extend_from_slice(capabilities);
    }
    octets.extend_from_slice(&[0xff; 16]);
    octets.extend_from_slice(&[0, 19, 4]);
    session
        .receive(Instant::now(), &mut octets)
        .into_iter()
        .find_map(|event| match event {
            Event::Established(agreement) => Some(*agreement),
            _ => None,
        })
        .expect("established")
}

#[test]
fn a_peer_without_capabilities_gets_plain_ipv4() {
    let (mut session, _) = begin(config(false, all));
    let agreement = establish(&mut session, 90, &[]);
    assert_eq!(agreement.families, [Family::Ipv4]);
    assert!(!agreement.style.four_octet_as);
    assert_eq!(agreement.style.limit, 4096);
    assert!(agreement.negotiated.add_path_send.is_empty());
    assert_eq!(agreement.negotiated.graceful_restart, None);
}

#[test]
fn the_smaller_hold_time_counts_and_the_keepalive_with_it() {
    let (mut session, _) = begin(config(false, |peer| {
        peer.timers.keepalive = Some(Duration::from_mins(1));
    }));
    let agreement = establish(&mut session, 30, &[]);
    assert_eq!(agreement.negotiated.hold_time, Duration::from_secs(30));
    assert_eq!(agreement.negotiated.keepalive, Duration::from_secs(10));
}

#[test]
fn no_hold_time_means_no_timers() {
    let (mut session, _) = begin(config(false, |peer| peer.timers.hold = Duration::ZERO));
    establish(&mut session, 90, &[]);
    assert_eq!(session.deadline(), None);
}

#[test]
fn a_helper_that_lists_no_family_of_its_own_still_keeps_our_routes() {
    let (mut session, _) = begin(config(false, all));
    // As FRR does: the capability without families, restart time 120 s.
    let agreement = establish(&mut session, 90, &[64, 2, 0, 120]);
    assert_eq!(
        agreement.negotiated.graceful_restart,
        Some(Duration::from_mins(2))
    );
}

#[test]
fn ipv6_next_hops_for_ipv4_need_both_sides() {
    let theirs = [1, 4, 0, 1, 0, 1, 5, 6, 0, 1, 0, 1, 0, 2];
    let (mut session, _) = begin(config(false, |_| {}));
    assert!(
        establish(&mut session, 90, &theirs)
            .negotiated
            .extended_next_hop
    );
    let (mut session, open) = begin(config(false, |peer| peer.extended_next_hop = false));
    assert!(!capabilities(&open).iter().any(|(code, _)| *code == 5));
    assert!(
        !establish(&mut session, 90, &theirs)
            .negotiated
            .extended_next_hop
    );
}

#[test]
fn a_peer_with_other_families_only_is_refused() {
    let (mut session, _) = begin(config(false, |peer| {
        peer.families = vec![Family::Ipv6];
        peer.hops = Hops::Multihop(3);
    }));
    let mut octets = BytesMut::from(&[0xff; 16][..]);
    octets.extend_from_slice(&[
        0, 37, 1, 4, 0xfd, 0xea, 0, 90, 192, 0, 2, 2, 8, 2, 6, 1, 4, 0, 1, 0, 1,
    ]);
    let events = session.receive(Instant::now(), &mut octets);
    let refused = events.iter().any(|event| {
        matches!(event, Event::Ended(Ended::Notified(notified))
            if (notified.code, notified.subcode) == (2, 7))
    });
    assert!(refused, "{events:?}");
}

#[test]
fn a_refresh_is_heard_and_its_markers_are_not_taken_for_one() {
    let (mut session, _) = begin(config(false, all));
    establish(&mut session, 90, &[1, 4, 0, 1, 0, 1, 2, 0]);
    for (subtype, expected) in [(0, 1), (1, 0), (2, 0)] {
        let mut octets = BytesMut::from(&[0xff; 16][..]);
        octets.extend_from_slice(&[0, 23, 5, 0, 1, subtype, 1]);
        let events = session.receive(Instant::now(), &mut octets);
        let refreshes = events
            .iter()
            .filter(|event| matches!(event, Event::Refresh(Family::Ipv4)))
            .count();
        assert_eq!(refreshes, expected);
    }
}

#[test]
fn a_bad_attribute_is_borne_and_a_bad_prefix_is_not() {
    let (mut session, _) = begin(config(false, all));
    let counters = Arc::clone(&session.counters);
    establish(
        &mut session,
        90,
        &[1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0xfd, 0xea],
    );
    // ORIGIN 9 is no origin: the route counts as withdrawn (RFC 7606 §7.1).
    let update = |attributes: &[u8], nlri: &[u8]| {
        let mut octets = BytesMut::from(&[0xff; 16][..]);
        let total = u8::try_from(23 + attributes.len() + nlri.len()).unwrap();
        octets.extend_from_slice(&[0, total, 2, 0, 0, 0]);
        octets.extend_from_slice(&[u8::try_from(attributes.len()).unwrap()]);
        octets.extend_from_slice(attributes);
        octets.extend_from_slice(nlri);
        octets
    };
    let attributes = [
        0x40, 1, 1, 9, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea, 0x40, 3, 4, 192, 0, 2, 2,
    ];
    let events = session.receive(Instant::now(), &mut update(&attributes, &[8, 10]));
    assert!(events.is_empty(), "{events:?}");
    let read = counters.read();
    assert_eq!((read.malformed_updates, read.prefixes_dropped), (1, 1));
    // A prefix of 33 bits leaves nothing to go by.
    let events = session.receive(Instant::now(), &mut update(&[], &[33, 10, 0, 0, 0, 0]));
    let ended = events.iter().any(
        |event| matches!(event, Event::Ended(Ended::Notified(notified)) if notified.code == 3),
    );
    assert!(ended, "{events:?}");
}
