//! What the kubelet is told: an API server that is away is no reason to restart a process or to count it out, and what
//! makes a process useless is.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, ensure};
use openelb_tests::ipam::Bed;
use openelb_tests::webhook::{free, get};
use openelb_tests::{Deadline, Process, Program, binary, eventually, story};
use serde_json::json;

/// Starts a process with its ports here.
fn start(bed: &Bed, program: &str, port: SocketAddr, args: &[&str]) -> Result<Process> {
    Program::new(&format!("{program}-{}", port.port()), binary(program)?)
        .args(args)
        .arg(format!("--metrics-addr={port}"))
        .arg("--kubeconfig")
        .arg(bed.control.kubeconfig())
        .start(bed.control.folder().path())
}

async fn says(port: SocketAddr, path: &str, status: u16, words: &str) -> Result<String> {
    eventually(path, Deadline::SHORT, async || {
        let answer = get(port, path).await?;
        let expected = format!("HTTP/1.1 {status} ");
        ensure!(answer.starts_with(&expected), "{answer}");
        ensure!(answer.contains(words), "{answer}");
        Ok(answer)
    })
    .await
}

/// How long the watch of a kind has been interrupted, by the page of metrics.
fn stale(page: &str, kind: &str) -> Result<f64> {
    let series = format!("openelb_watch_stale_seconds{{kind=\"{kind}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&series));
    Ok(line
        .with_context(|| format!("no {series}in\n{page}"))?
        .parse()?)
}

#[test]
fn without_an_api_server_all_stay_alive_and_ready_and_say_how_old_their_knowledge_is() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker"}});
        bed.control.apply(&node).await?;
        let (controller, speaker) = (free()?, free()?);
        let (webhook, health) = (free()?, free()?);
        let https = format!("--webhook-port={}", free()?.port());
        let health_addr = format!("--health-addr={health}");
        let serve = ["serve", "--bind-address=127.0.0.1", &https, &health_addr];
        let processes = [
            start(
                &bed,
                "openelb-operator",
                controller,
                &["controller", "--identity=one"],
            )?,
            start(
                &bed,
                "openelb-operator",
                speaker,
                &["speaker", "--node-name=worker"],
            )?,
            start(&bed, "openelb-webhook", webhook, &serve)?,
        ];
        // Where each is asked for its health, and where for its metrics.
        let ports = [
            (controller, controller),
            (speaker, speaker),
            (health, webhook),
        ];
        for (health, metrics) in ports {
            says(health, "/readyz", 200, "ok").await?;
            let page = get(metrics, "/metrics").await?;
            ensure!(stale(&page, "Eip")? == 0.0, "{page}");
        }

        bed.control.api_server().kill().await;
        for (health, metrics) in ports {
            eventually("an interrupted watch", Deadline::SHORT, async || {
                let page = get(metrics, "/metrics").await?;
                ensure!(stale(&page, "Eip")? > 0.0, "{page}");
                anyhow::Ok(())
            })
            .await?;
            for path in ["/healthz", "/readyz"] {
                let answer = get(health, path).await?;
                ensure!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
            }
        }

        bed.control.api_server().restart().await?;
        bed.control.ready().await?;
        bed.eip("lan", "192.0.2.1").await?;
        for (_, metrics) in ports {
            eventually("a watch that works", Deadline::LONG, async || {
                let page = get(metrics, "/metrics").await?;
                ensure!(stale(&page, "Eip")? == 0.0, "{page}");
                anyhow::Ok(())
            })
            .await?;
        }
        for process in &processes {
            process.check()?;
        }
        Ok(())
    });
}

#[test]
fn a_speaker_that_can_neither_be_reached_nor_reach_anybody_is_not_ready_until_it_can() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let port = free()?;
        // Somebody else has the port: another BGP daemon on the node.
        let taken = TcpListener::bind("127.0.0.1:0")?;
        for object in [
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker"}}),
            json!({
                "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpConf", "metadata": {"name": "default"},
                "spec": {
                    "as": 65000, "routerId": "10.0.0.1", "listenAddresses": ["127.0.0.1"],
                    "listenPort": taken.local_addr()?.port(),
                },
            }),
        ] {
            bed.control.apply(&object).await?;
        }
        let args = ["speaker", "--node-name=worker"];
        let _speaker = start(&bed, "openelb-operator", port, &args)?;
        // Nobody is to be reached.
        says(port, "/readyz", 200, "ok").await?;

        let peer = json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": "spine"},
            "spec": {"conf": {"neighborAddress": "127.0.0.9", "peerAs": 65001}},
        });
        bed.control.apply(&peer).await?;
        says(port, "/readyz", 503, "it cannot listen on 127.0.0.1").await?;
        // A restart would not help.
        says(port, "/healthz", 200, "ok").await?;

        drop(taken);
        says(port, "/readyz", 200, "ok").await?;
        Ok(())
    });
}
