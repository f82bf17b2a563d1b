//! The speaker as a process: a real API server tells it what to do, real routers and hosts see what it does.

mod bgp;
mod bgp_host;
mod bgp_objects;
mod bgp_stop;
mod layer2;
mod stage;
