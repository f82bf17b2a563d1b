//! What the caller wants of the speaker: one complete, plain description.
//!
//! The speaker compares each new [`SpeakerConfig`] with the one before and
//! acts on the difference. What was agreed in OPEN or is bound to the TCP
//! connection resets that one session; everything else changes live.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::family::Family;

/// Name of a peer, chosen by the caller and stable over its life: the key of
/// [`SpeakerConfig::peers`], of [`crate::Snapshot::peers`] and of the
/// selection in [`crate::PeerSelection::Only`].
pub type PeerName = Arc<str>;

/// The port BGP listens on (RFC 4271 §4).
pub const BGP_PORT: u16 = 179;

/// The complete configuration of a speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Local autonomous system number, 1 to 4294967295 (RFC 6793).
    pub asn: u32,
    /// BGP identifier: non-zero, unique within the AS (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Where inbound connections are accepted; empty means nowhere, so only
    /// outgoing sessions come up. An address that cannot be bound is reported
    /// in [`crate::Snapshot::listeners`], tried again, and harms no session.
    pub listen: Vec<SocketAddr>,
    /// How long after [`crate::Speaker::spawn`] this process counts as
    /// restarting: an OPEN sent within it carries the R and F bits of
    /// RFC 4724, so that a peer keeps the routes of our previous life. Zero
    /// for a cold start.
    pub restart_window: Duration,
    /// The peers by name.
    pub peers: BTreeMap<PeerName, Arc<PeerConfig>>,
}

impl SpeakerConfig {
    /// A speaker without peers that listens nowhere.
    #[must_use]
    pub fn new(asn: u32, router_id: Ipv4Addr) -> Self {
        Self {
            asn,
            router_id,
            listen: Vec::new(),
            restart_window: Duration::ZERO,
            peers: BTreeMap::new(),
        }
    }

    /// Adds (or replaces) a peer.
    #[must_use]
    pub fn peer(mut self, name: impl Into<PeerName>, peer: PeerConfig) -> Self {
        self.peers.insert(name.into(), Arc::new(peer));
        self
    }

    /// Says what makes the speaker as a whole unusable, if anything.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.asn == 0 {
            return Err(ConfigError::LocalAs);
        }
        if self.router_id.is_unspecified() {
            return Err(ConfigError::RouterId);
        }
        Ok(())
    }
}

/// Where a peer is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerAddress {
    /// A unicast address.
    Ip(IpAddr),
    /// A link-local IPv6 address on the named interface.
    LinkLocal(std::net::Ipv6Addr, String),
    /// Unnumbered: the one router on the named point-to-point interface, from
    /// whatever link-local IPv6 address it connects. It is not looked for: we
    /// only accept.
    Interface(String),
}

/// Which AS number is accepted in the peer's OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemoteAs {
    /// This one only; the local number makes the session internal (iBGP).
    Exactly(u32),
    /// Any but the local one.
    External,
    /// The local one.
    Internal,
    /// Whatever the peer says.
    Any,
}

/// How far away the peer is, and what that means for the IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hops {
    /// An eBGP peer is on the same link (packets leave with TTL 1), an iBGP
    /// peer anywhere (system default TTL).
    #[default]
    Direct,
    /// The peer may be this many hops away (packets leave with this TTL).
    Multihop(u8),
    /// Generalized TTL security (RFC 5082): packets leave with TTL 255, and
    /// ones that crossed more than `hops - 1` routers are dropped by the
    /// kernel. 1 means on the same link.
    Security(u8),
}

/// A TCP MD5 key (RFC 2385). It never shows in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Arc<str>);

impl Password {
    /// The longest key the kernel takes, in bytes.
    pub const MAX_LEN: usize = 80;

