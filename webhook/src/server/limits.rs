//! The server's bounds in one place.

use std::time::Duration;

/// What clients may take of us. The defaults suit the API servers of a large cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// Streams at a time on one HTTP/2 connection.
    pub streams: u32,
    /// Requests at work at a time, bodies being read included.
    pub requests: usize,
    /// Bytes of one body. A Kubernetes object has at most 1.5 MiB; a review may hold two.
    pub body: usize,
    /// Bytes of all bodies in memory at a time.
    pub bodies: usize,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For the head of a request.
    pub head: Duration,
    /// From a request's head to its answer, reading the body included.
    pub request: Duration,
    /// A connection without a request is closed after this long.
    pub idle: Duration,
    /// The same while fewer than a quarter of the connections are left.
    pub idle_when_scarce: Duration,
    /// For requests at work when the server shuts down.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            streams: 128,
            requests: 256,
            body: 4 << 20,
            bodies: 24 << 20,
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(5),
            request: Duration::from_secs(5),
            idle: Duration::from_mins(3),
            idle_when_scarce: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}
