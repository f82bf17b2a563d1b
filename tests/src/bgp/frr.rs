//! FRR: zebra, bgpd and bfdd in the foreground, each with its own sockets; asked by `vtysh` in JSON.

#![allow(
    clippy::indexing_slicing,
    reason = "an index into a JSON value that is not there gives null"
)]

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{BfdPeer, Bgp, Daemon, Hops, IpNet, Neighbor, Peer, Route, Tags};
use crate::process::Program;
use crate::wait::{Deadline, eventually};

const HOME: &str = "/usr/lib/frr";

/// What is written down at the end.
pub(super) const QUESTIONS: &[&str] = &[
    "show bgp summary",
    "show bgp ipv4 unicast",
    "show bgp ipv6 unicast",
    "show bfd peers",
    "show ip route",
    "show ipv6 route",
];

pub(super) fn programs(daemon: &Daemon) -> Result<Vec<Program>> {
    let place = &daemon.place;
    let user = nix::unistd::User::from_name("frr")?
        .context("there is no user frr: install FRR (hack/tools/apt network)")?;
    std::os::unix::fs::chown(place, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    std::fs::write(
        place.join("zebra.conf"),
        "ip nht resolve-via-default\nipv6 nht resolve-via-default\n",
    )?;
    std::fs::write(place.join("bgpd.conf"), render(&daemon.config)?)?;
    std::fs::write(place.join("bfdd.conf"), bfd_profiles(&daemon.config)?)?;
    let socket = place.join("zserv.api");
    let port = daemon.config.port.to_string();
    let mut programs = vec![program("zebra", place, &socket)];
    programs.push(
        program("bfdd", place, &socket)
            .arg("--bfdctl")
            .arg(place.join("bfdd.sock")),
    );
    programs.push(program("bgpd", place, &socket).args(["-p", &port]));
    Ok(programs)
}

/// Removes what a killed FRR leaves: a daemon that finds the socket of a dead zebra asks again only 10 s later, and BFD
/// peers that bgpd names meanwhile are lost.
pub(super) fn forget_sockets(place: &Path) {
    for name in ["zserv.api", "zebra.vty", "bfdd.vty", "bgpd.vty"] {
        // It need not be there.
        let _ = std::fs::remove_file(place.join(name));
    }
}

/// Waits until the daemon at this place of [`programs`] serves those that are started after it.
pub(super) async fn serves(place: &Path, position: usize) -> Result<()> {
    let Some(name) = ["zserv.api", "bfdd.vty"].get(position) else {
        return Ok(());
    };
    let socket = place.join(name);
    eventually(name, Deadline::SHORT, async || {
        std::os::unix::net::UnixStream::connect(&socket).map(drop)
    })
    .await
}

fn program(name: &str, place: &Path, socket: &Path) -> Program {
    Program::new(name, Path::new(HOME).join(name))
        .arg("--vty_socket")
        .arg(place)
        .arg("-i")
        .arg(place.join(format!("{name}.pid")))
        .arg("-f")
        .arg(place.join(format!("{name}.conf")))
        .args(["--log", "stdout", "-P", "0", "-A", "127.0.0.1", "-z"])
        .arg(socket)
}

fn render(config: &Bgp) -> Result<String> {
    let mut text = format!(
        "frr defaults datacenter\nlog stdout\nrouter bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n no bgp network import-check\n bgp bestpath as-path multipath-relax\n \
         bgp deterministic-med\n",
        config.asn, config.router_id
    );
    let mut names = Vec::new();
    for (index, peer) in config.peers.iter().enumerate() {
        let name = if peer.is_range() {
            let group = format!("range{index}");
            writeln!(text, " neighbor {group} peer-group")?;
            writeln!(
                text,
                " bgp listen range {} peer-group {group}",
                peer.addresses
            )?;
            group
        } else {
            peer.addresses.addr().to_string()
        };
        neighbor(&mut text, &name, peer)?;
        names.push(name);
    }
    for (family, v4) in [("ipv4", true), ("ipv6", false)] {
        writeln!(text, " address-family {family} unicast")?;
        writeln!(
            text,
            "  maximum-paths {0}\n  maximum-paths ibgp {0}",
            config.paths
        )?;
        for prefix in config
            .announce
            .iter()
            .filter(|prefix| prefix.addr().is_ipv4() == v4)
        {
            writeln!(text, "  network {prefix} route-map tags")?;
        }
        for name in &names {
            writeln!(
                text,
                "  neighbor {name} activate\n  neighbor {name} soft-reconfiguration inbound"
            )?;
        }
        writeln!(text, " exit-address-family")?;
    }
    text.push_str("exit\n");
    tags(&mut text, &config.tags)?;
    Ok(text)
}

fn tags(text: &mut String, tags: &Tags) -> Result<()> {
    writeln!(text, "route-map tags permit 10")?;
    if !tags.communities.is_empty() {
        let all = tags.communities.iter().map(|(a, b)| format!("{a}:{b}"));
        writeln!(text, " set community {}", all.collect::<Vec<_>>().join(" "))?;
    }
    if !tags.large_communities.is_empty() {
        let all = tags
            .large_communities
            .iter()
            .map(|(a, b, c)| format!("{a}:{b}:{c}"));
        writeln!(
            text,
            " set large-community {}",
            all.collect::<Vec<_>>().join(" ")
        )?;
    }
    if let Some(med) = tags.med {
        writeln!(text, " set metric {med}")?;
    }
    text.push_str("exit\n");
    Ok(())
}

fn neighbor(text: &mut String, name: &str, peer: &Peer) -> Result<()> {
    writeln!(text, " neighbor {name} remote-as {}", peer.asn)?;
    writeln!(
        text,
        " neighbor {name} timers {} {}",
        peer.keepalive(),
        peer.hold
    )?;
    writeln!(text, " neighbor {name} advertisement-interval 0")?;
    if !peer.is_range() {
        writeln!(text, " neighbor {name} timers connect 1")?;
    }
    if peer.passive && !peer.is_range() {
        writeln!(text, " neighbor {name} passive")?;
    }
    match peer.hops {
        Hops::Direct => {}
        Hops::Multihop(ttl) => writeln!(text, " neighbor {name} ebgp-multihop {ttl}")?,
        Hops::Security(hops) => writeln!(text, " neighbor {name} ttl-security hops {hops}")?,
    }
    if let Some(password) = &peer.password {
        writeln!(text, " neighbor {name} password {password}")?;
    }
    if let Some(interval) = peer.bfd {
        writeln!(text, " neighbor {name} bfd profile every{interval}")?;
    }
    if peer.graceful_restart {
        writeln!(text, " neighbor {name} graceful-restart")?;
    }
    Ok(())
}

fn bfd_profiles(config: &Bgp) -> Result<String> {
    let mut text = String::from("bfd\n");
    for interval in config.peers.iter().filter_map(|peer| peer.bfd) {
        writeln!(
            text,
            " profile every{interval}\n  transmit-interval {interval}\n  receive-interval {interval}\n  detect-multiplier 3\n exit"
        )?;
    }
    Ok(text)
}

pub(super) fn tool(daemon: &Daemon, question: &str) -> Vec<String> {
    let place = daemon.place.display().to_string();
    ["vtysh", "--vty_socket", &place, "-c", question]
        .map(str::to_owned)
        .to_vec()
}

async fn json(daemon: &Daemon, question: &str) -> Result<Value> {
    let text = daemon.ask(question).await?;
    serde_json::from_str(&text).with_context(|| format!("vtysh answered `{question}` with {text}"))
}

pub(super) async fn neighbors(daemon: &Daemon) -> Result<Vec<Neighbor>> {
    let answer = json(daemon, "show bgp neighbors json").await?;
    let peers = answer.as_object().into_iter().flatten();
    Ok(peers
        .filter_map(|(address, peer)| {
            let state = peer["bgpState"].as_str()?.to_owned();
            Some(Neighbor {
                address: address.parse().ok()?,
                established: state == "Established",
                state,
            })
        })
        .collect())
}

pub(super) async fn routes(daemon: &Daemon, prefix: IpNet) -> Result<Vec<Route>> {
    let family = if prefix.addr().is_ipv4() {
        "ipv4"
    } else {
        "ipv6"
    };
    let answer = json(daemon, &format!("show bgp {family} unicast {prefix} json")).await?;
    if answer["prefix"]
        .as_str()
        .and_then(|shown| shown.parse::<IpNet>().ok())
        != Some(prefix)
    {
        return Ok(Vec::new());
    }
    let paths = answer["paths"].as_array().into_iter().flatten();
    Ok(paths
        .filter_map(|path| {
            let hops = path["nexthops"].as_array()?;
            let hop = hops
                .iter()
                .find(|hop| hop["scope"] != "link-local")
                .or_else(|| hops.first())?;
            Some(Route {
                prefix,
                next_hop: hop["ip"].as_str()?.parse().ok()?,
                origin: path["origin"].as_str().unwrap_or_default().to_lowercase(),
                as_path: numbers(path["aspath"]["string"].as_str().unwrap_or_default()),
                communities: words(&path["community"]["string"]),
                large_communities: words(&path["largeCommunity"]["string"]),
                extended_communities: words(&path["extendedCommunity"]["string"])
                    .into_iter()
                    .map(|word| word.to_lowercase())
                    .collect(),
                local_preference: path["locPrf"]
                    .as_u64()
                    .and_then(|value| value.try_into().ok()),
                med: path["metric"]
                    .as_u64()
                    .and_then(|value| value.try_into().ok()),
            })
        })
        .collect())
}

pub(super) async fn bfd_peers(daemon: &Daemon) -> Result<Vec<BfdPeer>> {
    let answer = json(daemon, "show bfd peers json").await?;
    let peers = answer.as_array().into_iter().flatten();
    Ok(peers
        .filter_map(|peer| {
            let state = peer["status"].as_str()?.to_owned();
            Some(BfdPeer {
                address: peer["peer"].as_str()?.parse().ok()?,
                up: state == "up",
                state,
            })
        })
        .collect())
}

fn words(value: &Value) -> std::collections::BTreeSet<String> {
    value
        .as_str()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}
