//! Address management with real controllers and a real API server.

mod aside;
mod choosing;
mod contention;
mod edits;
mod events;
mod faults;
mod leftovers;
mod many;
mod serving;
mod waiting;
