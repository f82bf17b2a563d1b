//! Layer 2: the neighbour table of a host on the segment is the judge.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use openelb_api::v1alpha2::{EipAddress, name_for};
use openelb_tests::{Deadline, eventually, scenario};
use serde_json::json;

use super::stage::Stage;

pub(super) const ADDRESS: &str = "10.0.0.100";

/// A stage with speakers on all nodes that answer for one Service.
pub(super) async fn served(nodes: u8, policy: &str, on: &[&str]) -> Result<Stage> {
    let mut stage = Stage::start(nodes).await?;
    give_key(&stage, KEY).await?;
    speak(&mut stage, policy, on, ADDRESS, &["--enable-layer2"]).await?;
    Ok(stage)
}

/// A good key.
pub(super) const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Gives the speakers a key to talk to each other.
pub(super) async fn give_key(stage: &Stage, key: &str) -> Result<()> {
    stage
        .apply(&json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "memberlist", "namespace": "openelb-system"},
            "stringData": {"key": key}
        }))
        .await
}

/// A Service with this address, and a speaker with these flags on every node.
async fn speak(
    stage: &mut Stage,
    policy: &str,
    on: &[&str],
    address: &str,
    flags: &[&str],
) -> Result<()> {
    let range = format!("{address}/32");
    let spec = json!({"address": range, "protocol": "layer2", "interface": "eth0"});
    stage.ours("Eip", "pool", &spec).await?;
    stage.service("web", policy, address).await?;
    stage.endpoints("web", on).await?;
    speak_everywhere(stage, flags).await
}

/// A speaker with these flags on every node.
pub(super) async fn speak_everywhere(stage: &mut Stage, flags: &[&str]) -> Result<()> {
    let nodes = stage.network.nodes().iter();
    let nodes: Vec<String> = nodes.map(|node| node.name().to_owned()).collect();
    for node in &nodes {
        stage.pod(node).await?;
        stage.speak(node, flags).await?;
    }
    for node in &nodes {
        stage.ready(node).await?;
    }
    Ok(())
}

