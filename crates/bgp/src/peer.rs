//! The life of one peer: when to connect, which connection stays, what the
//! peer is to be told, how to stop. Pure: inputs and the time go in, outputs
//! come out, `task.rs` carries them out.
//!
//! At most three connections exist: one established or replaced, one that we
//! opened and one that the peer opened. A session that needs another OPEN is
//! reset; everything else changes under way. `setup` is what it is made from,
//! `contest` decides between connections, `established` is the session that is
//! up, `guard` what BFD says of it, `failure` why there is none, `halt` the
//! planned end.

mod contest;
mod established;
mod failure;
mod guard;
mod halt;
mod setup;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::backoff::Backoff;
use crate::config::{AdminState, PeerName};
use crate::export::LocalAddresses;
use crate::route::RouteSet;
use crate::session::{Ended, Event, Notified, Session, SessionConfig, Stop};
use crate::snapshot::{Counters, SessionState};
use crate::ttl;

use established::Established;
pub(crate) use failure::Failure;
pub(crate) use halt::Halt;
use halt::Phase;
pub(crate) use setup::Setup;

/// Names a connection; never used twice.
pub(crate) type ConnId = u64;

/// The ends of a connection, with what its interface offers as next hops.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub addresses: LocalAddresses,
}

/// What the I/O around the peer is to do.
#[derive(Debug)]
pub(crate) enum Output {
    /// Open a connection; answer with `dialed` or `dial_failed`.
    Dial,
    /// Forget the attempt under way.
    CancelDial,
    /// Send on this connection.
    Send(ConnId, Bytes),
    /// Close this connection once everything sent is out, or at once.
    Close(ConnId, Close),
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// After what is still to be sent, within a bounded time.
    Flush,
    /// At once.
    Now,
}

#[derive(Debug)]
struct Connection {
    id: ConnId,
    session: Session,
    ends: Ends,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Peer {
    name: PeerName,
    setup: Setup,
    counters: Arc<Counters>,
    routes: Arc<RouteSet>,
    connections: Vec<Connection>,
    next_id: ConnId,
    dialing: bool,
    retry_at: Option<Instant>,
    backoff: Backoff,
    established: Option<Established>,
    bfd_up: bool,
    phase: Phase,
    failure: Option<Failure>,
    notified: Option<Notified>,
    outputs: Vec<Output>,
}

impl Peer {
    /// A peer that has not begun; [`Self::start`] begins.
    pub(crate) fn new(
        name: PeerName,
        setup: Setup,
        routes: Arc<RouteSet>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            name,
            setup,
            counters,
            routes,
            connections: Vec::new(),
            next_id: 0,
            dialing: false,
            retry_at: None,
            backoff: Backoff::default(),
            established: None,
            bfd_up: false,
            phase: Phase::Running,
            failure: None,
            notified: None,
            outputs: Vec::new(),
        }
    }

    /// What is to be done, in order.
    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// The configuration in force.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Whether the peer was stopped and nothing is left to do.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// State for the snapshot: that of the connection that got furthest.
    pub(crate) fn state(&self) -> SessionState {
        let connected = self.connections.iter().map(|conn| conn.session.state());
        let idle = if self.dialing {
            SessionState::Connect
        } else if self.wants_session() {
            SessionState::Active
        } else {
            SessionState::Idle
        };
        connected.max().unwrap_or(idle).max(idle)
    }

