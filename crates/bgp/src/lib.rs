//! A BGP-4 speaker (RFC 4271) and BFD (RFC 5880) for announcing routes.
//!
//! The caller gives the complete configuration and the complete set of routes
//! through two watch channels and reads back what really happens as a plain
//! [`Snapshot`]. Routes of peers are counted and dropped.

mod adj_rib_out;
mod backoff;
mod bfd;
mod collision;
mod community;
mod config;
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
