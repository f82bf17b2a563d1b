//! The webhook for people without helm is the chart's: what `config/` says and what helm renders is compared here, and
//! everything else in this folder runs with what helm renders.

use anyhow::{Context, Result};
use openelb_tests::product::repository;
use openelb_tests::story;
use openelb_tests::webhook::Chart;
use serde_json::Value;

#[test]
fn the_kustomize_bases_are_what_the_chart_installs() {
    story(async || -> Result<()> {
        let chart = Chart::rendered().await?;
        let mut compared = 0;
        for file in [
            "config/webhook/validating.yaml",
            "config/webhook/mutating.yaml",
            "config/webhook/service.yaml",
            "config/rbac/webhook.yaml",
            "config/rbac/controller.yaml",
            "config/rbac/speaker.yaml",
        ] {
            let text = std::fs::read_to_string(repository().join(file))?;
            let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
            for object in objects {
                let kind = object["kind"].as_str().context("no kind")?;
                let name = object["metadata"]["name"].as_str().context("no name")?;
                let rendered = chart.object(kind, name)?;
                assert_eq!(bare(&object), bare(rendered), "{file}: {kind} {name}");
                compared += 1;
            }
        }
        assert_eq!(compared, 18);
        Ok(())
    });
}

/// An object without labels: those say who installed it.
fn bare(object: &Value) -> Value {
    let mut bare = object.clone();
    if let Some(metadata) = bare["metadata"].as_object_mut() {
        metadata.remove("labels");
    }
    bare
}

/// What keeps a cluster from depending on the webhook, in the configurations that are installed.
#[test]
fn services_fail_open_and_no_webhook_takes_long() {
    story(async || -> Result<()> {
        let chart = Chart::rendered().await?;
        for kind in super::stage::KINDS {
            let configuration = chart.object(kind, super::stage::CONFIGURATION)?;
            let webhooks = configuration["webhooks"].as_array().context("none")?;
            let services = if kind == "MutatingWebhookConfiguration" {
                2
            } else {
                1
            };
            assert_eq!(webhooks.len(), 4 + services);
            for webhook in webhooks {
                let name = webhook["name"].as_str().context("no name")?;
                let is_service = name.contains("service");
                let policy = if is_service { "Ignore" } else { "Fail" };
                assert_eq!(webhook["failurePolicy"], policy, "{name}");
                assert_eq!(webhook["sideEffects"], "None", "{name}");
                let seconds = webhook["timeoutSeconds"].as_u64().context("no timeout")?;
                assert!(seconds <= if is_service { 2 } else { 5 }, "{name}");
                let conditions = webhook["matchConditions"].to_string();
                if is_service {
                    assert!(conditions.contains("LoadBalancer"), "{name}");
                    let selector = webhook["namespaceSelector"].to_string();
                    assert!(
                        selector.contains("kube-system") && selector.contains("openelb-system"),
                        "{name}"
                    );
                }
            }
        }
        for crd in std::fs::read_dir(repository().join("config/crd/bases"))? {
            let crd: Value = serde_saphyr::from_str(&std::fs::read_to_string(crd?.path())?)?;
            let strategy = &crd["spec"]["conversion"]["strategy"];
            assert!(
                strategy.is_null() || strategy == "None",
                "reading must not need a webhook"
            );
        }
        Ok(())
    });
}
