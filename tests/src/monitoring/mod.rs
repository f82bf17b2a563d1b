//! All our processes with a router, watched by a real Prometheus: what the dashboard's queries find in a run.

mod dashboard;
mod picture;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};

pub use dashboard::{Panel, Target, panels};
pub use picture::{Drawn, Series, draw};

use crate::ipam::Bed;
use crate::process::{Process, Program};
use crate::product::NAMESPACE;
use crate::tools::{binary, tool};
use crate::webhook::{Chart, Client, Replica, free, get};

/// A controller, a speaker with BGP, BFD and layer 2, a webhook, a router, and a Prometheus that scrapes every second.
pub struct Monitored {
    /// The API server with our kinds.
    pub bed: Bed,
    /// Its session with the speaker comes and goes with it.
    pub router: Process,
    webhook: Replica,
    client: Client,
    prometheus: SocketAddr,
    _processes: [Process; 3],
}

impl Monitored {
    /// Starts them all.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start() -> Result<Self> {
        let bed = Bed::start().await?;
        let (controller, speaker, page) = (free()?, free()?, free()?);
        let (bgp, gossip) = (free()?.port(), free()?.port());
        for object in [
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker"}}),
            json!({
                "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpConf", "metadata": {"name": "default"},
                "spec": {"as": 65000, "routerId": "10.0.0.1", "listenPort": bgp, "listenAddresses": ["127.0.0.1"]},
            }),
            json!({
                "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": "spine"},
                "spec": {"conf": {"neighborAddress": "127.0.0.9", "peerAs": 65001}, "bfd": {"enabled": true}},
            }),
        ] {
            bed.control.apply(&object).await?;
        }
        let router = router(&bed)?;
        let gossip = format!("--bind-port={gossip}");
        let speaker_args = [
            "speaker",
            "--node-name=worker",
            "--enable-layer2",
            "--bind-addr=127.0.0.1",
            &gossip,
            "--secret=0123456789abcdef0123456789abcdef",
        ];
        let controller_args = ["controller", "--identity=one"];
        let controller_process = operator(&bed, "controller", controller, &controller_args)?;
        let speaker_process = operator(&bed, "speaker", speaker, &speaker_args)?;
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
        let client = webhook.client(&String::from_utf8(trust.0)?).await?;
        let prometheus_process = prometheus(&bed, page, &[controller, speaker, webhook.metrics])?;
        Ok(Self {
            bed,
            router,
            webhook,
            client,
            prometheus: page,
            _processes: [controller_process, speaker_process, prometheus_process],
        })
    }

    /// Has the webhook review an Eip with these addresses.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn review(&mut self, address: &str) -> Result<()> {
        self.webhook.process.check()?;
        let review = json!({
            "uid": "u", "operation": "CREATE", "userInfo": {"username": "me"},
            "kind": {"group": "network.kubesphere.io", "version": "v1alpha2", "kind": "Eip"},
            "object": {"metadata": {"name": "new"}, "spec": {"address": address}},
        });
        self.client
            .ask("/validate-network-kubesphere-io-v1alpha2-eip", &review)
            .await
            .map(drop)
    }

    /// What Prometheus finds by a query now.
    ///
    /// # Errors
    /// It does not answer, or cannot read the query.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", encoded(query)?);
        self.ask(&path).await.with_context(|| query.to_owned())
    }

    /// What it found by a query between two times, one value each second.
    ///
    /// # Errors
    /// As [`Monitored::query`].
    pub async fn query_range(
        &self,
        query: &str,
        (from, until): (SystemTime, SystemTime),
    ) -> Result<Vec<Value>> {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.map(|since| since.as_secs_f64())
        };
        let (from, until) = (seconds(from)?, seconds(until)?);
        let query_text = encoded(query)?;
        let path =
            format!("/api/v1/query_range?query={query_text}&start={from}&end={until}&step=1");
        self.ask(&path).await.with_context(|| query.to_owned())
    }

    async fn ask(&self, path: &str) -> Result<Vec<Value>> {
        let answer = get(self.prometheus, path).await?;
        let mut answer: Value = serde_json::from_str(&body(&answer)?)?;
        ensure!(
            answer.get("status") == Some(&json!("success")),
            "Prometheus says {answer}"
        );
        let result = answer.pointer_mut("/data/result").map(Value::take);
        Ok(serde_json::from_value(result.context("no result")?)?)
    }
}

/// The body of an HTTP answer, which may come in chunks.
fn body(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return Ok(body.to_owned());
    }
    let mut rest = body;
    let mut whole = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").context("a broken chunk")?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(whole);
        }
        whole += after.get(..size).context("a short chunk")?;
        rest = after.get(size + 2..).context("a short chunk")?;
    }
}

fn encoded(query: &str) -> Result<String> {
    let mut text = String::new();
    for byte in query.bytes() {
        write!(text, "%{byte:02X}")?;
    }
    Ok(text)
}

fn operator(bed: &Bed, name: &str, port: SocketAddr, args: &[&str]) -> Result<Process> {
    Program::new(name, binary("openelb-operator")?)
        .args(args)
        .arg(format!("--metrics-addr={port}"))
        .arg("--kubeconfig")
        .arg(bed.control.kubeconfig())
        .start(bed.control.folder().path())
}

fn prometheus(bed: &Bed, port: SocketAddr, targets: &[SocketAddr]) -> Result<Process> {
    let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
    let names = ["controller", "worker", "webhook"];
    // JSON is YAML.
    let scrapes: Vec<Value> = targets
        .iter()
        .zip(names)
        .map(|(target, name)| json!({"targets": [target], "labels": {"instance": name}}))
        .collect();
    let config = json!({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "openelb", "static_configs": scrapes}],
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

#[cfg(test)]
mod tests {
    use super::body;

    #[test]
    fn a_body_in_chunks_is_put_together() {
        let whole = "HTTP/1.1 200 OK\r\n\r\n{\"a\":1}";
        assert_eq!(body(whole).unwrap(), "{\"a\":1}");
        let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n3\r\n:1}\r\n0\r\n\r\n";
        assert_eq!(body(chunks).unwrap(), "{\"a\":1}");
    }
}
