//! What most stories of level 2 begin with: three nodes that serve the same two addresses and announce them by BIRD to
//! FRR on the router, with a client behind it.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use crate::bgp::{Bgp, Daemon, Peer, Software};
use crate::network::{Host, Network};
use crate::prober::{Prober, Target, Traffic};
use crate::process::{Process, Program};
use crate::tools::binary;
use crate::wait::{Deadline, eventually};

const ROUTER: u32 = 65000;
const NODES: u32 = 65001;

/// The addresses that every node serves and announces.
pub const VIPS: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];

/// See the module.
#[derive(Debug)]
pub struct Bed {
    /// The network it is on.
    pub network: Network,
    /// FRR on the router.
    pub router: Daemon,
    /// BIRD on each node.
    pub speakers: Vec<Daemon>,
    /// `openelb-answer` on each node.
    pub servers: Vec<Process>,
}

impl Bed {
    /// Starts it, with BFD at this interval in milliseconds or without, and waits until the router leads to every node.
    ///
    /// # Errors
    /// A part is missing or does not start, or the routes do not come in time.
    pub async fn start(bfd: Option<u16>) -> Result<Self> {
        let network = Network::start(3).await?;
        let with = |peer: Peer| bfd.map_or(peer.clone(), |interval| peer.bfd(interval));
        let config = network
            .nodes()
            .iter()
            .fold(Bgp::new(ROUTER, network.router()), |config, node| {
                config.peer(with(Peer::at(node.v4, NODES)))
            });
        let router = config
            .start(Software::Frr, network.router(), network.folder())
            .await?;
        let (mut speakers, mut servers) = (Vec::new(), Vec::new());
        for node in network.nodes() {
            servers.push(serve(&network, node, &VIPS).await?);
            let mut config =
                Bgp::new(NODES, node).peer(with(Peer::at(network.router().v4, ROUTER)));
            for vip in VIPS {
                config = config.announce(vip.parse::<IpAddr>()?.into());
            }
            speakers.push(config.start(Software::Bird, node, network.folder()).await?);
        }
        let bed = Self {
            network,
            router,
            speakers,
            servers,
        };
        bed.converged(3).await?;
        Ok(bed)
    }

    /// Waits until the router's kernel has so many next hops to each address.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn converged(&self, hops: usize) -> Result<()> {
        for vip in VIPS {
            let prefix = vip.parse::<IpAddr>()?.into();
            eventually(
                &format!("{hops} next hops to {vip}"),
                Deadline::LONG,
                async || {
                    let found = self.network.router().namespace().next_hops(prefix).await?;
                    ensure!(found.len() == hops, "{found:?}");
                    Ok(())
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Waits until the router's BFD has so many sessions that are up.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn watched(&self, sessions: usize) -> Result<()> {
        eventually("BFD to be up", Deadline::LONG, async || {
            let peers = self.router.bfd_peers().await?;
            ensure!(
                peers.iter().filter(|peer| peer.up).count() == sessions,
                "{peers:?}"
            );
            Ok(())
        })
        .await
    }

    /// Starts traffic from the client to both addresses, by TCP and UDP.
    ///
    /// # Errors
    /// The prober does not start.
    pub fn prober(&self) -> Result<Prober> {
        Prober::start(self.network.client(), &targets(&VIPS)?)
    }
}

/// TCP and UDP to port 80 of every address.
///
/// # Errors
/// One is no address.
pub fn targets(addresses: &[&str]) -> Result<Vec<Target>> {
    let addresses: Vec<IpAddr> = addresses
        .iter()
        .map(|address| address.parse())
        .collect::<Result<_, _>>()?;
    Ok(all(&addresses, &[Traffic::Tcp, Traffic::Udp]))
}

/// Every kind of traffic to port 80 of every address.
#[must_use]
pub fn all(addresses: &[IpAddr], kinds: &[Traffic]) -> Vec<Target> {
    let mut targets = Vec::new();
    for address in addresses {
        targets.extend(kinds.iter().map(|traffic| Target {
            address: (*address, 80).into(),
            traffic: *traffic,
        }));
    }
    targets
}

/// Gives a node these addresses and what answers on them.
///
/// # Errors
/// The kernel refuses an address, or the server does not listen in time.
pub async fn serve(network: &Network, node: &Host, addresses: &[&str]) -> Result<Process> {
    for address in addresses {
        own(node, address).await?;
    }
    let program = Program::new(
        &format!("answer-{}", node.name()),
        binary("openelb-answer")?,
    );
    let process = node
        .namespace()
        .program(program)
        .args(["serve", "80"])
        .args(addresses)
        .env("NODE_NAME", node.name())
        .env("POD_NAME", format!("pod-{}", node.name()))
        .start(network.folder().path())?;
    eventually("the server to listen", Deadline::SHORT, async || {
        process.check()?;
        ensure!(process.log().contains("listening"), "{:?}", process.log());
        Ok(())
    })
    .await?;
    Ok(process)
}

/// Gives a node an address of its own, on its loopback interface.
///
/// # Errors
/// The kernel refuses it.
pub async fn own(node: &Host, address: &str) -> Result<()> {
    let (length, nodad) = if address.contains(':') {
        (128, " nodad")
    } else {
        (32, "")
    };
    node.namespace()
        .ip(&format!("addr add {address}/{length} dev lo{nodad}\n"))
        .await
}
