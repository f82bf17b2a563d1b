//! What a process says about itself while it works: metrics, and on this machine only its state and its log.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use openelb_tests::ipam::{Asks, Bed, service};
use openelb_tests::webhook::{free, get};
use openelb_tests::{Deadline, Process, Program, binary, eventually, story};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Starts a process of the operator with its port for metrics here.
fn start(bed: &Bed, port: SocketAddr, args: &[&str]) -> Result<Process> {
    Program::new("operator", binary("openelb-operator")?)
        .args(args)
        .arg(format!("--metrics-addr={port}"))
        .arg("--kubeconfig")
        .arg(bed.control.kubeconfig())
        .start(bed.control.folder().path())
}

/// Waits until the page has a line that begins so, for each of these.
async fn shows(port: SocketAddr, lines: &[&str]) -> Result<()> {
    eventually("the metrics", Deadline::SHORT, async || {
        let page = get(port, "/metrics").await?;
        for line in lines {
            let found = page.lines().any(|found| found.starts_with(line));
            ensure!(found, "{line} is not in\n{page}");
        }
        anyhow::Ok(())
    })
    .await
}

async fn put(port: SocketAddr, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(port).await?;
    let request = format!(
        "PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn state(port: SocketAddr) -> Result<Value> {
    let answer = get(port, "/debug/state").await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(serde_json::from_str(body)?)
}

#[test]
fn the_controllers_metrics_follow_pools_and_services() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let port = free()?;
        let _controller = start(&bed, port, &["controller", "--identity=one"])?;
        bed.eip("lan", "192.0.2.1,2001:db8::/112").await?;
        bed.eip("full", "198.51.100.1").await?;
        bed.create(&service("web").eip("lan")).await?;
        bed.create(&service("first").eip("full")).await?;
        bed.shows("web", &["192.0.2.1"]).await?;
        bed.shows("first", &["198.51.100.1"]).await?;
        bed.create(&service("late").eip("full")).await?;
        shows(
            port,
            &[
                "openelb_build_info{version=",
                "openelb_controller_leader 1",
                "openelb_controller_leader_changes_total 1",
                "openelb_eip_addresses{eip=\"lan\",family=\"ipv4\"} 1",
                "openelb_eip_addresses{eip=\"lan\",family=\"ipv6\"} 65536",
                "openelb_eip_addresses_in_use{eip=\"lan\",family=\"ipv4\"} 1",
                "openelb_eip_addresses_in_use{eip=\"lan\",family=\"ipv6\"} 0",
                "openelb_eip_addresses_in_use{eip=\"full\",family=\"ipv4\"} 1",
                "openelb_eip_exhausted{eip=\"full\"} 1",
                "openelb_eip_exhausted{eip=\"lan\"} 0",
                "openelb_controller_services_allocated 2",
                "openelb_controller_services_waiting 1",
                "openelb_controller_allocation_seconds_count 2",
                "openelb_controller_refusals_total{reason=",
            ],
        )
        .await?;
        bed.delete("first").await?;
        bed.delete("late").await?;
        let lines = [
            "openelb_eip_addresses_in_use{eip=\"full\",family=\"ipv4\"} 0",
            "openelb_eip_exhausted{eip=\"full\"} 0",
            "openelb_controller_services_allocated 1",
            "openelb_controller_services_waiting 0",
        ];
        shows(port, &lines).await
    });
}

/// Asks for what is for this machine only by an address that others could come from, which is returned; nothing where
/// this machine has none.
async fn refuses_others(port: SocketAddr) -> Result<Option<SocketAddr>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    if socket.connect("192.0.2.1:9").is_err() {
        return Ok(None);
    }
    let elsewhere = SocketAddr::new(socket.local_addr()?.ip(), port.port());
    for path in ["/debug/state", "/debug/log"] {
        let answer = get(elsewhere, path).await?;
        ensure!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    Ok(Some(elsewhere))
}

