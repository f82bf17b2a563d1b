//! The product as users meet it: the chart installed by helm, objects applied by kubectl, and what can be seen of them.
//!
//! Everything goes through the programs that the documentation tells users to run, with a kubeconfig; nothing here knows
//! how the cluster was made.

pub mod figures;
mod loss;
mod on_cluster;
pub mod page;
pub mod rights;
mod watch;

pub use loss::Loss;
pub use on_cluster::{Moments, Product};
pub use watch::{Lives, RouteWatch, lives};

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use kube::runtime::wait::await_condition;
use tokio::process::Command;

use crate::{Deadline, Identity, tool};

/// The namespace that the documentation installs into.
pub const NAMESPACE: &str = "openelb-system";
/// The release's name, and so the prefix of every workload.
pub const RELEASE: &str = "openelb";

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A user with kubectl and helm.
#[derive(Clone)]
pub struct User(Identity);

impl User {
    /// Somebody whose commands run as `identity`.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self(identity)
    }

    /// A client with the user's rights.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.0.client()
    }

    /// The kubeconfig that the user's commands read.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        self.0.kubeconfig()
    }

    /// Runs kubectl in the repository and returns what it printed.
    ///
    /// # Errors
    /// kubectl fails; the error holds what it said.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.0.kubectl(args).await
    }

    /// Runs helm in the repository and returns what it printed.
    ///
    /// # Errors
    /// helm fails; the error holds what it said.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        helm(Some(self.kubeconfig()), args).await
    }

    /// Installs or upgrades the chart of this tree with `values` (`name=value`), and returns when all is ready.
    ///
    /// # Errors
    /// helm fails, or something does not become ready in time.
    pub async fn install(&self, values: &[&str]) -> Result<()> {
        self.install_from(Path::new("charts/openelb"), values).await
    }

    /// As [`Self::install`], from another folder or package of a chart.
    ///
    /// # Errors
    /// helm fails, or something does not become ready in time.
    pub async fn install_from(&self, chart: &Path, values: &[&str]) -> Result<()> {
        let timeout = format!("{}s", Deadline::LONG.duration().as_secs() * 2);
        let chart = chart.to_str().context("the chart's path is no text")?;
        let mut args = vec![
            "upgrade",
            "--install",
            RELEASE,
            chart,
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            "--wait",
            "--wait-for-jobs",
            "--timeout",
            &timeout,
        ];
        for value in values {
            args.extend(["--set", value]);
        }
        self.helm(&args).await.map(drop)
    }

    /// Applies a file or folder of the repository.
    ///
    /// # Errors
    /// kubectl fails.
    pub async fn apply(&self, path: &str) -> Result<()> {
        let path = repository().join(path);
        let path = path.to_str().context("the repository's path is no text")?;
        self.kubectl(&["apply", "--filename", path]).await.map(drop)
    }

    /// Waits until the workload (`deployment/web`) of `namespace` runs as it says, everywhere.
    ///
    /// # Errors
    /// It does not in time; the error says what kubectl saw.
    pub async fn rolled_out(&self, namespace: &str, workload: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", Deadline::LONG.duration().as_secs());
        self.kubectl(&[
            "rollout",
            "status",
            workload,
            "--namespace",
            namespace,
            &timeout,
        ])
        .await
        .map(drop)
    }

    /// The addresses of a Service, as soon as it has `count` of them.
    ///
    /// # Errors
    /// It does not get them in time.
    pub async fn addresses(
        &self,
        namespace: &str,
        service: &str,
        count: usize,
    ) -> Result<Vec<IpAddr>> {
        let api: Api<Service> = Api::namespaced(self.client(), namespace);
        let enough = move |service: Option<&Service>| {
            service.is_some_and(|service| addresses_of(service).len() >= count)
        };
        let waiting = tokio::time::timeout(
            Deadline::LONG.duration(),
            await_condition(api.clone(), service, enough),
        );
        match waiting.await {
            Ok(Ok(Some(found))) => Ok(addresses_of(&found)),
            Ok(Ok(None)) => bail!("the Service {namespace}/{service} is gone"),
            Ok(Err(error)) => Err(error).with_context(|| format!("watching {namespace}/{service}")),
            Err(_) => {
                let seen = api.get_opt(service).await?;
                let status = seen.and_then(|service| service.status);
                bail!(
                    "the Service {namespace}/{service} has no {count} addresses; its status: {}",
                    serde_json::to_string(&status)?
                )
            }
        }
    }

    /// The address of a Service, as soon as it has one.
    ///
    /// # Errors
    /// It does not get one in time.
    pub async fn address(&self, namespace: &str, service: &str) -> Result<IpAddr> {
        self.addresses(namespace, service, 1)
            .await?
            .first()
            .copied()
            .with_context(|| format!("the Service {namespace}/{service} has no address"))
    }
}

/// Runs helm in the repository and returns what it printed.
///
/// # Errors
/// helm fails; the error holds what it said.
pub async fn helm(kubeconfig: Option<&Path>, args: &[&str]) -> Result<String> {
    let mut helm = Command::new(tool("helm")?);
    if let Some(kubeconfig) = kubeconfig {
        helm.env("KUBECONFIG", kubeconfig);
    }
    let output = helm
        .args(args)
        .current_dir(repository())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot start helm")?;
    if !output.status.success() {
        bail!(
            "`helm {}` ended with {}: {}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The chart of this tree with `values` (`name=value`), rendered as helm would install it, hooks included.
///
/// # Errors
/// The chart refuses the values, or what it renders is no YAML.
pub async fn render(values: &[&str]) -> Result<Vec<serde_json::Value>> {
    let mut args = vec![
        "template",
        RELEASE,
        "charts/openelb",
        "--namespace",
        NAMESPACE,
        "--kube-version",
        "1.33.0",
    ];
    for value in values {
        args.extend(["--set", value]);
    }
    let text = helm(None, &args).await?;
    let objects: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(&text).context("the chart renders no YAML")?;
    Ok(objects
        .into_iter()
        .filter(|object| !object.is_null())
        .collect())
}

/// The addresses in a Service's status.
#[must_use]
pub fn addresses_of(service: &Service) -> Vec<IpAddr> {
    service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref())
        .flat_map(|balancer| balancer.ingress.iter().flatten())
        .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
        .collect()
}

/// A time as people read it.
#[must_use]
pub fn shown(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
