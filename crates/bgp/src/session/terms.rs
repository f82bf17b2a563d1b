//! What a session is told and what it tells, in terms of ours.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;

use crate::config::PeerConfig;
use crate::family::Family;
use crate::message::Style;
use crate::snapshot::Negotiated;

/// What a session needs to know from the start.
#[derive(Clone, Debug)]
pub(crate) struct SessionConfig {
    /// Our AS number towards this peer.
    pub local_as: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// The peer.
    pub peer: Arc<PeerConfig>,
    /// The OPEN carries the R and F bits (RFC 4724 §3).
    pub restarting: bool,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// The peer connected to us.
    pub inbound: bool,
}

/// What a session wants done or known.
#[derive(Debug)]
pub(crate) enum Event {
    /// Send these octets.
    Send(Bytes),
    /// The peer's OPEN is here and acceptable.
    Opened(Opened),
    /// Routes may be exchanged.
    Established(Box<Agreement>),
    /// The peer asks for a family again.
    Refresh(Family),
    /// The session is over: close the connection after what is to be sent.
    Ended(Ended),
}

/// Who the peer says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub router_id: Ipv4Addr,
    pub asn: u32,
    /// It asks that its routes be kept while it restarts.
    pub graceful_restart: bool,
}

/// What was agreed on.
#[derive(Clone, Debug)]
pub(crate) struct Agreement {
    pub negotiated: Negotiated,
    pub families: Vec<Family>,
    pub style: Style,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A NOTIFICATION was sent or received.
    Notified(Notified),
    /// Without one.
    Closed,
}

/// A NOTIFICATION in plain terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notified {
    pub received: bool,
    pub code: u8,
    pub subcode: u8,
    pub meaning: String,
    pub text: Option<String>,
}

impl Notified {
    /// Whether it says that nothing was heard for the hold time (RFC 4271 §6.5).
    pub(crate) fn is_hold_timer(&self) -> bool {
        self.code == 4
    }

    /// Whether it says that another connection stays (RFC 4271 §6.8, RFC 4486).
    pub(crate) fn is_collision(&self) -> bool {
        (self.code, self.subcode) == (6, 7)
    }
}

/// Why we end a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Administratively, or for good: the peer is to drop our routes.
    Shutdown(String),
    /// The peer is no longer configured.
    Deconfigured,
    /// The configuration changed in a way that needs a new session.
    Reconfigured,
    /// BFD says that the peer is gone (RFC 9384).
    BfdDown,
    /// Another connection with the peer stays (RFC 4271 §6.8).
    Collision,
}
