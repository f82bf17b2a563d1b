//! The webhook's own certificates: made, kept, shared, renewed and trusted without anybody's help.
//!
//! One Secret is the truth. It holds a long-lived authority, a short-lived serving certificate
//! and the bundle of authorities that clients shall trust. Every replica reads it, any replica
//! may write it (compare-and-swap on its resourceVersion), and what each does follows from what
//! it reads:
//!
//! ```text
//!  Secret ──read──▶ Bundle ──decide(now)──▶ Step ──carry out──▶ Secret        (decide, issue)
//!                     │
//!                     ├─▶ caBundle of the webhook configurations               (inject)
//!                     └─▶ certificate that new connections get                 (swap, resolver)
//! ```
//!
//! Guarantees:
//! - A certificate signed by a new authority is served only after the webhook configurations
//!   trust that authority (or after a bounded wait), and an authority leaves the bundle only
//!   after an overlap. So no change of certificates fails a review.
//! - No decision sleeps until a moment of the wall clock: all of them are taken again every few
//!   seconds of monotonic time, so that a clock that jumps is noticed.
//! - Replicas that cannot agree slow down: nobody writes the Secret more than about twice a minute
//!   for long.
//! - Deleting the Secret is the way to replace everything: new keys, with the overlap above.

pub mod bundle;
pub mod config;
pub mod decide;
pub mod directory;
pub mod inject;
pub mod issue;
pub mod job;
pub mod keeper;
pub mod pace;
pub mod resolver;
pub mod store;
pub mod swap;
pub mod x509;
