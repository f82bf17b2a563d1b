//! Address management with real controllers and a real API server.

mod faults;
mod serving;
mod waiting;
