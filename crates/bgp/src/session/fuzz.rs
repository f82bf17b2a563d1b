//! The entry point for fuzzing.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::{Session, SessionConfig};
use crate::config::{PeerConfig, RemoteAs};
use crate::family::Family;

/// Feeds octets to a fresh session and to an established one.
pub(crate) fn fuzz(octets: &[u8]) {
    const HEADER: [u8; 16] = [0xff; 16];
    let mut peer = PeerConfig::new(Ipv4Addr::LOCALHOST.into(), RemoteAs::Any);
    peer.families = Family::ALL.to_vec();
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
    for open_first in [false, true] {
        let (mut session, _) = Session::begin(config.clone(), Arc::default(), now);
        let mut buffer = BytesMut::new();
        if open_first {
            buffer.extend_from_slice(&HEADER);
            buffer.extend_from_slice(&[0, 29, 1, 4, 0xfd, 0xea, 0, 90, 192, 0, 2, 2, 0]);
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
