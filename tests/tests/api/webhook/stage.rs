//! What these tests stand on: an API server with our CRDs, RBAC and webhook configurations, and replicas of the webhook
//! behind one address, as a Service would put them.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use openelb_api::v1alpha2::{Eip, EipSpec};
use openelb_tests::product::NAMESPACE;
use openelb_tests::webhook::{Chart, Replica, install_crds};
use openelb_tests::{ControlPlane, Deadline, Identity, Program, eventually, tool};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

pub(crate) const SECRET: &str = "openelb-admission";
pub(crate) const CONFIGURATION: &str = "openelb-admission";
/// The kinds of the chart's webhook configurations.
pub(crate) const KINDS: [&str; 2] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
];

/// The stage with everything on it.
pub(crate) struct Stage {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) control: ControlPlane,
    pub(crate) chart: Chart,
    front: u16,
}

/// What kubectl did.
pub(crate) struct Said {
    pub(crate) succeeded: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Stage {
    /// An API server with CRDs, rights and configurations as the chart has them; `count` replicas, started at the same
    /// time with more arguments, all ready.
    pub(crate) async fn set(count: usize, arguments: &[&str]) -> Result<Self> {
        let stage = Self::prepare(count, arguments).await?;
        stage.configure().await?;
        stage.ready().await?;
        Ok(stage)
    }

    /// The same without configurations, and without waiting for anything.
    pub(crate) async fn prepare(count: usize, arguments: &[&str]) -> Result<Self> {
        let control = ControlPlane::start().await?;
        Self::prepare_on(control, count, arguments, |_, program| program).await
    }

    /// The same on an API server that is there, with programs that are changed before they run, by the replica's number.
    pub(crate) async fn prepare_on(
        control: ControlPlane,
        count: usize,
        arguments: &[&str],
        changed: impl Fn(usize, Program) -> Program,
    ) -> Result<Self> {
        let chart = Chart::rendered().await?;
        install_crds(&control).await?;
        let account = chart.account(&control, "webhook").await?;
        let mut arguments = arguments.to_vec();
        if !arguments.iter().any(|one| one.starts_with("--drain-delay")) {
            arguments.push("--drain-delay=0s");
        }
        let mut replicas = Vec::new();
        for number in 0..count {
            let name = format!("webhook-{number}");
            let changed = |program| changed(number, program);
            replicas.push(Replica::start_as(
                &control, &chart, &account, &name, &arguments, changed,
            )?);
        }
        let front = front(replicas.iter().map(|replica| replica.https).collect()).await?;
        Ok(Self {
            replicas,
            control,
            chart,
            front,
        })
    }

    /// Applies the chart's webhook configurations, with a URL in place of the Service.
    pub(crate) async fn configure(&self) -> Result<()> {
        for kind in KINDS {
            let mut configuration = self.chart.object(kind, CONFIGURATION)?.clone();
            let webhooks = configuration["webhooks"]
                .as_array_mut()
                .context("no webhooks")?;
            for webhook in webhooks {
                let path = webhook["clientConfig"]["service"]["path"]
                    .as_str()
                    .context("no path")?;
                let url = format!("https://127.0.0.1:{}{path}", self.front);
                webhook["clientConfig"] = serde_json::json!({ "url": url });
            }
            let said = self.apply(&configuration, &[]).await?;
            ensure!(said.succeeded, "{}", said.err);
        }
        Ok(())
    }

    /// Waits until every replica is ready and the API server asks them.
    pub(crate) async fn ready(&self) -> Result<()> {
        for replica in &self.replicas {
            replica.ready().await?;
        }
        eventually("a review", Deadline::SHORT, async || self.review().await).await
    }

    /// One review by way of the API server: fails unless the webhook refuses what it must refuse and takes what it
    /// must take.
    pub(crate) async fn review(&self) -> Result<()> {
        let eips: Api<Eip> = Api::all(self.control.client());
        let dry = kube::api::PostParams {
            dry_run: true,
            ..Default::default()
        };
        let eip = |address: &str| {
            Eip::new(
                "probe",
                EipSpec {
                    address: address.into(),
                    ..EipSpec::default()
                },
            )
        };
        eips.create(&dry, &eip("198.18.0.0/15")).await?;
        let refused = eips.create(&dry, &eip("198.18.0.9-198.18.0.1")).await;
        let message = refused
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        ensure!(
            message.contains("validate.eip.network.kubesphere.io"),
            "not refused: {message}"
        );
        Ok(())
    }

    /// Runs kubectl as the administrator with `object` on its standard input.
    pub(crate) async fn apply(&self, object: &Value, arguments: &[&str]) -> Result<Said> {
        let file = self.control.folder().write(
            format!("object-{:016x}.json", rand::random::<u64>()),
            object.to_string(),
        )?;
        let file = file.to_str().context("a path is no text")?.to_owned();
        let mut all = vec!["apply", "--filename", &file];
        all.extend(arguments);
        self.kubectl(self.control.admin(), &all).await
    }

    /// Runs kubectl and returns all that it said.
    pub(crate) async fn kubectl(&self, who: &Identity, arguments: &[&str]) -> Result<Said> {
        let output = Command::new(tool("kubectl")?)
            .arg("--kubeconfig")
            .arg(who.kubeconfig())
            .args(arguments)
            .env("KUBECTL_KUBERC", "false")
            .kill_on_drop(true)
            .output()
            .await?;
        Ok(Said {
            succeeded: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Of each webhook of a kind of configuration: its name, CA bundle (PEM) and failure policy.
    pub(crate) async fn webhooks(&self, kind: &str) -> Result<Vec<(String, String, String)>> {
        let text = self
            .control
            .kubectl(&["get", kind, CONFIGURATION, "--output=json"])
            .await?;
        let object: Value = serde_json::from_str(&text)?;
        let webhooks = object["webhooks"].as_array().context("no webhooks")?;
        webhooks
            .iter()
            .map(|webhook| {
                let bundle = webhook["clientConfig"]["caBundle"].clone();
                let bundle: Option<ByteString> = serde_json::from_value(bundle)?;
                Ok((
                    webhook["name"].as_str().unwrap_or_default().to_owned(),
                    String::from_utf8(bundle.unwrap_or_default().0)?,
                    webhook["failurePolicy"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                ))
            })
            .collect()
    }

    /// Whether somebody has a right, in our namespace.
    pub(crate) async fn may(&self, who: &Identity, verb: &str, what: &str) -> Result<bool> {
        let ask = ["auth", "can-i", verb, what, "--namespace", NAMESPACE];
        let said = self.kubectl(who, &ask).await?;
        match said.out.trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => anyhow::bail!("{verb} {what}: {}{}", said.out, said.err),
        }
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.control.client(), NAMESPACE)
    }

    pub(crate) fn configurations(&self) -> Api<ValidatingWebhookConfiguration> {
        Api::all(self.control.client())
    }

    /// A key of the certificate Secret.
    pub(crate) async fn secret(&self, key: &str) -> Result<String> {
        let secret = self.secrets().get(SECRET).await?;
        let ByteString(bytes) = secret
            .data
            .and_then(|mut data| data.remove(key))
            .with_context(|| format!("the Secret has no {key}"))?;
        Ok(String::from_utf8(bytes)?)
    }

    /// The CA bundle of the first validating webhook, in PEM.
    pub(crate) async fn ca_bundle(&self) -> Result<String> {
        let configuration = self.configurations().get(CONFIGURATION).await?;
        let ByteString(bytes) = configuration
            .webhooks
            .and_then(|webhooks| webhooks.into_iter().next())
            .and_then(|webhook| webhook.client_config.ca_bundle)
            .context("there is no CA bundle")?;
        Ok(String::from_utf8(bytes)?)
    }
}

/// Passes connections on to the backends in turn, past those that refuse, as a Service does.
async fn front(backends: Vec<SocketAddr>) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        let mut turn = 0_usize;
        while let Ok((mut client, _)) = listener.accept().await {
            turn = turn.wrapping_add(1);
            let backends = backends.clone();
            tokio::spawn(async move {
                for backend in backends
                    .iter()
                    .cycle()
                    .skip(turn % backends.len())
                    .take(backends.len())
                {
                    if let Ok(mut server) = TcpStream::connect(backend).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                        return;
                    }
                }
            });
        }
    });
    Ok(port)
}
