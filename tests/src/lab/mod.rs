//! Two namespaces with a wire between them: routers in one of them, with configurations that they are given as they are,
//! and our own BGP speaker in the other, which is the world's.
//!
//! ```text
//!   the test: 10.0.0.11, fd00:10::11 (eth0) ──── veth ──── 10.0.0.1, fd00:10::1 (eth0) :router
//! ```
//!
//! For tests that need every option that a router has. A [`crate::Bgp`] describes one for the others.

mod routers;
mod us;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

pub use routers::{Bird, Frr, Gobgp, Version};
pub use us::Us;

use crate::{Folder, Namespace, Process, Program, Wire, Witness};

/// Runs a line of the shell here, and returns what it printed.
///
/// # Errors
/// It ends with anything but 0; the error holds what it said.
pub fn command(line: &str) -> Result<String> {
    let output = Command::new("sh").args(["-ec", line]).output()?;
    ensure!(
        output.status.success(),
        "{line}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// See the module.
#[derive(Debug)]
pub struct Lab {
    _witness: Witness,
    folder: Folder,
}

impl Lab {
    /// Makes the namespace and the wire.
    ///
    /// # Errors
    /// It is not called inside a [`crate::scenario`], or the kernel lacks something.
    pub async fn new() -> Result<Self> {
        crate::scenario::world_name()?;
        command(
            "ip netns add router
             sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
             ip netns exec router sysctl -qw net.ipv6.conf.all.accept_dad=0 \
                net.ipv6.conf.default.accept_dad=0 net.ipv4.ip_forward=1
             ip link add eth0 type veth peer name eth0 netns router
             ip addr add 10.0.0.11/24 dev eth0
             ip addr add fd00:10::11/64 dev eth0 nodad
             ip link set eth0 up
             ip -n router addr add 10.0.0.1/24 dev eth0
             ip -n router addr add fd00:10::1/64 dev eth0 nodad
             ip -n router link set eth0 up
             ip -n router link set lo up",
        )?;
        let folder = Folder::new("bgp")?;
        let wire = Wire {
            name: "segment",
            namespace: &Namespace::named("router"),
            interface: "eth0",
        };
        Ok(Self {
            _witness: Witness::start(&[wire], &folder).await?,
            folder,
        })
    }

    /// Where logs are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command of the shell in the router's namespace.
    ///
    /// # Errors
    /// It fails.
    pub fn in_router(&self, line: &str) -> Result<String> {
        command(&format!("ip netns exec router {line}"))
    }

    /// Cuts the wire without loss of carrier, or mends it.
    ///
    /// # Errors
    /// nft refuses.
    pub fn silence(&self, silent: bool) -> Result<()> {
        command(if silent {
            "nft add table netdev cut
             nft 'add chain netdev cut in { type filter hook ingress device eth0 priority 0; policy drop; }'"
        } else {
            "nft delete table netdev cut"
        })?;
        Ok(())
    }

    /// Starts a program in the router's namespace.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, program: Program) -> Result<Process> {
        program
            .by_way_of(["ip", "netns", "exec", "router"])
            .start(self.folder.path())
    }
}
