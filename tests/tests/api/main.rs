//! What needs a real API server and no network: CRDs, admission, the controller.

mod chart;
mod crds;
mod ipam;
mod kubernetes;
mod observability;
mod speaker;
mod webhook;
