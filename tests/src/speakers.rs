//! Speakers without Kubernetes on a [`Lan`], a client, and the prober that judges them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lan::GOSSIP_PORT;
use crate::{Capture, Deadline, Lan, Namespace, Process, Program, binary, eventually};

/// The addresses that every speaker serves.
pub const VIP: &str = "10.0.100.1";
/// The same for IPv6.
pub const VIP6: &str = "fd00:10::1:100";

/// The speakers of most tests.
pub const NODES: [&str; 3] = ["alpha", "bravo", "charlie"];

/// A LAN with speakers and the host `client`.
#[derive(Debug)]
pub struct Speakers {
    // Processes go before the namespaces they live in.
    nodes: BTreeMap<String, Process>,
    echoes: BTreeMap<String, Process>,
    /// The LAN.
    pub lan: Lan,
    names: Vec<String>,
}

impl Speakers {
    /// Starts speakers with these names, each with `extra` arguments, and waits until each address is led.
    ///
    /// # Errors
    /// Something cannot be started, or the speakers do not find each other.
    pub async fn start(names: &[&str], extra: &[&str]) -> Result<Self> {
        let mut speakers = Self::build(names).await?;
        for name in names {
            speakers.speak(name, extra)?;
        }
        speakers.wait_steady(names).await?;
        Ok(speakers)
    }

    /// The speaker `alpha` alone, with `extra` arguments, once it answers for both addresses.
    ///
    /// # Errors
    /// It cannot be started, or does not answer.
    pub async fn alone(extra: &[&str]) -> Result<Self> {
        let mut speakers = Self::build(&["alpha"]).await?;
        speakers.speak("alpha", extra)?;
        for vip in [VIP, VIP6] {
            speakers.leader(vip).await?;
        }
        Ok(speakers)
    }

    /// Only the hosts, with the addresses and echo servers in place.
    ///
    /// # Errors
    /// Something cannot be started.
    pub async fn build(names: &[&str]) -> Result<Self> {
        let mut hosts = names.to_vec();
        hosts.push("client");
        let lan = Lan::new(&hosts).await?;
        let mut echoes = BTreeMap::new();
        for name in names {
            lan.host_vip(name, VIP)?;
            lan.host_vip(name, VIP6)?;
            let echo =
                Program::new(&format!("echo-{name}"), tool()?).args(["echo", name, VIP, VIP6]);
            echoes.insert((*name).to_owned(), lan.start(name, echo)?);
        }
        Ok(Self {
            nodes: BTreeMap::new(),
            echoes,
            lan,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    /// Starts a speaker (again).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn speak(&mut self, name: &str, extra: &[&str]) -> Result<()> {
        let address = |name: &str| format!("{}:{GOSSIP_PORT}", self.lan.address(name));
        let seeds: Vec<String> = self.names.iter().map(|name| address(name)).collect();
        let mut program = Program::new(&format!("node-{name}"), tool()?).args([
            "node",
            name,
            &address(name),
            "--seeds",
            &seeds.join(","),
        ]);
        if !extra.contains(&"--vips") {
            program = program.args(["--vips", &format!("{VIP},{VIP6}")]);
        }
        let process = self.lan.start(name, program.args(extra))?;
        self.nodes.insert(name.to_owned(), process);
        Ok(())
    }

    /// The process of a speaker.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn node(&self, name: &str) -> Result<&Process> {
        self.nodes
            .get(name)
            .with_context(|| format!("no speaker {name}"))
    }

    /// The process of a node's echo server.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn echo(&self, name: &str) -> Result<&Process> {
        self.echoes
            .get(name)
            .with_context(|| format!("no echo server {name}"))
    }

    /// Waits until these speakers are steady and know each other.
    ///
    /// # Errors
    /// They do not in time.
    pub async fn wait_steady(&self, names: &[&str]) -> Result<()> {
        for name in names {
            eventually(
                &format!("{name} to be steady"),
                Deadline::SHORT,
                async || {
                    let process = self.node(name)?;
                    process.check()?;
                    let last = self.last_word(name, "\"alive\"")?;
                    let complete = names
                        .iter()
                        .all(|other| last.contains(&format!("\"{other}\"")));
                    ensure!(complete && last.contains("\"steady\":true"), "{last}");
                    Ok(())
                },
            )
            .await?;
        }
        Ok(())
    }

    /// The speaker whose echo server answers the client at this address.
    ///
    /// # Errors
    /// Nobody answers in time.
    pub async fn leader(&self, vip: &str) -> Result<String> {
        let judge = self.prober(vip)?;
        eventually(
            &format!("somebody to answer at {vip}"),
            Deadline::SHORT,
            async || {
                let probes = judge.probes();
                let last = probes.last().and_then(|probe| probe.by.clone());
                last.context("nobody answers")
            },
        )
        .await
    }

    /// The speaker that answers at this address, and a prober that has seen it do so for a while.
    ///
    /// # Errors
    /// Nobody answers in time.
    pub async fn led(&self, vip: &str) -> Result<(String, Prober)> {
        let leader = self.leader(vip).await?;
        let prober = self.prober(vip)?;
        prober.settled(20, |by| by == leader).await?;
        Ok((leader, prober))
    }

