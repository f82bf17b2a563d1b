//! Guarded metrics: who may scrape is decided by the API server, with just the rights that the chart gives, and goes on
//! to be decided for a while without it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use openelb_tests::scrape::Scraper;
use openelb_tests::webhook::{Chart, free, install_crds};
use openelb_tests::{ControlPlane, Deadline, Process, Program, binary, eventually, story};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

const SECURE: &str = "monitoring.secure.enable=true";

/// A component as the chart starts it: its workload, the name of that, its program.
const COMPONENTS: [(&str, &str, &str, &str); 3] = [
    (
        "controller",
        "Deployment",
        "openelb-controller",
        "openelb-operator",
    ),
    (
        "speaker",
        "DaemonSet",
        "openelb-speaker",
        "openelb-operator",
    ),
    (
        "webhook",
        "Deployment",
        "openelb-webhook",
        "openelb-webhook",
    ),
];

/// An API server with our kinds, and the chart with guarded metrics.
struct Stage {
    control: ControlPlane,
    chart: Chart,
}

impl Stage {
    async fn set() -> Result<Self> {
        let control = ControlPlane::start().await?;
        install_crds(&control).await?;
        let chart = Chart::rendered_with(&[SECURE]).await?;
        Ok(Self { control, chart })
    }

    /// Starts a component with its own arguments and rights, and its metrics on `port`.
    async fn start(&self, component: &str, port: SocketAddr, more: &[&str]) -> Result<Process> {
        let (_, kind, name, program) = COMPONENTS
            .iter()
            .find(|(known, ..)| *known == component)
            .context("an unknown component")?;
        let account = self.chart.account(&self.control, component).await?;
        let other = [
            "--metrics-addr=",
            "--health-addr=",
            "--webhook-port=",
            "--enable-layer2=",
        ];
        let own = self.chart.arguments(kind, name)?;
        ensure!(own.iter().any(|one| one == "--metrics-secure"), "{own:?}");
        let own = own
            .into_iter()
            .filter(|one| !other.iter().any(|flag| one.starts_with(flag)));
        let mut program = Program::new(component, binary(program)?)
            .args(own)
            .args(more)
            .arg(format!("--metrics-addr={port}"))
            .arg("--kubeconfig")
            .arg(account.kubeconfig())
            .env("OPENELB_NAMESPACE", "openelb-system")
            .env("NODE_NAME", "worker");
        if component == "webhook" {
            program = program
                .arg("--bind-address=127.0.0.1")
                .arg(format!("--webhook-port={}", free()?.port()))
                .arg("--health-addr=0");
        }
        program.start(self.control.folder().path())
    }

    /// A token of a ServiceAccount.
    async fn token(&self, namespace: &str, account: &str) -> Result<String> {
        self.control.service_account(namespace, account).await?;
        let create = ["--namespace", namespace, "create", "token", account];
        Ok(self.control.kubectl(&create).await?.trim().to_owned())
    }

    /// The token of the account that the chart makes for scrapers.
    async fn scraper(&self) -> Result<String> {
        self.chart.account(&self.control, "monitoring").await?;
        self.token("openelb-system", "openelb-scraper").await
    }
}

/// Waits for the answer of this status.
async fn answers(scraper: &Scraper, token: Option<&str>, status: u16) -> Result<String> {
    eventually("the answer", Deadline::SHORT, async || {
        let answer = scraper.get("/metrics", token).await?;
        let expected = format!("HTTP/1.1 {status} ");
        ensure!(answer.starts_with(&expected), "{answer}");
        Ok(answer)
    })
    .await
}

#[test]
fn every_component_shows_its_metrics_to_who_may_and_to_nobody_else() {
    story(async || -> Result<()> {
        let stage = Stage::set().await?;
        let may = stage.scraper().await?;
        let may_not = stage.token("team", "curious").await?;
        for (component, ..) in COMPONENTS {
            let port = free()?;
            let process = stage.start(component, port, &[]).await?;
            let scraper = Scraper::careless(port)?;
            let page = answers(&scraper, Some(&may), 200).await;
            let page = page.with_context(|| format!("{component}: {}", process.log()))?;
            ensure!(page.contains("openelb_build_info{"), "{component}: {page}");

            let none = scraper.get("/metrics", None).await?;
            ensure!(none.starts_with("HTTP/1.1 401 "), "{component}: {none}");
            let head = none.to_lowercase();
            ensure!(
                head.contains("www-authenticate: bearer"),
                "{component}: {none}"
            );
            let bad = scraper.get("/metrics", Some("made-up")).await?;
            ensure!(bad.starts_with("HTTP/1.1 401 "), "{component}: {bad}");
            let other = scraper.get("/metrics", Some(&may_not)).await?;
            ensure!(other.starts_with("HTTP/1.1 403 "), "{component}: {other}");
            let user = "system:serviceaccount:team:curious";
            ensure!(other.contains(user), "{component}: {other}");
            // The kubelet has no token.
            if component != "webhook" {
                let health = scraper.get("/healthz", None).await?;
                ensure!(health.starts_with("HTTP/1.1 200 "), "{component}: {health}");
            }
            let log = process.log();
            ensure!(!log.contains(&may) && !log.contains(&may_not), "{log}");
        }
        Ok(())
    });
}

