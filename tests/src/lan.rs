//! A LAN of network namespaces: hosts with one interface each on a bridge that stands in a namespace of its own.
//!
//! The kernels' own ARP and NDP are the judges; faults are made at the bridge, where the hosts cannot see them. It is part
//! of a private world, one at a time, and goes with it.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{Folder, Namespace, Process, Program, Wire, Witness};

/// The UDP port of the speakers' membership.
pub const GOSSIP_PORT: u16 = 7946;

/// A switch and its hosts.
#[derive(Debug)]
pub struct Lan {
    witness: Option<Witness>,
    hosts: Vec<String>,
    folder: Folder,
}

impl Lan {
    /// Hosts with these names; number n (from 1) has `10.0.0.n` and `fd00:10::n` on `eth0`.
    ///
    /// # Errors
    /// It is not called inside a [`crate::scenario`], or a namespace cannot be made.
    pub async fn new(hosts: &[&str]) -> Result<Self> {
        crate::scenario::world_name()?;
        let mut lan = Self {
            witness: None,
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            folder: Folder::new("lan")?,
        };
        ip("netns add switch")?;
        for call in ["iptables", "ip6tables", "arptables"] {
            // Absent where the bridge filter is not built in.
            let knob = format!("net.bridge.bridge-nf-call-{call}=0");
            let _ = lan.run("switch", &["sysctl", "-qw", &knob]);
        }
        lan.ip(
            "switch",
            "link add br0 type bridge forward_delay 0 mcast_snooping 0",
        )?;
        lan.ip("switch", "link set br0 up")?;
        for (n, host) in (1..).zip(hosts) {
            ip(&format!("netns add {host}"))?;
            lan.ip(
                "switch",
                &format!("link add name {host} type veth peer name eth0 netns {host}"),
            )?;
            lan.ip("switch", &format!("link set {host} master br0 up"))?;
            lan.ip(host, "link set lo up")?;
            lan.ip(host, "link set eth0 up")?;
            lan.ip(host, &format!("addr add 10.0.0.{n}/16 dev eth0"))?;
            lan.ip(host, &format!("addr add fd00:10::{n}/64 dev eth0 nodad"))?;
        }
        let segment = Wire {
            name: "segment",
            namespace: &Namespace::named("switch"),
            interface: "br0",
        };
        lan.witness = Some(Witness::start(&[segment], &lan.folder).await?);
        Ok(lan)
    }

    /// The folder of all logs.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The address of a host, by its position in the list given to [`Self::new`].
    #[must_use]
    pub fn address(&self, host: &str) -> String {
        let n = self
            .hosts
            .iter()
            .position(|name| name == host)
            .map_or(0, |n| n + 1);
        format!("10.0.0.{n}")
    }

