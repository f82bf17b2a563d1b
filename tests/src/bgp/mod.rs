//! BGP routers and speakers that are not ours: FRR, BIRD and GoBGP, from one description, seen through one view.
//!
//! A [`Bgp`] says what the daemon shall do; [`Bgp::start`] writes the daemon's own configuration from it and runs it in
//! a host's namespace. [`Daemon`] asks it by its own tool and translates: [`Neighbor`], [`Route`], [`BfdPeer`].

mod bird;
mod frr;
mod gobgp;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use openelb_bgp::Hops;

use crate::folder::Folder;
use crate::namespace::Namespace;
use crate::network::Host;
use crate::process::Process;
use crate::record::Record;
use crate::wait::{Deadline, eventually};

/// Whose implementation of BGP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Software {
    /// FRR: zebra, bgpd and bfdd. Routes reach the kernel.
    Frr,
    /// BIRD 2. Routes reach the kernel.
    Bird,
    /// GoBGP. It holds routes and forwards nothing.
    GoBgp,
}

impl Software {
    /// All of them, for tests that hold for each.
    pub const ALL: [Self; 3] = [Self::Frr, Self::Bird, Self::GoBgp];
}

/// What a daemon shall do.
#[derive(Debug, Clone)]
pub struct Bgp {
    /// Its autonomous system.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Whom it talks to.
    pub peers: Vec<Peer>,
    /// What it announces, with itself as next hop.
    pub announce: Vec<IpNet>,
    /// What it says of all that it announces.
    pub tags: Tags,
    /// Over how many paths it spreads flows.
    pub paths: u8,
    /// TCP port it listens on; 0 for none.
    pub port: u16,
}

impl Bgp {
    /// A daemon of this autonomous system on this host, without peers.
    #[must_use]
    pub fn new(asn: u32, host: &Host) -> Self {
        Self {
            asn,
            router_id: host.v4,
            peers: Vec::new(),
            announce: Vec::new(),
            tags: Tags::default(),
            paths: 64,
            port: 179,
        }
    }

    /// With one more peer.
    #[must_use]
    pub fn peer(mut self, peer: Peer) -> Self {
        self.peers.push(peer);
        self
    }

    /// Announcing one more prefix.
    #[must_use]
    pub fn announce(mut self, prefix: IpNet) -> Self {
        self.announce.push(prefix);
        self
    }

    /// Saying this of all that it announces.
    #[must_use]
    pub fn tags(mut self, tags: Tags) -> Self {
        self.tags = tags;
        self
    }

    /// Starts it in a host's namespace, and waits until it answers its own tool. Logs go to `folder`.
    ///
    /// # Errors
    /// A program is missing, refuses its configuration, or does not answer in time.
    pub async fn start(self, software: Software, host: &Host, folder: &Folder) -> Result<Daemon> {
        let name = format!("{}-{}", software.name(), host.name());
        let place = PathBuf::from("/run/openelb").join(&name);
        std::fs::create_dir_all(&place)
            .with_context(|| format!("cannot make {}", place.display()))?;
        let mut daemon = Daemon {
            record: None,
            software,
            namespace: host.namespace().clone(),
            processes: Vec::new(),
            config: self,
            place,
        };
        daemon.record = Some(daemon.record(&folder.join(format!("{name}.txt")))?);
        let programs = match software {
            Software::Frr => frr::programs(&daemon)?,
            Software::Bird => bird::programs(&daemon)?,
            Software::GoBgp => gobgp::programs(&daemon)?,
        };
        for (position, program) in programs.into_iter().enumerate() {
            let logs = folder.join(&name);
            std::fs::create_dir_all(&logs)?;
            daemon
                .processes
                .push(daemon.namespace.program(program.first()).start(&logs)?);
            daemon.serves(position).await?;
        }
        daemon.ready().await?;
        Ok(daemon)
    }
}

impl Software {
    fn name(self) -> &'static str {
        match self {
            Self::Frr => "frr",
            Self::Bird => "bird",
            Self::GoBgp => "gobgp",
        }
    }

    /// What its own tool is asked at the end of a test that fails: neighbours, routes, BFD.
    pub(crate) fn questions(self) -> &'static [&'static str] {
        match self {
            Self::Frr => frr::QUESTIONS,
            Self::Bird => bird::QUESTIONS,
            Self::GoBgp => gobgp::QUESTIONS,
        }
    }
}

/// Attributes of announced routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// Communities (RFC 1997), such as `(65001, 7)`.
    pub communities: Vec<(u16, u16)>,
    /// Large communities (RFC 8092).
    pub large_communities: Vec<(u32, u32, u32)>,
    /// The multi-exit discriminator.
    pub med: Option<u32>,
}

