//! The BGP speaker against FRR, BIRD and GoBGP, and against peers that mean ill.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unused_self,
    reason = "what helpers of tests find missing fails the test, and only who has a lab may use it"
)]

mod bfd;
mod bfd_hostile;
mod collision;
mod hostile;
mod interop;
mod lab;
mod notification;
mod reconnect;
mod restart;
mod routes;
mod sessions;
mod ttl;
mod versions;