    /// When [`Self::tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Draining { until, .. } | Phase::Withdrawing { until, .. } => Some(*until),
            Phase::Running | Phase::Done => None,
        };
        self.connections
            .iter()
            .filter_map(|conn| conn.session.deadline())
            .chain(self.retry_at)
            .chain(
                self.established
                    .as_ref()
                    .and_then(|established| established.kept_until),
            )
            .chain(phase)
            .min()
    }

    /// Begins to connect.
    pub(crate) fn start(&mut self, now: Instant) {
        self.report_config();
        self.retry_at = None;
        self.dial_if_wanted(now);
    }

    /// Takes a new configuration.
    pub(crate) fn configure(&mut self, now: Instant, setup: Setup) {
        let old = std::mem::replace(&mut self.setup, setup);
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        self.report_config();
        if self.setup.peer.bfd.is_none() {
            self.release();
        }
        if !self.wants_session() {
            let stop = match &self.setup.peer.admin {
                AdminState::Down(text) => Stop::Shutdown(text.clone()),
                AdminState::Up => Stop::Reconfigured,
            };
            self.stop_all(now, &stop);
            return;
        }
        if old.needs_reset(&self.setup) {
            self.stop_all(now, &Stop::Reconfigured);
            self.backoff.reset();
        }
        let keepalive = self.setup.peer.timers.keepalive;
        if keepalive != old.peer.timers.keepalive {
            for conn in &mut self.connections {
                conn.session.set_keepalive(keepalive, now);
            }
        }
        if self.connections.is_empty() {
            self.start(now);
        }
    }

    /// The connection asked for is open.
    pub(crate) fn dialed(&mut self, now: Instant, ends: Ends) -> ConnId {
        self.dialing = false;
        self.open(now, ends, false)
    }

    /// It could not be opened.
    pub(crate) fn dial_failed(&mut self, now: Instant, error: &str, jitter: f64) {
        self.dialing = false;
        self.fail("connect", error.to_owned());
        self.retry_later(now, jitter);
    }

    /// The peer connected, with a first packet of this TTL where it is known;
    /// `None` if that connection is refused.
    pub(crate) fn accepted(
        &mut self,
        now: Instant,
        ends: Ends,
        first_ttl: Option<u8>,
    ) -> Option<ConnId> {
        if !self.wants_session() {
            return None;
        }
        // Told apart here, before any octet is read: what arrived before the
        // kernel knew the limit is in the connection already.
        if let Some(refusal) = first_ttl.and_then(|ttl| ttl::refusal(self.setup.peer.hops, ttl)) {
            if self.established.is_none() {
                self.fail("ttl-security", refusal);
            }
            return None;
        }
        // One that the peer opened before and that did not come up is dead to
        // it, or it would not try again.
        let stale: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|conn| conn.session.inbound() && !self.is_established(conn.id))
            .map(|conn| conn.id)
            .collect();
        for id in stale {
            self.drop_connection(id, Close::Now);
        }
        Some(self.open(now, ends, true))
    }

    /// Octets arrived.
    pub(crate) fn received(
        &mut self,
        now: Instant,
        id: ConnId,
        octets: &mut BytesMut,
        jitter: f64,
    ) {
        if let Some(conn) = self.connection_mut(id) {
            let events = conn.session.receive(now, octets);
            self.follow(now, id, events, jitter);
        }
    }

    /// A connection was lost, or closed by the peer.
    pub(crate) fn lost(&mut self, now: Instant, id: ConnId, error: &str, jitter: f64) {
        let Some(conn) = self.connection_mut(id) else {
            return;
        };
        let state = conn.session.state();
        let events = conn.session.lost(now);
        let beside = self.is_beside(id);
        self.follow(now, id, events, jitter);
        if !beside {
            self.fail("lost", format!("connection lost in {state}: {error}"));
        }
    }

    /// Handles what is due.
    pub(crate) fn tick(&mut self, now: Instant, jitter: f64) {
        let ids: Vec<ConnId> = self.connections.iter().map(|conn| conn.id).collect();
        for id in ids {
            if let Some(conn) = self.connection_mut(id) {
                let events = conn.session.tick(now);
                self.follow(now, id, events, jitter);
            }
        }
        if self.retry_at.is_some_and(|due| due <= now) {
            self.retry_at = None;
            self.dial_if_wanted(now);
        }
        self.release_due(now);
        self.step_phase(now);
    }

    fn wants_session(&self) -> bool {
        matches!(self.phase, Phase::Running)
            && self.setup.peer.admin == AdminState::Up
            && self.setup.check().is_ok()
    }

    fn connection(&self, id: ConnId) -> Option<&Connection> {
        self.connections.iter().find(|conn| conn.id == id)
    }

    fn connection_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|conn| conn.id == id)
    }

    fn dial_if_wanted(&mut self, _now: Instant) {
        let outgoing = self.connections.iter().any(|conn| !conn.session.inbound());
        if self.wants_session()
            && !self.setup.peer.passive
            && !self.dialing
            && !outgoing
            && self.established.is_none()
        {
            self.dialing = true;
            self.outputs.push(Output::Dial);
        }
    }

    fn cancel_dial(&mut self) {
        if std::mem::take(&mut self.dialing) {
            self.outputs.push(Output::CancelDial);
        }
    }

    fn retry_later(&mut self, now: Instant, jitter: f64) {
        if self.wants_session() && !self.setup.peer.passive && self.established.is_none() {
            let wait = self
                .backoff
                .failed(self.setup.peer.timers.connect_retry, jitter);
            self.retry_at = Some(now + wait);
        }
    }

    fn open(&mut self, now: Instant, ends: Ends, inbound: bool) -> ConnId {
        let id = self.next_id;
        self.next_id += 1;
        let config = SessionConfig {
            local_as: self.setup.local_as(),
            router_id: self.setup.router_id,
            peer: Arc::clone(&self.setup.peer),
            restarting: self.setup.restarting_until.is_some_and(|end| now < end),
            local: ends.local,
            remote: ends.remote,
            inbound,
        };
        let (session, events) = Session::begin(config, Arc::clone(&self.counters), now);
        self.connections.push(Connection { id, session, ends });
        self.follow(now, id, events, 0.0);
        id
    }

    fn follow(&mut self, now: Instant, id: ConnId, events: Vec<Event>, jitter: f64) {
        for event in events {
            // A connection dropped by an event before this one is silent.
            if self.connection(id).is_none() {
                return;
            }
            match event {
                Event::Send(octets) => self.outputs.push(Output::Send(id, octets)),
                Event::Opened(opened) => self.resolve(now, id, opened),
                Event::Established(agreement) => self.establish(now, id, &agreement),
                Event::Refresh(family) => {
                    if let Some(established) = self.established.as_mut().filter(|e| e.id == id) {
                        established.rib.refresh(family);
                        self.plan();
                    }
                }
                Event::Ended(why) => self.ended(now, id, why, jitter),
            }
        }
    }

    fn ended(&mut self, now: Instant, id: ConnId, why: Ended, jitter: f64) {
        match why {
            _ if self.is_beside(id) => count(&self.counters.collisions),
            // The peer has decided which of the two stays.
            Ended::Notified(notified) if notified.is_collision() && self.connections.len() > 1 => {
                count(&self.counters.collisions);
            }
            Ended::Notified(notified) => self.report_notified(id, notified),
            Ended::Closed => {}
        }
        let was_established = self.is_established(id);
        if was_established {
            self.forget_established(now);
        }
        self.drop_connection(id, Close::Flush);
        if self.connections.is_empty() && !self.dialing {
            self.retry_later(now, jitter);
        }
    }

    fn drop_connection(&mut self, id: ConnId, close: Close) {
        let before = self.connections.len();
        self.connections.retain(|conn| conn.id != id);
        if self.connections.len() != before {
            self.outputs.push(Output::Close(id, close));
        }
    }

    fn stop_all(&mut self, now: Instant, stop: &Stop) {
        self.retry_at = None;
        self.cancel_dial();
        let ids: Vec<ConnId> = self.connections.iter().map(|conn| conn.id).collect();
        for id in ids {
            let Some(conn) = self.connection_mut(id) else {
                continue;
            };
            for event in conn.session.stop(now, stop) {
                match event {
                    Event::Send(octets) => self.outputs.push(Output::Send(id, octets)),
                    Event::Ended(Ended::Notified(notified)) => self.notified = Some(notified),
                    _ => {}
                }
            }
            self.drop_connection(id, Close::Flush);
        }
        self.forget_established(now);
    }
}

fn count(counter: &std::sync::atomic::AtomicU64) {
    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
