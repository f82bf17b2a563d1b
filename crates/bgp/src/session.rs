//! One connection's protocol: from bytes and time to bytes and events.
//!
//! With `message` this is the seam: no other module names the state machine's
//! crate. A [`Session`] begins with an open TCP connection and ends with it;
//! who connects when, and which of two connections stays, is decided above. It
//! owns its deadlines, takes the time as an argument, and does no I/O. What goes
//! in and comes out is in `terms`, what is negotiated in `offer`.

mod fuzz;
mod offer;
mod terms;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustbgpd_fsm::{Action, Event as FsmEvent, TimerType};
use rustbgpd_wire::constants::{EXTENDED_MAX_MESSAGE_LEN, MAX_MESSAGE_LEN};
use rustbgpd_wire::notification::{NotificationCode, cease_subcode};
use rustbgpd_wire::{
    Afi, Capability, Message, NotificationMessage, OpenMessage, RouteRefreshSubtype, Safi,
};

use crate::config::Hops;
use crate::family::Family;
use crate::message;
use crate::snapshot::{Counters, SessionState};

pub(crate) use fuzz::fuzz;
use offer::{agree, fsm_config, offer};
pub(crate) use terms::{Agreement, Ended, Event, Notified, Opened, SessionConfig, Stop};

/// How long the OPEN of a peer with TTL security is waited for. RFC 4271 §8.2.2
/// suggests 4 minutes; but such a connection opens and stays silent wherever the
/// two sides do not agree, the peer's end of it is silent too, and what is mended
/// over there shows with another attempt only.
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    fsm: rustbgpd_fsm::Session,
    config: SessionConfig,
    counters: Arc<Counters>,
    hold: Option<Instant>,
    keepalive: Option<Instant>,
    keepalive_interval: Duration,
    opened: Option<Opened>,
    agreement: Option<Arc<Agreement>>,
    ended: bool,
}

impl Session {
    /// Begins a session on an open connection: the OPEN is the first event.
    pub(crate) fn begin(
        config: SessionConfig,
        counters: Arc<Counters>,
        now: Instant,
    ) -> (Self, Vec<Event>) {
        let mut session = Self {
            fsm: rustbgpd_fsm::Session::new(fsm_config(&config)),
            config,
            counters,
            hold: None,
            keepalive: None,
            keepalive_interval: Duration::ZERO,
            opened: None,
            agreement: None,
            ended: false,
        };
        let mut events = Vec::new();
        // The machine asks for a connection, which is already there.
        session.feed(now, FsmEvent::ManualStart, &mut Vec::new());
        let connected = if session.config.inbound {
            FsmEvent::TcpConnectionAcknowledged
        } else {
            FsmEvent::TcpConnectionConfirmed
        };
        session.feed(now, connected, &mut events);
        if let Hops::Security(_) = session.config.peer.hops {
            session.hold = session.hold.map(|due| due.min(now + OPEN_WAIT));
        }
        (session, events)
    }

    /// The state in terms of RFC 4271.
    pub(crate) fn state(&self) -> SessionState {
        match self.fsm.state() {
            rustbgpd_fsm::SessionState::Idle => SessionState::Idle,
            rustbgpd_fsm::SessionState::Connect => SessionState::Connect,
            rustbgpd_fsm::SessionState::Active => SessionState::Active,
            rustbgpd_fsm::SessionState::OpenSent => SessionState::OpenSent,
            rustbgpd_fsm::SessionState::OpenConfirm => SessionState::OpenConfirm,
            rustbgpd_fsm::SessionState::Established => SessionState::Established,
        }
    }

    /// Whether the peer opened the connection.
    pub(crate) fn inbound(&self) -> bool {
        self.config.inbound
    }

    /// Who the peer said it is, once its OPEN was accepted.
    pub(crate) fn opened(&self) -> Option<Opened> {
        self.opened
    }

