//! The ledger: which Service holds which address, one API object per address.
//!
//! An address is held by whoever its record (`EipAddress`, named after the address) names. A
//! [`Transaction`] is the protocol by which any number of writers change records and Service
//! statuses without ever giving an address twice: each may be paused or killed between any two
//! calls, with caches of any age. Its idea: who publishes first kills every older version of the
//! record; who frees first kills every older version of the Service. Caches only propose.
//!
//! Everything here is plain data: the controller's executor turns a [`Call`] into an API request
//! and the response into an [`Answer`]; the model check does the same on a map in memory.

mod admission;
mod record;
mod transaction;

#[cfg(test)]
mod model;

pub use record::{Entry, Record, Stored};
pub use transaction::{
    Answer, Call, Conclusion, Outcome, Plan, Reservation, Seen, Step, Subject, Transaction,
};
