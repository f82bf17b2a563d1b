//! Peers against peers under a fake clock: how they find each other, and which
//! connection stays.

mod change;
mod guard;
mod halt;
mod random;
mod ttl;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use crate::config::{GracefulRestart, PeerConfig, RemoteAs};
use crate::route::Attributes;

const LATENCY: Duration = Duration::from_millis(1);

/// Two peers, the network between them, and a clock.
struct Net {
    now: Instant,
    peers: [Peer; 2],
    /// Open connections by their names on both sides; `None` once closed there.
    wires: Vec<[Option<ConnId>; 2]>,
    events: VecDeque<(Instant, Happening)>,
    /// Connections cannot be opened.
    down: bool,
    /// The side to which nothing gets through on connections that are open.
    deaf: Option<usize>,
    /// Times each side asked for a connection.
    dials: [u32; 2],
}

#[derive(Debug)]
enum Happening {
    Dial {
        from: usize,
    },
    Octets {
        to: usize,
        wire: usize,
        octets: Bytes,
    },
    Close {
        to: usize,
        wire: usize,
    },
}

fn setup(side: usize, change: impl FnOnce(&mut PeerConfig)) -> Setup {
    let (me, other) = if side == 0 { (1, 2) } else { (2, 1) };
    let address = std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, other));
    let mut peer = PeerConfig::new(address, RemoteAs::Exactly(65000 + u32::from(other)));
    peer.timers.hold = Duration::from_secs(9);
    change(&mut peer);
    Setup {
        asn: 65000 + u32::from(me),
        router_id: Ipv4Addr::new(192, 0, 2, me),
        restarting_until: None,
        peer: Arc::new(peer),
    }
}

fn routes(prefixes: &[&str]) -> Arc<RouteSet> {
    let set = prefixes
        .iter()
        .map(|prefix| (prefix.parse().unwrap(), Arc::new(Attributes::default())))
        .collect();
    Arc::new(set)
}

fn ends(local: usize, port: u16) -> Ends {
    let ip = |side: usize| Ipv4Addr::new(192, 0, 2, u8::try_from(side).unwrap() + 1);
    Ends {
        local: (ip(local), 179).into(),
        remote: (ip(1 - local), port).into(),
        addresses: LocalAddresses {
            v4: Some(ip(local)),
            ..LocalAddresses::default()
        },
    }
}

impl Net {
    fn new(a: Setup, b: Setup) -> Self {
        let peer = |setup| {
            let counters = Arc::default();
            Peer::new("other".into(), setup, routes(&["10.0.0.0/8"]), counters)
        };
        let mut net = Self {
            now: Instant::now(),
            peers: [peer(a), peer(b)],
            wires: Vec::new(),
            events: VecDeque::new(),
            down: false,
            deaf: None,
            dials: [0; 2],
        };
        for peer in &mut net.peers {
            peer.start(net.now);
        }
        net.carry_out();
        net
    }

    fn plain() -> Self {
        Self::new(setup(0, |_| {}), setup(1, |_| {}))
    }

    fn later(&mut self, happening: Happening) {
        self.events.push_back((self.now + LATENCY, happening));
    }

    fn wire_of(&self, side: usize, id: ConnId) -> Option<usize> {
        self.wires.iter().position(|ends| ends[side] == Some(id))
    }

    fn carry_out(&mut self) {
        for side in 0..2 {
            for output in self.peers[side].take_outputs() {
                match output {
                    Output::Dial => {
                        self.dials[side] += 1;
                        self.later(Happening::Dial { from: side });
                    }
                    Output::CancelDial => self.events.retain(
                        |(_, event)| !matches!(event, Happening::Dial { from } if *from == side),
                    ),
                    Output::Send(id, octets) => {
                        if let Some(wire) = self.wire_of(side, id) {
                            let to = 1 - side;
                            self.later(Happening::Octets { to, wire, octets });
                        }
                    }
                    Output::Close(id, _) => {
                        if let Some(wire) = self.wire_of(side, id) {
                            self.wires[wire][side] = None;
                            self.later(Happening::Close { to: 1 - side, wire });
                        }
                    }
                }
            }
            // Routes go straight to the other side: what they are is tested
            // elsewhere, here they must not upset the session.
            let mut out = BytesMut::new();
            let id = self.peers[side].outgoing().map(|(id, rib)| {
                while rib.next_message(&mut out) {}
                id
            });
            self.peers[side].flushed(self.now);
            if let Some(wire) = id.and_then(|id| self.wire_of(side, id))
                && !out.is_empty()
            {
                let octets = out.freeze();
                self.later(Happening::Octets {
                    to: 1 - side,
                    wire,
                    octets,
                });
            }
        }
        let pending = self.peers.iter_mut().any(|peer| {
            let outputs = peer.take_outputs();
            let any = !outputs.is_empty();
            peer.outputs = outputs;
            any
        });
        if pending {
            self.carry_out();
        }
    }

