//! Two peers whom anything may befall.

use proptest::prelude::*;

use super::*;

/// What may befall two peers.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Wait(u16),
    Cut,
    Down(bool),
    BfdDown(usize),
    BfdUp(usize),
    Dial(usize),
    Toggle(usize),
    Garbage(usize, u8),
}

fn blows() -> impl Strategy<Value = Vec<Blow>> {
    let side = 0_usize..2;
    let blow = prop_oneof![
        (0_u16..5000).prop_map(Blow::Wait),
        Just(Blow::Cut),
        any::<bool>().prop_map(Blow::Down),
        side.clone().prop_map(Blow::BfdDown),
        side.clone().prop_map(Blow::BfdUp),
        side.clone().prop_map(Blow::Dial),
        side.clone().prop_map(Blow::Toggle),
        (side, any::<u8>()).prop_map(|(side, octet)| Blow::Garbage(side, octet)),
    ];
    prop::collection::vec(blow, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_two_peers_find_each_other_again(blows in blows(), restart: bool) {
        let change = |peer: &mut PeerConfig| {
            peer.graceful_restart = restart.then(GracefulRestart::default);
        };
        let mut net = Net::new(setup(0, change), setup(1, change));
        for blow in blows {
            let now = net.now;
            match blow {
                Blow::Wait(ms) => net.run(Duration::from_millis(u64::from(ms))),
                Blow::Cut => net.cut(),
                Blow::Down(down) => net.down = down,
                Blow::BfdDown(side) => net.peers[side].bfd_down(now, 0.5),
                Blow::BfdUp(side) => net.peers[side].bfd_is(now, true),
                Blow::Dial(side) => {
                    // A connection out of turn, as from another program there.
                    let port = 50_000;
                    if let Some(id) = net.peers[side].accepted(now, ends(side, port), None) {
                        net.wires.push([None; 2]);
                        let wire = net.wires.len() - 1;
                        net.wires[wire][side] = Some(id);
                    }
                }
                Blow::Toggle(side) => {
                    let mut peer = (*net.peers[side].setup().peer).clone();
                    peer.admin = match peer.admin {
                        AdminState::Up => AdminState::Down(String::new()),
                        AdminState::Down(_) => AdminState::Up,
                    };
                    let setup = Setup {
                        peer: Arc::new(peer),
                        ..net.peers[side].setup().clone()
                    };
                    net.peers[side].configure(now, setup);
                }
                Blow::Garbage(side, octet) => {
                    let ids: Vec<ConnId> =
                        net.peers[side].connections.iter().map(|conn| conn.id).collect();
                    for id in ids {
                        let mut octets = BytesMut::from(&[octet; 40][..]);
                        net.peers[side].received(now, id, &mut octets, 0.5);
                    }
                }
            }
            net.carry_out();
            prop_assert!(net.peers.iter().all(|peer| peer.connections.len() <= 3));
        }
        net.down = false;
        for side in 0..2 {
            let now = net.now;
            let mut peer = (*net.peers[side].setup().peer).clone();
            peer.admin = AdminState::Up;
            let setup = Setup { peer: Arc::new(peer), ..net.peers[side].setup().clone() };
            net.peers[side].configure(now, setup);
        }
        net.carry_out();
        // The longest hold time before an OPEN, and the longest wait after it.
        net.run(Duration::from_mins(15));
        prop_assert_eq!(net.states(), UP);
        for peer in &net.peers {
            prop_assert_eq!(peer.connections.len(), 1);
        }
    }
}
