//! How a speaker's end looks to the routers: a restart, a crash, a node that leaves.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use nix::sys::signal::Signal;
use openelb_tests::bgp::{Daemon, Peer, Software};
use openelb_tests::{Deadline, Process, Program, eventually, scenario};
use serde_json::json;

use super::bgp::{ADDRESS, NODES, behind, in_kernel, objects, peer_spec, prefix, router, served};
use super::stage::Stage;

/// Packets from the client to the address, which n1 answers by itself.
struct Ping(Process);

impl Ping {
    async fn start(stage: &Stage) -> Result<Self> {
        let node = stage.network.node("n1")?.namespace();
        node.run(&["ip", "addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"])
            .await?;
        let client = stage.network.client().namespace();
        eventually("an answer", Deadline::SHORT, async || {
            client
                .run(&["ping", "-c", "1", "-W", "1", ADDRESS])
                .await
                .map(drop)
        })
        .await?;
        let program = Program::new("ping", "ping").args(["-i", "0.01", ADDRESS]);
        let ping = client.program(program);
        Ok(Self(ping.start(stage.network.folder().path())?))
    }

    /// Fails where a packet was lost.
    async fn lost_nothing(self) -> Result<()> {
        self.0.signal(Signal::SIGINT);
        self.0.ended(Deadline::SHORT).await?;
        let log = self.0.log();
        let sum = log
            .lines()
            .find(|line| line.contains("packets transmitted"))
            .context("no summary")?;
        ensure!(sum.contains(" 0% packet loss"), "{sum}");
        Ok(())
    }
}

async fn bfd_up(daemon: &Daemon) -> Result<()> {
    eventually("BFD to be up", Deadline::LONG, async || {
        let peers = daemon.bfd_peers().await?;
        ensure!(
            !peers.is_empty() && peers.iter().all(|peer| peer.up),
            "{peers:?}"
        );
        Ok(())
    })
    .await
}

/// SIGTERM, and a new process: neither the route nor a packet is lost.
async fn restart(software: Software, bfd: bool) -> Result<()> {
    let mut stage = Stage::start(1).await?;
    let daemon = router(&stage, software, |peer| {
        let peer = peer.graceful_restart();
        if bfd { peer.bfd(100) } else { peer }
    })
    .await?;
    let conf = json!({"as": NODES, "gracefulRestart": {"enabled": true, "restartTime": 60}});
    let mut peer = peer_spec(&stage);
    if bfd {
        peer["bfd"] = json!({"enabled": true, "transmitInterval": 100, "receiveInterval": 100});
    }
    objects(&stage, &conf, &peer).await?;
    stage.speak("n1", &[]).await?;
    behind(&stage, &daemon, &["n1"]).await?;
    in_kernel(&stage).await?;
    if bfd {
        bfd_up(&daemon).await?;
    }
    let node: IpAddr = stage.network.node("n1")?.v4.into();
    let namespace = stage.network.router().namespace().clone();
    let monitor =
        namespace.program(Program::new("monitor", "ip").args(["-o", "-t", "monitor", "route"]));
    let monitor = monitor.start(stage.network.folder().path())?;
    let ping = Ping::start(&stage).await?;

    let status = stage.speaker("n1")?.stop().await?;
    ensure!(status.success(), "{status}");
    eventually("the router to notice", Deadline::SHORT, async || {
        let neighbors = daemon.neighbors().await?;
        let there = neighbors
            .iter()
            .any(|peer| peer.address == node && peer.established);
        ensure!(!there, "{neighbors:?}");
        Ok(())
    })
    .await?;
    ensure!(
        namespace.next_hops(prefix()).await?.len() == 1,
        "the route went with the speaker"
    );
    stage.speak("n1", &[]).await?;
    daemon.established(node).await?;
    if bfd {
        bfd_up(&daemon).await?;
    }
    // What comes after the first routes and End-of-RIB.
    stage.service("dns", "Cluster", "203.0.113.2").await?;
    stage.endpoints("dns", &["n1"]).await?;
    let other: IpNet = "203.0.113.2/32".parse()?;
    daemon
        .routes_become(other, "a new address", |routes| routes.len() == 1)
        .await?;
    behind(&stage, &daemon, &["n1"]).await?;
    ping.lost_nothing().await?;
    let log = monitor.log();
    ensure!(
        !log.contains(&format!("Deleted {ADDRESS}")),
        "the route was withdrawn:\n{log}"
    );
    Ok(())
}

#[test]
fn a_restart_is_not_noticed_by_frr() {
    scenario(async || restart(Software::Frr, false).await);
}

#[test]
fn a_restart_is_not_noticed_by_bird() {
    scenario(async || restart(Software::Bird, false).await);
}

#[test]
fn a_restart_is_not_noticed_by_frr_with_bfd() {
    scenario(async || restart(Software::Frr, true).await);
}

#[test]
fn a_restart_is_not_noticed_by_bird_with_bfd() {
    scenario(async || restart(Software::Bird, true).await);
}

#[test]
fn a_stop_without_graceful_restart_withdraws_and_another_node_takes_the_traffic() {
    scenario(async || {
        let (stage, daemon) = served(2, &json!({"as": NODES}), |peer| peer).await?;
        behind(&stage, &daemon, &["n1", "n2"]).await?;
        let status = stage.speaker("n1")?.stop().await?;
        ensure!(status.success(), "{status}");
        behind_others(&daemon).await
    });
}

async fn behind_others(daemon: &Daemon) -> Result<()> {
    daemon
        .routes_become(prefix(), "the other node alone", |routes| routes.len() == 1)
        .await
        .map(drop)
}

#[test]
fn a_node_that_leaves_is_drained_in_spite_of_graceful_restart() {
    scenario(async || {
        let conf = json!({"as": NODES, "gracefulRestart": {"enabled": true, "restartTime": 60}});
        let mut stage = Stage::start(2).await?;
        let daemon = router(&stage, Software::Frr, Peer::graceful_restart).await?;
        let peer = peer_spec(&stage);
        objects(&stage, &conf, &peer).await?;
        // The taint alone withdraws nothing: kubelet may still end its pods in good order.
        let taint = "node.cloudprovider.kubernetes.io/shutdown=:NoSchedule";
        stage.kubectl(&["taint", "node", "n1", taint]).await?;
        stage.speak("n1", &[]).await?;
        stage.speak("n2", &[]).await?;
        behind(&stage, &daemon, &["n1", "n2"]).await?;
        let speaker = stage.speaker("n1")?;
        speaker.terminate();
        let leaving: IpAddr = stage.network.node("n1")?.v4.into();
        daemon
            .routes_become(
                prefix(),
                "GRACEFUL_SHUTDOWN on the leaving node's path",
                |routes| {
                    routes.iter().any(|route| {
                        route.next_hop == leaving
                            && route.communities.iter().any(|text| {
                                matches!(text.as_str(), "graceful-shutdown" | "65535:0")
                            })
                    })
                },
            )
            .await?;
        behind_others(&daemon).await?;
        let status = speaker.ended(Deadline::LONG).await?;
        ensure!(status.success(), "{status}");
        Ok(())
    });
}
