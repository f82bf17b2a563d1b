//! What the chart brings for Prometheus and Grafana, judged by the real Prometheus: the alerts by its own test tool, the
//! dashboard's queries by what they find in a run of all our processes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use openelb_tests::ipam::{Asks, Bed, service};
use openelb_tests::product::{NAMESPACE, repository};
use openelb_tests::webhook::{Chart, Replica, free, get};
use openelb_tests::{Deadline, Process, Program, binary, eventually, story, tool};
use serde_json::{Value, json};

fn promtool(args: &[&str]) -> Result<()> {
    let output = Command::new("promtool")
        .args(args)
        .current_dir(repository())
        .output()
        .context("promtool is in the Debian package prometheus (hack/tools/apt cluster)")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{error}");
    Ok(())
}

#[test]
fn every_alert_fires_where_it_must_and_only_there() -> Result<()> {
    promtool(&[
        "check",
        "rules",
        "charts/openelb/files/monitoring/rules.yaml",
    ])?;
    promtool(&["test", "rules", "tests/fixtures/monitoring/rules_test.yaml"])?;
    // Each alert has both tests.
    let rules =
        std::fs::read_to_string(repository().join("charts/openelb/files/monitoring/rules.yaml"))?;
    let tests =
        std::fs::read_to_string(repository().join("tests/fixtures/monitoring/rules_test.yaml"))?;
    for line in rules.lines() {
        if let Some(alert) = line.trim().strip_prefix("- alert: ") {
            let tested = tests.matches(&format!("alertname: {alert}")).count();
            ensure!(tested >= 2, "{alert} is tested {tested} times");
        }
    }
    Ok(())
}

/// The queries of the dashboard, with an interval in place of Grafana's variable.
fn queries() -> Result<Vec<String>> {
    let path = repository().join("charts/openelb/files/monitoring/dashboard.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let panels = dashboard.get("panels").and_then(Value::as_array);
    let panels = panels.context("no panels")?;
    let targets = panels.iter().flat_map(|panel| {
        panel
            .get("targets")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    });
    let queries: Vec<String> = targets
        .filter_map(|target| target.get("expr").and_then(Value::as_str))
        .map(|query| query.replace("$__rate_interval", "30s"))
        .collect();
    ensure!(queries.len() > 20, "only {} queries", queries.len());
    Ok(queries)
}

fn operator(bed: &Bed, name: &str, port: SocketAddr, args: &[&str]) -> Result<Process> {
    Program::new(name, binary("openelb-operator")?)
        .args(args)
        .arg(format!("--metrics-addr={port}"))
        .arg("--kubeconfig")
        .arg(bed.control.kubeconfig())
        .start(bed.control.folder().path())
}

async fn apply(bed: &Bed, object: Value) -> Result<()> {
    let file = bed
        .control
        .folder()
        .write("object.json", object.to_string())?;
    let file = file.to_str().context("a path is no text")?;
    bed.control.kubectl(&["apply", "-f", file]).await.map(drop)
}

fn prometheus(bed: &Bed, port: SocketAddr, targets: &[SocketAddr]) -> Result<Process> {
    let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
    // JSON is YAML.
    let config = json!({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "openelb", "static_configs": [{"targets": targets}]}],
    });
    let folder = bed.control.folder();
    let config = folder.write("prometheus.yml", config.to_string())?;
    let data = folder.path().join("prometheus");
    Program::new("prometheus", "/usr/bin/prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address={port}"))
        .start(folder.path())
}

/// A router for the speaker: of routes that were told to nobody there is nothing to show.
fn router(bed: &Bed) -> Result<Process> {
    let config = json!({
        "global": {"config": {
            "as": 65001, "router-id": "10.0.0.9", "port": 179, "local-address-list": ["127.0.0.9"],
        }},
        "neighbors": [{
            "config": {"neighbor-address": "127.0.0.1", "peer-as": 65000},
            "transport": {"config": {"passive-mode": true}},
        }],
    });
    let folder = bed.control.folder();
    let config = folder.write("gobgpd.json", config.to_string())?;
    Program::new("gobgpd", tool("gobgpd")?)
        .args(["--config-type", "json", "--config-file"])
        .arg(config)
        .args(["--pprof-disable", "--api-hosts"])
        .arg(free()?.to_string())
        .start(folder.path())
}

