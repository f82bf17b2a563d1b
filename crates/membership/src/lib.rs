//! Who is alive, and who leads a virtual address.
//!
//! *Alive* is decided by SWIM gossip (the `foca` crate) over UDP between the speakers, every packet
//! encrypted and authenticated; [`Membership`] runs it and publishes [`Members`]. *Leads* is a pure
//! function over the live and able: [`Members::electable`], then [`leader`]. All nodes with the
//! same view give the same answer; views differ for as long as news travel, and the layer 2
//! responder settles what two nodes claim meanwhile.
//!
//! ```text
//! let able = |node: &str, facts: &Facts| ability(facts).usable(&choice, ip).is_some() && allowed(node);
//! let leads = leader(ip, members.electable(able)) == Some(members.me.as_str());
//! ```
//!
//! Shutdown: [`Membership::set_leaving`], wait until the responder has handed everything over,
//! then [`Membership::leave`].

mod config;
mod counts;
mod election;
mod forming;
#[doc(hidden)]
pub mod fuzz;
mod gossip;
mod lease;
mod members;
mod seal;
#[cfg(test)]
mod simulation;
mod standing;
mod task;
mod wire;

pub use config::{Key, KeyError, MembershipConfig, Parameters, Profile, UnknownProfile};
pub use counts::{Counts, Detection};
pub use election::{leader, outranks};
pub use lease::{LeaseTiming, LeaseView, Leases, Renewal};
pub use members::{Facts, Member, Members};
pub use task::{Membership, MembershipError, Seeds};
