//! A speaker among what else runs on its host and in its cluster: a network plugin's BGP daemon, a monitoring system,
//! a second controller.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use openelb_tests::bgp::{Bgp, Peer, Software};
use openelb_tests::{Deadline, Process, Program, eventually, scenario};
use serde_json::{Value, json};

use super::bgp::{NODES, behind, objects, peer_spec, router, served};
use super::stage::Stage;

fn controller(stage: &Stage, name: &str, port: u16, elect: bool) -> Result<Process> {
    Program::new(name, openelb_tests::binary("openelb-operator")?)
        .args([
            "controller",
            "--leader-elect",
            if elect { "true" } else { "false" },
        ])
        .args(["--metrics-addr", &format!("127.0.0.1:{port}")])
        .args(["--identity", name])
        .arg("--kubeconfig")
        .arg(stage.control.kubeconfig())
        .start(stage.network.folder().path())
}

async fn object(stage: &Stage, kind: &str, name: &str) -> Result<Value> {
    let text = stage.kubectl(&["get", kind, name, "-o", "json"]).await?;
    Ok(serde_json::from_str(&text)?)
}

/// The message of a condition.
fn condition(object: &Value, kind: &str) -> Option<(String, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let one = conditions.iter().find(|one| one["type"] == kind)?;
    Some((
        one["status"].as_str()?.to_owned(),
        one["message"].as_str()?.to_owned(),
    ))
}

#[test]
fn where_another_program_has_port_179_outgoing_sessions_go_on_and_a_condition_says_so() {
    scenario(async || {
        let mut stage = Stage::start(1).await?;
        let host = stage.network.node("n1")?;
        // The network plugin's own BGP, with a mesh of its own.
        let plugin = Bgp::new(64512, host)
            .peer(Peer::at(stage.network.lan_client().v4, 64512).passive())
            .start(Software::Bird, host, stage.network.folder())
            .await?;
        let namespace = host.namespace().clone();
        eventually("the plugin's port", Deadline::SHORT, async || {
            let ports = namespace.run(&["ss", "-Hltn"]).await?;
            ensure!(ports.contains(":179 "), "{ports}");
            Ok(())
        })
        .await?;
        let daemon = router(&stage, Software::Frr, |peer| peer).await?;
        let peer = peer_spec(&stage);
        objects(&stage, &json!({"as": NODES}), &peer).await?;
        let _controller = controller(&stage, "controller", 50060, false)?;
        stage.speak("n1", &[]).await?;
        behind(&stage, &daemon, &["n1"]).await?;
        eventually("the condition", Deadline::LONG, async || {
            stage.check()?;
            let conf = object(&stage, "bgpconf", "default").await?;
            let (status, message) = condition(&conf, "Ready").context("no condition")?;
            ensure!(
                status == "False"
                    && message.contains("n1: only outgoing sessions")
                    && message.contains(":179"),
                "{message}"
            );
            let peer = object(&stage, "bgppeer", "router").await?;
            ensure!(peer["status"]["summary"] == "1/1 Established", "{peer}");
            Ok(())
        })
        .await?;
        // The port is taken over once it is free, and the condition goes.
        drop(plugin);
        eventually("the good news", Deadline::LONG, async || {
            stage.check()?;
            let conf = object(&stage, "bgpconf", "default").await?;
            let (status, message) = condition(&conf, "Ready").context("no condition")?;
            ensure!(status == "True", "{message}");
            Ok(())
        })
        .await
    });
}

