//! Who opts Services in: the default Eip, where nothing else is said and nobody switched it off.

use anyhow::{Context, Result, ensure};
use openelb_tests::{Deadline, eventually, story};
use serde_json::{Value, json};

use super::super::stage::Stage;
use super::{ADDRESS, DEFAULT, annotated, eip};

const OPT_IN: &str = "lb.kubesphere.io/v1alpha1";

fn plain(namespace: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": namespace, "annotations": annotations },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] },
    })
}

fn default_eip() -> Value {
    annotated(
        eip("lan", json!({ "address": "192.0.2.0/28" })),
        json!({ DEFAULT: "true" }),
    )
}

impl Stage {
    /// The annotations that a Service would be stored with.
    async fn annotations(&self, object: &Value) -> Result<Value> {
        let said = self
            .apply(object, &["--dry-run=server", "--output=json"])
            .await?;
        let service: Value = serde_json::from_str(&said.out).context(said.err)?;
        Ok(service["metadata"]["annotations"].clone())
    }

    async fn opts_in(&self, object: &Value) -> Result<bool> {
        Ok(self.annotations(object).await?[OPT_IN] == "openelb")
    }
}

#[test]
fn a_default_eip_opts_new_services_in_that_say_nothing_else() {
    story(async || -> Result<()> {
        let stage = Stage::set(1, &[]).await?;
        let says_nothing = plain("default", json!({}));
        assert!(!stage.opts_in(&says_nothing).await?);
        stage.store(&default_eip()).await?;
        eventually("the default Eip to count", Deadline::SHORT, async || {
            ensure!(stage.opts_in(&says_nothing).await?, "not opted in");
            anyhow::Ok(())
        })
        .await?;

        // Somebody else's are left alone.
        let metallb = plain("default", json!({ "metallb.io/address-pool": "x" }));
        assert!(!stage.opts_in(&metallb).await?);
        let mut classed = says_nothing.clone();
        classed["spec"]["loadBalancerClass"] = json!("example.com/other");
        assert!(!stage.opts_in(&classed).await?);

        // One that was something else until now is as new as one that is made.
        let mut internal = says_nothing.clone();
        internal["metadata"]["name"] = json!("turned");
        internal["spec"]["type"] = json!("ClusterIP");
        stage.store(&internal).await?;
        internal["spec"]["type"] = json!("LoadBalancer");
        assert!(stage.opts_in(&internal).await?);

        // A namespace that does not want it: what is asked for there is still written in one spelling.
        let control = &stage.control;
        control.kubectl(&["create", "namespace", "quiet"]).await?;
        let label = "openelb.kubesphere.io/default-eip=disabled";
        control
            .kubectl(&["label", "namespace", "quiet", label])
            .await?;
        eventually("the label to count", Deadline::SHORT, async || {
            ensure!(
                !stage.opts_in(&plain("quiet", json!({}))).await?,
                "opted in"
            );
            anyhow::Ok(())
        })
        .await?;
        let asking = plain(
            "quiet",
            json!({ OPT_IN: "openelb", ADDRESS: " 192.0.2.1 " }),
        );
        assert_eq!(stage.annotations(&asking).await?[ADDRESS], "192.0.2.1");
        Ok(())
    });
}

#[test]
fn where_injection_is_switched_off_nobody_is_opted_in() {
    story(async || -> Result<()> {
        let stage = Stage::set(1, &["--default-eip-injection=false"]).await?;
        stage.store(&default_eip()).await?;
        // From here on the webhook knows that there is a default.
        let second = annotated(
            eip("second", json!({ "address": "198.18.0.0/28" })),
            json!({ DEFAULT: "true" }),
        );
        let refusal = super::Expect::Refused("already exists a default EIP: lan");
        stage.seen(&second, &refusal).await?;
        assert!(!stage.opts_in(&plain("default", json!({}))).await?);
        let asking = plain(
            "default",
            json!({ OPT_IN: "openelb", ADDRESS: " 192.0.2.1 " }),
        );
        assert_eq!(stage.annotations(&asking).await?[ADDRESS], "192.0.2.1");
        Ok(())
    });
}
