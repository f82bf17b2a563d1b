//! Entry points for fuzzers: bytes from the network into the gossip.

use std::{net::SocketAddr, time::Instant};

use crate::{
    Key, Profile,
    gossip::{Gossip, Setup},
};

/// A datagram as it comes from the network.
pub fn datagram(bytes: &[u8]) {
    if let Some((mut gossip, from, now)) = gossip() {
        gossip.receive(from, bytes, now);
        assert!(gossip.take_datagrams().len() <= 8);
        gossip.tick(now);
    }
}

/// What a datagram contained, if whoever sealed it has the key and means ill.
pub fn message(bytes: &[u8]) {
    if let Some((mut gossip, from, now)) = gossip() {
        gossip.read(from, bytes, now);
        gossip.tick(now);
        let _ = gossip.members();
        assert!(gossip.take_datagrams().len() <= 4096);
    }
}

fn gossip() -> Option<(Gossip, SocketAddr, Instant)> {
    let now = Instant::now();
    let setup = Setup {
        node: "fuzz".to_owned(),
        advertise: SocketAddr::from(([192, 0, 2, 1], 7946)),
        key: Key::new(&[7; 32]).ok()?,
        parameters: Profile::Default.parameters(),
        run: 1,
        seed: [1; 32],
    };
    let gossip = Gossip::new(setup, now)?;
    Some((gossip, SocketAddr::from(([192, 0, 2, 2], 7946)), now))
}
