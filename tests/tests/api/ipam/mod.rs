//! Address management with real controllers and a real API server.

mod aside;
mod faults;
mod serving;
mod waiting;