async fn query(port: SocketAddr, query: &str) -> Result<Value> {
    let mut encoded = String::new();
    for byte in query.bytes() {
        write!(encoded, "%{byte:02X}")?;
    }
    let answer = get(port, &format!("/api/v1/query?query={encoded}")).await?;
    // The body may come in chunks: from the first brace to the last.
    let body = answer
        .split_once('{')
        .zip(answer.rsplit_once('}'))
        .map(|((head, _), (rest, _))| &answer[head.len()..=rest.len()]);
    Ok(serde_json::from_str(body.context("no answer")?)?)
}

#[test]
fn no_query_of_the_dashboard_comes_back_empty() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let (controller, speaker, page) = (free()?, free()?, free()?);
        let (bgp, gossip) = (free()?.port(), free()?.port());
        apply(
            &bed,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker"}}),
        )
        .await?;
        apply(&bed, json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpConf", "metadata": {"name": "default"},
            "spec": {"as": 65000, "routerId": "10.0.0.1", "listenPort": bgp, "listenAddresses": ["127.0.0.1"]},
        })).await?;
        apply(&bed, json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": "spine"},
            "spec": {"conf": {"neighborAddress": "127.0.0.9", "peerAs": 65001}, "bfd": {"enabled": true}},
        })).await?;
        let _router = router(&bed)?;
        let _controller = operator(
            &bed,
            "controller",
            controller,
            &["controller", "--identity=one"],
        )?;
        let gossip = format!("--bind-port={gossip}");
        let _speaker = operator(
            &bed,
            "speaker",
            speaker,
            &[
                "speaker",
                "--node-name=worker",
                "--enable-layer2",
                "--bind-addr=127.0.0.1",
                &gossip,
                "--secret=0123456789abcdef0123456789abcdef",
            ],
        )?;
        let chart = Chart::rendered().await?;
        let account = chart.account(&bed.control, "webhook").await?;
        let webhook = Replica::start(
            &bed.control,
            &chart,
            &account,
            "webhook",
            &["--drain-delay=0s"],
        )?;
        webhook.ready().await?;
        let secret = Api::<Secret>::namespaced(bed.client(), NAMESPACE)
            .get("openelb-admission")
            .await?;
        let trust = secret
            .data
            .unwrap_or_default()
            .remove("ca.crt")
            .context("no authority")?;
        let mut client = webhook.client(&String::from_utf8(trust.0)?).await?;
        let _prometheus = prometheus(&bed, page, &[controller, speaker, webhook.metrics])?;
        bed.eip("lan", "192.0.2.1").await?;
        bed.create(&service("web").eip("lan")).await?;
        bed.shows("web", &["192.0.2.1"]).await?;
        bed.create(&service("late").eip("lan")).await?;
        let review = json!({
            "uid": "u", "operation": "CREATE", "userInfo": {"username": "me"},
            "kind": {"group": "network.kubesphere.io", "version": "v1alpha2", "kind": "Eip"},
            "object": {"metadata": {"name": "new"}, "spec": {"address": "10.0.0.1"}},
        });
        client
            .ask("/validate-network-kubesphere-io-v1alpha2-eip", &review)
            .await?;
        let queries = queries()?;
        eventually("an answer to every query", Deadline::LONG, async || {
            let mut empty = Vec::new();
            for text in &queries {
                let answer = query(page, text).await?;
                ensure!(answer["status"] == "success", "{text}: {answer}");
                if answer["data"]["result"]
                    .as_array()
                    .is_none_or(Vec::is_empty)
                {
                    empty.push(text.clone());
                }
            }
            ensure!(empty.is_empty(), "nothing for\n{}", empty.join("\n"));
            anyhow::Ok(())
        })
        .await
    });
}
