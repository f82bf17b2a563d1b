//! What these tests stand on: an API server with our CRDs, RBAC and webhook configurations, and replicas of the webhook
//! behind one address, as a Service would put them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use openelb_api::v1alpha2::{Eip, EipSpec};
use openelb_tests::product::repository;
use openelb_tests::{ControlPlane, Deadline, Identity, Process, Program, binary, eventually, tool};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

pub(crate) const NAMESPACE: &str = "openelb-system";
pub(crate) const SECRET: &str = "openelb-admission";
pub(crate) const CONFIGURATION: &str = "openelb-admission";

/// The stage with everything on it.
pub(crate) struct Stage {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) control: ControlPlane,
    front: u16,
}

/// One replica of the webhook.
pub(crate) struct Replica {
    pub(crate) process: Process,
    pub(crate) https: SocketAddr,
    health: SocketAddr,
}

/// What kubectl did.
pub(crate) struct Said {
    pub(crate) succeeded: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Stage {
    /// An API server with CRDs, RBAC and configurations; `count` replicas, started at the same time with more
    /// arguments, all ready.
    pub(crate) async fn set(count: usize, arguments: &[&str]) -> Result<Self> {
        let control = ControlPlane::start().await?;
        let account = control
            .service_account(NAMESPACE, "openelb-webhook")
            .await?;
        for path in ["config/crd/bases", "config/rbac/webhook.yaml"] {
            let path = repository().join(path);
            let path = path.to_str().context("the repository's path is no text")?;
            control.kubectl(&["apply", "--filename", path]).await?;
        }
        control
            .kubectl(&[
                "wait",
                "--for=condition=Established",
                "crd",
                "--all",
                "--timeout=60s",
            ])
            .await?;
        let mut replicas = Vec::new();
        for number in 0..count {
            replicas.push(Replica::start(&control, &account, number, arguments)?);
        }
        let front = front(replicas.iter().map(|replica| replica.https).collect()).await?;
        let stage = Self {
            replicas,
            control,
            front,
        };
        stage.configure().await?;
        stage.ready().await?;
        Ok(stage)
    }

    /// Applies the webhook configurations, with a URL in place of the Service.
    pub(crate) async fn configure(&self) -> Result<()> {
        for name in ["validating", "mutating"] {
            let text =
                std::fs::read_to_string(repository().join(format!("config/webhook/{name}.yaml")))?;
            let mut configuration: Value = serde_saphyr::from_str(&text)?;
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

    /// The path of the product's binary.
    pub(crate) fn program() -> Result<PathBuf> {
        binary("openelb-webhook")
    }
}

impl Replica {
    fn start(
        control: &ControlPlane,
        account: &Identity,
        number: usize,
        arguments: &[&str],
    ) -> Result<Self> {
        let (https, health) = (free()?, free()?);
        let process = Program::new(&format!("webhook-{number}"), Stage::program()?)
            .args([
                "serve",
                "--bind-address=127.0.0.1",
                "--host=127.0.0.1",
                "--metrics-addr=0",
            ])
            .arg("--drain-delay=0s")
            .arg(format!("--webhook-port={}", https.port()))
            .arg(format!("--health-addr={health}"))
            .arg("--kubeconfig")
            .arg(account.kubeconfig())
            .args(arguments)
            .start(control.folder().path())?;
        Ok(Self {
            process,
            https,
            health,
        })
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self) -> Result<()> {
        eventually("a ready webhook", Deadline::SHORT, async || {
            self.process.check()?;
            let health = self.health;
            let answer = tokio::task::spawn_blocking(move || get(health, "/readyz")).await??;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            anyhow::Ok(())
        })
        .await
    }

    /// A new TLS connection with a client that trusts `authorities`; returns the certificate that it got.
    pub(crate) async fn handshake(&self, authorities: &str) -> Result<CertificateDer<'static>> {
        let mut roots = rustls::RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority?)?;
        }
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = self.https;
        tokio::task::spawn_blocking(move || {
            let mut stream = StdStream::connect_timeout(&address, Duration::from_secs(5))?;
            let name = ServerName::try_from("openelb-webhook.openelb-system.svc")?;
            let mut connection = rustls::ClientConnection::new(Arc::new(config), name)?;
            while connection.is_handshaking() {
                connection.complete_io(&mut stream)?;
            }
            let chain = connection
                .peer_certificates()
                .context("no certificate came")?;
            Ok(chain
                .first()
                .context("no certificate came")?
                .clone()
                .into_owned())
        })
        .await?
    }
}

/// A port that nobody listens on right now.
fn free() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = StdStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
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
