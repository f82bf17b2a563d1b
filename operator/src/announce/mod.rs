//! Who announces what: the pure rules that speaker and controller share.
//!
//! A [`World`] is what the API says, trimmed to what matters here. From it follow the addresses in
//! use ([`World::addresses`]), the nodes that may announce each ([`Able`]), and the routes of a node
//! ([`routes`]). A speaker computes them for its own node and acts; the controller computes them for
//! all nodes and compares them with what the speakers report. Nothing here does I/O or reads a
//! clock.

mod able;
mod endpoints;
mod node;
mod pool;
mod routes;
mod service;
mod world;

#[cfg(test)]
pub(crate) mod testing;

pub(crate) use able::{Able, Candidates};
pub(crate) use endpoints::SliceEndpoints;
pub(crate) use node::Node;
pub(crate) use pool::{Holding, Pool};
pub(crate) use routes::{Routes, routes};
#[cfg(test)]
pub(crate) use service::TrafficPolicy;
pub(crate) use service::{Service, ServiceKey};
pub(crate) use world::{Address, World};
