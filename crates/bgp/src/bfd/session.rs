//! The state machine of one BFD session (RFC 5880 §6). Pure: packets and the
//! time go in, packets and a deadline come out.

use std::time::{Duration, Instant};

use crate::bfd::packet::{Packet, diagnostic, micros};
use crate::config::BfdConfig;
use crate::snapshot::BfdState;

/// Shortest interval of packets while the session is not up (§6.8.3).
const SLOW: Duration = Duration::from_secs(1);
/// Gap between the first packets that say AdminDown: one may be lost, and
/// nobody may be left to repeat it.
const FAREWELL_GAP: Duration = Duration::from_millis(10);
/// How many packets say it quickly.
const FAREWELLS: u8 = 3;

/// See the module. Names are those of §6.8.1.
#[derive(Debug)]
pub(crate) struct Session {
    config: BfdConfig,
    state: BfdState,
    remote_state: BfdState,
    diagnostic: u8,
    remote_diagnostic: u8,
    local_discriminator: u32,
    remote_discriminator: u32,
    /// What our packets say we want to send at.
    desired_min_tx: Duration,
    /// What our packets say we can receive at.
    required_min_rx: Duration,
    /// What is in force until the peer has answered a poll.
    transmit_in_force: Duration,
    receive_in_force: Duration,
    remote_min_rx: Duration,
    remote_desired_tx: Duration,
    remote_multiplier: u8,
    remote_demand: bool,
    polling: bool,
    answer_poll: bool,
    send_at: Option<Instant>,
    detect_at: Option<Instant>,
    last_sent: Option<Instant>,
    farewells: u8,
    flaps: u64,
}

impl Session {
    /// A session that is down.
    pub(crate) fn new(config: BfdConfig, discriminator: u32, now: Instant) -> Self {
        Self {
            config,
            state: BfdState::Down,
            remote_state: BfdState::Down,
            diagnostic: diagnostic::NONE,
            remote_diagnostic: diagnostic::NONE,
            local_discriminator: discriminator,
            remote_discriminator: 0,
            desired_min_tx: config.transmit.max(SLOW),
            required_min_rx: config.receive,
            transmit_in_force: config.transmit.max(SLOW),
            receive_in_force: config.receive,
            remote_min_rx: Duration::from_micros(1),
            remote_desired_tx: Duration::ZERO,
            remote_multiplier: 0,
            remote_demand: false,
            polling: false,
            answer_poll: false,
            send_at: (!config.passive).then_some(now),
            detect_at: None,
            last_sent: None,
            farewells: 0,
            flaps: 0,
        }
    }

    /// Our state.
    pub(crate) fn state(&self) -> BfdState {
        self.state
    }

    /// The state the peer last told.
    pub(crate) fn remote_state(&self) -> BfdState {
        self.remote_state
    }

    /// Reason of our last change and the peer's.
    pub(crate) fn diagnostics(&self) -> (u8, u8) {
        (self.diagnostic, self.remote_diagnostic)
    }

    /// How often it went down after having been up.
    pub(crate) fn flaps(&self) -> u64 {
        self.flaps
    }

    /// Interval of our packets before jitter; `None` while the peer wants none.
    pub(crate) fn transmit_interval(&self) -> Option<Duration> {
        let demanded = self.remote_demand
            && self.state == BfdState::Up
            && self.remote_state == BfdState::Up
            && !self.polling;
        (!self.remote_min_rx.is_zero() && !demanded)
            .then(|| self.transmit_in_force.max(self.remote_min_rx))
    }

    /// Silence after which the session is down (§6.8.4).
    pub(crate) fn detection_time(&self) -> Duration {
        self.receive_in_force.max(self.remote_desired_tx) * u32::from(self.remote_multiplier)
    }

    /// What the peer is asked for.
    pub(crate) fn receive_interval(&self) -> Duration {
        self.required_min_rx
    }

