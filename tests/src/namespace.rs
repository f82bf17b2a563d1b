//! Network namespaces of a world, and what the kernel knows in them.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::process::Command;

use crate::process::Program;

/// A network namespace, by its name under `/run/netns`; or the world's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace {
    name: Option<String>,
}

impl Namespace {
    /// The namespace of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
        }
    }

    /// The namespace that this program runs in.
    #[must_use]
    pub fn own() -> Self {
        Self { name: None }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("world")
    }

    fn file(&self) -> Option<PathBuf> {
        self.name
            .as_ref()
            .map(|name| PathBuf::from("/run/netns").join(name))
    }

    /// `nsenter` with its options, to run a program here. `/sys` stays the world's, so control groups are seen.
    #[must_use]
    pub fn wrapper(&self) -> Vec<String> {
        self.file().map_or_else(Vec::new, |file| {
            vec![
                "nsenter".to_owned(),
                format!("--net={}", file.display()),
                "--".to_owned(),
            ]
        })
    }

    /// The program, to be run here.
    #[must_use]
    pub fn program(&self, program: Program) -> Program {
        program.by_way_of(self.wrapper())
    }

    /// Runs a command here, and returns what it printed.
    ///
    /// # Errors
    /// It cannot be started or ends with anything but 0; the error holds what it said.
    pub async fn run(&self, command: &[&str]) -> Result<String> {
        self.run_with(command, None).await
    }

    /// Like [`Namespace::run`], with text on its standard input.
    ///
    /// # Errors
    /// It cannot be started or ends with anything but 0; the error holds what it said.
    pub async fn run_with(&self, command: &[&str], input: Option<&str>) -> Result<String> {
        let mut words = self.wrapper();
        words.extend(command.iter().map(|word| (*word).to_owned()));
        let text = words.join(" ");
        let (program, args) = words.split_first().context("an empty command")?;
        let mut command = Command::new(program);
        command
            .args(args)
            .kill_on_drop(true)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match input {
            Some(input) => {
                let mut file = tempfile::tempfile().context("no temporary file")?;
                file.write_all(input.as_bytes())?;
                std::io::Seek::rewind(&mut file)?;
                command.stdin(file)
            }
            None => command.stdin(Stdio::null()),
        };
        let output = command
            .output()
            .await
            .with_context(|| format!("cannot run {text}"))?;
        if !output.status.success() {
            bail!(
                "`{text}` ended with {}: {}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim(),
                input.map_or_else(String::new, |input| format!("\ngiven:\n{input}")),
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs lines of `ip` here, as one batch.
    ///
    /// # Errors
    /// A line is refused.
    pub async fn ip(&self, lines: &str) -> Result<()> {
        self.run_with(&["ip", "-batch", "-"], Some(lines))
            .await
            .map(drop)
    }

    /// Loads nftables rules here.
    ///
    /// # Errors
    /// A rule is refused.
    pub async fn nft(&self, rules: &str) -> Result<()> {
        self.run_with(&["nft", "-f", "-"], Some(rules))
            .await
            .map(drop)
    }

    /// Sets kernel parameters (`net.…=value`) here.
    ///
    /// # Errors
    /// One is refused.
    pub async fn sysctl(&self, settings: &[&str]) -> Result<()> {
        let mut command = vec!["sysctl", "-q", "-w"];
        command.extend(settings);
        self.run(&command).await.map(drop)
    }

    /// Runs a function on a thread of its own that is in this namespace: sockets made by it are of this namespace for
    /// ever, wherever they are used later.
    ///
    /// # Errors
    /// The namespace is gone, or the function fails.
    pub fn enter<T: Send>(&self, function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter_this_thread()?;
                    function()
                })
                .join()
                .map_err(|_| anyhow::anyhow!("the function in {} panicked", self.name()))?
        })
    }

    /// Moves the calling thread into this namespace, for good: for threads that were made for it.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn enter_this_thread(&self) -> Result<()> {
        if let Some(file) = self.file() {
            let file = std::fs::File::open(&file)
                .with_context(|| format!("no namespace {}", self.name()))?;
            setns(file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter {}", self.name()))?;
        }
        Ok(())
    }

    /// The kernel's routes, of both families and all tables but the local one.
    ///
    /// # Errors
    /// `ip` fails.
    pub async fn routes(&self) -> Result<Vec<KernelRoute>> {
        let mut all = Vec::new();
        for family in ["-4", "-6"] {
            all.extend(
                self.json::<Vec<KernelRoute>>(&["ip", "-j", family, "route", "show"])
                    .await?,
            );
        }
        Ok(all)
    }

    /// The next hops of the route to exactly this prefix, sorted; empty when there is none.
    ///
    /// # Errors
    /// `ip` fails.
    pub async fn next_hops(&self, prefix: IpNet) -> Result<Vec<IpAddr>> {
        let mut hops: Vec<IpAddr> = self
            .routes()
            .await?
            .iter()
            .filter(|route| route.prefix() == Some(prefix))
            .flat_map(KernelRoute::gateways)
            .collect();
        hops.sort();
        hops.dedup();
        Ok(hops)
    }

    /// The neighbour tables, ARP and NDP.
    ///
    /// # Errors
    /// `ip` fails.
    pub async fn neighbors(&self) -> Result<Vec<KernelNeighbor>> {
        self.json(&["ip", "-j", "neigh", "show"]).await
    }

    /// Who answers for an address, as this namespace last learned.
    ///
    /// # Errors
    /// `ip` fails.
    pub async fn neighbor(&self, address: IpAddr) -> Result<Option<KernelNeighbor>> {
        Ok(self
            .neighbors()
            .await?
            .into_iter()
            .find(|entry| entry.address == address))
    }

    /// The hardware address of an interface, such as `02:00:0a:00:00:0b`.
    ///
    /// # Errors
    /// There is no such interface.
    pub async fn hardware_address(&self, interface: &str) -> Result<String> {
        #[derive(Deserialize)]
        struct Link {
            address: String,
        }
        let links: Vec<Link> = self
            .json(&["ip", "-j", "link", "show", "dev", interface])
            .await?;
        Ok(links.into_iter().next().context("no link")?.address)
    }

    /// All addresses of all its links.
    ///
    /// # Errors
    /// `ip` fails.
    pub async fn addresses(&self) -> Result<Vec<IpAddr>> {
        #[derive(Deserialize)]
        struct Link {
            #[serde(default)]
            addr_info: Vec<Address>,
        }
        #[derive(Deserialize)]
        struct Address {
            local: Option<IpAddr>,
        }
        let links: Vec<Link> = self.json(&["ip", "-j", "addr", "show"]).await?;
        let addresses = links.into_iter().flat_map(|link| link.addr_info);
        Ok(addresses.filter_map(|address| address.local).collect())
    }

    /// The bridge that a link is a port of, if it is one.
    ///
    /// # Errors
    /// There is no such link.
    pub async fn master(&self, interface: &str) -> Result<Option<String>> {
        #[derive(Deserialize)]
        struct Link {
            master: Option<String>,
        }
        let links: Vec<Link> = self
            .json(&["ip", "-j", "link", "show", "dev", interface])
            .await?;
        Ok(links.into_iter().next().context("no link")?.master)
    }

    async fn json<T: DeserializeOwned>(&self, command: &[&str]) -> Result<T> {
        let text = self.run(command).await?;
        let text = if text.trim().is_empty() { "[]" } else { &text };
        serde_json::from_str(text).with_context(|| format!("{} printed {text}", command.join(" ")))
    }
}

