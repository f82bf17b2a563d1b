//! Address management: pools, the ledger of addresses, allocation and selection, as pure functions.
//!
//! Nothing in this crate waits, reads a clock or talks to anybody. The controller feeds an [`Index`]
//! with what its watches say, asks what to do about a Service, and carries the answer out as a
//! [`ledger::Transaction`].

mod index;
pub mod ledger;
mod names;
mod pairs;
mod service;
pub mod sharing;
mod taken;

pub use index::{Decision, EipView, Index, LISTED, Millis, News, Share};
pub use names::{ServiceKey, Uid, Version, word};
pub use pairs::Pairs;
pub use service::{HELD_ANNOTATION, Request, Said, ServiceFacts, ServiceStatus};
pub use taken::Taken;
