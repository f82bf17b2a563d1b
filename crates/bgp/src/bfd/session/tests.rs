//! Two sessions joined by a wire that a test can cut, under a fake clock.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

struct Pair {
    now: Instant,
    sides: [Session; 2],
    wire: VecDeque<(Instant, usize, Packet)>,
    /// Packets to this side are lost.
    cut: [bool; 2],
    sent: [u64; 2],
}

const DELAY: Duration = Duration::from_micros(200);

fn config(ms: u64, multiplier: u8) -> BfdConfig {
    BfdConfig {
        transmit: Duration::from_millis(ms),
        receive: Duration::from_millis(ms),
        multiplier,
        ..BfdConfig::default()
    }
}

impl Pair {
    fn new(a: BfdConfig, b: BfdConfig) -> Self {
        let now = Instant::now();
        Self {
            now,
            sides: [Session::new(a, 1, now), Session::new(b, 2, now)],
            wire: VecDeque::new(),
            cut: [false; 2],
            sent: [0; 2],
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_with(time, || 0.5);
    }

    fn run_with(&mut self, time: Duration, mut jitter: impl FnMut() -> f64) {
        let end = self.now + time;
        loop {
            let arrival = self.wire.front().map(|(at, ..)| *at);
            let due = self.sides.iter().filter_map(Session::deadline).min();
            let Some(next) = arrival.into_iter().chain(due).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while self.wire.front().is_some_and(|(at, ..)| *at <= self.now) {
                let (_, to, packet) = self.wire.pop_front().unwrap();
                if !self.cut[to] {
                    // Through the octets, so that what is tested is the wire.
                    let packet = Packet::decode(&packet.encode()).unwrap();
                    self.sides[to].receive(self.now, &packet);
                }
            }
            for from in 0..2 {
                for packet in self.sides[from].tick(self.now, jitter()) {
                    self.sent[from] += 1;
                    self.wire.push_back((self.now + DELAY, 1 - from, packet));
                }
            }
        }
        self.now = end;
    }

    fn states(&self) -> [BfdState; 2] {
        [self.sides[0].state(), self.sides[1].state()]
    }
}

const UP: [BfdState; 2] = [BfdState::Up; 2];

#[test]
fn two_sides_come_up_and_stay_up_at_the_agreed_pace() {
    let mut pair = Pair::new(config(50, 3), config(100, 3));
    pair.run(Duration::from_secs(3));
    assert_eq!(pair.states(), UP);
    for side in &pair.sides {
        // The slower of the two wishes counts in both directions.
        assert_eq!(side.transmit_interval(), Some(Duration::from_millis(100)));
        assert_eq!(side.detection_time(), Duration::from_millis(300));
    }
    let before = pair.sent;
    pair.run(Duration::from_mins(1));
    assert_eq!(pair.states(), UP);
    assert_eq!(pair.sides[0].flaps(), 0);
    for (now, before) in pair.sent.iter().zip(before) {
        // 60 s at 100 ms with a mean jitter of 12.5 %: 685 packets.
        assert!((680..=690).contains(&(now - before)), "{}", now - before);
    }
}

#[test]
fn silence_is_found_after_the_detection_time_and_no_earlier() {
    let mut pair = Pair::new(config(50, 3), config(50, 3));
    pair.run(Duration::from_secs(3));
    pair.cut = [true; 2];
    // The last packet was at most one interval ago.
    pair.run(Duration::from_millis(100));
    assert_eq!(pair.states(), UP);
    pair.run(Duration::from_millis(51));
    assert_eq!(pair.states(), [BfdState::Down; 2]);
    assert_eq!(pair.sides[0].diagnostics().0, diagnostic::EXPIRED);
    pair.cut = [false; 2];
    pair.run(Duration::from_secs(3));
    assert_eq!(pair.states(), UP);
    assert_eq!(pair.sides[0].flaps(), 1);
}

#[test]
fn a_path_that_works_one_way_only_is_down_on_both_sides() {
    let mut pair = Pair::new(config(50, 3), config(50, 3));
    pair.run(Duration::from_secs(3));
    pair.cut = [true, false];
    pair.run(Duration::from_millis(400));
    assert_eq!(pair.states(), [BfdState::Down; 2]);
    assert_eq!(pair.sides[1].diagnostics().0, diagnostic::NEIGHBOR_DOWN);
}

#[test]
fn the_peer_is_told_of_admin_down_and_comes_back_after_it() {
    let mut pair = Pair::new(config(50, 3), config(50, 3));
    pair.run(Duration::from_secs(3));
    let now = pair.now;
    pair.sides[0].set_admin_down(now, true);
    pair.run(Duration::from_millis(5));
    assert_eq!(pair.states(), [BfdState::AdminDown, BfdState::Down]);
    assert_eq!(pair.sides[1].remote_state(), BfdState::AdminDown);
    pair.run(Duration::from_secs(10));
    assert_eq!(pair.states(), [BfdState::AdminDown, BfdState::Down]);
    let now = pair.now;
    pair.sides[0].set_admin_down(now, false);
    pair.run(Duration::from_secs(3));
    assert_eq!(pair.states(), UP);
}

#[test]
fn admin_down_is_said_three_times_in_a_row() {
    let mut pair = Pair::new(config(300, 3), config(300, 3));
    pair.run(Duration::from_secs(3));
    let (now, before) = (pair.now, pair.sent[0]);
    pair.sides[0].set_admin_down(now, true);
    pair.run(Duration::from_millis(50));
    assert_eq!(pair.sent[0] - before, 3);
}

#[test]
fn a_passive_side_is_silent_until_spoken_to() {
    let passive = BfdConfig {
        passive: true,
        ..config(50, 3)
    };
    let mut pair = Pair::new(passive, passive);
    pair.run(Duration::from_secs(10));
    assert_eq!(pair.sent, [0, 0]);
    let mut pair = Pair::new(passive, config(50, 3));
    pair.run(Duration::from_secs(3));
    assert_eq!(pair.states(), UP);
}

#[test]
fn new_timers_are_agreed_by_poll_without_leaving_up() {
    let mut pair = Pair::new(config(50, 3), config(50, 3));
    pair.run(Duration::from_secs(3));
    for ms in [200, 20, 1000, 50] {
        let now = pair.now;
        pair.sides[0].configure(now, config(ms, 5));
        pair.run(Duration::from_secs(5));
        assert_eq!(pair.states(), UP);
        assert_eq!(pair.sides[0].flaps() + pair.sides[1].flaps(), 0);
        let interval = Duration::from_millis(ms.max(50));
        assert_eq!(pair.sides[0].transmit_interval(), Some(interval));
        assert_eq!(pair.sides[1].detection_time(), interval * 5);
        assert!(!pair.sides[0].polling);
    }
}

#[test]
fn the_peer_learns_a_slower_pace_before_it_is_used() {
    let mut pair = Pair::new(config(50, 3), config(50, 3));
    pair.run(Duration::from_secs(3));
    pair.cut = [true, false];
    let now = pair.now;
    pair.sides[0].configure(now, config(500, 3));
    // The answer to the poll does not come: the old pace stays.
    assert_eq!(
        pair.sides[0].transmit_interval(),
        Some(Duration::from_millis(50))
    );
}

#[test]
fn a_peer_that_wants_no_packets_gets_none() {
    let mut pair = Pair::new(config(50, 3), config(50, 3));
    pair.run(Duration::from_secs(3));
    let now = pair.now;
    let mut quiet = pair.sides[1].packet(false);
    quiet.required_min_rx = 0;
    pair.sides[0].receive(now, &quiet);
    assert_eq!(pair.sides[0].transmit_interval(), None);
    pair.sides[0].tick(now + Duration::from_secs(1), 0.5);
    quiet.required_min_rx = 50_000;
    pair.sides[0].receive(now, &quiet);
    assert!(pair.sides[0].deadline().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the jitter, and with every loss pattern short of the
    /// detection time, a session does not flap.
    #[test]
    fn fewer_losses_than_the_multiplier_are_borne(
        ms in 10_u64..300,
        multiplier in 3_u8..7,
        seed in any::<u64>(),
    ) {
        let mut pair = Pair::new(config(ms, multiplier), config(ms, multiplier));
        let mut random = seed;
        let mut jitter = move || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            f64::from(u32::try_from(random >> 33).unwrap()) / f64::from(1_u32 << 31)
        };
        pair.run_with(Duration::from_secs(4), &mut jitter);
        prop_assert_eq!(pair.states(), UP);
        for _ in 0..20 {
            // The last packet before may be an interval old, and the next one
            // an interval away.
            let gap = Duration::from_millis(ms * u64::from(multiplier - 2));
            pair.cut = [true; 2];
            pair.run_with(gap.mul_f64(0.9), &mut jitter);
            pair.cut = [false; 2];
            pair.run_with(Duration::from_millis(ms * 4), &mut jitter);
        }
        prop_assert_eq!(pair.states(), UP);
        prop_assert_eq!(pair.sides[0].flaps() + pair.sides[1].flaps(), 0);
    }

    /// No sequence of packets and times makes a session panic or go silent
    /// for good while it is active.
    #[test]
    fn any_packets_leave_a_session_that_can_come_up(
        packets in prop::collection::vec((any::<[u8; 24]>(), 0_u64..3_000), 0..60),
    ) {
        let mut now = Instant::now();
        let mut session = Session::new(config(50, 3), 1, now);
        for (octets, wait) in packets {
            now += Duration::from_millis(wait);
            if let Ok(packet) = Packet::decode(&octets) {
                session.receive(now, &packet);
            }
            session.tick(now, 0.5);
        }
        // After the longest possible detection time the past is forgotten.
        now += Duration::from_micros(u64::from(u32::MAX)) * 255;
        session.tick(now, 0.5);
        prop_assert!(session.state() != BfdState::Up);
        let mut peer = Session::new(config(50, 3), 2, now);
        for _ in 0..200 {
            now += Duration::from_millis(25);
            for packet in session.tick(now, 0.5) { peer.receive(now, &packet); }
            for packet in peer.tick(now, 0.5) { session.receive(now, &packet); }
        }
        prop_assert_eq!(session.state(), BfdState::Up);
        prop_assert_eq!(peer.state(), BfdState::Up);
    }
}
