//! What objects of the API change about layer 2 while the speakers run: the Eip's interface, a second Service on the
//! address, the key.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use serde_json::json;

use openelb_api::v1alpha2::name_for;
use openelb_tests::{Deadline, eventually, scenario};

use super::layer2::{ADDRESS, answering, counts, give_key, leads, served, shown};
use super::stage::Stage;

/// The nodes of these tests.
const BOTH: [&str; 2] = ["n1", "n2"];

#[test]
fn an_interface_that_no_node_has_is_told_of_until_the_eip_names_another() {
    scenario(async || {
        let stage = served(2, "Cluster", &["n1"]).await?;
        let _controller = stage.controller()?;
        leads(&stage, "a node", |_| true).await?;
        stage.announced("web", "True", "eth0").await?;
        let uses = async |interface: &str| {
            let spec = json!({"spec": {"interface": interface}}).to_string();
            stage
                .kubectl(&["patch", "eip", "pool", "--type=merge", "-p", &spec])
                .await
        };
        uses("nosuch0").await?;
        stage
            .announced("web", "Unknown", "on a node that has the Eip's interface")
            .await?;
        forgotten(&stage).await?;
        ensure!(answering(&stage).await.is_err(), "somebody answers");
        uses("eth0").await?;
        leads(&stage, "a node", |_| true).await?;
        stage.announced("web", "True", "eth0").await
    });
}

#[test]
fn another_interface_of_an_eip_answers_in_place_of_the_first() {
    scenario(async || {
        let stage = served(1, "Cluster", &["n1"]).await?;
        leads(&stage, "the node", |_| true).await?;
        // A second segment between the node and the client.
        let (node, client) = (stage.network.node("n1")?, stage.network.lan_client());
        let (node, near) = (node.namespace(), client.interface);
        let client = client.namespace();
        node.ip(&format!(
            "link add second type veth peer name second netns {}",
            client.name()
        ))
        .await?;
        node.ip("link set second up").await?;
        client
            .ip("link set second up\naddr add 192.0.2.9/24 dev second")
            .await?;
        let spec = json!({"spec": {"interface": "second"}}).to_string();
        stage
            .kubectl(&["patch", "eip", "pool", "--type=merge", "-p", &spec])
            .await?;
        let own = stage.network.lan_client().v4.to_string();
        let ask = async |interface: &str| {
            let source = if interface == near { &own } else { "192.0.2.9" };
            let ask = [
                "arping", "-c", "1", "-w", "1", "-s", source, "-I", interface, ADDRESS,
            ];
            client.run(&ask).await
        };
        eventually("an answer on the second", Deadline::SHORT, async || {
            ask("second").await.map(drop)
        })
        .await?;
        eventually("silence on the first", Deadline::SHORT, async || {
            let answer = ask(near).await;
            ensure!(answer.is_err(), "{answer:?}");
            anyhow::Ok(())
        })
        .await?;
        ask("second").await.map(drop)
    });
}

/// Makes the host on the segment forget what it has learnt of the address.
async fn forgotten(stage: &Stage) -> Result<()> {
    let host = stage.network.lan_client();
    let flush = ["ip", "neigh", "flush", "to", ADDRESS, "dev", host.interface];
    host.namespace().run(&flush).await.map(drop)
}

#[test]
fn services_that_share_an_address_have_one_leader() {
    scenario(async || {
        let stage = served(2, "Local", &["n1"]).await?;
        leads(&stage, "the node with the endpoint", |node| node == "n1").await?;
        stage.service("dns", "Local", ADDRESS).await?;
        stage.endpoints("dns", &["n2"]).await?;
        share(&stage, &["web", "dns"]).await?;
        // Each node can deliver for one of them; one answers for both.
        let leader = leads(&stage, "a node", |_| true).await?;
        shown(&stage, &leader).await?;
        let host = stage.network.lan_client();
        let ask = [
            "arping",
            "-c",
            "3",
            "-w",
            "6",
            "-I",
            host.interface,
            ADDRESS,
        ];
        let answers = host.namespace().run(&ask).await?;
        ensure!(answers.contains("Received 3 response"), "{answers}");
        // The endpoint on the other node alone is enough to lead, for whichever of them.
        for (gone, left, node) in [("web", "dns", "n2"), ("dns", "web", "n1")] {
            stage.endpoints(gone, &[]).await?;
            stage.endpoints(left, &[node]).await?;
            leads(&stage, "the node with an endpoint", |one| one == node).await?;
            shown(&stage, node).await?;
        }
        Ok(())
    });
}

/// Makes the EipAddress name these Services, as the controller does for those that share it.
async fn share(stage: &Stage, services: &[&str]) -> Result<()> {
    let api = Api::<Service>::namespaced(stage.control.client(), "default");
    let mut entries = Vec::new();
    for name in services {
        let uid = api.get(name).await?.metadata.uid.context("no uid")?;
        entries.push(json!({"namespace": "default", "name": name, "uid": uid}));
    }
    let spec = json!({"address": ADDRESS, "eip": "pool", "services": entries});
    stage
        .ours("EipAddress", &name_for(ADDRESS.parse()?), &spec)
        .await
}

#[test]
fn a_new_key_counts_when_the_speakers_are_started_again() {
    scenario(async || {
        let mut stage = served(2, "Cluster", &["n1"]).await?;
        let leader = leads(&stage, "a node", |_| true).await?;
        for node in BOTH {
            counts(&stage, node, "members", |value| value == 2).await?;
        }
        give_key(&stage, "another key, of more than 16 bytes").await?;
        // One that has it and one that has not are strangers to each other.
        let (first, other) = if leader == "n1" {
            ("n2", "n1")
        } else {
            ("n1", "n2")
        };
        restart(&mut stage, first).await?;
        for node in BOTH {
            counts(&stage, node, "members", |value| value == 1).await?;
        }
        counts(&stage, other, "messages_refused_total", |value| value > 0).await?;
        restart(&mut stage, other).await?;
        for node in BOTH {
            counts(&stage, node, "members", |value| value == 2).await?;
        }
        let leader = leads(&stage, "a node", |_| true).await?;
        shown(&stage, &leader).await
    });
}

/// Stops the speaker of a node and starts it again.
async fn restart(stage: &mut Stage, node: &str) -> Result<()> {
    let status = stage.speaker(node)?.stop().await?;
    ensure!(status.success(), "{status}");
    stage.speak(node, &[]).await?;
    stage.ready(node).await
}

#[test]
fn a_deleted_service_is_answered_for_no_more() {
    scenario(async || {
        let stage = served(2, "Cluster", &["n1"]).await?;
        let leader = leads(&stage, "a node", |_| true).await?;
        counts(&stage, &leader, "addresses", |value| value == 1).await?;
        stage
            .kubectl(&["delete", "service", "web", "--wait=true"])
            .await?;
        for node in BOTH {
            counts(&stage, node, "addresses", |value| value == 0).await?;
        }
        forgotten(&stage).await?;
        eventually("silence", Deadline::SHORT, async || {
            ensure!(answering(&stage).await.is_err(), "somebody answers");
            anyhow::Ok(())
        })
        .await
    });
}
