//! A BGP-4 speaker (RFC 4271) and BFD (RFC 5880) for announcing routes.
//!
//! The caller gives the complete configuration and the complete set of routes
//! through two watch channels and reads back what really happens as a plain
//! [`Snapshot`]. Routes of peers are counted and dropped: memory does not grow
//! with what a peer sends.
//!
//! ```text
//!   caller                         Speaker                         network
//!
//!  watch<SpeakerConfig> ─────▶ ┌──────────────┐
//!                              │ speaker task │──wish──▶ listener task ◀── TCP 179
//!  Speaker::shutdown ────────▶ └──┬────────┬──┘             │ accepted (one waits)
//!                          setup, │        │ sessions       ▼
//!                          halt   │        │ wanted    ┌─────────────────┐
//!                                 ├────────┼─────────▶ │ task of a peer  │ ◀─▶ TCP
//!  watch<RouteSet> ───────────────┼────────┼─────────▶ │ Peer, Session,  │
//!                                 │        ▼           │ AdjRibOut, Link │
//!                                 │   thread "bfd" ──▶ └───────┬─────────┘
//!                                 │     ▲ UDP 3784, 4784       │
//!  watch<Snapshot> ◀──────────────┴─────┼──────────────────────┘
//! ```
//!
//! Every arrow is a watch channel (the latest value counts) or holds one item:
//! nothing queues. Each peer's task owns everything about its peer, so one peer
//! cannot harm another. What decides is pure and takes the time as an argument
//! (`peer`, `session`, `adj_rib_out`, `export`, `collision`, `backoff`,
//! `bfd::session`); what does I/O is `task`, `dial`, `link`, `listener`, `bfd::engine`.
//!
//! # Example
//!
//! ```no_run
//! use std::sync::Arc;
//! use openelb_bgp::{Attributes, PeerConfig, RemoteAs, RouteSet, Speaker, SpeakerConfig};
//! use tokio::sync::watch;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let peer = PeerConfig::new("10.0.0.1".parse()?, RemoteAs::Exactly(65000));
//! let config = SpeakerConfig::new(65001, "10.0.0.11".parse()?).peer("router", peer);
//! let routes: RouteSet = [("203.0.113.9/32".parse()?, Arc::new(Attributes::default()))]
//!     .into_iter()
//!     .collect();
//! let (config, follow) = watch::channel(Arc::new(config));
//! let (routes, announced) = watch::channel(Arc::new(routes));
//! let speaker = Speaker::spawn(follow, announced);
//!
//! // Withdraw everything: the new value is the complete wish.
//! routes.send_replace(Arc::new(RouteSet::new()));
//! # Ok(())
//! # }
//! ```
//!
//! # What is not there
//!
//! Import of routes, BFD echo and authentication, TCP-AO, and BFD with a
//! router that is found on an interface ([`PeerAddress::Interface`]).

mod adj_rib_out;
mod backoff;
mod bfd;
mod collision;
mod community;
mod config;
mod dial;
mod digest;
mod export;
mod family;
mod link;
mod listener;
mod message;
mod peer;
mod route;
mod session;
mod snapshot;
mod speaker;
mod task;
mod ttl;

pub use community::{Community, CommunityError, ExtendedCommunity, LargeCommunity};
pub use config::{
    AdminState, BGP_PORT, BfdConfig, ConfigError, GracefulRestart, Hops, Password, PeerAddress,
    PeerConfig, PeerName, RemoteAs, SpeakerConfig, Timers,
};
pub use digest::Digest;
pub use family::Family;
pub use route::{Attributes, NextHop, Origin, Path, PeerSelection, RouteSet};
pub use snapshot::{
    BfdSnapshot, BfdState, CounterValues, Counters, FamilySnapshot, Negotiated, Notification,
    PeerError, PeerSnapshot, SessionState, Snapshot,
};
pub use speaker::{Shutdown, Speaker};

/// Entry points for fuzzing: what the network can make the speaker read.
#[doc(hidden)]
pub mod fuzz {
    /// Octets from a peer, in any state of a session.
    pub fn bgp(octets: &[u8]) {
        crate::session::fuzz(octets);
    }

    /// A datagram to a BFD port.
    pub fn bfd(octets: &[u8]) {
        crate::bfd::session::fuzz(octets);
    }
}
