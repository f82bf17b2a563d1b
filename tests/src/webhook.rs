//! The admission webhook as the chart installs it, before a level 1 API server: its arguments, its rights and its
//! configurations are those that helm renders; only ports and addresses are this machine's.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::product::{NAMESPACE, render, repository};
use crate::{ControlPlane, Deadline, Identity, Process, Program, binary, eventually};

/// Arguments of the chart in whose place a replica here has its own.
const PORTS: [&str; 3] = ["--webhook-port=", "--metrics-addr=", "--health-addr="];
/// What says who may do what.
const RIGHTS: [&str; 5] = [
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
];

/// What helm renders of the chart with its default values.
pub struct Chart(Vec<Value>);

impl Chart {
    /// Renders the chart.
    ///
    /// # Errors
    /// helm cannot.
    pub async fn rendered() -> Result<Self> {
        Self::rendered_with(&[]).await
    }

    /// Renders the chart with other values (`name=value`).
    ///
    /// # Errors
    /// helm cannot.
    pub async fn rendered_with(values: &[&str]) -> Result<Self> {
        render(values).await.map(Self)
    }

    /// One object.
    ///
    /// # Errors
    /// The chart has no such object.
    pub fn object(&self, kind: &str, name: &str) -> Result<&Value> {
        self.0
            .iter()
            .find(|object| {
                object.get("kind") == Some(&json!(kind))
                    && object.pointer("/metadata/name") == Some(&json!(name))
            })
            .with_context(|| format!("the chart has no {kind} {name}"))
    }

    /// The arguments of the first container of a workload or job.
    ///
    /// # Errors
    /// There is no such workload.
    pub fn arguments(&self, kind: &str, name: &str) -> Result<Vec<String>> {
        let arguments = self
            .object(kind, name)?
            .pointer("/spec/template/spec/containers/0/args")
            .with_context(|| format!("{kind} {name} has no arguments"))?;
        Ok(serde_json::from_value(arguments.clone())?)
    }

    /// Makes the account of a component with exactly the rights that the chart gives it.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn account(&self, control: &ControlPlane, component: &str) -> Result<Identity> {
        let objects: Vec<&Value> = self
            .0
            .iter()
            .filter(|object| {
                object.pointer("/metadata/labels/component") == Some(&json!(component))
                    && RIGHTS
                        .iter()
                        .any(|kind| object.get("kind") == Some(&json!(kind)))
            })
            .collect();
        let account = objects
            .iter()
            .find(|object| object.get("kind") == Some(&json!("ServiceAccount")))
            .and_then(|object| object.pointer("/metadata/name")?.as_str())
            .with_context(|| format!("the chart has no account for {component}"))?;
        // Makes the namespace too, which the objects need.
        control.service_account(NAMESPACE, account).await?;
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let file = control
            .folder()
            .write(format!("rights-{component}.json"), list.to_string())?;
        let file = file.to_str().context("a path is no text")?;
        control
            .kubectl(&["apply", "--server-side", "--filename", file])
            .await?;
        control.service_account(NAMESPACE, account).await
    }
}

/// Installs our CRDs.
///
/// # Errors
/// The API server refuses, or does not serve them in time.
pub async fn install_crds(control: &ControlPlane) -> Result<()> {
    let path = repository().join("config/crd/bases");
    let path = path.to_str().context("the repository's path is no text")?;
    control.kubectl(&["apply", "--filename", path]).await?;
    let established = [
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=60s",
    ];
    control.kubectl(&established).await.map(drop)
}

/// One replica of the webhook.
pub struct Replica {
    /// The process.
    pub process: Process,
    /// Where it serves reviews.
    pub https: SocketAddr,
    /// Where it serves `/healthz` and `/readyz`.
    pub health: SocketAddr,
    /// Where it serves `/metrics`.
    pub metrics: SocketAddr,
}

