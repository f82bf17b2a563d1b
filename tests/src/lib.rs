//! A real Kubernetes, real routers and a real LAN on one machine, in seconds: the world that tests, the quickstart and
//! the benchmarks run in.
//!
//! Three levels, each usable alone:
//!
//! 1. [`ControlPlane`]: etcd and kube-apiserver (and kube-controller-manager) on loopback.
//! 2. [`Network`]: nodes, a switch, a router and clients, with FRR, BIRD and GoBGP; inside a [`scenario`].
//! 3. [`Cluster`]: both, with real nodes; faults of every kind, and a [`Prober`] that sees what they do to traffic.
//!
//! A test tells its story inside a world that it has for itself:
//!
//! ```no_run
//! use openelb_tests::{Bgp, Network, Peer, Prober, Program, Software, Target, Traffic, binary, scenario};
//!
//! # #[allow(clippy::test_attr_in_doctest, reason = "this is how a test looks")]
//! #[test]
//! fn a_router_leads_to_a_node_that_announces() {
//!     scenario(async || {
//!         let network = Network::start(1).await?;
//!         let (router, node) = (network.router(), network.node("n1")?);
//!         let frr = Bgp::new(65000, router).peer(Peer::at(node.v4, 65001).bfd(100));
//!         let frr = frr.start(Software::Frr, router, network.folder()).await?;
//!         let vip = "203.0.113.9/32".parse()?;
//!         let bird = Bgp::new(65001, node).peer(Peer::at(router.v4, 65000).bfd(100)).announce(vip);
//!         let _bird = bird.start(Software::Bird, node, network.folder()).await?;
//!         frr.routes_become(vip, "one path", |paths| paths.len() == 1).await?;
//!
//!         node.namespace().ip("addr add 203.0.113.9/32 dev lo\n").await?;
//!         let server = Program::new("answer", binary("openelb-answer")?).args(["serve", "80"]);
//!         let _server = node.namespace().program(server).start(network.folder().path())?;
//!         let target = Target { address: "203.0.113.9:80".parse()?, traffic: Traffic::Tcp };
//!         let mut prober = Prober::start(network.client(), &[target])?;
//!         prober.answered(50).await?;
//!         prober.mark("n1 is unplugged");
//!         network.unplug(node).await?;
//!         prober.failed(10).await?;
//!         network.plug(node).await?;
//!         prober.answered(50).await?;
//!         println!("{}", prober.stop().await?); // the timeline
//!         Ok(())
//!     });
//! }
//! ```
//!
//! Everything a world starts dies with the program that started it, however that ends. Every wait is for a condition
//! and has a deadline; what was seen instead is in the error. Logs go to a [`Folder`] that is removed when all went
//! well, and whose place is printed when it did not.

pub mod bed;
pub mod bgp;
pub mod capture;
pub mod clock;
pub mod cluster;
pub mod control_plane;
pub mod figure;
mod folder;
pub mod ipam;
mod janitor;
pub mod keepalived;
pub mod lab;
pub mod lan;
pub mod monitoring;
mod namespace;
pub mod network;
pub mod prober;
pub mod process;
pub mod product;
mod record;
mod scenario;
pub mod scrape;
pub mod speakers;
pub mod tools;
mod wait;
pub mod webhook;
mod witness;

pub use bgp::{Bgp, Peer, Software};
pub use capture::{Capture, Claim};
pub use cluster::{Cluster, Image, Node, ProxyMode};
pub use control_plane::{ControlPlane, Identity};
pub use folder::Folder;
pub use keepalived::{Keepalived, Vrrp, VrrpState};
pub use lan::Lan;
pub use namespace::{KernelNeighbor, KernelRoute, Namespace};
pub use network::{Host, Network};
pub use prober::{Prober, Target, Traffic};
pub use process::{Process, Program};
pub use record::Record;
pub use scenario::{inside, scenario, scenario_on, story, world_of_program};
pub use tools::{binary, tool};
pub use wait::{Deadline, eventually};
pub use witness::{Wire, Witness};