#[test]
fn metrics_show_sessions_messages_prefixes_and_bfd() {
    scenario(async || {
        let mut stage = Stage::start(1).await?;
        let daemon = router(&stage, Software::Frr, |peer| peer.bfd(100)).await?;
        let mut peer = peer_spec(&stage);
        peer["bfd"] = json!({"enabled": true, "transmitInterval": 100, "receiveInterval": 100});
        objects(&stage, &json!({"as": NODES}), &peer).await?;
        stage.speak("n1", &[]).await?;
        behind(&stage, &daemon, &["n1"]).await?;
        let namespace = stage.network.node("n1")?.namespace().clone();
        let read = async || {
            namespace
                .run(&["curl", "-sS", "http://127.0.0.1:50053/metrics"])
                .await
        };
        let value = |text: &str, series: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(series));
            let line = line.with_context(|| format!("no {series} in\n{text}"))?;
            Ok(line.trim().parse()?)
        };
        eventually("the numbers of a session", Deadline::LONG, async || {
            stage.check()?;
            let text = read().await?;
            for (series, wanted) in [
                ("openelb_bgp_session_up{peer=\"router\"}", 1.0),
                (
                    "openelb_bgp_sessions_established_total{peer=\"router\"}",
                    1.0,
                ),
                ("openelb_bgp_sessions_dropped_total{peer=\"router\"}", 0.0),
                (
                    "openelb_bgp_announced_prefixes{peer=\"router\",family=\"ipv4-unicast\"}",
                    1.0,
                ),
                (
                    "openelb_bgp_messages_sent_total{peer=\"router\",type=\"open\"}",
                    1.0,
                ),
                (
                    "openelb_bgp_messages_received_total{peer=\"router\",type=\"open\"}",
                    1.0,
                ),
                (
                    "openelb_bgp_messages_sent_total{peer=\"router\",type=\"notification\"}",
                    0.0,
                ),
                ("openelb_bfd_session_up{peer=\"router\"}", 1.0),
                ("openelb_bfd_session_flaps_total{peer=\"router\"}", 0.0),
                ("openelb_bfd_detection_seconds{peer=\"router\"}", 0.3),
            ] {
                let seen = value(&text, series)?;
                ensure!((seen - wanted).abs() < 1e-9, "{series} is {seen}");
            }
            let updates = "openelb_bgp_messages_sent_total{peer=\"router\",type=\"update\"}";
            ensure!(value(&text, updates)? >= 1.0, "no UPDATE");
            ensure!(
                value(&text, "openelb_speaker_reaction_seconds_count")? >= 1.0,
                "no reaction"
            );
            for direction in ["sent", "received"] {
                let packets = format!("openelb_bfd_packets_{direction}_total{{peer=\"router\"}}");
                ensure!(
                    value(&text, &packets)? > 1.0,
                    "no BFD packet was {direction}"
                );
            }
            let config = "openelb_bgp_config_stale{kind=\"BgpPeer\",name=\"router\"}";
            ensure!(value(&text, config)? == 0.0, "the peer cannot be used");
            Ok(())
        })
        .await?;
        // Another prefix, and then the loss of the peer.
        stage.service("dns", "Cluster", "203.0.113.2").await?;
        stage.endpoints("dns", &["n1"]).await?;
        eventually("two prefixes", Deadline::LONG, async || {
            let text = read().await?;
            let prefixes =
                "openelb_bgp_announced_prefixes{peer=\"router\",family=\"ipv4-unicast\"}";
            ensure!((value(&text, prefixes)? - 2.0).abs() < 1e-9, "not yet");
            Ok(())
        })
        .await?;
        drop(daemon);
        eventually("the end of the session", Deadline::LONG, async || {
            let text = read().await?;
            let up = value(&text, "openelb_bgp_session_up{peer=\"router\"}")?;
            let dropped = value(&text, "openelb_bgp_sessions_dropped_total{peer=\"router\"}")?;
            let bfd = value(&text, "openelb_bfd_session_up{peer=\"router\"}")?;
            ensure!(
                up == 0.0 && dropped >= 1.0 && bfd == 0.0,
                "{up} {dropped} {bfd}"
            );
            Ok(())
        })
        .await
    });
}

#[test]
fn events_of_a_service_come_from_the_leader_alone() {
    scenario(async || {
        let (stage, daemon) = served(2, &json!({"as": NODES}), |peer| peer).await?;
        behind(&stage, &daemon, &["n1", "n2"]).await?;
        let controllers = [
            controller(&stage, "one", 50061, true)?,
            controller(&stage, "two", 50062, true)?,
        ];
        // Both follow everything; one leads.
        eventually("one leader and one standby", Deadline::LONG, async || {
            let mut leaders = 0;
            for (controller, port) in controllers.iter().zip([50061, 50062]) {
                controller.check()?;
                let url = format!("http://127.0.0.1:{port}/metrics");
                let output = std::process::Command::new("curl")
                    .args(["-sS", &url])
                    .output()?;
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let line = text
                    .lines()
                    .find_map(|line| line.strip_prefix("openelb_controller_leader "))
                    .with_context(|| format!("no metric of {port}: {text}"))?;
                leaders += line.trim().parse::<u32>()?;
            }
            ensure!(leaders == 1, "{leaders} leaders");
            Ok(())
        })
        .await?;
        let events = async |reason: &str| -> Result<Vec<Value>> {
            let text = stage.kubectl(&["get", "events", "-o", "json"]).await?;
            let list: Value = serde_json::from_str(&text)?;
            let items = list["items"].as_array().cloned().unwrap_or_default();
            Ok(items
                .into_iter()
                .filter(|event| {
                    event["reason"] == reason && event["involvedObject"]["name"] == "web"
                })
                .collect())
        };
        eventually(
            "the event of the announcement",
            Deadline::LONG,
            async || {
                let seen = events("SetBalancer").await?;
                let good = seen
                    .iter()
                    .any(|event| event["message"] == "success to add nexthops [n1, n2]");
                ensure!(good, "{seen:?}");
                Ok(())
            },
        )
        .await?;
        stage
            .kubectl(&[
                "patch",
                "service",
                "web",
                "-p",
                "{\"spec\":{\"type\":\"ClusterIP\"}}",
            ])
            .await?;
        eventually("the event of the withdrawal", Deadline::LONG, async || {
            let seen = events("DelBalancer").await?;
            ensure!(!seen.is_empty(), "none yet");
            Ok(())
        })
        .await?;
        behind(&stage, &daemon, &[]).await?;
        // Whatever a standby or the two speakers would have said is there by now: they saw the same changes.
        for reason in ["SetBalancer", "DelBalancer"] {
            let seen = events(reason).await?;
            let reporters: BTreeSet<String> = seen
                .iter()
                .map(|event| event["reportingComponent"].to_string())
                .collect();
            ensure!(reporters.len() == 1, "{reason} from {reporters:?}");
            // A second writer would say the same again.
            let messages: BTreeSet<String> = seen
                .iter()
                .map(|event| event["message"].to_string())
                .collect();
            let again = seen
                .iter()
                .any(|event| event["count"].as_u64() > Some(1) || !event["series"].is_null());
            ensure!(messages.len() == seen.len() && !again, "{seen:#?}");
        }
        Ok(())
    });
}