    /// What was agreed on, while established.
    pub(crate) fn agreement(&self) -> Option<&Arc<Agreement>> {
        self.agreement.as_ref()
    }

    /// When [`Self::tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.hold, self.keepalive].into_iter().flatten().min()
    }

    /// Changes the interval of keepalives from the next one on.
    pub(crate) fn set_keepalive(&mut self, configured: Option<Duration>, now: Instant) {
        if let Some(agreement) = &self.agreement {
            let hold = agreement.negotiated.hold_time;
            self.keepalive_interval = keepalive_interval(configured, hold);
            if self.keepalive.is_some() {
                self.keepalive = Some(now + self.keepalive_interval);
            }
        }
    }

    /// Handles what is due.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        if self.hold.is_some_and(|due| due <= now) {
            self.hold = None;
            self.feed(now, FsmEvent::HoldTimerExpires, &mut events);
        }
        if self.keepalive.is_some_and(|due| due <= now) {
            self.keepalive = None;
            self.feed(now, FsmEvent::KeepaliveTimerExpires, &mut events);
        }
        events
    }

    /// Takes the complete messages off `buffer`.
    pub(crate) fn receive(&mut self, now: Instant, buffer: &mut BytesMut) -> Vec<Event> {
        let mut events = Vec::new();
        while !self.ended {
            let before = buffer.len();
            match message::next_message(buffer, self.inbound_limit()) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    count(&self.counters.bytes_received, before - buffer.len());
                    self.handle(now, message, &mut events);
                }
                Err(error) => self.feed(now, FsmEvent::DecodeError(error), &mut events),
            }
        }
        events
    }

    /// The connection is gone.
    pub(crate) fn lost(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        self.feed(now, FsmEvent::TcpConnectionFails, &mut events);
        self.end(Ended::Closed, &mut events);
        events
    }

    /// Ends the session with the NOTIFICATION that fits.
    pub(crate) fn stop(&mut self, now: Instant, stop: &Stop) -> Vec<Event> {
        let mut events = Vec::new();
        let event = match stop {
            Stop::BfdDown => FsmEvent::BfdDown,
            Stop::Reconfigured => FsmEvent::AdministrativeReset { reason: None },
            Stop::Shutdown(text) => FsmEvent::ManualStop {
                reason: Some(message::shutdown_data(text)),
            },
            Stop::Deconfigured | Stop::Collision => FsmEvent::ManualStop { reason: None },
        };
        for action in self.fsm.handle_event(event) {
            let action = match action {
                Action::SendNotification(cease) => {
                    Action::SendNotification(self.cease(stop, cease))
                }
                other => other,
            };
            self.act(now, action, &mut events);
        }
        self.end(Ended::Closed, &mut events);
        events
    }

    /// The machine knows two kinds of Cease; RFC 4486 and RFC 8538 more.
    fn cease(&self, stop: &Stop, mut cease: NotificationMessage) -> NotificationMessage {
        match stop {
            Stop::Deconfigured => cease.subcode = cease_subcode::PEER_DECONFIGURED,
            Stop::Collision => cease.subcode = cease_subcode::CONNECTION_COLLISION_RESOLUTION,
            Stop::Reconfigured => cease.subcode = cease_subcode::OTHER_CONFIGURATION_CHANGE,
            Stop::Shutdown(_) | Stop::BfdDown => {}
        }
        let hard = matches!(stop, Stop::Shutdown(_) | Stop::Deconfigured);
        let keeps_routes = self
            .agreement
            .as_ref()
            .is_some_and(|agreement| agreement.negotiated.notification_restart);
        if hard && keeps_routes {
            // RFC 8538 §3: any other NOTIFICATION would leave our routes there.
            let mut data = BytesMut::with_capacity(2 + cease.data.len());
            data.extend_from_slice(&[cease.code.as_u8(), cease.subcode]);
            data.extend_from_slice(&cease.data);
            return NotificationMessage::new(
                NotificationCode::Cease,
                cease_subcode::HARD_RESET,
                data.freeze(),
            );
        }
        cease
    }

    fn inbound_limit(&self) -> u16 {
        let extended = self
            .fsm
            .negotiated()
            .is_some_and(|negotiated| negotiated.peer_extended_message);
        if extended {
            EXTENDED_MAX_MESSAGE_LEN
        } else {
            MAX_MESSAGE_LEN
        }
    }

    fn handle(&mut self, now: Instant, message: Message, events: &mut Vec<Event>) {
        match message {
            Message::Open(open) => {
                count(&self.counters.open_received, 1);
                self.handle_open(now, open, events);
            }
            Message::Keepalive => {
                count(&self.counters.keepalive_received, 1);
                self.feed(now, FsmEvent::KeepaliveReceived, events);
            }
            Message::Notification(notification) => {
                count(&self.counters.notification_received, 1);
                let notified = describe(&notification, true);
                // Said before the machine closes, so that the reason stays.
                self.end(Ended::Notified(notified), events);
                self.feed(now, FsmEvent::NotificationReceived(notification), events);
            }
            Message::Update(update) => {
                count(&self.counters.update_received, 1);
                let event = self.check_update(&update);
                self.feed(now, event, events);
            }
            Message::RouteRefresh(refresh) => {
                count(&self.counters.refresh_received, 1);
                let wanted = match (refresh.afi(), refresh.safi()) {
                    (Some(Afi::Ipv4), Some(Safi::Unicast)) => Some(Family::Ipv4),
                    (Some(Afi::Ipv6), Some(Safi::Unicast)) => Some(Family::Ipv6),
                    _ => None,
                };
                let established = self.state() == SessionState::Established;
                // RFC 7313 §5: an unknown family or subtype is ignored; the
                // message still proves that the peer lives.
                self.feed(
                    now,
                    FsmEvent::RouteRefreshReceived {
                        afi: refresh.afi().unwrap_or(Afi::Ipv4),
                        safi: Safi::Unicast,
                    },
                    events,
                );
                let normal = refresh.subtype() == RouteRefreshSubtype::Normal;
                if let Some(family) = wanted.filter(|_| established && normal) {
                    events.push(Event::Refresh(family));
                }
            }
            // A message type of a later codec: the peer cannot have agreed to it.
            other => tracing::warn!(%other, "ignored a message of unknown type"),
        }
    }

    fn handle_open(&mut self, now: Instant, open: OpenMessage, events: &mut Vec<Event>) {
        let opened = Opened {
            router_id: open.bgp_identifier,
            asn: open.four_byte_as(),
            graceful_restart: open
                .capabilities
                .iter()
                .any(|capability| matches!(capability, Capability::GracefulRestart { .. })),
        };
        let before = self.state();
        let mut answer = Vec::new();
        self.feed(now, FsmEvent::OpenReceived(open), &mut answer);
        if before == SessionState::OpenSent && self.state() == SessionState::OpenConfirm {
            self.opened = Some(opened);
            // Before the KEEPALIVE that accepts it: a connection that loses to
            // another one would be established for the peer first, which might
            // then have closed the one that stays.
            events.push(Event::Opened(opened));
        }
        events.append(&mut answer);
    }

    fn check_update(&self, update: &rustbgpd_wire::UpdateMessage) -> FsmEvent {
        let Some(agreement) = &self.agreement else {
            return FsmEvent::UpdateReceived;
        };
        let style = &agreement.style;
        match message::summarize(update, style.internal, style.four_octet_as) {
            Ok(summary) => {
                count(&self.counters.prefixes_dropped, summary.announced);
                count(&self.counters.prefixes_withdrawn, summary.withdrawn);
                count(
                    &self.counters.malformed_updates,
                    u64::from(summary.malformed),
                );
                FsmEvent::UpdateReceived
            }
            Err(error) => FsmEvent::DecodeError(error),
        }
    }

    fn feed(&mut self, now: Instant, event: FsmEvent, events: &mut Vec<Event>) {
        for action in self.fsm.handle_event(event) {
            self.act(now, action, events);
        }
    }

    fn act(&mut self, now: Instant, action: Action, events: &mut Vec<Event>) {
        match action {
            Action::SendOpen(mut open) => {
                offer(&mut open, &self.config);
                count(&self.counters.open_sent, 1);
                self.send(&Message::Open(open), events);
            }
            Action::SendKeepalive => {
                count(&self.counters.keepalive_sent, 1);
                self.send(&Message::Keepalive, events);
            }
            Action::SendNotification(notification) => {
                let notified = describe(&notification, false);
                count(&self.counters.notification_sent, 1);
                self.send(&Message::Notification(notification), events);
                self.end(Ended::Notified(notified), events);
            }
            Action::StartTimer(TimerType::Hold, seconds) => {
                self.hold = Some(now + Duration::from_secs(u64::from(seconds)));
            }
            Action::StartTimer(TimerType::Keepalive, _) => {
                let hold = self.fsm.negotiated().map_or(0, |agreed| agreed.hold_time);
                let hold = Duration::from_secs(u64::from(hold));
                if self.keepalive_interval.is_zero() {
                    self.keepalive_interval =
                        keepalive_interval(self.config.peer.timers.keepalive, hold);
                }
                self.keepalive = Some(now + self.keepalive_interval);
            }
            Action::StopTimer(TimerType::Hold) => self.hold = None,
            Action::StopTimer(TimerType::Keepalive) => self.keepalive = None,
            Action::SessionEstablished(negotiated) => {
                let agreement = agree(&self.config, &negotiated);
                self.agreement = Some(Arc::new(agreement.clone()));
                events.push(Event::Established(Box::new(agreement)));
            }
            Action::CloseTcpConnection => self.end(Ended::Closed, events),
            // Connecting and its timer are decided above, the state is read
            // from the machine, and leaving Established is said by `Ended`.
            Action::StartTimer(TimerType::ConnectRetry, _)
            | Action::StopTimer(TimerType::ConnectRetry)
            | Action::InitiateTcpConnection
            | Action::StateChanged { .. }
            | Action::SessionDown => {}
            Action::StaleTimerIgnored { state, timer } => {
                tracing::debug!(?state, ?timer, "a timer fired that was stopped");
            }
            other => tracing::warn!(?other, "an unknown action of the state machine is ignored"),
        }
    }

    fn send(&self, message: &Message, events: &mut Vec<Event>) {
        match rustbgpd_wire::encode_message(message) {
            Ok(octets) => {
                count(&self.counters.bytes_sent, octets.len());
                events.push(Event::Send(octets.freeze()));
            }
            Err(error) => tracing::error!(%error, "a message could not be written"),
        }
    }

    /// Ends once: what is said first about the reason stays.
    fn end(&mut self, why: Ended, events: &mut Vec<Event>) {
        if !self.ended {
            self.ended = true;
            self.hold = None;
            self.keepalive = None;
            events.push(Event::Ended(why));
        }
    }
}

fn count(counter: &std::sync::atomic::AtomicU64, by: impl TryInto<u64>) {
    counter.fetch_add(by.try_into().unwrap_or(0), Relaxed);
}

fn keepalive_interval(configured: Option<Duration>, hold: Duration) -> Duration {
    // RFC 4271 §4.4: not more often than once a second, and a third of the
    // hold time is the reasonable maximum.
    let longest = hold / 3;
    configured
        .map_or(longest, |wanted| wanted.min(longest))
        .max(Duration::from_secs(1))
}

fn describe(notification: &NotificationMessage, received: bool) -> Notified {
    let (meaning, text) = message::explain(notification);
    Notified {
        received,
        code: notification.code.as_u8(),
        subcode: notification.subcode,
        meaning,
        text,
    }
}

#[cfg(test)]
mod tests;