    /// Wraps a key; [`PeerConfig::check`] refuses one that is empty or too long.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>) -> Self {
        Self(key.into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Session timers (RFC 4271 §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timers {
    /// Hold time proposed in OPEN, in whole seconds: 0 (no keepalives) or 3
    /// to 65535 s.
    pub hold: Duration,
    /// Interval of keepalives; a third of the negotiated hold time where
    /// `None`, and never more than that.
    pub keepalive: Option<Duration>,
    /// Longest wait between two attempts to connect. The first attempts come
    /// faster: waits grow from a second up to this.
    pub connect_retry: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(90),
            keepalive: None,
            connect_retry: Duration::from_mins(2),
        }
    }
}

/// Graceful restart as the restarting side (RFC 4724, RFC 8538, RFC 9494).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GracefulRestart {
    /// How long the peer keeps our routes while we are away, in whole
    /// seconds, at most 4095.
    pub restart_time: Duration,
    /// Keep routes also across NOTIFICATION and hold time expiry (the N bit
    /// of RFC 8538).
    pub notification: bool,
    /// Long-lived stale time (RFC 9494), in whole seconds below 2²⁴; zero
    /// leaves the capability out.
    pub long_lived: Duration,
}

impl Default for GracefulRestart {
    fn default() -> Self {
        Self {
            restart_time: Duration::from_mins(2),
            notification: false,
            long_lived: Duration::ZERO,
        }
    }
}

/// A BFD session beside the BGP session (RFC 5880, 5881, 5883).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BfdConfig {
    /// Desired minimum interval between the packets we send; at least 1 ms.
    /// While the session is not up, at most one packet a second leaves.
    pub transmit: Duration,
    /// Shortest interval between packets that we can bear to receive; at
    /// least 1 ms.
    pub receive: Duration,
    /// Packets missed in a row until the session is down, 1 to 255.
    pub multiplier: u8,
    /// Wait for the peer to speak first (RFC 5880 §6.1).
    pub passive: bool,
    /// `Some` for a peer over several hops (UDP port 4784): nothing is accepted
    /// that arrives with a smaller TTL than this (0: everything is). On the
    /// same link, where this is `None`, everything arrives with TTL 255.
    pub multihop: Option<u8>,
}

impl Default for BfdConfig {
    fn default() -> Self {
        Self {
            transmit: Duration::from_millis(300),
            receive: Duration::from_millis(300),
            multiplier: 3,
            passive: false,
            multihop: None,
        }
    }
}

/// Whether a session is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum AdminState {
    /// The session is kept up.
    #[default]
    Up,
    /// The session is closed with Cease, Administrative Shutdown and this
    /// text (RFC 9003, at most 255 bytes of UTF-8; the rest is cut).
    Down(String),
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Where it is.
    pub address: PeerAddress,
    /// TCP port to connect to.
    pub remote_port: u16,
    /// Which AS it may be in.
    pub remote_as: RemoteAs,
    /// The AS number shown to this peer in place of [`SpeakerConfig::asn`].
    pub local_as: Option<u32>,
    /// Free text, shown in the snapshot.
    pub description: String,
    /// TCP MD5 key, on the listener and on outgoing connections. A peer with
    /// a key never gets in without: from a [`PeerAddress::Interface`], for
    /// whom none can be set beforehand, no connection is taken.
    pub password: Option<Password>,
    /// Session timers.
    pub timers: Timers,
    /// TTL and how it is checked.
    pub hops: Hops,
    /// Local address of the connection, and so of next hop self.
    pub source: Option<IpAddr>,
    /// Interface (or VRF device) the connection is bound to.
    pub interface: Option<String>,
    /// Never connect, only accept.
    pub passive: bool,
    /// Families offered; empty means the one of the address.
    pub families: Vec<Family>,
    /// Offer several paths for a prefix (RFC 7911), where the route set has
    /// some with different next hops.
    pub add_path_send: bool,
    /// Offer IPv4 routes with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Graceful restart, if it is to be negotiated.
    pub graceful_restart: Option<GracefulRestart>,
    /// BFD, if wanted; without effect for [`PeerAddress::Interface`].
    pub bfd: Option<BfdConfig>,
    /// Whether the session is wanted at all.
    pub admin: AdminState,
}

impl PeerConfig {
    /// A plain peer with default timers.
    #[must_use]
    pub fn new(address: IpAddr, remote_as: RemoteAs) -> Self {
        Self {
            address: PeerAddress::Ip(address),
            remote_port: BGP_PORT,
            remote_as,
            local_as: None,
            description: String::new(),
            password: None,
            timers: Timers::default(),
            hops: Hops::default(),
            source: None,
            interface: None,
            passive: false,
            families: Vec::new(),
            add_path_send: false,
            extended_next_hop: true,
            graceful_restart: None,
            bfd: None,
            admin: AdminState::Up,
        }
    }

