//! Layer 2: the neighbour table of a host on the segment is the judge.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use kube::api::Api;
use openelb_api::v1alpha2::EipAddress;
use openelb_tests::{Deadline, eventually, scenario};
use serde_json::json;

use super::stage::Stage;

const ADDRESS: &str = "10.0.0.100";

/// A stage with speakers on all nodes that answer for one Service.
async fn served(nodes: u8, policy: &str, on: &[&str]) -> Result<Stage> {
    let mut stage = Stage::start(nodes).await?;
    stage
        .apply(&json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "memberlist", "namespace": "openelb-system"},
            "stringData": {"key": "0123456789abcdef0123456789abcdef"}
        }))
        .await?;
    let spec =
        json!({"address": "10.0.0.100-10.0.0.150", "protocol": "layer2", "interface": "eth0"});
    stage.ours("Eip", "pool", &spec).await?;
    stage.service("web", policy, ADDRESS).await?;
    stage.endpoints("web", on).await?;
    for number in 1..=nodes {
        let name = format!("n{number}");
        stage.pod(&name).await?;
        stage.speak(&name, &["--enable-layer2"]).await?;
    }
    for number in 1..=nodes {
        stage.ready(&format!("n{number}")).await?;
    }
    Ok(stage)
}

/// The node whose hardware address a host of the segment has learnt for the address.
async fn answering(stage: &Stage) -> Result<String> {
    let host = stage.network.lan_client().namespace();
    // Nothing answers the ping itself; the kernel asks for the hardware address all the same.
    let _ = host
        .run(&["ping", "-n", "-c", "1", "-W", "1", ADDRESS])
        .await;
    let ip: IpAddr = ADDRESS.parse()?;
    let neighbor = host.neighbor(ip).await?.context("nobody answers")?;
    let mac = neighbor
        .hardware_address
        .context("nobody has answered yet")?;
    for node in stage.network.nodes() {
        if node.namespace().hardware_address(node.interface).await? == mac {
            return Ok(node.name().to_owned());
        }
    }
    anyhow::bail!("{mac} answers, which is no node")
}

/// Waits until a node that satisfies the condition answers, and the status says so.
async fn leads(stage: &Stage, what: &str, good: impl Fn(&str) -> bool) -> Result<String> {
    let node = eventually(&format!("{what} to answer"), Deadline::LONG, async || {
        stage.check_but_killed()?;
        let node = answering(stage).await?;
        ensure!(good(&node), "{node} answers");
        Ok(node)
    })
    .await?;
    Ok(node)
}

async fn shown(stage: &Stage, node: &str) -> Result<()> {
    let addresses = Api::<EipAddress>::all(stage.control.client());
    eventually(
        &format!("{node} in the status"),
        Deadline::LONG,
        async || {
            let status = addresses.get(ADDRESS).await?.status.context("no status")?;
            let announcers: Vec<&str> = status
                .announcers
                .iter()
                .map(|one| one.node.as_str())
                .collect();
            ensure!(announcers == [node], "{announcers:?}");
            ensure!(
                status
                    .announcers
                    .iter()
                    .all(|one| one.interfaces == ["eth0"]),
                "{status:?}"
            );
            Ok(())
        },
    )
    .await
}

#[test]
fn one_node_answers_and_another_takes_over_when_it_dies() {
    scenario(async || {
        let stage = served(2, "Cluster", &["n1"]).await?;
        let first = leads(&stage, "a node", |_| true).await?;
        shown(&stage, &first).await?;
        stage.speaker(&first)?.kill().await;
        let second = leads(&stage, "the other node", |node| node != first).await?;
        shown(&stage, &second).await
    });
}

#[test]
fn an_address_moves_although_the_api_server_is_gone() {
    scenario(async || {
        let stage = served(2, "Cluster", &["n1"]).await?;
        let first = leads(&stage, "a node", |_| true).await?;
        stage.control.api_server().kill().await;
        let survivor = if first == "n1" { "n2" } else { "n1" };
        let speaker = stage.speaker(survivor)?;
        eventually("the speaker to notice", Deadline::LONG, async || {
            ensure!(
                speaker.log().contains("the watch is interrupted"),
                "not yet"
            );
            Ok(())
        })
        .await?;
        stage.speaker(&first)?.kill().await;
        leads(&stage, "the other node", |node| node == survivor).await?;
        Ok(())
    });
}

#[test]
fn a_stopping_speaker_hands_over_and_the_local_policy_decides_who_may() {
    scenario(async || {
        let stage = served(2, "Local", &["n1"]).await?;
        leads(&stage, "the node with the endpoint", |node| node == "n1").await?;
        stage.endpoints("web", &["n2"]).await?;
        leads(&stage, "the new node with the endpoint", |node| {
            node == "n2"
        })
        .await?;
        shown(&stage, "n2").await?;
        stage.endpoints("web", &["n1", "n2"]).await?;
        let leader = leads(&stage, "a node", |_| true).await?;
        let status = stage.speaker(&leader)?.stop().await?;
        ensure!(status.success(), "{status}");
        let other = leads(&stage, "the other node", |node| node != leader).await?;
        shown(&stage, &other).await
    });
}