    /// Starts a program on a host.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, host: &str, program: Program) -> Result<Process> {
        program
            .by_way_of(["ip", "netns", "exec", host])
            .start(self.folder.path())
    }

    /// Runs a command on a host to its end and returns what it wrote.
    ///
    /// # Errors
    /// It cannot be started, or fails; the error has its output.
    pub fn run(&self, host: &str, command: &[&str]) -> Result<String> {
        let mut all = vec!["netns", "exec", host];
        all.extend(command);
        output(Command::new("ip").args(all))
    }

    /// Runs `ip` on a host.
    ///
    /// # Errors
    /// It fails.
    pub fn ip(&self, host: &str, arguments: &str) -> Result<String> {
        ip(&format!("-n {host} {arguments}"))
    }

    /// Gives a host an address on its loopback interface, as kube-proxy would make it reachable there. The host's kernel
    /// does not answer ARP for it.
    ///
    /// # Errors
    /// The address cannot be added.
    pub fn host_vip(&self, host: &str, vip: &str) -> Result<()> {
        self.run(host, &["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1"])?;
        self.run(host, &["sysctl", "-qw", "net.ipv4.conf.all.arp_announce=2"])?;
        let length = if vip.contains(':') { "128 nodad" } else { "32" };
        let (length, flags) = length.split_once(' ').unwrap_or((length, ""));
        self.ip(host, &format!("addr add {vip}/{length} dev lo {flags}"))?;
        Ok(())
    }

    /// Cuts a host off; its interface keeps the carrier.
    ///
    /// # Errors
    /// The bridge refuses.
    pub fn cut(&self, host: &str) -> Result<()> {
        self.ip("switch", &format!("link set {host} nomaster"))
            .map(drop)
    }

    /// Undoes [`Self::cut`].
    ///
    /// # Errors
    /// The bridge refuses.
    pub fn mend(&self, host: &str) -> Result<()> {
        self.ip("switch", &format!("link set {host} master br0"))
            .map(drop)
    }

    /// Takes the carrier from a host's interface, as a pulled cable does.
    ///
    /// # Errors
    /// The switch refuses.
    pub fn unplug(&self, host: &str) -> Result<()> {
        self.ip("switch", &format!("link set {host} down"))
            .map(drop)
    }

    /// Makes the switch forward multicast only to the ports that joined a group by MLD; it asks for that itself.
    ///
    /// # Errors
    /// The bridge refuses.
    pub fn snoop(&self) -> Result<()> {
        self.ip(
            "switch",
            "link set br0 type bridge mcast_snooping 1 mcast_mld_version 2 mcast_startup_query_interval 50 \
             mcast_query_interval 300 mcast_query_response_interval 50 mcast_querier 1",
        )
        .map(drop)
    }

    /// Drops what `rule` (nftables, bridge family, hook forward) says, for instance `iifname "a" udp dport 7946 drop`.
    /// Without rules nothing is dropped any more.
    ///
    /// # Errors
    /// The rule is refused.
    pub fn filter(&self, rules: &[&str]) -> Result<()> {
        let rules = rules.join("\n");
        let text = format!(
            "table bridge x\ndelete table bridge x\ntable bridge x {{\nchain y {{\n\
             type filter hook forward priority 0; policy accept;\n{rules}\n}}\n}}\n"
        );
        let file = self.folder.write("rules.nft", text)?;
        self.run("switch", &["nft", "-f", &file.display().to_string()])
            .map(drop)
    }

    /// The hardware address a host's kernel has for a neighbour, in lower case; empty without an entry.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn neighbour(&self, host: &str, address: &str) -> Result<String> {
        let text = self.ip(host, &format!("neigh show {address}"))?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "lladdr");
        Ok(at
            .and_then(|at| words.get(at + 1))
            .unwrap_or(&"")
            .to_lowercase())
    }

    /// Asks the LAN so many times, from a host, who has an address; returns the hardware address of each answer, in lower
    /// case. A host that answers one request twice is there twice; with IPv6 once, because there an announcement that
    /// nobody asked for looks like an answer.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn ask(&self, host: &str, address: &str, times: usize) -> Result<Vec<String>> {
        if address.contains(':') {
            let ask = [
                "ndisc6", "-n", "-q", "-m", "-r", "1", "-w", "500", address, "eth0",
            ];
            let mut answers = Vec::new();
            for _ in 0..times {
                let text = self.run(host, &ask)?.to_lowercase();
                let who: BTreeSet<&str> = text.split_whitespace().collect();
                answers.extend(who.into_iter().map(str::to_owned));
            }
            return Ok(answers);
        }
        let (count, patience) = (times.to_string(), (times + 3).to_string());
        let ask = [
            "arping", "-c", &count, "-w", &patience, "-I", "eth0", address,
        ];
        let text = self.run(host, &ask)?.to_lowercase();
        let answers = text.lines().filter_map(|line| {
            let (_, rest) = line.split_once('[')?;
            rest.split(']').next().map(str::to_owned)
        });
        Ok(answers.collect())
    }

    /// The hardware address of a host's `eth0`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn mac(&self, host: &str) -> Result<String> {
        let text = self.run(host, &["cat", "/sys/class/net/eth0/address"])?;
        Ok(text.trim().to_lowercase())
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // Its record needs the hosts.
        self.witness = None;
        for host in self.hosts.iter().map(String::as_str).chain(["switch"]) {
            let _ = ip(&format!("netns del {host}"));
        }
    }
}

fn ip(arguments: &str) -> Result<String> {
    output(Command::new("ip").args(arguments.split_whitespace()))
}

fn output(command: &mut Command) -> Result<String> {
    let result = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&result.stdout).into_owned();
    if !result.status.success() {
        bail!(
            "{command:?}: {}: {text}{}",
            result.status,
            String::from_utf8_lossy(&result.stderr)
        );
    }
    Ok(text)
}