/// A figure of a node's speaker, from its metrics.
pub(super) async fn metric(stage: &Stage, node: &str, name: &str) -> Result<u64> {
    let namespace = stage.network.node(node)?.namespace();
    let page = namespace
        .run(&["curl", "-sS", "http://127.0.0.1:50053/metrics"])
        .await?;
    let name = format!("openelb_layer2_{name} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name));
    Ok(line
        .with_context(|| format!("no {name}in\n{page}"))?
        .parse()?)
}

/// Waits until a figure is as wanted.
pub(super) async fn counts(
    stage: &Stage,
    node: &str,
    name: &str,
    good: impl Fn(u64) -> bool,
) -> Result<()> {
    eventually(&format!("{name} of {node}"), Deadline::SHORT, async || {
        let value = metric(stage, node, name).await?;
        ensure!(good(value), "it is {value}");
        Ok(())
    })
    .await
}

/// Waits until an event with this reason and text is said of the Service.
async fn told(stage: &Stage, reason: &str, text: &str) -> Result<()> {
    let events = Api::<Event>::namespaced(stage.control.client(), "default");
    eventually(
        &format!("the event {reason}"),
        Deadline::SHORT,
        async || {
            let all = events.list(&ListParams::default()).await?;
            let said = all.items.iter().any(|event| {
                let regarding = event.regarding.as_ref();
                event.reason.as_deref() == Some(reason)
                    && event
                        .note
                        .as_deref()
                        .is_some_and(|note| note.contains(text))
                    && regarding
                        .is_some_and(|one| one.name.as_deref() == Some("web") && one.uid.is_some())
            });
            ensure!(said, "{:?}", all.items);
            Ok(())
        },
    )
    .await
}

/// Waits until the address has a condition with this status.
async fn condition(stage: &Stage, address: &str, kind: &str, status: &str) -> Result<String> {
    let addresses = Api::<EipAddress>::all(stage.control.client());
    eventually(&format!("{kind}={status}"), Deadline::LONG, async || {
        let status_now = addresses.get(address).await?.status.context("no status")?;
        let mut all = status_now.conditions.iter();
        let found = all.find(|one| one.type_ == kind && one.status == status);
        let found = found.with_context(|| format!("{:?}", status_now.conditions))?;
        anyhow::Ok(found.message.clone())
    })
    .await
}

/// The node whose hardware address a host of the segment has learnt for the address.
pub(super) async fn answering(stage: &Stage) -> Result<String> {
    answering_at(stage, ADDRESS).await
}

/// The same for any address.
pub(super) async fn answering_at(stage: &Stage, address: &str) -> Result<String> {
    let host = stage.network.lan_client().namespace();
    // Nothing answers the ping itself; the kernel asks for the hardware address all the same.
    let _ = host
        .run(&["ping", "-n", "-c", "1", "-W", "1", address])
        .await;
    believed(stage, address).await
}

/// The node that a host of the segment takes for the one at an address. It does not ask.
pub(super) async fn believed(stage: &Stage, address: &str) -> Result<String> {
    let host = stage.network.lan_client().namespace();
    let ip: IpAddr = address.parse()?;
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
pub(super) async fn leads(
    stage: &Stage,
    what: &str,
    good: impl Fn(&str) -> bool,
) -> Result<String> {
    let node = eventually(&format!("{what} to answer"), Deadline::LONG, async || {
        stage.check_but_killed()?;
        let node = answering(stage).await?;
        ensure!(good(&node), "{node} answers");
        Ok(node)
    })
    .await?;
    Ok(node)
}

/// Waits until the address's status names this node alone.
pub(super) async fn shown(stage: &Stage, node: &str) -> Result<()> {
    shown_at(stage, ADDRESS, node).await
}

/// The same for any address.
pub(super) async fn shown_at(stage: &Stage, address: &str, node: &str) -> Result<()> {
    let addresses = Api::<EipAddress>::all(stage.control.client());
    let name = name_for(address.parse()?);
    eventually(
        &format!("{node} in the status of {address}"),
        Deadline::LONG,
        async || {
            let status = addresses.get(&name).await?.status.context("no status")?;
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
        told(
            &stage,
            "Announced",
            &format!("{ADDRESS} is announced by {first} on eth0"),
        )
        .await?;
        condition(&stage, ADDRESS, "Conflict", "False").await?;
        counts(&stage, &first, "members", |value| value == 2).await?;
        counts(&stage, &first, "addresses", |value| value == 1).await?;
        let other = if first == "n1" { "n2" } else { "n1" };
        counts(&stage, other, "addresses", |value| value == 0).await?;
        for name in [
            "requests_total{protocol=\"arp\"}",
            "responses_total{protocol=\"arp\"}",
            "gratuitous_total{protocol=\"arp\"}",
            "addresses_taken_total",
        ] {
            counts(&stage, &first, name, |value| value > 0).await?;
        }
        stage.speaker(&first)?.kill().await;
        let second = leads(&stage, "the other node", |node| node != first).await?;
        shown(&stage, &second).await?;
        told(
            &stage,
            "Moved",
            &format!("{ADDRESS} moved from {first} to {second} on eth0"),
        )
        .await?;
        counts(&stage, &second, "members", |value| value == 1).await?;
        counts(&stage, &second, "detection_seconds_count", |value| {
            value == 1
        })
        .await?;
        // A foreign host on the segment takes the address: an event, a condition, a figure.
        let host = stage.network.lan_client().namespace();
        host.run(&["sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1"])
            .await?;
        let claim = [
            "arping", "-U", "-c", "1", "-I", "eth0", "-s", ADDRESS, ADDRESS,
        ];
        // It reports that nobody answered a gratuitous request.
        let _ = host.run(&claim).await;
        condition(&stage, ADDRESS, "Conflict", "True").await?;
        told(&stage, "ForeignClaim", ADDRESS).await?;
        let conflicts = "conflicts_total{protocol=\"arp\"}";
        counts(&stage, &second, conflicts, |value| value > 0).await
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

#[test]
fn what_will_hurt_is_shown_with_the_fix_until_it_is_mended() {
    scenario(async || {
        const OUTSIDE: &str = "192.0.2.100";
        let mut stage = Stage::start(1).await?;
        give_key(&stage, KEY).await?;
        // As kube-proxy leaves a node in IPVS mode without strictARP (a bridge in place of a dummy interface, which not
        // every kernel has).
        let node = stage.network.node("n1")?.namespace().clone();
        node.run(&["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0"])
            .await?;
        node.run(&["sysctl", "-qw", "net.ipv4.conf.eth0.arp_ignore=0"])
            .await?;
        node.run(&["ip", "link", "add", "kube-ipvs0", "type", "bridge"])
            .await?;
        let address = format!("{OUTSIDE}/32");
        node.run(&["ip", "addr", "add", &address, "dev", "kube-ipvs0"])
            .await?;
        speak(
            &mut stage,
            "Cluster",
            &["n1"],
            OUTSIDE,
            &["--enable-layer2"],
        )
        .await?;
        let fix = condition(&stage, OUTSIDE, "KernelAnswers", "True").await?;
        ensure!(fix.contains("strictARP: true"), "{fix}");
        let log = stage.speaker("n1")?.log();
        ensure!(log.contains("strictARP: true"), "{log}");
        let warning = condition(&stage, OUTSIDE, "OutsideSubnet", "True").await?;
        ensure!(warning.contains("eth0"), "{warning}");
        node.run(&["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1"])
            .await?;
        condition(&stage, OUTSIDE, "KernelAnswers", "False").await?;
        Ok(())
    });
}

#[test]
fn with_leases_an_address_moves_too_and_a_lost_api_server_moves_nothing() {
    scenario(async || {
        let mut stage = Stage::start(2).await?;
        let flags = [
            "--enable-layer2",
            "--membership",
            "lease",
            "--membership-profile",
            "fast",
        ];
        speak(&mut stage, "Cluster", &["n1"], ADDRESS, &flags).await?;
        let first = leads(&stage, "a node", |_| true).await?;
        shown(&stage, &first).await?;
        counts(&stage, &first, "members", |value| value == 2).await?;
        let other = if first == "n1" { "n2" } else { "n1" };

        // It stops: the other one takes over, and the Lease is gone.
        let status = stage.speaker(&first)?.stop().await?;
        ensure!(status.success(), "{status}");
        leads(&stage, "the other node", |node| node == other).await?;
        let leases = stage
            .kubectl(&["get", "leases", "-n", "openelb-system", "-o", "name"])
            .await?;
        ensure!(
            !leases.contains(&format!("openelb-speaker-{first}")),
            "{leases}"
        );
        // It comes back, and has its address again when it is steady.
        stage.speak(&first, &[]).await?;
        leads(&stage, "the better node", |node| node == first).await?;
        // Without the API server nobody renews, and nobody is given up for that.
        stage.control.api_server().kill().await;
        let speaker = stage.speaker(other)?;
        eventually("the Leases to run out unseen", Deadline::LONG, async || {
            let failures = speaker.log().matches("Lease is not renewed").count();
            ensure!(failures >= 5, "{failures} renewals failed");
            Ok(())
        })
        .await?;
        ensure!(answering(&stage).await? == first, "the address moved");
        stage.control.api_server().restart().await?;
        // It dies without a word.
        stage.speaker(&first)?.kill().await;
        leads(&stage, "the other node", |node| node == other).await?;
        shown(&stage, other).await
    });
}

#[test]
fn a_node_that_must_not_announce_gives_the_address_up_and_gets_it_back() {
    scenario(async || {
        let stage = served(2, "Cluster", &["n1"]).await?;
        let first = leads(&stage, "a node", |_| true).await?;
        // Excluded by its label.
        let label = "node.kubernetes.io/exclude-from-external-load-balancers";
        stage
            .kubectl(&["label", "node", &first, &format!("{label}=")])
            .await?;
        leads(&stage, "the other node", |node| node != first).await?;
        stage
            .kubectl(&["label", "node", &first, &format!("{label}-")])
            .await?;
        leads(&stage, "the first node", |node| node == first).await?;
        // Without network.
        let network = |status: &str| {
            let condition = json!({"type": "NetworkUnavailable", "status": status});
            json!({"status": {"conditions": [condition]}}).to_string()
        };
        let patch = async |body: String| {
            let args = ["patch", "node", &first, "--subresource=status", "-p", &body];
            stage.kubectl(&args).await
        };
        patch(network("True")).await?;
        leads(&stage, "the other node", |node| node != first).await?;
        patch(network("False")).await?;
        leads(&stage, "the first node", |node| node == first).await?;
        // Not selected by the Eip.
        stage.kubectl(&["label", "node", &first, "lan=no"]).await?;
        let selector = r#"{"spec":{"nodeSelector":{"matchExpressions":[{"key":"lan","operator":"DoesNotExist"}]}}}"#;
        stage
            .kubectl(&["patch", "eip", "pool", "--type=merge", "-p", selector])
            .await?;
        leads(&stage, "the selected node", |node| node != first).await?;
        Ok(())
    });
}
