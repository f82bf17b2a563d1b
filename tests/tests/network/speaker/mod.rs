//! The speaker as a process: a real API server tells it what to do, real routers and hosts see what it does.

#![allow(
    clippy::indexing_slicing,
    reason = "what is missing in an object of the API fails the test"
)]

mod bgp;
mod bgp_host;
mod bgp_objects;
mod bgp_policy;
mod bgp_status;
mod bgp_stop;
mod kube_proxy;
mod layer2;
mod layer2_away;
mod layer2_families;
mod layer2_moves;
mod layer2_objects;
mod layer2_pools;
mod stage;