    /// The families to offer: those asked for, else the one of the address.
    #[must_use]
    pub fn offered_families(&self) -> Vec<Family> {
        let mut families = if self.families.is_empty() {
            vec![match self.address {
                PeerAddress::Ip(IpAddr::V4(_)) => Family::Ipv4,
                _ => Family::Ipv6,
            }]
        } else {
            self.families.clone()
        };
        families.sort_unstable();
        families.dedup();
        families
    }

    /// Whether BFD watches the path: not where the address of the peer is to
    /// be found on an interface.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.bfd.is_some() && !matches!(self.address, PeerAddress::Interface(_))
    }

    /// Says what makes this peer unusable, if anything: the same check the
    /// speaker makes before it starts a session.
    pub fn check(&self) -> Result<(), ConfigError> {
        let hold = self.timers.hold;
        if hold.subsec_nanos() != 0 || matches!(hold.as_secs(), 1 | 2 | 65_536..) {
            return Err(ConfigError::HoldTime(hold));
        }
        if let PeerAddress::Ip(address) = self.address
            && (address.is_unspecified() || address.is_multicast())
        {
            return Err(ConfigError::Address(address));
        }
        if let (PeerAddress::Ip(address), Some(source)) = (&self.address, self.source)
            && address.is_ipv4() != source.is_ipv4()
        {
            return Err(ConfigError::SourceFamily {
                address: *address,
                local: source,
            });
        }
        if self.remote_as == RemoteAs::Exactly(0) || self.local_as == Some(0) {
            return Err(ConfigError::PeerAs);
        }
        if self.remote_port == 0 {
            return Err(ConfigError::RemotePort);
        }
        if let Some(password) = &self.password
            && (password.0.is_empty() || password.0.len() > Password::MAX_LEN)
        {
            return Err(ConfigError::Password(password.0.len()));
        }
        if matches!(self.hops, Hops::Multihop(0) | Hops::Security(0)) {
            return Err(ConfigError::Hops);
        }
        if let Some(restart) = self.graceful_restart
            && (restart.restart_time.as_secs() > 4095 || restart.long_lived.as_secs() >= 1 << 24)
        {
            return Err(ConfigError::RestartTime);
        }
        if let Some(bfd) = self.bfd {
            let range = Duration::from_millis(1)..=Duration::from_mins(1);
            if !range.contains(&bfd.transmit)
                || !range.contains(&bfd.receive)
                || bfd.multiplier == 0
            {
                return Err(ConfigError::Bfd);
            }
        }
        Ok(())
    }
}

/// Why a configuration cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The local AS number is zero.
    #[error("the local AS number is 0: set it to 1 to 4294967295")]
    LocalAs,
    /// The router id is `0.0.0.0`.
    #[error("the router id is 0.0.0.0: set it to a unique IPv4 address")]
    RouterId,
    /// The peer's address cannot be a peer.
    #[error("{0} is no unicast address: set the address of the router")]
    Address(IpAddr),
    /// Source and peer address are of different families.
    #[error("source {local} and peer {address} are of different address families")]
    SourceFamily {
        /// The peer's address.
        address: IpAddr,
        /// The local address asked for.
        local: IpAddr,
    },
    /// The peer's AS number or our number towards it is zero.
    #[error("an AS number of this peer is 0: set it to 1 to 4294967295")]
    PeerAs,
    /// The remote port is zero.
    #[error("the remote port is 0: leave it out for 179, or set 1 to 65535")]
    RemotePort,
    /// The hold time is none that RFC 4271 §4.2 allows.
    #[error("hold time {0:?} is not allowed: 0, or 3 to 65535 whole seconds")]
    HoldTime(Duration),
    /// The MD5 key is empty or longer than the kernel takes.
    #[error("the password has {0} bytes: 1 to {max} are possible", max = Password::MAX_LEN)]
    Password(usize),
    /// The number of hops is zero.
    #[error("the number of hops is 0: set 1 to 255")]
    Hops,
    /// The restart or stale time does not fit its field.
    #[error("restart time must be at most 4095 s, long-lived stale time below 16777216 s")]
    RestartTime,
    /// BFD interval or multiplier out of range.
    #[error("BFD intervals must be 1 ms to 60 s and the multiplier 1 to 255")]
    Bfd,
}
