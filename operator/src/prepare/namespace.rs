//! The namespace's Pod Security label: speakers use the host's network, which only `privileged` allows.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, Patch};
use serde_json::json;
use tracing::info;

use super::ours;

/// Labels the namespace `name`; other labels stay.
pub(super) async fn label(client: &Client, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let labels: BTreeMap<String, &str> = ["enforce", "audit", "warn"]
        .into_iter()
        .map(|mode| (format!("pod-security.kubernetes.io/{mode}"), "privileged"))
        .collect();
    let patch = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    });
    namespaces
        .patch_metadata(name, &ours(), &Patch::Apply(patch))
        .await
        .with_context(|| format!("cannot label the namespace {name} for Pod Security"))?;
    info!(namespace = name, "labelled for Pod Security");
    Ok(())
}
