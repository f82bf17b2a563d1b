//! What a router did meanwhile, where looking now and then would miss it: changes of a route, lives of sessions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bgp::Daemon;
use crate::network::{Host, Network};
use crate::process::{Process, Program};
use crate::{Deadline, eventually};

/// Written into a routing table and taken out again: where it is in the monitor's log, all that came before it is too.
const CANARY: &str = "198.51.100.77";

/// Writes down every change of a host's routes.
pub struct RouteWatch {
    host: Host,
    monitor: Process,
}

impl RouteWatch {
    /// Begins to watch; returns when it does.
    ///
    /// # Errors
    /// `ip monitor` does not start.
    pub async fn start(network: &Network, host: &Host) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("routes-{}-{number}", host.name());
        let monitor = Program::new(&name, "ip").args(["-o", "monitor", "route"]);
        let monitor = host.namespace().program(monitor);
        let watch = Self {
            host: host.clone(),
            monitor: monitor.start(network.folder().path())?,
        };
        watch.sees_all().await?;
        Ok(watch)
    }

    /// The changes of the route to `address` so far, as `ip` tells them.
    ///
    /// # Errors
    /// `ip` fails.
    pub async fn changes(&self, address: IpAddr) -> Result<Vec<String>> {
        self.sees_all().await?;
        let address = address.to_string();
        Ok(self
            .monitor
            .log()
            .lines()
            .filter(|line| line.split_whitespace().any(|word| word == address))
            .map(str::to_owned)
            .collect())
    }

    /// Waits until the log holds what happened until now.
    async fn sees_all(&self) -> Result<()> {
        let seen = || self.monitor.log().matches(CANARY).count();
        let before = seen();
        eventually("the route monitor", Deadline::SHORT, async || {
            self.monitor.check()?;
            for verb in ["replace", "del"] {
                let canary = ["ip", "route", verb, "blackhole", CANARY];
                self.host.namespace().run(&canary).await?;
            }
            ensure!(seen() > before, "it saw no change");
            anyhow::Ok(())
        })
        .await
    }
}

/// How often a router's sessions with a peer came and went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lives {
    /// How often the BGP session came up.
    pub established: u64,
    /// How often it was lost.
    pub dropped: u64,
    /// How often BFD said that the peer is gone.
    pub bfd_down: u64,
}

/// The lives of the sessions of an FRR since it started, by peer.
///
/// # Errors
/// It does not answer, or not in the way FRR does.
pub async fn lives(router: &Daemon) -> Result<BTreeMap<IpAddr, Lives>> {
    let answer = router.ask("show bgp neighbors json").await?;
    let bgp: Value = serde_json::from_str(&answer).context("FRR's neighbours")?;
    let answer = router.ask("show bfd peers counters json").await?;
    let bfd: Value = serde_json::from_str(&answer).context("FRR's BFD counters")?;
    let mut lives: BTreeMap<IpAddr, Lives> = BTreeMap::new();
    let number = |object: &Value, name: &str| object.get(name).and_then(Value::as_u64);
    for (address, peer) in bgp.as_object().context("neighbours are no object")? {
        let Ok(address) = address.parse() else {
            continue;
        };
        let of = lives.entry(address).or_default();
        of.established = number(peer, "connectionsEstablished").unwrap_or(0);
        of.dropped = number(peer, "connectionsDropped").unwrap_or(0);
    }
    for peer in bfd.as_array().into_iter().flatten() {
        let address = peer.get("peer").and_then(Value::as_str);
        if let Some(Ok(address)) = address.map(str::parse) {
            lives.entry(address).or_default().bfd_down = number(peer, "session-down").unwrap_or(0);
        }
    }
    Ok(lives)
}
