//! Address management with real controllers and a real API server.

mod serving;
