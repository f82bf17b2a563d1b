//! Our pods as they run: what the kubelet and the kernel made of what the chart says.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use openelb_tests::product::{NAMESPACE, Product};

/// The bits of `NET_RAW` and `NET_BIND_SERVICE` in a set of capabilities.
const SPEAKERS: &str = "0000000000002400";
const NONE: &str = "0000000000000000";

/// The uids of all pods of the chart's workloads.
pub(crate) async fn of_ours(product: &Product<'_>) -> Result<BTreeSet<String>> {
    let pods = list(product).await?;
    Ok(pods.into_iter().filter_map(|pod| pod.uid()).collect())
}

/// Each runs as its own account, with no right that it does not need: asked of the kernel, not of the object.
pub(crate) async fn have_what_the_chart_gives_them(product: &Product<'_>) -> Result<()> {
    let pods = list(product).await?;
    ensure!(pods.len() == 2 + 2 + 3, "{} pods", pods.len());
    for pod in pods {
        let name = pod.name_any();
        let component = pod.labels().get("component").cloned().unwrap_or_default();
        let spec = pod.spec.as_ref().context("a pod without a spec")?;
        ensure!(
            spec.service_account_name == Some(format!("openelb-{component}")),
            "{name}: {:?}",
            spec.service_account_name
        );
        let node = spec.node_name.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let processes = product.cluster().node(node)?.processes_of(uid)?;
        let program = if component == "webhook" {
            "openelb-webhook"
        } else {
            "openelb-operator"
        };
        let mut found = 0;
        for process in processes {
            let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
            let status: BTreeMap<&str, &str> = status
                .lines()
                .filter_map(|line| line.split_once(":\t"))
                .collect();
            let of = |name: &str| status.get(name).copied().unwrap_or_default();
            // The kernel keeps fifteen characters of a name; `pause` is there too.
            if !program.starts_with(of("Name")) {
                continue;
            }
            found += 1;
            let speaker = component == "speaker";
            let user = if speaker { "0\t" } else { "65532\t" };
            ensure!(of("Uid").starts_with(user), "{name}: uid {}", of("Uid"));
            let allowed = if speaker { SPEAKERS } else { NONE };
            for set in ["CapEff", "CapPrm", "CapBnd"] {
                ensure!(of(set) == allowed, "{name}: {set} is {}", of(set));
            }
            ensure!(of("NoNewPrivs") == "1", "{name} may gain privileges");
            ensure!(of("Seccomp") == "2", "{name} is not filtered");
        }
        ensure!(found == 1, "{name}: {found} processes {program}");
    }
    Ok(())
}

async fn list(product: &Product<'_>) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(product.user().client(), NAMESPACE);
    let workloads =
        ListParams::default().labels("app=openelb,component in (webhook,controller,speaker)");
    let pods = pods.list(&workloads).await?.into_iter();
    // Those that are going are another's matter.
    Ok(pods
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .collect())
}