#[test]
fn a_process_tells_its_state_and_changes_its_log_for_this_machine_only() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let port = SocketAddr::from(([0, 0, 0, 0], free()?.port()));
        let here = SocketAddr::from(([127, 0, 0, 1], port.port()));
        let args = ["controller", "--identity=one", "--log=warn"];
        let controller = start(&bed, port, &args)?;
        bed.eip("lan", "192.0.2.1").await?;
        bed.create(&service("web").eip("lan")).await?;
        bed.shows("web", &["192.0.2.1"]).await?;
        let told = eventually("the state", Deadline::SHORT, async || {
            let told = state(here).await?;
            ensure!(told["controller"]["services"]["allocated"] == 1, "{told}");
            anyhow::Ok(told)
        })
        .await?;
        ensure!(told["controller"]["leader"] == true, "{told}");
        let gates = told["ready"].as_object().context("no gates")?;
        ensure!(
            !gates.is_empty() && gates.values().all(|open| *open == true),
            "{told}"
        );

        ensure!(get(here, "/debug/log").await?.ends_with("warn\n"));
        let bad = put(here, "/debug/log", "openelb=loudly").await?;
        ensure!(bad.starts_with("HTTP/1.1 400"), "{bad}");
        let log = controller.log();
        ensure!(!log.contains("INFO"), "{log}");
        let good = put(here, "/debug/log", "warn,openelb_operator=info").await?;
        ensure!(good.starts_with("HTTP/1.1 200"), "{good}");
        let told = get(here, "/debug/log").await?;
        ensure!(told.ends_with("openelb_operator=info\n"), "{told}");
        bed.create(&service("late").eip("nowhere")).await?;
        eventually("a line of the new level", Deadline::SHORT, async || {
            let log = controller.log();
            ensure!(log.contains("service=default/late"), "{log}");
            ensure!(!log.contains("default/web"), "{log}");
            ensure!(!log.contains("\u{1b}["), "colours in a file");
            anyhow::Ok(())
        })
        .await?;

        if let Some(elsewhere) = refuses_others(port).await? {
            ensure!(
                get(elsewhere, "/metrics")
                    .await?
                    .starts_with("HTTP/1.1 200")
            );
        }
        Ok(())
    });
}

#[test]
fn a_webhook_tells_its_state_and_changes_its_log_for_this_machine_only() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let port = SocketAddr::from(([0, 0, 0, 0], free()?.port()));
        let here = SocketAddr::from(([127, 0, 0, 1], port.port()));
        bed.eip("lan", "192.0.2.1").await?;
        let webhook = Program::new("webhook", binary("openelb-webhook")?)
            .args(["serve", "--bind-address=127.0.0.1", "--health-addr=0"])
            .arg(format!("--webhook-port={}", free()?.port()))
            .arg(format!("--metrics-addr={port}"))
            .arg("--log=warn")
            .arg("--kubeconfig")
            .arg(bed.control.kubeconfig())
            .start(bed.control.folder().path())?;
        let told = eventually("the state", Deadline::SHORT, async || {
            let told = state(here).await?;
            ensure!(told["webhook"]["loaded"] == true, "{told}");
            ensure!(
                told["webhook"]["certificate"]["notAfter"].is_string(),
                "{told}"
            );
            anyhow::Ok(told)
        })
        .await?;
        ensure!(told["webhook"]["objects"].as_u64() >= Some(1), "{told}");
        ensure!(told["ready"]["certificate"] == true, "{told}");
        ensure!(!told.to_string().contains("PRIVATE KEY"), "{told}");

        let log = webhook.log();
        ensure!(!log.contains("INFO"), "{log}");
        let good = put(here, "/debug/log", "info").await?;
        ensure!(good.starts_with("HTTP/1.1 200"), "{good}");
        ensure!(get(here, "/debug/log").await?.ends_with("info\n"));
        let log = webhook.log();
        ensure!(log.contains("what is logged was changed"), "{log}");

        refuses_others(port).await.map(drop)
    });
}

#[test]
fn a_speakers_state_names_its_sessions_and_no_secret() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let port = free()?;
        let bgp = free()?.port();
        let args = [
            "speaker",
            "--node-name=worker",
            "--kube-proxy=off",
            "--log=trace,hyper=info,tower=info,h2=info,rustls=info",
        ];
        for object in [
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker"}}),
            json!({
                "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpConf", "metadata": {"name": "default"},
                "spec": {"as": 65000, "routerId": "10.0.0.1", "listenPort": bgp, "listenAddresses": ["127.0.0.1"]},
            }),
            json!({
                "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": "spine"},
                "spec": {
                    "conf": {"neighborAddress": "127.0.0.9", "peerAs": 65001, "authPassword": "hush-hush-hush"},
                    "bfd": {"enabled": true},
                },
            }),
        ] {
            bed.control.apply(&object).await?;
        }
        let speaker = start(&bed, port, &args)?;
        let told = eventually("the session", Deadline::SHORT, async || {
            let told = state(port).await?;
            ensure!(told["bgp"]["peers"]["spine"]["state"].is_string(), "{told}");
            anyhow::Ok(told)
        })
        .await?;
        ensure!(!told.to_string().contains("hush-hush"), "{told}");
        shows(port, &["openelb_bgp_session_up{peer=\"spine\"} 0"]).await?;
        let log = speaker.log();
        ensure!(!log.contains("hush-hush"), "{log}");
        Ok(())
    });
}
