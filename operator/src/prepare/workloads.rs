//! Workloads that OpenELB's chart or manifests left, which an upgrade cannot take over: a selector cannot be changed.

use std::fmt::Debug;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, DeleteParams, ListParams, PropagationPolicy};
use kube::runtime::conditions::is_deleted;
use kube::runtime::wait::await_condition;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tracing::info;

use super::PATIENCE;

/// Removes OpenELB's workloads from `namespace` and waits until their pods are gone too.
pub(super) async fn remove_foreign(client: &Client, namespace: &str) -> Result<()> {
    remove(Api::<Deployment>::namespaced(client.clone(), namespace)).await?;
    remove(Api::<DaemonSet>::namespaced(client.clone(), namespace)).await
}

/// A workload with the selector that cannot be changed.
trait Workload: Resource<DynamicType = ()> {
    fn selector(&self) -> Option<&LabelSelector>;
}

impl Workload for Deployment {
    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|spec| &spec.selector)
    }
}

impl Workload for DaemonSet {
    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|spec| &spec.selector)
    }
}

async fn remove<W>(api: Api<W>) -> Result<()>
where
    W: Workload + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind = W::kind(&());
    let found = api
        .list(&ListParams::default())
        .await
        .with_context(|| format!("cannot list the {kind}s"))?;
    for workload in found.into_iter().filter(is_foreign) {
        let name = workload.name_any();
        let delete = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            ..DeleteParams::default()
        };
        match api.delete(&name, &delete).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot delete {kind} {name}"));
            }
        }
        let uid = workload.uid().unwrap_or_default();
        let gone = await_condition(api.clone(), &name, is_deleted(&uid));
        tokio::time::timeout(PATIENCE, gone)
            .await
            .with_context(|| format!("{kind} {name} is not gone after a minute"))?
            .with_context(|| format!("cannot watch {kind} {name}"))?;
        info!(
            %kind,
            name, "removed: its selector is OpenELB's and cannot be changed"
        );
    }
    Ok(())
}

/// Whether a workload is OpenELB's own (0.4 to 0.6, by chart or by manifest) and not ours.
///
/// Its chart names workloads as the values say, and puts its own labels into their selectors.
fn is_foreign<W: Workload>(workload: &W) -> bool {
    let named = workload.meta().name.as_deref().is_some_and(|name| {
        [
            "openelb-controller",
            "openelb-speaker",
            "openelb-manager",
            "openelb-keepalive-vip",
        ]
        .contains(&name)
            || name.ends_with("-openelb-controller")
            || name.ends_with("-openelb-speaker")
    });
    let labels = workload
        .selector()
        .and_then(|selector| selector.match_labels.as_ref());
    let says = |key, wanted: &str| {
        labels
            .and_then(|labels| labels.get(key))
            .is_some_and(|value| value == wanted)
    };
    let component = says("component", "controller") || says("component", "speaker");
    let by_chart = says("app", "openelb")
        && component
        && labels.is_some_and(|labels| labels.contains_key("helm.sh/chart"));
    let ours = says("app", "openelb")
        && labels.is_some_and(|labels| labels.len() == 2 && labels.contains_key("component"));
    (named || by_chart) && !ours
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn deployment(name: &str, labels: &[(&str, &str)]) -> Deployment {
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "template": {}},
        }))
        .unwrap()
    }

    #[test]
    fn a_workload_of_openelb_chart_is_foreign() {
        let theirs = deployment(
            "openelb-controller",
            &[
                ("app", "openelb"),
                ("component", "controller"),
                ("helm.sh/chart", "openelb-0.6.1"),
            ],
        );
        assert!(is_foreign(&theirs));
        let manifest = deployment("openelb-controller", &[("app", "openelb")]);
        assert!(is_foreign(&manifest));
        let vip = deployment("openelb-keepalive-vip", &[("app", "keepalived")]);
        assert!(is_foreign(&vip));
    }

    #[test]
    fn a_workload_of_openelb_chart_is_foreign_whatever_it_was_named() {
        let labels = |component| {
            [
                ("app", "openelb"),
                ("component", component),
                ("helm.sh/chart", "openelb-0.6.1"),
            ]
        };
        assert!(is_foreign(&deployment("lb-speaker", &labels("speaker"))));
        assert!(!is_foreign(&deployment("lb-proxy", &labels("proxy"))));
    }

    #[test]
    fn our_own_and_other_workloads_stay() {
        let own = deployment(
            "openelb-controller",
            &[("app", "openelb"), ("component", "controller")],
        );
        assert!(!is_foreign(&own));
        assert!(!is_foreign(&deployment("web", &[("app", "web")])));
    }
}
