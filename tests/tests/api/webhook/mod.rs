//! The admission webhook before a real API server: its own ServiceAccount, its own configurations, real kubectl.

mod certificates;
mod recovery;
mod rules;
mod stage;
