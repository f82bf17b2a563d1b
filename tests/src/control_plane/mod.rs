//! Level 1: a real etcd and kube-apiserver, and kube-controller-manager on request, with RBAC.
//!
//! Each control plane has a loopback address of its own, so any number run side by side. Its processes die with this
//! program. The order of starts and the keys are ours; nothing is shared with another control plane.

pub mod audit;
mod config;
mod identity;
pub(crate) mod pki;

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use serde_json::Value;

pub(crate) use config::Keys;
pub use config::{Config, POD_RANGE, SERVICE_RANGE};
pub use identity::Identity;
use identity::{Proof, kubeconfig};

use crate::folder::Folder;
use crate::process::Process;
use crate::record::Record;
use crate::tools::tool;
use crate::wait::{Deadline, eventually};

/// A running control plane. Dropped, it is gone.
pub struct ControlPlane {
    record: Option<Record>,
    etcd: Process,
    api_server: Process,
    controller_manager: Option<Process>,
    scheduler: Option<Process>,
    admin: Identity,
    config: Config,
    pub(crate) keys: Keys,
    folder: Folder,
}

impl ControlPlane {
    /// Starts etcd and kube-apiserver and waits until they are ready.
    ///
    /// # Errors
    /// A part is missing, ends, or is not ready in time.
    pub async fn start() -> Result<Self> {
        Self::config().start().await
    }

    /// What to start, to be refined.
    #[must_use]
    pub fn config() -> Config {
        Config::default()
    }

    async fn launch(config: Config) -> Result<Self> {
        // A second installation is refused, and is not needed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = Folder::new("control-plane")?;
        let etcd = config.etcd(&folder)?.last().start(folder.path())?;
        let keys = Keys::new(&folder, config.address)?;
        listening(&etcd, config.address, config::ETCD).await?;
        let api_server = config
            .api_server(&folder, &keys)?
            .last()
            .start(folder.path())?;
        let admin = certified(&folder, &keys, &config, "admin", &["system:masters"]).await?;
        let mut control = Self {
            record: None,
            etcd,
            api_server,
            controller_manager: None,
            scheduler: None,
            admin,
            config,
            keys,
            folder,
        };
        if crate::scenario::inside().is_some() {
            control.record = Some(control.record()?);
        }
        control.ready().await?;
        let kubeconfig = control.admin.kubeconfig();
        if control.config.controller_manager {
            control.controller_manager = Some(
                control
                    .config
                    .controller_manager_program(&control.keys, kubeconfig)?
                    .last()
                    .start(control.folder.path())?,
            );
        }
        if control.config.nodes {
            control.scheduler = Some(
                control
                    .config
                    .scheduler_program(kubeconfig)?
                    .last()
                    .start(control.folder.path())?,
            );
        }
        Ok(control)
    }

    /// Waits until the API server says it is ready: at start, and after it was stopped or paused.
    ///
    /// # Errors
    /// A process ended, or it is not ready in time.
    pub async fn ready(&self) -> Result<()> {
        eventually("a ready kube-apiserver", Deadline::LONG, async || {
            self.etcd.check()?;
            self.api_server.check()?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let answer = self.client().request_text(request).await?;
            anyhow::ensure!(answer == "ok", "/readyz says {answer}");
            Api::<Namespace>::all(self.client()).get("default").await?;
            anyhow::Ok(())
        })
        .await
        .with_context(|| format!("logs are in {}", self.folder.path().display()))
    }

    /// The administrator (`system:masters`).
    #[must_use]
    pub fn admin(&self) -> &Identity {
        &self.admin
    }

