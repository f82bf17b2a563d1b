//! What needs a real API server and no network: CRDs, admission, the controller.

mod chart;
mod crds;
mod health;
mod ipam;
mod kubernetes;
mod logs;
mod observability;
mod scrapes;
mod speaker;
mod webhook;