/// A route of the kernel.
#[derive(Debug, Clone, Deserialize)]
pub struct KernelRoute {
    dst: String,
    gateway: Option<IpAddr>,
    #[serde(default)]
    nexthops: Vec<Hop>,
    /// Who installed it: `kernel`, `static`, `bgp`, `bird`…
    #[serde(default)]
    pub protocol: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Hop {
    gateway: Option<IpAddr>,
}

impl KernelRoute {
    /// Where it leads to; nothing for `default` and the like.
    #[must_use]
    pub fn prefix(&self) -> Option<IpNet> {
        self.dst
            .parse()
            .ok()
            .or_else(|| self.dst.parse::<IpAddr>().ok().map(IpNet::from))
    }

    /// All its next hops, in the kernel's order.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.gateway
            .into_iter()
            .chain(self.nexthops.iter().filter_map(|hop| hop.gateway))
            .collect()
    }
}

/// An entry of a neighbour table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KernelNeighbor {
    /// The address that was asked for.
    #[serde(rename = "dst")]
    pub address: IpAddr,
    /// The hardware address that answered, if one did.
    #[serde(rename = "lladdr")]
    pub hardware_address: Option<String>,
    /// `REACHABLE`, `STALE`, `FAILED`…
    #[serde(default)]
    pub state: Vec<String>,
}