    /// The administrator's client.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.admin.client()
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        self.admin.kubeconfig()
    }

    /// Runs kubectl as the administrator, and returns what it printed.
    ///
    /// # Errors
    /// It ends with anything but 0; the error holds what it said.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.admin.kubectl(args).await
    }

    /// Applies an object by kubectl, as the administrator.
    ///
    /// # Errors
    /// It is refused; the error holds kubectl's words.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        let file = self.folder.write("object.json", object.to_string())?;
        let file = file.to_str().context("a path is no text")?;
        self.kubectl(&["apply", "-f", file]).await.map(drop)
    }

    /// A user with a client certificate, in these groups.
    ///
    /// # Errors
    /// The files cannot be written.
    pub async fn user(&self, name: &str, groups: &[&str]) -> Result<Identity> {
        certified(&self.folder, &self.keys, &self.config, name, groups).await
    }

    /// A ServiceAccount with a token of the API server (`TokenRequest`, one day). Namespace and account are made where
    /// they are missing.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<Identity> {
        let namespaces = Api::<Namespace>::all(self.client());
        ensure(
            &namespaces,
            &Namespace {
                metadata: named(namespace),
                ..Namespace::default()
            },
        )
        .await?;
        let accounts = Api::<ServiceAccount>::namespaced(self.client(), namespace);
        ensure(
            &accounts,
            &ServiceAccount {
                metadata: named(name),
                ..ServiceAccount::default()
            },
        )
        .await?;
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(86_400),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let token = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for {namespace}/{name}"))?
            .status
            .context("a TokenRequest came back without a token")?
            .token;
        let text = kubeconfig(
            &self.url(),
            &self.keys.authority.own.certificate_file,
            &Proof::Token(&token),
        );
        let file = self
            .folder
            .write(format!("kubeconfig-{namespace}-{name}"), text)?;
        Identity::new(&format!("system:serviceaccount:{namespace}:{name}"), file).await
    }

    /// The API server's address, as in a kubeconfig.
    #[must_use]
    pub fn url(&self) -> String {
        url(&self.config)
    }

    /// The certificate of the authority that signed everything here, in PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.keys.authority.own.certificate
    }

    /// The file of the same.
    #[must_use]
    pub fn authority_file(&self) -> &Path {
        &self.keys.authority.own.certificate_file
    }

    /// A server certificate for a node, and its key.
    pub(crate) fn serving(
        &self,
        file: &str,
        name: &str,
        addresses: &[std::net::IpAddr],
    ) -> Result<(std::path::PathBuf, std::path::PathBuf)> {
        let user = format!("system:node:{name}");
        let pair = self.keys.authority.server(
            &self.folder,
            file,
            (&user, &["system:nodes"]),
            &[name],
            addresses,
        )?;
        Ok((pair.certificate_file, pair.key_file))
    }

    /// etcd, to be stopped, paused and restarted.
    #[must_use]
    pub fn etcd(&self) -> &Process {
        &self.etcd
    }

    /// kube-apiserver, to be stopped, paused and restarted. [`ControlPlane::ready`] waits for its return.
    #[must_use]
    pub fn api_server(&self) -> &Process {
        &self.api_server
    }

    /// kube-controller-manager, where it was asked for.
    #[must_use]
    pub fn controller_manager(&self) -> Option<&Process> {
        self.controller_manager.as_ref()
    }

    /// kube-scheduler, where there are nodes.
    #[must_use]
    pub fn scheduler(&self) -> Option<&Process> {
        self.scheduler.as_ref()
    }

    /// All requests so far, where the audit log was asked for.
    ///
    /// # Errors
    /// There is no audit log.
    pub fn audit(&self) -> Result<Vec<audit::Request>> {
        audit::read(&self.folder.join("audit.log"))
    }

    fn record(&self) -> Result<Record> {
        let words = [
            self.folder.path().to_owned(),
            tool("kubectl")?,
            self.kubeconfig().to_owned(),
        ];
        Ok(Record::new(move |_| {
            crate::record::run(RECORD, &words);
        }))
    }

    /// Where logs and keys are; removed at the end unless the test fails.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }
}

/// What Kubernetes says of itself; written to a folder.
const RECORD: &str = r#"
folder=$1 program=$2
export KUBECONFIG=$3
kubectl() { timeout 3 "$program" --request-timeout=2s "$@" --all-namespaces; }
kubectl get events --sort-by=.metadata.creationTimestamp >"$folder/events.txt" 2>&1 &
kubectl get nodes,pods,services,endpointslices -o yaml >"$folder/objects.yaml" 2>&1 &
wait
"#;

fn url(config: &Config) -> String {
    format!(
        "https://{}",
        std::net::SocketAddr::new(config.address, config::API_SERVER)
    )
}

async fn certified(
    folder: &Folder,
    keys: &Keys,
    config: &Config,
    name: &str,
    groups: &[&str],
) -> Result<Identity> {
    let file = name.replace([':', '/'], "-");
    let pair = keys.authority.client(folder, &file, name, groups)?;
    let text = kubeconfig(
        &url(config),
        &keys.authority.own.certificate_file,
        &Proof::Certificate {
            certificate: &pair.certificate_file,
            key: &pair.key_file,
        },
    );
    Identity::new(name, folder.write(format!("kubeconfig-{file}"), text)?).await
}

async fn listening(process: &Process, address: std::net::IpAddr, port: u16) -> Result<()> {
    eventually(
        &format!("{} to listen", process.name()),
        Deadline::SHORT,
        async || {
            process.check()?;
            tokio::net::TcpStream::connect((address, port)).await?;
            anyhow::Ok(())
        },
    )
    .await
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

/// Creates an object unless it is there.
async fn ensure<K>(api: &Api<K>, object: &K) -> Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other
            .map(drop)
            .context("cannot create what an identity needs"),
    }
}
