//! The entry point for fuzzing.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::{Session, SessionConfig};
use crate::config::{PeerConfig, RemoteAs};
use crate::family::Family;

/// An OPEN without capabilities.
const PLAIN: &[u8] = &[0, 29, 1, 4, 0xfd, 0xea, 0, 90, 192, 0, 2, 2, 0];
/// An OPEN with all that changes how later messages are read: both families, extended messages, four-octet AS
/// numbers, several paths, route refresh.
const FULL: &[u8] = &[
    0, 65, 1, 4, 0xfd, 0xea, 0, 90, 192, 0, 2, 2, 36, 2, 34, 1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 6,
    0, 65, 4, 0, 0, 0xfd, 0xea, 69, 8, 0, 1, 1, 1, 0, 2, 1, 1, 2, 0, 70, 0,
];

/// Feeds octets to a fresh session and to established ones.
pub(crate) fn fuzz(octets: &[u8]) {
    const HEADER: [u8; 16] = [0xff; 16];
    let mut peer = PeerConfig::new(Ipv4Addr::LOCALHOST.into(), RemoteAs::Any);
    peer.families = Family::ALL.to_vec();
    peer.add_path_send = true;
    let config = SessionConfig {
        local_as: 65001,
        router_id: Ipv4Addr::LOCALHOST,
        peer: Arc::new(peer),
        restarting: false,
        local: (Ipv4Addr::LOCALHOST, 179).into(),
        remote: (Ipv4Addr::LOCALHOST, 179).into(),
        inbound: true,
    };
    let now = Instant::now();
    for open_first in [None, Some(PLAIN), Some(FULL)] {
        let (mut session, _) = Session::begin(config.clone(), Arc::default(), now);
        let mut buffer = BytesMut::new();
        if let Some(open) = open_first {
            buffer.extend_from_slice(&HEADER);
            buffer.extend_from_slice(open);
            buffer.extend_from_slice(&HEADER);
            buffer.extend_from_slice(&[0, 19, 4]);
        }
        // With a header of its own the input gets past the framing more often.
        buffer.extend_from_slice(&HEADER);
        buffer.extend_from_slice(octets);
        session.receive(now, &mut buffer);
        session.receive(now, &mut BytesMut::from(octets));
        session.tick(now + Duration::from_hours(1));
        session.lost(now);
    }
}
