//! The test world's own tests: each level starts, breaks as asked, and leaves nothing behind.

mod bgp;
mod build;
mod cluster;
mod cluster_faults;
mod cluster_links;
mod cluster_services;
mod control_plane;
mod faults;
mod keepalived;
mod kept;
mod link_faults;
mod network;
mod nothing_left;
mod prober;
mod victim;
