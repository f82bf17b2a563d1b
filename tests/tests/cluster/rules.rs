//! The webhook as pods of the chart: what kubectl says to a user who errs.

use std::io::Write;

use anyhow::{Result, ensure};
use openelb_tests::product::{NAMESPACE, Product};
use openelb_tests::{Deadline, eventually};
use serde_json::{Value, json};

/// Refuses in words, completes, warns; and leaves the cluster as it was.
pub(crate) async fn the_rules_answer_through_kubectl(product: &Product<'_>) -> Result<()> {
    let eip = |name: &str, address: &str| {
        json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
            "metadata": { "name": name }, "spec": { "address": address },
        })
    };
    let taken = product
        .user()
        .kubectl(&["get", "eip", "bgp", "--output=jsonpath={.spec.address}"])
        .await?;
    refused(
        product,
        &eip("second", &taken),
        "spec.address: eip address overlap with bgp",
    )
    .await?;
    refused(product, &eip("second", "xxxx"), "spec.address").await?;

    apply(product, &eip("spare", " 2001:DB8:FFFF::/120")).await?;
    let spec = product
        .user()
        .kubectl(&["get", "eip", "spare", "--output=jsonpath={.spec}"])
        .await?;
    let spec: Value = serde_json::from_str(&spec)?;
    ensure!(
        spec == json!({ "address": "2001:db8:ffff::/120", "protocol": "bgp" }),
        "{spec}"
    );
    product.user().kubectl(&["delete", "eip", "spare"]).await?;

    let early = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "early", "namespace": "default",
            "annotations": {
                "lb.kubesphere.io/v1alpha1": "openelb", "eip.openelb.kubesphere.io/v1alpha2": "later",
            },
        },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] },
    });
    let warning = apply_with(
        product,
        &early,
        &["--dry-run=server", "--warnings-as-errors"],
    )
    .await;
    let said = warning.err().map(|error| error.to_string());
    ensure!(
        said.as_ref()
            .is_some_and(|said| said.contains("there is no Eip \"later\" yet")),
        "{said:?}"
    );
    let used = product.user().kubectl(&["delete", "eip", "bgp"]).await;
    let said = used
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    ensure!(
        said.contains("Eip bgp is in use") && said.contains("default/web-bgp"),
        "{said}"
    );
    killed_replicas_come_back(product).await
}

/// Both replicas die at once: objects can still be read, and soon the rules are back.
async fn killed_replicas_come_back(product: &Product<'_>) -> Result<()> {
    for (_, pod) in product.pods("webhook").await? {
        product
            .cluster()
            .signal_pod(NAMESPACE, &pod, nix::sys::signal::Signal::SIGKILL)
            .await?;
    }
    product
        .user()
        .kubectl(&["get", "eips,eipaddresses"])
        .await?;
    let nonsense = json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
        "metadata": { "name": "second" }, "spec": { "address": "10.0.0.9-10.0.0.1" },
    });
    eventually("a refusal in words", Deadline::SHORT, async || {
        refused(product, &nonsense, "below its start").await
    })
    .await
}

async fn refused(product: &Product<'_>, object: &Value, text: &str) -> Result<()> {
    let outcome = apply(product, object).await;
    let said = outcome
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    ensure!(said.contains(text), "wanted: {text}\nsaid: {said}");
    Ok(())
}

async fn apply(product: &Product<'_>, object: &Value) -> Result<String> {
    apply_with(product, object, &[]).await
}

async fn apply_with(product: &Product<'_>, object: &Value, more: &[&str]) -> Result<String> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(object.to_string().as_bytes())?;
    let path = file.path().to_string_lossy();
    let apply = ["apply", "--filename", path.as_ref()];
    product.user().kubectl(&[&apply, more].concat()).await
}
