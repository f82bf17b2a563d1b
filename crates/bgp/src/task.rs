//! The task of one peer: carries out what [`Peer`] decides.
//!
//! It owns the peer's connections and wakes for octets, deadlines, new
//! configuration, new routes, inbound connections, BFD and the order to stop.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use openelb_net::tcp;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::config::PeerName;
use crate::dial::{Dial, dial, ends_of, explain, finished};
use crate::link::{Link, LinkEvent};
use crate::peer::{Close, ConnId, Halt, Output, Peer, Setup};
use crate::route::RouteSet;
use crate::session::Notified;
use crate::snapshot::{
    BfdSnapshot, BfdState, Counters, FamilySnapshot, Notification, PeerError, PeerSnapshot,
    SessionState, Snapshot,
};
use crate::ttl;

/// Shortest time for which a peer may take nothing before its session ends
/// (RFC 9687 §6).
const SEND_HOLD: Duration = Duration::from_mins(8);
/// The ends of the channels that the task listens to.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub setup: watch::Receiver<Setup>,
    pub routes: watch::Receiver<Arc<RouteSet>>,
    pub accepted: mpsc::Receiver<TcpStream>,
    pub bfd: watch::Receiver<Option<BfdSnapshot>>,
    pub halt: watch::Receiver<Option<Halt>>,
    /// What the task counts, and BFD beside it.
    pub counters: Arc<Counters>,
}

/// See the module.
pub(crate) struct PeerTask {
    name: PeerName,
    peer: Peer,
    counters: Arc<Counters>,
    links: Vec<(ConnId, Link)>,
    dial: Option<Dial>,
    lingering: JoinSet<()>,
    snapshot: watch::Sender<Snapshot>,
    published: Option<Arc<PeerSnapshot>>,
    since: SystemTime,
    last_state: SessionState,
    error: Option<PeerError>,
    notification: Option<Notification>,
    bfd: Option<BfdSnapshot>,
    removed: bool,
}

impl PeerTask {
    /// Runs until the peer is removed or the speaker stops.
    pub(crate) async fn run(name: PeerName, snapshot: watch::Sender<Snapshot>, mut inputs: Inputs) {
        let counters = Arc::clone(&inputs.counters);
        let setup = inputs.setup.borrow_and_update().clone();
        let routes = Arc::clone(&inputs.routes.borrow_and_update());
        let mut task = Self {
            peer: Peer::new(Arc::clone(&name), setup, routes, Arc::clone(&counters)),
            name,
            counters,
            links: Vec::new(),
            dial: None,
            lingering: JoinSet::new(),
            snapshot,
            published: None,
            since: SystemTime::now(),
            last_state: SessionState::Idle,
            error: None,
            notification: None,
            bfd: None,
            removed: false,
        };
        task.peer.start(now());
        let mut routes_open = true;
        loop {
            task.carry_out();
            task.publish();
            if task.peer.is_done() && task.links.is_empty() {
                break;
            }
            let deadline = task.deadline();
            tokio::select! {
                changed = inputs.setup.changed() => {
                    if changed.is_err() {
                        task.halt(Halt::Remove);
                    } else {
                        let setup = inputs.setup.borrow_and_update().clone();
                        task.peer.configure(now(), setup);
                    }
                }
                changed = inputs.routes.changed(), if routes_open => {
                    routes_open = changed.is_ok();
                    let routes = Arc::clone(&inputs.routes.borrow_and_update());
                    task.peer.announce(routes);
                }
                Some(stream) = inputs.accepted.recv() => task.accepted(stream),
                Ok(()) = inputs.bfd.changed() => {
                    let bfd = *inputs.bfd.borrow_and_update();
                    task.follow_bfd(bfd);
                }
                Ok(()) = inputs.halt.changed() => {
                    let halt = inputs.halt.borrow_and_update().clone();
                    if let Some(halt) = halt {
                        task.halt(halt);
                    }
                }
                dialed = finished(&mut task.dial) => task.dialed(dialed),
                (id, event) = next_event(&mut task.links) => task.follow_link(id, event),
                () = sleep_until(deadline) => task.tick(),
            }
        }
        while task.lingering.join_next().await.is_some() {}
    }

    fn halt(&mut self, halt: Halt) {
        self.removed = halt == Halt::Remove;
        self.peer.halt(now(), halt);
    }

    fn deadline(&self) -> Instant {
        let far = Instant::now() + Duration::from_hours(1);
        let stalled = self
            .links
            .iter()
            .filter_map(|(_, link)| link.stalled_since())
            .map(|since| since + self.send_hold());
        self.peer
            .deadline()
            .map(Instant::from_std)
            .into_iter()
            .chain(stalled)
            .fold(far, Instant::min)
    }

