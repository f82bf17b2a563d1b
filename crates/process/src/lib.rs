//! What every process of openelb-rs has, whatever its work is: [logs](telemetry), [metrics](Metrics), what
//! `/healthz` and `/readyz` say, what `/debug/state` tells, and a [server](admin) for all of it with
//! [somebody at the door](access) where that is wanted.
//!
//! ```text
//!  main loops ──beat──► Pulses ───► /healthz   restart me: a loop stands still or has panicked
//!  work ───────open───► Readiness ► /readyz    do not count on me: something is missing
//!  watches ────failed─► Watches ──► /metrics   what I know grows old
//!  parts ──────add────► State ────► /debug/state
//! ```
//!
//! None of it depends on the API server being there: restarting a speaker heals no API server, and one that
//! is not ready for want of it would only stop a rollout that could help.

pub mod access;
pub mod admin;
mod metrics;
mod pulse;
mod readiness;
mod state;
pub mod telemetry;
pub mod version;
mod watches;

pub use metrics::Metrics;
pub use pulse::{Pulse, Pulses};
pub use readiness::{Gate, Readiness};
pub use state::State;
pub use watches::{Watches, patience};
