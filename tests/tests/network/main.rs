//! Libraries and processes against kernels and routers, in network namespaces.

mod bgp;
mod controller;
mod layer2;
mod layer2_links;
mod layer2_pace;
mod speaker;
