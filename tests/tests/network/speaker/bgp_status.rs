//! When a speaker writes this node's entry in a status: at once where the state of a session changed, and never
//! otherwise.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::Api;
use openelb_api::v1alpha2::{BgpPeer, NodePeerStatus};
use openelb_tests::bgp::Software;
use openelb_tests::{Deadline, eventually, scenario};
use serde_json::json;

use super::bgp::{NODES, behind, keepalives, objects, peer_spec, router};
use super::stage::Stage;

/// Waits until n1's entry looks like this.
async fn entry(stage: &Stage, what: &str, good: impl Fn(&NodePeerStatus) -> bool) -> Result<()> {
    let peers = Api::<BgpPeer>::all(stage.control.client());
    eventually(what, Deadline::LONG, async || {
        stage.check()?;
        let status = peers.get("router").await?.status.unwrap_or_default();
        let entry = status.nodes_peer_status.get("n1").context("no entry")?;
        ensure!(good(entry), "{entry:?}");
        Ok::<(), anyhow::Error>(())
    })
    .await
}

fn established(entry: &NodePeerStatus) -> bool {
    let prefixes = entry.announced.as_ref().map(|sent| sent.prefixes);
    entry.peer_state.session_state == "ESTABLISHED" && prefixes == Some(1)
}

/// How often the speakers have written anything.
fn writes(stage: &Stage) -> Result<usize> {
    let requests = stage.control.audit()?;
    let ours = requests.iter().filter(|request| {
        request.user.username.ends_with(":openelb-speaker") && request.is_write()
    });
    Ok(ours.count())
}

/// What a second node's speaker writes into its own key.
async fn another_node_writes(stage: &Stage, session: &str) -> Result<()> {
    let status =
        json!({"status": {"nodesPeerStatus": {"n2": {"peerState": {"sessionState": session}}}}});
    let status = status.to_string();
    stage
        .kubectl(&[
            "patch",
            "bgppeer",
            "router",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ])
        .await?;
    Ok(())
}

#[test]
fn an_entry_is_written_when_the_session_changes_and_never_otherwise() {
    scenario(async || {
        let mut stage = Stage::audited(1).await?;
        let daemon = router(&stage, Software::Frr, |peer| peer.hold(3)).await?;
        let mut peer = peer_spec(&stage);
        peer["timers"] = json!({"config": {"holdTime": "3"}});
        objects(&stage, &json!({"as": NODES}), &peer).await?;
        stage.speak("n1", &[]).await?;
        behind(&stage, &daemon, &["n1"]).await?;
        entry(&stage, "the session in the status", established).await?;

        // Keepalives are no news, nor is what another node says of itself.
        keepalives(&daemon, 2).await?;
        let before = writes(&stage)?;
        ensure!(before > 0, "the audit log does not tell");
        for session in ["ACTIVE", "ESTABLISHED", "IDLE"] {
            another_node_writes(&stage, session).await?;
            keepalives(&daemon, 2).await?;
        }
        let after = writes(&stage)?;
        ensure!(before == after, "{before} writes became {after}");

        let mut told = Vec::new();
        for round in 0..3 {
            let began = Instant::now();
            daemon.kill().await;
            entry(&stage, "the loss in the status", |entry| {
                entry.peer_state.session_state != "ESTABLISHED"
            })
            .await?;
            told.push(began.elapsed());
            daemon.restart().await?;
            behind(&stage, &daemon, &["n1"]).await?;
            entry(&stage, "the session in the status", established).await?;
            ensure!(writes(&stage)? > after + round, "nothing was written");
            // The pause between two writes is over.
            keepalives(&daemon, 2).await?;
        }
        println!("told after {told:?}");
        // A timer of the session would tell after its keepalive (1 s) or hold time (3 s), and one that reads all states
        // anew at some interval not thrice in less than a second.
        ensure!(
            told.iter().all(|time| *time < Duration::from_secs(1)),
            "{told:?}"
        );
        Ok(())
    });
}
