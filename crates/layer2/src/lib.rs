//! A layer 2 responder for virtual addresses: answers ARP and NDP for addresses that the host does
//! not own, announces them, hands them over without losing a packet and watches for conflicts.
//!
//! It knows no Kubernetes and holds no election. Whoever uses it says which addresses exist and
//! which of them this node leads ([`Desired`]); the [`Responder`] acts on it and on the host's
//! interfaces (`openelb_net::Links`) and tells what it does ([`Snapshot`], [`Event`],
//! [`Counters`]).
//!
//! ```text
//!  watch<Desired> ─┐                      ┌─> watch<Snapshot>
//!  watch<Links>  ──┼─> Responder (task) ──┼─> Event
//!  AF_PACKET     <─┴─> Engine (pure)      └─> Counters
//! ```
//!
//! Which node has a usable interface for an address must be known to all nodes, or one without
//! could win the election: [`Ability`] is the extract of a node's interfaces that travels with the
//! membership and answers this for any node.

mod ability;
mod choice;
mod claims;
mod config;
mod desired;
mod engine;
mod filter;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod responder;
mod schedule;
mod snapshot;
mod state;
mod wish;

pub use ability::{Ability, AbilityError, AbleLink};
pub use choice::InterfaceChoice;
pub use config::{Outranks, ResponderConfig};
pub use desired::{Desired, ProbePolicy, Role, Vip};
pub use responder::{Responder, ResponderError};
pub use snapshot::{
    Activity, Conflict, Counters, Event, ProbeResult, Snapshot, VipState, Withdrawal,
};
