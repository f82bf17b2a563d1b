//! Bidirectional forwarding detection (RFC 5880): is the peer's forwarding
//! alive, asked many times a second.
//!
//! * `packet`: the 24 octets of a control packet.
//! * `session`: the state machine of one session; pure, the time goes in.
//! * `engine`: the thread with sockets and timers. It has a thread of its own,
//!   with raised priority where the system permits, so that load elsewhere in
//!   the process is not mistaken for a dead peer.
//!
//! Asynchronous mode alone, without echo and authentication. A state change
//! reaches BGP through the watch channel given with the session.

pub(crate) mod engine;
pub(crate) mod packet;
pub(crate) mod session;

pub(crate) use engine::{Engine, Wish, Wishes};
