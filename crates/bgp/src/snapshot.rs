//! What the speaker is really doing, as plain data.
//!
//! The watch channel of [`crate::Speaker::snapshot`] wakes its readers when a
//! state changes or the set of announced prefixes did; counters run on
//! without waking anybody and are read live through [`Counters`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::config::PeerName;
use crate::digest::Digest;
use crate::family::Family;

/// State of the whole speaker.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The peers by name, those of the latest configuration.
    pub peers: BTreeMap<PeerName, Arc<PeerSnapshot>>,
    /// The addresses of [`crate::SpeakerConfig::listen`] with what became of
    /// each: bound, or the error that stands in the way.
    pub listeners: BTreeMap<SocketAddr, Result<(), Arc<str>>>,
    /// Why the configuration as a whole cannot be run.
    pub error: Option<Arc<str>>,
}

/// State of the session with a peer (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionState {
    /// Nothing is tried: administratively down, or waiting after an error.
    #[default]
    Idle,
    /// A TCP connection is being opened.
    Connect,
    /// Waiting to connect again, or for the peer to connect.
    Active,
    /// OPEN is sent.
    OpenSent,
    /// OPEN is received and accepted.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        })
    }
}

/// State of one peer.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// Session state.
    pub state: SessionState,
    /// When the session last came up or went down.
    pub since: SystemTime,
    /// What was agreed with the peer, while established.
    pub negotiated: Option<Negotiated>,
    /// What was announced per negotiated family, while established.
    pub families: BTreeMap<Family, FamilySnapshot>,
    /// Why there is no session, or why the last one ended.
    pub last_error: Option<PeerError>,
    /// The last NOTIFICATION that was sent or received.
    pub last_notification: Option<Notification>,
    /// BFD, where configured.
    pub bfd: Option<BfdSnapshot>,
    /// Live counters.
    pub counters: Arc<Counters>,
    /// [`crate::PeerConfig::description`].
    pub description: String,
}

/// What was agreed in OPEN.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent capabilities")]
pub struct Negotiated {
    /// Our AS number towards this peer.
    pub local_as: u32,
    /// The peer's AS number.
    pub peer_as: u32,
    /// The peer's BGP identifier.
    pub peer_router_id: Ipv4Addr,
    /// Our end of the connection.
    pub local_address: SocketAddr,
    /// The peer's end of the connection.
    pub peer_address: SocketAddr,
    /// Whether the connection was opened by the peer.
    pub inbound: bool,
    /// Hold time; zero means that none is kept.
    pub hold_time: Duration,
    /// Interval of our keepalives; zero means that none are sent.
    pub keepalive: Duration,
    /// Both sides speak 4-byte AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// The peer can ask for our routes again (RFC 2918).
    pub route_refresh: bool,
    /// And wants to know where the answer begins and ends (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// Messages up to 65535 bytes (RFC 8654).
    pub extended_messages: bool,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// The peer keeps our routes while we restart, for this long (RFC 4724).
    pub graceful_restart: Option<Duration>,
    /// The peer keeps routes also across NOTIFICATION (RFC 8538).
    pub notification_restart: bool,
    /// The peer speaks long-lived graceful restart (RFC 9494).
    pub long_lived_restart: bool,
    /// Families in which several paths per prefix are sent (RFC 7911).
    pub add_path_send: Vec<Family>,
    /// All capability codes of the peer's OPEN, in order.
    pub peer_capabilities: Vec<u8>,
}

/// What a peer was told in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilySnapshot {
    /// The prefixes in Adj-RIB-Out, handed to the kernel.
    pub advertised: Digest,
    /// Prefixes of the desired set that cannot be announced in this session,
    /// for want of a next hop.
    pub unsendable: u64,
    /// Whether End-of-RIB followed the first announcements.
    pub end_of_rib: bool,
}

/// What stands between us and a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerError {
    /// When it happened.
    pub at: SystemTime,
    /// Short, fixed label for metrics.
    pub label: &'static str,
    /// What happened and what can be done.
    pub message: String,
}

impl PeerError {
    /// The label where the configuration wants no session.
    pub const ADMIN_DOWN: &'static str = "admin-down";
}

/// A NOTIFICATION message (RFC 4271 §4.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// When it was sent or received.
    pub at: SystemTime,
    /// Whether the peer sent it.
    pub received: bool,
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// The text of a shutdown (RFC 9003), if any.
    pub text: Option<String>,
    /// What the codes mean.
    pub meaning: String,
}

/// State of a BFD session (RFC 5880 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BfdState {
    /// Administratively down.
    AdminDown,
    /// Down.
    #[default]
    Down,
    /// The peer was heard.
    Init,
    /// Both sides hear each other.
    Up,
}

impl fmt::Display for BfdState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

/// A BFD session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdSnapshot {
    /// Our state.
    pub state: BfdState,
    /// The state the peer told.
    pub remote_state: BfdState,
    /// Address of the peer.
    pub peer: IpAddr,
    /// When the state last changed.
    pub since: SystemTime,
    /// Our reason for the last change (RFC 5880 §4.1, "Diag").
    pub diagnostic: u8,
    /// The peer's reason.
    pub remote_diagnostic: u8,
    /// Interval of the packets we send, before jitter.
    pub transmit: Duration,
    /// Interval of the packets the peer is asked for.
    pub receive: Duration,
    /// Silence after which the session is down; zero while nothing was heard.
    pub detection: Duration,
    /// How often the session went down after having been up.
    pub flaps: u64,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of a peer, kept over its sessions.
        #[derive(Debug, Default)]
        pub struct Counters { $(pub(crate) $name: AtomicU64),* }

        /// The values of [`Counters`] at one time.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct CounterValues { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            /// Reads all counters.
            #[must_use]
            pub fn read(&self) -> CounterValues {
                CounterValues { $($name: self.$name.load(Ordering::Relaxed)),* }
            }
        }
    };
}

counters! {
    /// OPEN messages sent.
    open_sent,
    /// OPEN messages received.
    open_received,
    /// UPDATE messages sent.
    update_sent,
    /// UPDATE messages received.
    update_received,
    /// KEEPALIVE messages sent.
    keepalive_sent,
    /// KEEPALIVE messages received.
    keepalive_received,
    /// NOTIFICATION messages sent.
    notification_sent,
    /// NOTIFICATION messages received.
    notification_received,
    /// ROUTE-REFRESH messages sent.
    refresh_sent,
    /// ROUTE-REFRESH messages received.
    refresh_received,
    /// Bytes sent in messages.
    bytes_sent,
    /// Bytes received in messages.
    bytes_received,
    /// Prefixes announced by the peer, and dropped.
    prefixes_dropped,
    /// Prefixes withdrawn by the peer.
    prefixes_withdrawn,
    /// UPDATE messages with errors that RFC 7606 lets pass.
    malformed_updates,
    /// Times the session came up.
    established,
    /// Times an established session ended.
    dropped,
    /// Connections closed by the collision rule (RFC 4271 §6.8).
    collisions,
    /// Inbound connections refused.
    refused,
    /// BFD control packets sent.
    bfd_sent,
    /// BFD control packets received for the session.
    bfd_received,
}
