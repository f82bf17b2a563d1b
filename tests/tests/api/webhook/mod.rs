//! The admission webhook before a real API server: its own ServiceAccount, its own configurations, real kubectl.

#![allow(
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "tests are tables of cases; helpers may panic, and take what json! makes"
)]

mod certificates;
mod clock;
mod configuration;
mod jobs;
mod mounted;
mod recovery;
mod rights;
mod rules;
mod stage;
mod wire;
