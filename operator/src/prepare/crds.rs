//! The CRDs, applied server-side: helm itself would install them once and never upgrade them, or delete them with the
//! release and every pool with them.

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, Patch};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use serde_json::Value;
use tracing::info;

use super::{PATIENCE, ours, plainly};

/// Our CRDs as `crd-gen` writes them.
const CRDS: [&str; 4] = [
    include_str!("../../../charts/openelb/files/crds/network.kubesphere.io_bgpconfs.yaml"),
    include_str!("../../../charts/openelb/files/crds/network.kubesphere.io_bgppeers.yaml"),
    include_str!("../../../charts/openelb/files/crds/network.kubesphere.io_eipaddresses.yaml"),
    include_str!("../../../charts/openelb/files/crds/network.kubesphere.io_eips.yaml"),
];

/// Applies every CRD of ours and waits until the API server serves it.
pub(super) async fn apply(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for text in CRDS {
        let crd: Value = serde_saphyr::from_str(text).context("an embedded CRD is no YAML")?;
        let name = crd
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .context("an embedded CRD has no name")?
            .to_owned();
        api.patch(&name, &ours(), &Patch::Apply(&crd))
            .await
            .map_err(plainly)
            .with_context(|| format!("cannot apply the CRD {name}"))?;
        let established = await_condition(api.clone(), &name, is_crd_established());
        tokio::time::timeout(PATIENCE, established)
            .await
            .with_context(|| format!("the API server does not serve {name} after a minute"))?
            .with_context(|| format!("cannot watch the CRD {name}"))?;
        info!(crd = name, "applied and served");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_crd_is_one_of_ours() {
        for text in CRDS {
            let crd: Value = serde_saphyr::from_str(text).unwrap();
            assert_eq!(crd["kind"], "CustomResourceDefinition");
            assert_eq!(crd["spec"]["group"], "network.kubesphere.io");
        }
    }
}