impl Replica {
    /// Starts a replica with the rights of `account`, the chart's arguments, and more.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        control: &ControlPlane,
        chart: &Chart,
        account: &Identity,
        name: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let as_it_is = |program| program;
        Self::start_as(control, chart, account, name, arguments, as_it_is)
    }

    /// The same of a program that is changed before it runs.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_as(
        control: &ControlPlane,
        chart: &Chart,
        account: &Identity,
        name: &str,
        arguments: &[&str],
        changed: impl FnOnce(Program) -> Program,
    ) -> Result<Self> {
        let (https, health, metrics) = (free()?, free()?, free()?);
        // What is given here stands in place of what the chart gives.
        let flag = |argument: &str| argument.split('=').next().map(str::to_owned);
        let given: Vec<_> = arguments.iter().map(|argument| flag(argument)).collect();
        let own = chart
            .arguments("Deployment", "openelb-webhook")?
            .into_iter()
            .filter(|argument| !PORTS.iter().any(|port| argument.starts_with(port)))
            .filter(|argument| !given.contains(&flag(argument)));
        let program = Program::new(name, binary("openelb-webhook")?)
            .args(own)
            .args(["--bind-address=127.0.0.1", "--host=127.0.0.1"])
            .arg(format!("--webhook-port={}", https.port()))
            .arg(format!("--health-addr={health}"))
            .arg(format!("--metrics-addr={metrics}"))
            .arg("--kubeconfig")
            .arg(account.kubeconfig())
            .env("OPENELB_NAMESPACE", NAMESPACE)
            .args(arguments);
        let process = changed(program).start(control.folder().path())?;
        Ok(Self {
            process,
            https,
            health,
            metrics,
        })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It ended, or is not ready in time.
    pub async fn ready(&self) -> Result<()> {
        eventually("a ready webhook", Deadline::SHORT, async || {
            self.process.check()?;
            let answer = get(self.health, "/readyz").await?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            anyhow::Ok(())
        })
        .await
    }

    /// A new TLS connection of a client that trusts `authorities` (PEM), by the name of the chart's Service.
    ///
    /// # Errors
    /// It does not listen, or its certificate is not good for that client.
    pub async fn connect(&self, authorities: &str) -> Result<TlsStream<TcpStream>> {
        self.connect_as(authorities, "openelb-webhook.openelb-system.svc")
            .await
    }

    /// The same by another name or address.
    ///
    /// # Errors
    /// It does not listen, or its certificate is not good for that client and name.
    pub async fn connect_as(&self, authorities: &str, name: &str) -> Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority?)?;
        }
        let mut config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.https).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned())?;
        Ok(tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?)
    }

    /// The certificate that a new client is served.
    ///
    /// # Errors
    /// As [`Replica::connect`].
    pub async fn handshake(&self, authorities: &str) -> Result<CertificateDer<'static>> {
        let stream = self.connect(authorities).await?;
        let (_, session) = stream.get_ref();
        let served = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .context("no certificate came")?;
        Ok(served.clone().into_owned())
    }

    /// A client that sends requests over one HTTP/2 connection.
    ///
    /// # Errors
    /// As [`Replica::connect`].
    pub async fn client(&self, authorities: &str) -> Result<Client> {
        let stream = self.connect(authorities).await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await?;
        tokio::spawn(connection);
        Ok(Client(sender))
    }
}

/// Sends reviews over one HTTP/2 connection; clones share it.
#[derive(Clone)]
pub struct Client(SendRequest<Full<Bytes>>);

impl Client {
    /// Sends bytes and returns the status and the answer's bytes.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn post(
        &mut self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<(http::StatusCode, Bytes)> {
        let request = http::Request::post(format!("https://openelb-webhook{path}"))
            .header("content-type", "application/json")
            .body(Full::new(body.into()))?;
        let answer = self.0.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// Asks for a page and returns the status.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn get(&mut self, path: &str) -> Result<http::StatusCode> {
        let request = http::Request::get(format!("https://openelb-webhook{path}"))
            .body(Full::new(Bytes::new()))?;
        Ok(self.0.send_request(request).await?.status())
    }

    /// Sends a review and returns the `response` of the answer.
    ///
    /// # Errors
    /// The connection ended, or the answer is no review.
    pub async fn ask(&mut self, path: &str, request: &Value) -> Result<Value> {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request,
        });
        let (status, bytes) = self.post(path, review.to_string()).await?;
        ensure!(status.is_success(), "answered {status}");
        let mut answer: Value = serde_json::from_slice(&bytes)?;
        answer
            .get_mut("response")
            .map(Value::take)
            .context("an answer without a response")
    }
}

/// What a plain HTTP port says to a GET, head included.
///
/// # Errors
/// It does not answer.
pub async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let asking = async { exchange(TcpStream::connect(address).await?, path, "").await };
    tokio::time::timeout(Deadline::SHORT.duration(), asking)
        .await
        .with_context(|| format!("{address} did not answer"))?
}

/// Asks by GET, with these header lines besides, and reads until the end.
pub(crate) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    headers: &str,
) -> Result<String> {
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A port that nobody listens on right now.
///
/// # Errors
/// The machine has none.
pub fn free() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