    fn happen(&mut self, event: Happening) {
        let now = self.now;
        match event {
            Happening::Octets { to, .. } | Happening::Close { to, .. } if self.deaf == Some(to) => {
            }
            Happening::Dial { from } => {
                if self.down {
                    self.peers[from].dial_failed(now, "refused", 0.5);
                    return;
                }
                let wire = self.wires.len();
                let port = 40_000 + u16::try_from(wire % 20_000).unwrap();
                self.wires.push([None; 2]);
                // Names are needed before the first octets are sent.
                let id = self.peers[from].dialed(now, ends(from, port));
                self.wires[wire][from] = Some(id);
                let other = 1 - from;
                match self.peers[other].accepted(now, ends(other, port), None) {
                    Some(id) => self.wires[wire][other] = Some(id),
                    None => self.later(Happening::Close { to: from, wire }),
                }
            }
            Happening::Octets { to, wire, octets } => {
                if let Some(id) = self.wires[wire][to] {
                    let mut octets = BytesMut::from(&octets[..]);
                    self.peers[to].received(now, id, &mut octets, 0.5);
                }
            }
            Happening::Close { to, wire } => {
                if let Some(id) = self.wires[wire][to].take() {
                    self.peers[to].lost(now, id, "closed", 0.5);
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let event = self.events.front().map(|(at, _)| *at);
            let due = self.peers.iter().filter_map(Peer::deadline).min();
            let Some(next) = event.into_iter().chain(due).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if let Some((_, event)) = self.events.pop_front_if(|(at, _)| *at <= next) {
                self.happen(event);
            }
            for side in 0..2 {
                self.peers[side].tick(self.now, 0.5);
            }
            self.carry_out();
        }
        self.now = end;
    }

    /// Cuts every connection without a word from either peer.
    fn cut(&mut self) {
        for wire in 0..self.wires.len() {
            for to in 0..2 {
                self.later(Happening::Close { to, wire });
            }
        }
        self.run(LATENCY);
    }

    fn states(&self) -> [SessionState; 2] {
        [self.peers[0].state(), self.peers[1].state()]
    }

    fn open_wires(&self) -> usize {
        self.wires
            .iter()
            .filter(|ends| ends.iter().all(Option::is_some))
            .count()
    }
}

const UP: [SessionState; 2] = [SessionState::Established; 2];

#[test]
fn both_sides_connect_at_once_and_one_connection_stays() {
    let mut net = Net::plain();
    net.run(Duration::from_secs(1));
    assert_eq!(net.states(), UP);
    assert_eq!(net.open_wires(), 1);
    assert_eq!(net.dials, [1, 1]);
    // 192.0.2.2 is higher: its connection stays, inbound for the other.
    let inbound = |side: usize| net.peers[side].agreement().unwrap().negotiated.inbound;
    assert!(inbound(0) && !inbound(1));
    for peer in &mut net.peers {
        // Which one stays was agreed on: nothing failed.
        assert_eq!((peer.take_notified(), peer.failure()), (None, None));
    }
    net.run(Duration::from_mins(10));
    assert_eq!(net.states(), UP);
    assert_eq!(net.peers[0].counters.read().established, 1);
}

#[test]
fn a_connection_that_loses_is_closed_without_being_accepted_first() {
    let mut net = Net::plain();
    let now = net.now;
    let theirs = net.peers[1].dialed(now, ends(1, 40_001));
    let open = net.peers[1].take_outputs().into_iter().find_map(|output| {
        let Output::Send(id, octets) = output else {
            return None;
        };
        (id == theirs).then_some(octets)
    });
    let us = &mut net.peers[0];
    let loser = us.dialed(now, ends(0, 40_000));
    us.accepted(now, ends(0, 40_001), None).unwrap();
    us.take_outputs();
    us.received(now, loser, &mut BytesMut::from(&open.unwrap()[..]), 0.5);
    let outputs = us.take_outputs();
    let [
        Output::Send(to, octets),
        Output::Close(closed, Close::Flush),
    ] = &outputs[..]
    else {
        panic!("not one message and the end: {outputs:?}");
    };
    assert_eq!((*to, *closed), (loser, loser));
    // NOTIFICATION: Cease, Connection Collision Resolution.
    assert_eq!(octets[18..21], [3, 6, 7]);
}

#[test]
fn a_lost_session_comes_back_by_itself_within_a_second() {
    let mut net = Net::plain();
    net.run(Duration::from_secs(15));
    for round in 2..10 {
        net.cut();
        assert_ne!(net.states(), UP);
        net.run(Duration::from_secs(20));
        assert_eq!(net.states(), UP);
        assert_eq!(net.peers[0].counters.read().established, round);
    }
    net.cut();
    net.run(Duration::from_secs(1));
    assert_eq!(net.states(), UP);
}

#[test]
fn attempts_grow_rarer_while_the_peer_is_away() {
    let mut net = Net::plain();
    net.down = true;
    net.run(Duration::from_mins(10));
    // Doubling from a quarter of a second to two minutes: 10 steps, then a
    // handful.
    assert!((10..=16).contains(&net.dials[0]), "{}", net.dials[0]);
    assert_eq!(net.peers[0].failure().unwrap().label, "connect");
    net.down = false;
    net.run(Duration::from_mins(3));
    assert_eq!(net.states(), UP);
}

#[test]
fn a_passive_peer_accepts_while_it_waits_and_never_connects() {
    let mut net = Net::new(setup(0, |peer| peer.passive = true), setup(1, |_| {}));
    net.run(Duration::from_secs(1));
    assert_eq!(net.states(), UP);
    assert_eq!(net.dials[0], 0);
    net.cut();
    net.run(Duration::from_secs(5));
    assert_eq!(net.states(), UP);
    assert_eq!(net.dials[0], 0);
}

#[test]
fn a_second_connection_to_an_established_peer_is_refused_without_harm() {
    let mut net = Net::plain();
    net.run(Duration::from_secs(1));
    net.happen(Happening::Dial { from: 1 });
    net.carry_out();
    net.run(Duration::from_secs(20));
    assert_eq!(net.states(), UP);
    assert_eq!(net.peers[0].counters.read().established, 1);
    assert_eq!(net.open_wires(), 1);
}

#[test]
fn a_restarted_peer_replaces_its_old_session() {
    let restart = |peer: &mut PeerConfig| peer.graceful_restart = Some(GracefulRestart::default());
    let mut net = Net::new(setup(0, restart), setup(1, restart));
    net.run(Duration::from_secs(1));
    // Side 1 comes back as another process; its old connection is still there
    // for side 0, which was told nothing.
    let setup = net.peers[1].setup().clone();
    net.peers[1] = Peer::new("other".into(), setup, routes(&[]), Arc::default());
    for ends in &mut net.wires {
        ends[1] = None;
    }
    let now = net.now;
    net.peers[1].next_id = 1000;
    net.peers[1].start(now);
    net.carry_out();
    net.run(Duration::from_secs(1));
    assert_eq!(net.states(), UP);
    assert_eq!(net.peers[0].counters.read().established, 2);
}

/// A peer that called before it knew of the session, and drops that call once
/// it has our OPEN on it, is not one that has restarted.
#[test]
fn a_call_that_crossed_ours_does_not_end_the_session() {
    let restart = |peer: &mut PeerConfig| peer.graceful_restart = Some(GracefulRestart::default());
    let mut net = Net::new(setup(0, restart), setup(1, restart));
    net.run(Duration::from_secs(1));
    let before = net.peers[0].counters.read();
    let now = net.now;
    let mut caller = Peer::new(
        "other".into(),
        net.peers[1].setup().clone(),
        routes(&[]),
        Arc::default(),
    );
    caller.dialed(now, ends(1, 40_001));
    let [Output::Send(_, open)] = &caller.take_outputs()[..] else {
        panic!("not an OPEN alone");
    };
    let us = &mut net.peers[0];
    let late = us.accepted(now, ends(0, 40_001), None).unwrap();
    us.received(now, late, &mut BytesMut::from(&open[..]), 0.5);
    caller.stop_all(now, &Stop::Collision);
    let cease = caller.take_outputs().into_iter().find_map(|output| {
        let Output::Send(_, octets) = output else {
            return None;
        };
        Some(octets)
    });
    us.received(now, late, &mut BytesMut::from(&cease.unwrap()[..]), 0.5);
    assert_eq!(us.take_notified(), None);
    net.carry_out();
    net.run(Duration::from_secs(20));
    assert_eq!(net.states(), UP);
    let after = net.peers[0].counters.read();
    assert_eq!(after.established, before.established);
    assert_eq!(after.collisions, before.collisions + 1);
}

#[test]
fn a_silent_peer_is_found_by_the_hold_timer() {
    let mut net = Net::plain();
    net.run(Duration::from_secs(1));
    // From now on nothing arrives, and nothing is closed.
    net.down = true;
    net.wires.clear();
    net.wires.push([None; 2]);
    net.events.clear();
    net.run(Duration::from_secs(10));
    assert!(
        net.states()
            .iter()
            .all(|state| *state != SessionState::Established)
    );
    let notified = net.peers[0].take_notified().unwrap();
    assert_eq!((notified.code, notified.received), (4, false));
}

#[test]
fn a_wrong_as_number_is_named_in_the_error() {
    let wrong = setup(0, |peer| peer.remote_as = RemoteAs::Exactly(64999));
    let mut net = Net::new(wrong, setup(1, |_| {}));
    net.run(Duration::from_secs(5));
    assert_ne!(net.states(), UP);
    let message = &net.peers[0].failure().unwrap().message;
    assert!(message.contains("Bad Peer AS"), "{message}");
    let message = &net.peers[1].failure().unwrap().message;
    assert!(message.contains("peer ended the session"), "{message}");
}
