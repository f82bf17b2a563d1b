//! Which packet belongs to which session, and who is told of it.

use super::*;
use crate::snapshot::BfdState;

const REMOTE: [u8; 4] = [192, 0, 2, 9];

fn wish(multihop: Option<u8>) -> (Wish, watch::Receiver<Option<BfdSnapshot>>) {
    let (status, told) = watch::channel(None);
    let wish = Wish {
        config: BfdConfig {
            multihop,
            // Says nothing by itself.
            passive: true,
            ..BfdConfig::default()
        },
        remote: IpAddr::from(REMOTE),
        scope: 0,
        source: None,
        interface: None,
        admin_down: false,
        status,
        counters: Arc::default(),
    };
    (wish, told)
}

fn wishes(wish: Wish) -> Wishes {
    [("peer".into(), wish)].into()
}

/// A packet as it came in.
#[derive(Clone)]
struct Arrived {
    from: [u8; 4],
    port: u16,
    ttl: Option<u8>,
    your_discriminator: u32,
    octets: Option<Vec<u8>>,
}

const GOOD: Arrived = Arrived {
    from: REMOTE,
    port: SINGLE_HOP,
    ttl: Some(255),
    your_discriminator: 0,
    octets: None,
};

fn deliver(engine: &mut Threaded, arrived: &Arrived) {
    let packet = Packet {
        diagnostic: 0,
        state: BfdState::Down,
        poll: false,
        final_: false,
        control_plane_independent: false,
        demand: false,
        multiplier: 3,
        my_discriminator: 77,
        your_discriminator: arrived.your_discriminator,
        desired_min_tx: 1_000_000,
        required_min_rx: 1_000_000,
        required_min_echo_rx: 0,
    };
    let octets = arrived
        .octets
        .clone()
        .unwrap_or_else(|| packet.encode().to_vec());
    let mut buffer = [0; 64];
    buffer[..octets.len()].copy_from_slice(&octets);
    let datagram = Datagram {
        len: octets.len(),
        from: (arrived.from, 49_152).into(),
        ttl: arrived.ttl,
        interface: None,
    };
    engine.dispatch(arrived.port, &datagram, &buffer);
}

/// The state of the only session after this has arrived.
fn after(multihop: Option<u8>, arrived: &Arrived) -> BfdState {
    let mut engine = Threaded::default();
    engine.follow(&wishes(wish(multihop).0));
    deliver(&mut engine, arrived);
    engine.sessions["peer"].session.state()
}

#[tokio::test]
async fn a_packet_of_the_peer_moves_its_session() {
    assert_eq!(after(None, &GOOD), BfdState::Init);
}

#[tokio::test]
async fn packets_of_others_move_nothing() {
    let spoofed = [
        Arrived {
            ttl: Some(254),
            ..GOOD
        },
        Arrived { ttl: None, ..GOOD },
        Arrived {
            from: [192, 0, 2, 10],
            ..GOOD
        },
        Arrived {
            port: MULTI_HOP,
            ..GOOD
        },
        // Numbers are random; only the peer knows ours.
        Arrived {
            your_discriminator: 1,
            ..GOOD
        },
        Arrived {
            octets: Some(vec![0x20; 23]),
            ..GOOD
        },
        Arrived {
            octets: Some(vec![0xff; 64]),
            ..GOOD
        },
    ];
    for packet in spoofed {
        assert_eq!(after(None, &packet), BfdState::Down);
    }
}

#[tokio::test]
async fn over_several_hops_the_smallest_ttl_is_a_choice() {
    let far = |ttl| Arrived {
        port: MULTI_HOP,
        ttl: Some(ttl),
        ..GOOD
    };
    assert_eq!(after(Some(250), &far(250)), BfdState::Init);
    assert_eq!(after(Some(250), &far(249)), BfdState::Down);
}

#[tokio::test]
async fn a_flood_of_packets_of_others_leaves_nothing_behind() {
    let mut engine = Threaded::default();
    engine.follow(&wishes(wish(None).0));
    for number in 0..10_000_u32 {
        let [_, _, third, fourth] = number.to_be_bytes();
        let packet = Arrived {
            from: [198, 51, third, fourth],
            your_discriminator: number,
            ..GOOD
        };
        deliver(&mut engine, &packet);
    }
    assert_eq!(engine.sessions.len(), 1);
    assert_eq!(engine.by_discriminator.len(), 1);
    assert_eq!(engine.sessions["peer"].session.state(), BfdState::Down);
}

#[tokio::test]
async fn who_asks_anew_for_a_session_that_stays_is_told_of_it() {
    let mut engine = Threaded::default();
    let (first, told) = wish(None);
    engine.follow(&wishes(first));
    let tick = |engine: &mut Threaded| {
        for running in engine.sessions.values_mut() {
            running.tick(Instant::now());
        }
    };
    tick(&mut engine);
    assert!(told.borrow().is_some());
    // Removed and added again before the engine looks: the session goes on.
    let (second, told) = wish(None);
    engine.follow(&wishes(second));
    tick(&mut engine);
    assert!(told.borrow().is_some());
}
