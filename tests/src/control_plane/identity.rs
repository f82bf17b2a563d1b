//! Who talks to the API server: a kubeconfig and a client per identity.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::process::Command;

use crate::tools::tool;

/// Somebody who may talk to an API server.
#[derive(Clone)]
pub struct Identity {
    name: String,
    kubeconfig: PathBuf,
    client: kube::Client,
}

impl Identity {
    pub(crate) async fn new(name: &str, kubeconfig: PathBuf) -> Result<Self> {
        let read = Kubeconfig::read_from(&kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("the kubeconfig of {name} is not good"))?;
        Ok(Self {
            name: name.to_owned(),
            client: kube::Client::try_from(config)?,
            kubeconfig,
        })
    }

    /// The user's name, as the API server knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file for `--kubeconfig` and `KUBECONFIG`.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Runs kubectl as this identity, and returns what it printed.
    ///
    /// # Errors
    /// It ends with anything but 0; the error holds what it said.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(tool("kubectl")?)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .env("KUBECTL_KUBERC", "false")
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot run kubectl")?;
        if !output.status.success() {
            bail!(
                "kubectl {} (as {}): {}",
                args.join(" "),
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What proves an identity.
pub(crate) enum Proof<'a> {
    Certificate {
        certificate: &'a Path,
        key: &'a Path,
    },
    Token(&'a str),
}

/// The text of a kubeconfig.
pub(crate) fn kubeconfig(server: &str, authority: &Path, proof: &Proof<'_>) -> String {
    let user = match proof {
        Proof::Certificate { certificate, key } => serde_json::json!({
            "client-certificate": certificate, "client-key": key,
        }),
        Proof::Token(token) => serde_json::json!({ "token": token }),
    };
    // JSON is YAML.
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "world", "cluster": { "server": server, "certificate-authority": authority } }],
        "users": [{ "name": "me", "user": user }],
        "contexts": [{ "name": "world", "context": { "cluster": "world", "user": "me" } }],
        "current-context": "world",
    })
    .to_string()
}
