//! Level 3: faults of nodes, processes and pods, and the way back from each.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::ListParams;
use nix::sys::signal::Signal;
use openelb_tests::{Cluster, Deadline, Prober, Target, Traffic, eventually, scenario};

use crate::cluster::deploy_web;

async fn cluster_ip(cluster: &Cluster, name: &str) -> Result<SocketAddr> {
    let service = Api::<Service>::default_namespaced(cluster.client())
        .get(name)
        .await?;
    let address: IpAddr = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("no ClusterIP")?
        .parse()?;
    Ok((address, 80).into())
}

async fn pod_on(cluster: &Cluster, node: &str) -> Result<Pod> {
    let pods = Api::<Pod>::default_namespaced(cluster.client());
    pods.list(&ListParams::default().fields(&format!("spec.nodeName={node}")))
        .await?
        .into_iter()
        .next()
        .with_context(|| format!("no pod on {node}"))
}

fn restarts(pod: &Pod) -> i32 {
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .map(|container| container.restart_count)
        .sum()
}

/// Until new connections are answered by this many nodes.
async fn answered_by(cluster: &Cluster, target: Target, nodes: usize) -> Result<()> {
    eventually(
        &format!("answers from {nodes} nodes"),
        Deadline::LONG,
        async || {
            let mut prober = Prober::start(cluster.node("n1")?.host(), &[target])?;
            prober.answered(40).await?;
            let report = prober.stop().await?;
            ensure!(report.by_node().len() == nodes, "{report}");
            Ok(())
        },
    )
    .await
}

#[test]
fn a_node_without_power_is_silent_and_boots_again() {
    scenario(async || {
        let cluster = Cluster::start(3).await?;
        deploy_web(&cluster).await?;
        let target = Target {
            address: cluster_ip(&cluster, "web").await?,
            traffic: Traffic::Tcp,
        };
        answered_by(&cluster, target, 3).await?;

        let node = cluster.node("n2")?;
        let before = pod_on(&cluster, "n2").await?;
        let mut prober = Prober::start(cluster.node("n1")?.host(), &[target])?;
        prober.answered(50).await?;
        let fault = prober.mark("n2 loses its power");
        node.power_off().await?;
        ensure!(
            !node.kubelet().is_running() && !node.containerd().is_running(),
            "daemons survived"
        );
        prober.answered(100).await?;
        let report = prober.stop().await?;
        // Nobody told kube-proxy: a third of the connections go to a machine that is not there.
        ensure!(report.lost() > 0 && report.reset() == 0, "{report}");
        ensure!(report.failed_before(fault) == 0, "{report}");

        node.power_on().await?;
        cluster.ready().await?;
        eventually("the pod to run again", Deadline::LONG, async || {
            let pod = pod_on(&cluster, "n2").await?;
            ensure!(restarts(&pod) > restarts(&before), "not restarted");
            Ok(())
        })
        .await?;
        answered_by(&cluster, target, 3).await
    });
}

#[test]
fn traffic_outlives_the_api_server_and_a_killed_pod_comes_back() {
    scenario(async || {
        let cluster = Cluster::start(2).await?;
        deploy_web(&cluster).await?;
        let address = cluster_ip(&cluster, "web").await?;
        let targets = [Traffic::Tcp, Traffic::Held].map(|traffic| Target { address, traffic });
        // Every kube-proxy knows of every pod.
        answered_by(
            &cluster,
            Target {
                address,
                traffic: Traffic::Tcp,
            },
            2,
        )
        .await?;
        let mut prober = Prober::start(cluster.node("n1")?.host(), &targets)?;
        prober.answered(50).await?;
        prober.mark("the API server dies");
        cluster.control().api_server().kill().await;
        ensure!(
            cluster.kubectl(&["get", "nodes"]).await.is_err(),
            "it still answers"
        );
        prober.answered(200).await?;
        let report = prober.stop().await?;
        ensure!(report.failed() == 0, "{report}");
        cluster.control().api_server().restart().await?;
        cluster.control().ready().await?;
        cluster.ready().await?;

        for node in ["n1", "n2"] {
            let mut prober = Prober::start(cluster.node("n1")?.host(), &targets)?;
            prober.answered(50).await?;
            let pod = pod_on(&cluster, node).await?;
            let name = pod.metadata.name.clone().context("no name")?;
            prober.mark("a pod is killed");
            cluster
                .signal_pod("default", &name, Signal::SIGKILL)
                .await?;
            eventually(
                "the container to be started again",
                Deadline::LONG,
                async || {
                    ensure!(
                        restarts(&pod_on(&cluster, node).await?) > restarts(&pod),
                        "not yet"
                    );
                    Ok(())
                },
            )
            .await?;
            cluster.rolled_out("default", "web").await?;
            prober.answered(50).await?;
            prober.stop().await?;
        }
        Ok(())
    });
}