/// A neighbour of a daemon, or a range of them.
#[derive(Debug, Clone)]
pub struct Peer {
    /// One address, or a range from which peers may connect (BIRD and FRR).
    pub addresses: IpNet,
    /// Its autonomous system.
    pub asn: u32,
    /// The TCP MD5 password.
    pub password: Option<String>,
    /// Hold time in seconds; keepalives go out three times as often.
    pub hold: u16,
    /// BFD: transmit and receive interval in milliseconds, three of which make a failure.
    pub bfd: Option<u16>,
    /// Whether routes of a peer that restarts are kept.
    pub graceful_restart: bool,
    /// Wait for the peer to connect.
    pub passive: bool,
    /// How far away the peer is.
    pub hops: Hops,
}

impl Peer {
    /// The peer at one address.
    #[must_use]
    pub fn at(address: impl Into<IpAddr>, asn: u32) -> Self {
        Self::within(IpNet::from(address.into()), asn)
    }

    /// Any peer of a range.
    #[must_use]
    pub fn within(addresses: IpNet, asn: u32) -> Self {
        Self {
            addresses,
            asn,
            password: None,
            hold: 90,
            bfd: None,
            graceful_restart: false,
            passive: addresses.prefix_len() != addresses.max_prefix_len(),
            hops: Hops::Direct,
        }
    }

    /// With a TCP MD5 password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// With a hold time in seconds.
    #[must_use]
    pub fn hold(mut self, seconds: u16) -> Self {
        self.hold = seconds;
        self
    }

    /// With BFD at this interval in milliseconds.
    #[must_use]
    pub fn bfd(mut self, milliseconds: u16) -> Self {
        self.bfd = Some(milliseconds);
        self
    }

    /// With graceful restart.
    #[must_use]
    pub fn graceful_restart(mut self) -> Self {
        self.graceful_restart = true;
        self
    }

    /// Waiting for the peer to connect.
    #[must_use]
    pub fn passive(mut self) -> Self {
        self.passive = true;
        self
    }

    /// At this distance.
    #[must_use]
    pub fn hops(mut self, hops: Hops) -> Self {
        self.hops = hops;
        self
    }

    fn is_range(&self) -> bool {
        self.addresses.prefix_len() != self.addresses.max_prefix_len()
    }

    fn keepalive(&self) -> u16 {
        (self.hold / 3).max(1)
    }
}

/// A peer as a daemon sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    /// The peer's address.
    pub address: IpAddr,
    /// Whether routes may flow.
    pub established: bool,
    /// The daemon's own word for the state.
    pub state: String,
}

/// A path that a daemon has accepted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where it leads to.
    pub prefix: IpNet,
    /// The global next hop, or the link-local one where there is no other.
    pub next_hop: IpAddr,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// The AS path, left to right.
    pub as_path: Vec<u32>,
    /// Communities, as `65000:1`.
    pub communities: BTreeSet<String>,
    /// Large communities, as `65000:1:2`.
    pub large_communities: BTreeSet<String>,
    /// Extended communities (RFC 4360), as `rt:65000:7`.
    pub extended_communities: BTreeSet<String>,
    /// The local preference, inside an autonomous system.
    pub local_preference: Option<u32>,
    /// The multi-exit discriminator.
    pub med: Option<u32>,
}

/// A BFD session as a daemon sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BfdPeer {
    /// The peer's address.
    pub address: IpAddr,
    /// Whether both sides hear each other.
    pub up: bool,
    /// The daemon's own word for the state.
    pub state: String,
}

/// A running daemon. Dropped, it is killed.
#[derive(Debug)]
pub struct Daemon {
    record: Option<Record>,
    software: Software,
    namespace: Namespace,
    processes: Vec<Process>,
    config: Bgp,
    place: PathBuf,
}

impl Daemon {
    /// The neighbours it has or is configured for.
    ///
    /// # Errors
    /// Its tool fails.
    pub async fn neighbors(&self) -> Result<Vec<Neighbor>> {
        match self.software {
            Software::Frr => frr::neighbors(self).await,
            Software::Bird => bird::neighbors(self).await,
            Software::GoBgp => gobgp::neighbors(self).await,
        }
    }

    /// All paths to a prefix, sorted.
    ///
    /// # Errors
    /// Its tool fails.
    pub async fn routes(&self, prefix: IpNet) -> Result<Vec<Route>> {
        let mut routes = match self.software {
            Software::Frr => frr::routes(self, prefix).await,
            Software::Bird => bird::routes(self, prefix).await,
            Software::GoBgp => gobgp::routes(self, prefix).await,
        }?;
        routes.sort();
        Ok(routes)
    }