    fn send_hold(&self) -> Duration {
        SEND_HOLD.max(self.peer.setup().peer.timers.hold * 2)
    }

    fn tick(&mut self) {
        let limit = self.send_hold();
        let stuck: Vec<ConnId> = self
            .links
            .iter()
            .filter(|(_, link)| {
                link.stalled_since()
                    .is_some_and(|since| since.elapsed() >= limit)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in stuck {
            self.links.retain(|(other, _)| *other != id);
            self.peer.lost(
                now(),
                id,
                "it took nothing for too long (RFC 9687)",
                jitter(),
            );
        }
        self.peer.tick(now(), jitter());
    }

    fn accepted(&mut self, stream: TcpStream) {
        let setup = self.peer.setup();
        let (ttl, min_ttl) = ttl::limits(setup);
        let known = tcp::restrict_accepted(&stream, ttl, min_ttl)
            .and_then(|()| Ok((ends_of(&stream)?, tcp::first_ttl(&stream)?)));
        let id = match known {
            Ok((ends, first_ttl)) => self.peer.accepted(now(), ends, first_ttl),
            Err(error) => {
                tracing::debug!(peer = %self.name, %error, "an inbound connection was lost");
                None
            }
        };
        match id {
            Some(id) => self.links.push((id, Link::new(stream))),
            None => {
                self.counters.refused.fetch_add(1, Relaxed);
            }
        }
    }

    fn dialed(&mut self, result: std::io::Result<TcpStream>) {
        let opened = result.and_then(|stream| Ok((ends_of(&stream)?, stream)));
        match opened {
            Ok((ends, stream)) => {
                let id = self.peer.dialed(now(), ends);
                self.links.push((id, Link::new(stream)));
            }
            Err(error) => {
                let message = explain(&self.peer.setup().peer, &error);
                self.peer.dial_failed(now(), &message, jitter());
            }
        }
    }

    fn follow_bfd(&mut self, bfd: Option<BfdSnapshot>) {
        let before = self.bfd.map(|bfd| (bfd.state, bfd.flaps));
        let after = bfd.map(|bfd| (bfd.state, bfd.flaps));
        // The far side says that it stops BFD on purpose: that is no failure.
        let on_purpose = bfd.is_none_or(|bfd| bfd.remote_state == BfdState::AdminDown);
        self.bfd = bfd;
        // A watch shows the latest state alone: what was up, went down and is
        // already coming up again is seen by the count.
        let went_down = match (before, after) {
            (Some((BfdState::Up, flaps_before)), Some((_, flaps))) => flaps > flaps_before,
            _ => false,
        };
        if went_down && !on_purpose {
            self.peer.bfd_down(now(), jitter());
        }
        let is_up = after.is_some_and(|(state, _)| state == BfdState::Up);
        self.peer.bfd_is(now(), is_up);
    }

    fn follow_link(&mut self, id: ConnId, event: LinkEvent) {
        match event {
            LinkEvent::Received => {
                if let Some((_, link)) = self.links.iter_mut().find(|(other, _)| *other == id) {
                    self.peer.received(now(), id, &mut link.inbox, jitter());
                }
            }
            LinkEvent::Flushed => self.peer.flushed(now()),
            LinkEvent::Lost(error) => {
                self.links.retain(|(other, _)| *other != id);
                self.peer.lost(now(), id, &error, jitter());
            }
        }
    }

    /// Carries out what the peer decided until nothing is left to do at once.
    fn carry_out(&mut self) {
        loop {
            for output in self.peer.take_outputs() {
                self.perform(output);
            }
            self.pump();
            let lost = self.flush();
            if lost.is_empty() && !self.has_outputs() {
                return;
            }
            for (id, error) in lost {
                self.links.retain(|(other, _)| *other != id);
                self.peer.lost(now(), id, &error, jitter());
            }
        }
    }

    fn has_outputs(&mut self) -> bool {
        let outputs = self.peer.take_outputs();
        let any = !outputs.is_empty();
        for output in outputs {
            self.perform(output);
        }
        any
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial => self.dial = Some(dial(self.peer.setup().clone())),
            Output::CancelDial => self.dial = None,
            Output::Send(id, octets) => {
                if let Some((_, link)) = self.links.iter_mut().find(|(other, _)| *other == id) {
                    link.outbox.extend_from_slice(&octets);
                }
            }
            Output::Close(id, close) => {
                if let Some(position) = self.links.iter().position(|(other, _)| *other == id) {
                    let (_, link) = self.links.swap_remove(position);
                    if close == Close::Flush {
                        self.lingering.spawn(link.linger());
                    }
                }
            }
        }
        while self.lingering.try_join_next().is_some() {}
    }

    /// Moves routes from Adj-RIB-Out to the connection while it takes some.
    fn pump(&mut self) {
        let Some((id, rib)) = self.peer.outgoing() else {
            return;
        };
        let Some((_, link)) = self.links.iter_mut().find(|(other, _)| *other == id) else {
            return;
        };
        while link.has_room() {
            let before = link.outbox.len();
            if !rib.next_message(&mut link.outbox) {
                break;
            }
            let written = (link.outbox.len() - before) as u64;
            self.counters.bytes_sent.fetch_add(written, Relaxed);
            let kind = link.outbox.get(before + 18).copied();
            if kind == Some(5) {
                self.counters.refresh_sent.fetch_add(1, Relaxed);
            } else {
                self.counters.update_sent.fetch_add(1, Relaxed);
            }
        }
    }

    fn flush(&mut self) -> Vec<(ConnId, String)> {
        let mut lost = Vec::new();
        for (id, link) in &mut self.links {
            if let Err(error) = link.flush() {
                lost.push((*id, error.to_string()));
            }
        }
        if lost.is_empty() && self.links.iter().all(|(_, link)| link.outbox.is_empty()) {
            self.peer.flushed(now());
        }
        lost
    }

    fn publish(&mut self) {
        if self.removed {
            return;
        }
        let at = SystemTime::now();
        let state = self.peer.state();
        let established = |state| state == SessionState::Established;
        if established(state) != established(self.last_state) {
            self.since = at;
        }
        self.last_state = state;
        if let Some(notified) = self.peer.take_notified() {
            self.notification = Some(notification(at, notified));
        }
        let failure = self.peer.failure();
        let known = self.error.as_ref();
        if failure.map(|f| (f.label, &f.message)) != known.map(|e| (e.label, &e.message)) {
            self.error = failure.map(|failure| PeerError {
                at,
                label: failure.label,
                message: failure.message.clone(),
            });
            if let Some(error) = &self.error {
                tracing::info!(peer = %self.name, label = error.label, "{}", error.message);
            }
        }
        let new = PeerSnapshot {
            state,
            since: self.since,
            negotiated: self.peer.agreement().map(|a| a.negotiated.clone()),
            families: self.families(),
            last_error: self.error.clone(),
            last_notification: self.notification.clone(),
            bfd: self.bfd,
            counters: Arc::clone(&self.counters),
            description: self.peer.setup().peer.description.clone(),
        };
        if self.published.as_deref().is_some_and(|old| same(old, &new)) {
            return;
        }
        if self.published.as_ref().is_none_or(|old| old.state != state) {
            tracing::info!(peer = %self.name, %state, "session");
        }
        let new = Arc::new(new);
        self.published = Some(Arc::clone(&new));
        self.snapshot.send_modify(|all| {
            all.peers.insert(Arc::clone(&self.name), new);
        });
    }

    /// What the peer was told; as long as the kernel has not taken all of it,
    /// what was published before.
    fn families(&self) -> std::collections::BTreeMap<crate::Family, FamilySnapshot> {
        let Some(rib) = self.peer.rib() else {
            return std::collections::BTreeMap::new();
        };
        let before = self.published.as_ref().map(|snapshot| &snapshot.families);
        let flushed = self.links.iter().all(|(_, link)| link.outbox.is_empty());
        rib.families()
            .iter()
            .map(|(family, state)| {
                let new = FamilySnapshot {
                    advertised: state.advertised,
                    unsendable: state.unsendable,
                    end_of_rib: state.end_of_rib,
                };
                let old = before.and_then(|all| all.get(family)).copied();
                let shown = if flushed {
                    new
                } else {
                    old.unwrap_or_default()
                };
                (*family, shown)
            })
            .collect()
    }
}

fn same(a: &PeerSnapshot, b: &PeerSnapshot) -> bool {
    a.state == b.state
        && a.since == b.since
        && a.negotiated == b.negotiated
        && a.families == b.families
        && a.last_error == b.last_error
        && a.last_notification == b.last_notification
        && a.bfd == b.bfd
        && a.description == b.description
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn jitter() -> f64 {
    rand::random()
}

fn notification(at: SystemTime, notified: Notified) -> Notification {
    Notification {
        at,
        received: notified.received,
        code: notified.code,
        subcode: notified.subcode,
        text: notified.text,
        meaning: notified.meaning,
    }
}

/// Waits for something to happen on any link, for ever if there is none.
async fn next_event(links: &mut [(ConnId, Link)]) -> (ConnId, LinkEvent) {
    poll_fn(|context| {
        for (id, link) in links.iter_mut() {
            if let Poll::Ready(event) = link.poll(context) {
                return Poll::Ready((*id, event));
            }
        }
        Poll::Pending
    })
    .await
}