    /// The speakers that are not `leader`.
    #[must_use]
    pub fn others(&self, leader: &str) -> Vec<&str> {
        let names = self.names.iter().map(String::as_str);
        names.filter(|name| *name != leader).collect()
    }

    /// The last line of a speaker's log in which this stands; empty where there is none.
    ///
    /// # Errors
    /// There is no speaker of this name.
    pub fn last_word(&self, node: &str, of: &str) -> Result<String> {
        let log = self.node(node)?.log();
        let last = log.lines().rfind(|line| line.contains(of));
        Ok(last.unwrap_or_default().to_owned())
    }

    /// Waits until this stands in a speaker's last word of this kind.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn says(&self, node: &str, of: &str, what: &str) -> Result<()> {
        let name = format!("{what} in the last {of} of {node}");
        eventually(&name, Deadline::SHORT, async || {
            let last = self.last_word(node, of)?;
            ensure!(last.contains(what), "{last}");
            Ok(())
        })
        .await
    }

    /// Waits until the client's kernel has this hardware address for the address.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn believed(&self, vip: &str, mac: &str) -> Result<()> {
        let name = format!("the client to believe that {vip} is at {mac}");
        eventually(&name, Deadline::SHORT, async || {
            let found = self.lan.neighbour("client", vip)?;
            ensure!(found == mac, "it has {found}");
            Ok(())
        })
        .await
    }

    /// Listens on the client to who claims which address.
    ///
    /// # Errors
    /// tcpdump does not start.
    pub async fn claims(&self) -> Result<Capture> {
        Capture::start(&Namespace::named("client"), self.lan.folder()).await
    }

    /// Starts a prober on the client.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn prober(&self, vip: &str) -> Result<Prober> {
        Prober::start(&self.lan, vip)
    }
}

impl Drop for Speakers {
    fn drop(&mut self) {
        // While the speakers still live.
        crate::record::before_the_end();
    }
}

/// The program for the hosts of a LAN.
///
/// # Errors
/// It was not built.
pub fn tool() -> Result<PathBuf> {
    binary("lan-tool")
}

/// A datagram every 10 ms, and who answered.
#[derive(Debug)]
pub struct Prober(Process);

/// One datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// When it was sent, in microseconds since the epoch.
    pub at: u64,
    /// The host that answered.
    pub by: Option<String>,
}

/// Who the address moved to, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The host that answers now.
    pub to: String,
    /// From the first unanswered datagram to the next answered one.
    pub gap: Duration,
    /// Unanswered datagrams.
    pub lost: usize,
}

impl Prober {
    /// Starts a prober on the host `client`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(lan: &Lan, vip: &str) -> Result<Self> {
        let name = format!("prober-{}", rand::random::<u32>());
        let program = Program::new(&name, tool()?).args(["probe", vip]);
        Ok(Self(lan.start("client", program)?))
    }

    /// All datagrams so far whose fate is known, in the order of sending.
    #[must_use]
    pub fn probes(&self) -> Vec<Probe> {
        let mut probes: Vec<(u64, Probe)> = self
            .0
            .log()
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                let number = words.next()?.parse().ok()?;
                let at = words.next()?.parse().ok()?;
                let by = words.next()?;
                Some((
                    number,
                    Probe {
                        at,
                        by: (by != "-").then(|| by.to_owned()),
                    },
                ))
            })
            .collect();
        probes.sort_by_key(|(number, _)| *number);
        probes.into_iter().map(|(_, probe)| probe).collect()
    }

    /// Waits until this many datagrams in a row were answered by hosts for which `by` holds, and says which host that
    /// was and what had been lost until then.
    ///
    /// # Errors
    /// It does not happen in time.
    pub async fn settled(&self, in_a_row: usize, by: impl Fn(&str) -> bool) -> Result<Move> {
        // With the profile `calm` a node that comes back waits for long.
        eventually("the address to be answered", Deadline::LONG, async || {
            let probes = self.probes();
            let tail = probes
                .get(probes.len().saturating_sub(in_a_row)..)
                .unwrap_or_default();
            let good = tail.len() == in_a_row
                && tail
                    .iter()
                    .all(|probe| probe.by.as_deref().is_some_and(&by));
            ensure!(good, "the last datagrams: {tail:?}");
            let to = tail
                .last()
                .and_then(|probe| probe.by.clone())
                .unwrap_or_default();
            Ok(Move {
                to,
                gap: longest_gap(&probes),
                lost: probes.iter().filter(|probe| probe.by.is_none()).count(),
            })
        })
        .await
    }
}

/// The longest time from an unanswered datagram to the next answered one.
fn longest_gap(probes: &[Probe]) -> Duration {
    let mut longest = 0;
    let mut since = None;
    for probe in probes {
        match (&probe.by, since) {
            (None, None) => since = Some(probe.at),
            (Some(_), Some(start)) => {
                longest = longest.max(probe.at.saturating_sub(start));
                since = None;
            }
            _ => {}
        }
    }
    Duration::from_micros(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_ends_with_an_answer() {
        let probes: Vec<Probe> = [
            (0, true),
            (10, false),
            (20, true),
            (30, false),
            (40, false),
            (50, true),
            (60, false),
        ]
        .map(|(at, answered)| Probe {
            at,
            by: answered.then(|| "a".to_owned()),
        })
        .to_vec();
        assert_eq!(longest_gap(&probes), Duration::from_micros(20));
    }
}
