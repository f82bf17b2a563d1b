//! Layer 2 under traffic: what planned moves of the real speaker cost, and what it does without a key.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use openelb_tests::prober::Target;
use openelb_tests::{
    Deadline, Host, Prober, Process, Program, Traffic, binary, eventually, scenario,
};
use serde_json::json;

use super::layer2::{ADDRESS, answering, give_key, leads, served};
use super::stage::Stage;

/// A server for the address on a node, as kube-proxy would make it reachable there.
pub(super) async fn serve(stage: &Stage, node: &Host) -> Result<Process> {
    let namespace = node.namespace();
    for setting in ["arp_ignore=1", "arp_announce=2"] {
        let setting = format!("net.ipv4.conf.all.{setting}");
        namespace.run(&["sysctl", "-qw", &setting]).await?;
    }
    namespace
        .run(&["ip", "addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"])
        .await?;
    let program = Program::new(
        &format!("answer-{}", node.name()),
        binary("openelb-answer")?,
    );
    let process = namespace
        .program(program)
        .args(["serve", "80", ADDRESS])
        .env("NODE_NAME", node.name())
        .env("POD_NAME", format!("pod-{}", node.name()))
        .start(stage.network.folder().path())?;
    eventually("the server to listen", Deadline::SHORT, async || {
        process.check()?;
        ensure!(process.log().contains("listening"), "{:?}", process.log());
        Ok(())
    })
    .await?;
    Ok(process)
}

#[test]
fn no_planned_move_loses_a_datagram() {
    scenario(async || {
        let mut stage = served(2, "Cluster", &["n1"]).await?;
        let mut servers = Vec::new();
        for node in stage.network.nodes() {
            servers.push(serve(&stage, node).await?);
        }
        let first = leads(&stage, "a node", |_| true).await?;
        let other = if first == "n1" { "n2" } else { "n1" };
        let target = Target {
            address: SocketAddr::new(ADDRESS.parse::<IpAddr>()?, 80),
            traffic: Traffic::Udp,
        };
        let mut prober = Prober::start(stage.network.lan_client(), &[target])?;
        prober.answered(50).await?;
        let label = "node.kubernetes.io/exclude-from-external-load-balancers";
        prober.mark("the node is excluded");
        stage
            .kubectl(&["label", "node", &first, &format!("{label}=")])
            .await?;
        leads(&stage, "the other node", |node| node == other).await?;
        prober.answered(50).await?;
        prober.mark("the node is back");
        stage
            .kubectl(&["label", "node", &first, &format!("{label}-")])
            .await?;
        leads(&stage, "the better node", |node| node == first).await?;
        prober.answered(50).await?;
        prober.mark("the speaker stops");
        let status = stage.speaker(&first)?.stop().await?;
        ensure!(status.success(), "{status}");
        leads(&stage, "the other node", |node| node == other).await?;
        prober.answered(50).await?;
        prober.mark("the speaker is back");
        stage.speak(&first, &[]).await?;
        leads(&stage, "the better node", |node| node == first).await?;
        prober.answered(50).await?;
        let report = prober.stop().await?;
        println!("{report}");
        ensure!(
            report.probes().iter().all(|probe| probe.outcome.is_good()),
            "{report}"
        );
        ensure!(report.by_node().len() == 2, "{report}");
        Ok(())
    });
}

#[test]
fn without_a_good_key_nothing_runs_and_the_log_says_what_to_do() {
    scenario(async || {
        let mut stage = Stage::start(1).await?;
        let spec =
            json!({"address": format!("{ADDRESS}/32"), "protocol": "layer2", "interface": "eth0"});
        stage.ours("Eip", "pool", &spec).await?;
        stage.service("web", "Cluster", ADDRESS).await?;
        stage.endpoints("web", &["n1"]).await?;
        stage.pod("n1").await?;
        stage.speak("n1", &["--enable-layer2"]).await?;
        for (key, why) in [
            (None, "there is no key for the membership"),
            (Some("short"), "the membership key has 5 bytes"),
            (
                Some("openelb-speakers"),
                "the one published in OpenELB's manifests",
            ),
        ] {
            if let Some(key) = key {
                give_key(&stage, key).await?;
            }
            let speaker = stage.speaker("n1")?;
            eventually("the reason in the log", Deadline::LONG, async || {
                let log = speaker.log();
                ensure!(
                    log.contains("layer 2 does not run") && log.contains(why),
                    "{log}"
                );
                Ok(())
            })
            .await?;
            let sockets = stage
                .network
                .node("n1")?
                .namespace()
                .run(&["ss", "-Hlun"])
                .await?;
            ensure!(!sockets.contains(":7946"), "{sockets}");
            ensure!(answering(&stage).await.is_err(), "somebody answers");
        }
        give_key(&stage, "0123456789abcdef0123456789abcdef").await?;
        leads(&stage, "the node", |node| node == "n1").await?;
        Ok(())
    });
}
