//! The HTTPS server: every resource that a client can take is bounded.
//!
//! | what | bound |
//! |---|---|
//! | connections | a semaphore; when it is empty, no more are accepted |
//! | TLS handshake | time |
//! | request head | size and time |
//! | connection without a request | time, shorter when connections get scarce |
//! | streams of one HTTP/2 connection | number |
//! | body | size, time, and the sum of all bodies in memory |
//! | reviews at work | number; the rest waits as long as a request may take |
//!
//! A review itself never waits: its rules are plain functions over memory.

pub mod body;
pub mod connection;
pub mod limits;
pub mod listener;
pub mod routes;
pub mod tls;

pub use limits::Limits;