#[test]
fn without_the_api_server_who_was_let_in_is_let_in_and_who_is_new_is_told_why_not() {
    story(async || -> Result<()> {
        let stage = Stage::set().await?;
        let (may, later) = (stage.scraper().await?, stage.token("team", "later").await?);
        let port = free()?;
        let _controller = stage.start("controller", port, &[]).await?;
        let scraper = Scraper::careless(port)?;
        answers(&scraper, Some(&may), 200).await?;

        // Gone: nobody answers on its port. Hung: it takes connections and says nothing.
        let server = stage.control.api_server();
        server.pause();
        let known = scraper.get("/metrics", Some(&may)).await?;
        ensure!(known.starts_with("HTTP/1.1 200 "), "{known}");
        let new = scraper.get("/metrics", Some(&later)).await?;
        ensure!(new.starts_with("HTTP/1.1 503 "), "{new}");
        ensure!(new.contains("the API server cannot be asked"), "{new}");
        server.resume();
        server.kill().await;
        let known = scraper.get("/metrics", Some(&may)).await?;
        ensure!(known.starts_with("HTTP/1.1 200 "), "{known}");
        let new = scraper.get("/metrics", Some(&later)).await?;
        ensure!(new.starts_with("HTTP/1.1 503 "), "{new}");

        // What could not be answered is not remembered.
        server.restart().await?;
        stage.control.ready().await?;
        answers(&scraper, Some(&later), 403).await.map(drop)
    });
}

/// Writes a certificate that signs itself as a mounted Secret has it, and returns it.
fn certify(directory: &Path, name: &str) -> Result<String> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![name.to_owned()])?.self_signed(&key)?;
    // The key first: a look in between finds a pair that does not belong together, and keeps the one before.
    std::fs::write(directory.join("tls.key"), key.serialize_pem())?;
    std::fs::write(directory.join("tls.crt"), certificate.pem())?;
    Ok(certificate.pem())
}

#[test]
fn a_mounted_certificate_can_be_verified_and_is_read_again() {
    story(async || -> Result<()> {
        let stage = Stage::set().await?;
        let may = stage.scraper().await?;
        let directory = tempfile::tempdir()?;
        let port = free()?;
        let argument = format!("--metrics-cert-dir={}", directory.path().display());
        let without = stage.start("controller", port, &[&argument]).await?;
        ensure!(!without.ended(Deadline::SHORT).await?.success());
        let log = without.log();
        ensure!(log.contains("tls.crt"), "{log}");

        let first = certify(directory.path(), "metrics.example")?;
        let _controller = stage.start("controller", port, &[&argument]).await?;
        let trusting = |authority| Scraper::trusting(port, authority, "metrics.example");
        answers(&trusting(&first)?, Some(&may), 200).await?;
        let second = certify(directory.path(), "metrics.example")?;
        let page = answers(&trusting(&second)?, Some(&may), 200).await?;
        ensure!(page.contains("openelb_controller_leader"), "{page}");
        ensure!(trusting(&first)?.get("/metrics", Some(&may)).await.is_err());
        Ok(())
    });
}

#[tokio::test]
async fn monitors_and_probes_follow_the_guard() -> Result<()> {
    let monitored = [
        SECURE,
        "monitoring.secure.certificateSecret=metrics",
        "controller.monitorEnable=true",
        "speaker.monitorEnable=true",
        "webhook.monitorEnable=true",
    ];
    let chart = openelb_tests::product::render(&monitored).await?;
    let mut monitors = 0;
    for object in &chart {
        let endpoint = ["endpoints", "podMetricsEndpoints"]
            .iter()
            .find_map(|field| object.pointer(&format!("/spec/{field}/0")));
        if let Some(endpoint) = endpoint {
            monitors += 1;
            ensure!(endpoint["scheme"] == "https", "{endpoint}");
            let from = json!({"name": "openelb-scraper", "key": "token"});
            ensure!(
                endpoint["authorization"]["credentials"] == from,
                "{endpoint}"
            );
        }
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let path = format!("/spec/template/spec/containers/0/{probe}/httpGet");
            if let Some(get) = object.pointer(&path) {
                let guarded = get["port"] == "metrics";
                ensure!((get["scheme"] == "HTTPS") == guarded, "{object}");
            }
        }
        if let Some(spec) = object.pointer("/spec/template/spec")
            && spec.to_string().contains("--metrics-secure")
        {
            let mounted = &spec["containers"][0]["volumeMounts"];
            ensure!(
                mounted.to_string().contains("/metrics-certificate"),
                "{spec}"
            );
            let volumes = spec["volumes"].to_string();
            ensure!(volumes.contains("\"secretName\":\"metrics\""), "{spec}");
        }
    }
    ensure!(monitors == 3, "{monitors} monitors");
    Ok(())
}
