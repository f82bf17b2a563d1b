//! A real Kubernetes, real routers and a real LAN on one machine, in seconds: the world that tests, the quickstart and
//! the benchmarks run in.
//!
//! Three levels, each usable alone:
//!
//! 1. [`ControlPlane`]: etcd and kube-apiserver (and kube-controller-manager) on loopback.
//! 2. [`Network`]: nodes, a switch, a router and clients, with FRR, BIRD and GoBGP; inside a [`scenario`].
//! 3. [`Cluster`]: both, with real nodes; faults of every kind, and a [`Prober`] that sees what they do to traffic.
//!
//! Everything a world starts dies with the program that started it, however that ends. Every wait is for a condition
//! and has a deadline; what was seen instead is in the error. Logs go to a [`Folder`] that is removed when all went
//! well, and whose place is printed when it did not.

pub mod bgp;
pub mod cluster;
pub mod control_plane;
mod folder;
pub mod ipam;
mod janitor;
pub mod keepalived;
pub mod lan;
mod namespace;
pub mod network;
pub mod prober;
pub mod process;
pub mod product;
mod record;
mod scenario;
pub mod speakers;
pub mod tools;
mod wait;
pub mod webhook;

pub use bgp::{Bgp, Peer, Software};
pub use cluster::{Cluster, Image, Node, ProxyMode};
pub use control_plane::{ControlPlane, Identity};
pub use folder::Folder;
pub use keepalived::{Keepalived, Vrrp, VrrpState};
pub use lan::Lan;
pub use namespace::{KernelNeighbor, KernelRoute, Namespace};
pub use network::{Host, Network};
pub use prober::{Prober, Target, Traffic};
pub use process::{Process, Program};
pub use scenario::{inside, scenario};
pub use tools::{binary, tool};
pub use wait::{Deadline, eventually};