    /// Its BFD sessions.
    ///
    /// # Errors
    /// Its tool fails, or it speaks no BFD (GoBGP).
    pub async fn bfd_peers(&self) -> Result<Vec<BfdPeer>> {
        match self.software {
            Software::Frr => frr::bfd_peers(self).await,
            Software::Bird => bird::bfd_peers(self).await,
            Software::GoBgp => anyhow::bail!("GoBGP is run without BFD"),
        }
    }

    /// Waits until the session with this peer is established.
    ///
    /// # Errors
    /// It is not in time; the error holds the state seen last.
    pub async fn established(&self, address: impl Into<IpAddr>) -> Result<()> {
        let address = address.into();
        let what = format!("{} to have a session with {address}", self.name());
        eventually(&what, Deadline::LONG, async || {
            self.check()?;
            let neighbors = self.neighbors().await?;
            let there = neighbors
                .iter()
                .any(|peer| peer.address == address && peer.established);
            ensure!(there, "{neighbors:?}");
            Ok(())
        })
        .await
    }

    /// Waits until the paths to a prefix satisfy a condition, and returns them.
    ///
    /// # Errors
    /// They do not in time; the error holds the paths seen last.
    pub async fn routes_become(
        &self,
        prefix: IpNet,
        what: &str,
        good: impl Fn(&[Route]) -> bool,
    ) -> Result<Vec<Route>> {
        let what = format!("{} to hold {what} for {prefix}", self.name());
        eventually(&what, Deadline::LONG, async || {
            self.check()?;
            let routes = self.routes(prefix).await?;
            ensure!(good(&routes), "{routes:?}");
            Ok(routes)
        })
        .await
    }

    /// Its processes, to be paused or watched.
    #[must_use]
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// Ends it as an administrator would (SIGTERM).
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn stop(&self) -> Result<()> {
        for process in self.processes.iter().rev() {
            process.stop().await?;
        }
        Ok(())
    }

    /// Stops its clock (SIGSTOP): it keeps its connections and answers nobody.
    pub fn pause(&self) {
        self.processes.iter().for_each(Process::pause);
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.processes.iter().for_each(Process::resume);
    }

    /// Kills it: the kernel closes its connections.
    pub async fn kill(&self) {
        futures::future::join_all(self.processes.iter().map(Process::kill)).await;
    }

    /// Starts it again after it was stopped or killed, or kills it first.
    ///
    /// # Errors
    /// It does not answer in time.
    pub async fn restart(&self) -> Result<()> {
        self.kill().await;
        if self.software == Software::Frr {
            frr::forget_sockets(&self.place);
        }
        for (position, process) in self.processes.iter().enumerate() {
            process.restart().await?;
            self.serves(position).await?;
        }
        self.ready().await
    }

    /// Waits until a program of several can be used by those that are started after it.
    async fn serves(&self, position: usize) -> Result<()> {
        match self.software {
            Software::Frr => frr::serves(&self.place, position).await,
            Software::Bird | Software::GoBgp => Ok(()),
        }
    }

    /// Runs its own tool (`vtysh -c`, `birdc`, `gobgp -j`), for what the views do not show.
    ///
    /// # Errors
    /// The tool fails.
    pub async fn ask(&self, question: &str) -> Result<String> {
        let command = self.tool(question)?;
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        self.namespace.run(&words).await
    }

    fn tool(&self, question: &str) -> Result<Vec<String>> {
        match self.software {
            Software::Frr => Ok(frr::tool(self, question)),
            Software::Bird => Ok(bird::tool(self, question)),
            Software::GoBgp => gobgp::tool(self, question),
        }
    }

    fn record(&self, file: &Path) -> Result<Record> {
        let asked = self
            .software
            .questions()
            .iter()
            .map(|question| {
                let words = [self.namespace.wrapper(), self.tool(question)?].concat();
                Ok(((*question).to_owned(), words))
            })
            .collect::<Result<_>>()?;
        Ok(Record::of_answers(file, asked))
    }

    fn name(&self) -> String {
        format!("{} on {}", self.software.name(), self.namespace.name())
    }

    fn check(&self) -> Result<()> {
        self.processes.iter().try_for_each(Process::check)
    }

    async fn ready(&self) -> Result<()> {
        eventually(
            &format!("{} to answer", self.name()),
            Deadline::SHORT,
            async || {
                self.check()?;
                self.neighbors().await.map(drop)
            },
        )
        .await
    }
}
