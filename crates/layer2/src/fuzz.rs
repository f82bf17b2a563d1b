//! Entry points for fuzzers: bytes from the network into the engine.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Instant, SystemTime},
};

use openelb_net::{Link, Links, MacAddr};

use crate::{
    Ability, Desired, InterfaceChoice, ProbePolicy, ResponderConfig, Role, Vip,
    engine::{Engine, Now},
    frame,
};

/// A whole frame.
pub fn raw(bytes: &[u8]) {
    receive(bytes);
}

/// The payload of an ARP frame.
pub fn arp(bytes: &[u8]) {
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 8, 6];
    frame.extend_from_slice(bytes);
    receive(&frame);
}

/// Kind and body of a neighbour discovery message with a right checksum.
pub fn ndp(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else {
        return;
    };
    let source = if kind & 2 == 0 {
        Ipv6Addr::UNSPECIFIED
    } else {
        Ipv6Addr::LOCALHOST
    };
    receive(&frame::any_ndp(kind & 1 == 0, source, body));
}

/// What another node attached to its membership messages.
pub fn ability(bytes: &[u8]) {
    if let Ok(ability) = Ability::decode(bytes) {
        assert!(ability.encode().len() <= Ability::MAX_BYTES);
        for choice in [
            InterfaceChoice::Auto,
            InterfaceChoice::Names(vec!["eth*".to_owned()]),
            InterfaceChoice::CanReach(Ipv4Addr::new(10, 0, 0, 1).into()),
        ] {
            let _ = ability.usable(&choice, IpAddr::V6(Ipv6Addr::LOCALHOST));
        }
    }
}

fn receive(frame: &[u8]) {
    let now = Now {
        instant: Instant::now(),
        wall: SystemTime::now(),
    };
    let config = ResponderConfig::new("fuzz", |_, one, other| one < other);
    let mut engine = Engine::new(config, Arc::default(), 1, now.instant);
    let link = Link {
        index: 2,
        name: "eth0".to_owned(),
        mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        running: true,
        loopback: false,
        master: None,
        addresses: Vec::new(),
    };
    let links = Links {
        links: [(2, link)].into(),
        routes: Vec::new(),
    };
    engine.set_links(Arc::new(links), now);
    let vip = Vip {
        choice: Arc::new(InterfaceChoice::Names(vec!["eth0".to_owned()])),
        role: Role::Lead,
        probe: ProbePolicy::Off,
        preferred: None,
        proven: true,
        refresh: None,
    };
    let addresses = [
        IpAddr::from([10, 0, 0, 100]),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let desired = Desired {
        addresses: addresses.map(|ip| (ip, vip.clone())).into(),
        peers: [(MacAddr([2, 0, 0, 0, 0, 9]), Arc::from("peer"))].into(),
        ..Desired::default()
    };
    engine.set_desired(Arc::new(desired), now);
    engine.sends.clear();
    engine.receive(2, frame, now);
    assert!(
        engine.sends.len() <= 3,
        "one frame in, a bounded answer out"
    );
    assert_eq!(engine.states.len(), 2, "no memory for what strangers say");
    engine.tick(now);
}