    /// When [`Self::tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.send_at, self.detect_at].into_iter().flatten().min()
    }

    /// Takes new timers, multiplier or role, without leaving the state.
    pub(crate) fn configure(&mut self, now: Instant, config: BfdConfig) {
        let woken = self.config.passive && !config.passive;
        self.config = config;
        self.set_intervals(now);
        if woken && self.send_at.is_none() && self.state != BfdState::AdminDown {
            self.send_at = Some(now);
        }
    }

    /// Goes to AdminDown, or leaves it.
    pub(crate) fn set_admin_down(&mut self, now: Instant, down: bool) {
        match (down, self.state) {
            (true, BfdState::AdminDown) => {}
            (true, _) => {
                self.enter(now, BfdState::AdminDown, diagnostic::ADMIN_DOWN);
                self.farewells = FAREWELLS;
                self.detect_at = None;
            }
            (false, BfdState::AdminDown) => {
                self.enter(now, BfdState::Down, diagnostic::NONE);
            }
            (false, _) => {}
        }
    }

    /// Takes a packet that is meant for this session (§6.8.6).
    pub(crate) fn receive(&mut self, now: Instant, packet: &Packet) {
        self.remote_discriminator = packet.my_discriminator;
        self.remote_state = packet.state;
        self.remote_diagnostic = packet.diagnostic;
        self.remote_demand = packet.demand;
        self.remote_multiplier = packet.multiplier;
        self.remote_desired_tx = Duration::from_micros(u64::from(packet.desired_min_tx));
        let remote_min_rx = Duration::from_micros(u64::from(packet.required_min_rx));
        let faster = remote_min_rx < self.remote_min_rx || self.remote_min_rx.is_zero();
        self.remote_min_rx = remote_min_rx;
        if packet.final_ && self.polling {
            self.polling = false;
            self.transmit_in_force = self.desired_min_tx;
            self.receive_in_force = self.required_min_rx;
        }
        if self.state == BfdState::AdminDown {
            return;
        }
        match (self.state, packet.state) {
            (BfdState::Down, BfdState::Down) => {
                self.enter(now, BfdState::Init, diagnostic::NONE);
            }
            (BfdState::Down, BfdState::Init) | (BfdState::Init, BfdState::Init | BfdState::Up) => {
                self.enter(now, BfdState::Up, diagnostic::NONE);
            }
            (BfdState::Init | BfdState::Up, BfdState::AdminDown)
            | (BfdState::Up, BfdState::Down) => {
                self.enter(now, BfdState::Down, diagnostic::NEIGHBOR_DOWN);
            }
            _ => {}
        }
        self.answer_poll |= packet.poll;
        self.detect_at = Some(now + self.detection_time());
        if self.send_at.is_none() || faster {
            // A passive side speaks now that it was spoken to; and a peer that
            // can take more does not wait for a packet of the slow pace.
            let next = self
                .last_sent
                .zip(self.transmit_interval())
                .map(|(last, interval)| last + interval);
            self.send_at = next.into_iter().chain(self.send_at).min().or(Some(now));
        }
    }

    /// Handles what is due, and returns the packets to send. `jitter` is a
    /// random number from 0 to 1.
    pub(crate) fn tick(&mut self, now: Instant, jitter: f64) -> Vec<Packet> {
        if self.detect_at.is_some_and(|due| due <= now) {
            self.detect_at = None;
            self.remote_discriminator = 0;
            self.remote_min_rx = Duration::from_micros(1);
            self.remote_demand = false;
            self.remote_state = BfdState::Down;
            if matches!(self.state, BfdState::Init | BfdState::Up) {
                self.enter(now, BfdState::Down, diagnostic::EXPIRED);
            }
        }
        let mut packets = Vec::new();
        if std::mem::take(&mut self.answer_poll) {
            packets.push(self.packet(true));
        }
        if self.send_at.is_some_and(|due| due <= now) {
            self.send_at = None;
            let silent = self.config.passive && self.remote_discriminator == 0;
            let farewell = self.state == BfdState::AdminDown && self.farewells > 0;
            if let Some(interval) = self.transmit_interval()
                && (!silent || farewell)
            {
                packets.push(self.packet(false));
                self.last_sent = Some(now);
                self.send_at = Some(now + self.next_gap(interval, jitter));
            }
        }
        packets
    }

    fn next_gap(&mut self, interval: Duration, jitter: f64) -> Duration {
        if self.farewells > 1 {
            self.farewells -= 1;
            return FAREWELL_GAP;
        }
        self.farewells = 0;
        // §6.8.7: 75 to 100 %, with a multiplier of one at most 90 %, so that
        // the peer does not give up on a packet that is merely due.
        let (low, high) = if self.config.multiplier == 1 {
            (0.75, 0.9)
        } else {
            (0.75, 1.0)
        };
        interval.mul_f64(low + (high - low) * jitter.clamp(0.0, 1.0))
    }

    fn packet(&self, final_: bool) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            // A packet never carries both (§6.5).
            poll: self.polling && !final_,
            final_,
            control_plane_independent: false,
            demand: false,
            multiplier: self.config.multiplier,
            my_discriminator: self.local_discriminator,
            your_discriminator: self.remote_discriminator,
            desired_min_tx: micros(self.desired_min_tx),
            required_min_rx: micros(self.required_min_rx),
            required_min_echo_rx: 0,
        }
    }

    fn enter(&mut self, now: Instant, state: BfdState, reason: u8) {
        if self.state == BfdState::Up && state != BfdState::Up {
            self.flaps += 1;
        }
        self.state = state;
        self.diagnostic = reason;
        self.set_intervals(now);
        // The peer learns of a change at once.
        self.send_at = Some(now);
    }

    /// Brings the intervals in line with state and configuration (§6.8.3).
    fn set_intervals(&mut self, now: Instant) {
        let up = self.state == BfdState::Up;
        let desired = if up {
            self.config.transmit
        } else {
            self.config.transmit.max(SLOW)
        };
        let changed = desired != self.desired_min_tx || self.config.receive != self.required_min_rx;
        self.desired_min_tx = desired;
        self.required_min_rx = self.config.receive;
        if !changed {
            return;
        }
        if up {
            self.polling = true;
            // Sending more often and bearing more takes effect at once; less
            // only when the peer knows.
            self.transmit_in_force = self.transmit_in_force.min(desired);
            self.receive_in_force = self.receive_in_force.max(self.required_min_rx);
            self.send_at = Some(now);
        } else {
            self.polling = false;
            self.transmit_in_force = desired;
            self.receive_in_force = self.required_min_rx;
        }
        if let Some(detect_at) = self.detect_at {
            self.detect_at = Some(detect_at.max(now + self.detection_time()));
        }
    }
}

/// Feeds datagrams cut from the octets to a session.
pub(crate) fn fuzz(octets: &[u8]) {
    let mut now = Instant::now();
    let mut session = Session::new(BfdConfig::default(), 1, now);
    for datagram in octets.chunks(26) {
        if let Ok(packet) = Packet::decode(datagram) {
            // What is read is written again alike, but for what is never sent.
            debug_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
            session.receive(now, &packet);
        }
        session.tick(now, 0.5);
        now += Duration::from_millis(100);
    }
}

#[cfg(test)]
mod tests;
