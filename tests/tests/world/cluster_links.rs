//! Level 3: faults of nodes' links and of every process, seen by traffic to a pod, and mended again.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use nix::sys::signal::Signal;
use openelb_tests::{
    Cluster, Deadline, Node, Prober, Process, Target, Traffic, eventually, scenario,
};

use crate::cluster::deploy_web;
use crate::link_faults::seen;

/// The pod of a node, and where it answers.
async fn pod_on(cluster: &Cluster, node: &str) -> Result<(String, Vec<Target>)> {
    let pods = Api::<Pod>::default_namespaced(cluster.client());
    let fields = format!("spec.nodeName={node}");
    let pods = pods.list(&ListParams::default().fields(&fields)).await?;
    let pod = pods.into_iter().next().context("no pod")?;
    let name = pod.metadata.name.context("no name")?;
    let mut targets = Vec::new();
    for address in pod
        .status
        .and_then(|status| status.pod_ips)
        .unwrap_or_default()
    {
        let address: IpAddr = address.ip.parse()?;
        targets.extend([Traffic::Tcp, Traffic::Udp].map(|traffic| Target {
            address: (address, 8080).into(),
            traffic,
        }));
    }
    ensure!(targets.len() == 4, "the pod is not dual-stack: {targets:?}");
    Ok((name, targets))
}

#[test]
fn each_fault_of_a_nodes_link_is_seen_and_mended() {
    scenario(async || {
        let cluster = Cluster::start(2).await?;
        deploy_web(&cluster).await?;
        let (name, targets) = pod_on(&cluster, "n2").await?;
        let (one, two) = (cluster.node("n1")?, cluster.node("n2")?);
        let network = cluster.network();
        let prober = || Prober::start(one.host(), &targets);
        let heal = async || network.heal().await;
        seen(
            "unplugged silently",
            prober()?,
            async || two.unplug().await,
            async || two.plug().await,
        )
        .await?;
        seen(
            "the cable pulled",
            prober()?,
            async || two.cut().await,
            async || two.plug().await,
        )
        .await?;
        let apart = async || network.partition(&[one.host()], &[two.host()]).await;
        seen("a partition", prober()?, apart, heal).await?;
        seen(
            "half the frames lost",
            prober()?,
            async || network.lose(two.host(), 50).await,
            heal,
        )
        .await?;
        seen(
            "64 kbit/s",
            prober()?,
            async || network.limit(two.host(), 64).await,
            heal,
        )
        .await?;
        let slow = async || network.delay(two.host(), Duration::from_millis(400)).await;
        seen("slower than anybody waits", prober()?, slow, heal).await?;
        let signal = async |signal| cluster.signal_pod("default", &name, signal).await;
        seen(
            "a paused pod",
            prober()?,
            async || signal(Signal::SIGSTOP).await,
            async || signal(Signal::SIGCONT).await,
        )
        .await?;

        // A node far away works, and all that passes takes its time.
        let delay = Duration::from_millis(10);
        network.delay(two.host(), delay).await?;
        let mut far = prober()?;
        far.answered(100).await?;
        let report = far.stop().await?;
        ensure!(
            report.fastest().is_some_and(|fastest| fastest >= delay * 2),
            "{report}"
        );
        let logs = cluster.kubectl(&["logs", &name]).await?;
        ensure!(logs.contains("listening on 8080"), "{logs}");
        network.heal().await?;
        cluster.ready().await
    });
}

/// The node and its pods live on; only the control plane misses them.
#[test]
fn a_node_apart_from_the_api_server_serves_on() {
    scenario(async || {
        let cluster = Cluster::start(2).await?;
        deploy_web(&cluster).await?;
        let (_, targets) = pod_on(&cluster, "n2").await?;
        let network = cluster.network();
        let (one, two) = (cluster.node("n1")?, cluster.node("n2")?);
        let mut prober = Prober::start(one.host(), &targets)?;
        prober.answered(50).await?;
        prober.mark("n2 is apart from the API server");
        network.partition(&[two.host()], &[network.world()]).await?;
        let reaches = |node: &Node| {
            node.host().namespace().enter(|| {
                let server = (network.world().v4, 6443).into();
                let within = Duration::from_secs(1);
                Ok(std::net::TcpStream::connect_timeout(&server, within).is_ok())
            })
        };
        ensure!(reaches(one)? && !reaches(two)?, "the wrong one is apart");
        prober.answered(100).await?;
        let report = prober.stop().await?;
        ensure!(report.failed() == 0, "{report}");
        network.heal().await?;
        ensure!(reaches(two)?, "it is still apart");
        cluster.ready().await
    });
}

#[test]
fn every_process_is_paused_killed_and_stopped_without_harm_to_traffic() {
    scenario(async || {
        let cluster = Cluster::start(2).await?;
        deploy_web(&cluster).await?;
        let (_, targets) = pod_on(&cluster, "n2").await?;
        let (one, two) = (cluster.node("n1")?, cluster.node("n2")?);
        let control = cluster.control();
        let mut prober = Prober::start(one.host(), &targets)?;
        prober.answered(50).await?;
        let processes: Vec<&Process> = [two.kubelet(), two.kube_proxy(), two.containerd()]
            .into_iter()
            .chain([control.etcd(), control.api_server()])
            .chain(control.controller_manager())
            .chain(control.scheduler())
            .collect();
        ensure!(processes.len() == 7, "not all processes are there");
        for process in processes {
            prober.mark(process.name());
            process.pause();
            eventually("the pause", Deadline::SHORT, async || {
                ensure!(process.is_paused(), "{} runs", process.name());
                Ok(())
            })
            .await?;
            // For a second: four targets, each asked a hundred times.
            prober.answered(400).await?;
            ensure!(process.is_paused(), "{} went on", process.name());
            process.resume();
            eventually("the end of the pause", Deadline::SHORT, async || {
                ensure!(!process.is_paused(), "{} stands still", process.name());
                Ok(())
            })
            .await?;
            process.kill().await;
            prober.answered(20).await?;
            process.restart().await?;
            control.ready().await?;
            process.stop().await?;
            prober.answered(20).await?;
            process.restart().await?;
            control.ready().await?;
            println!("{} is back", process.name());
        }
        cluster.ready().await?;
        cluster.router().kill().await;
        cluster.router().restart().await?;
        ensure!(
            cluster.router().neighbors().await?.len() == 2,
            "no neighbours"
        );
        let report = prober.stop().await?;
        ensure!(report.failed() == 0, "{report}");
        // And the cluster still does its work.
        cluster
            .kubectl(&["rollout", "restart", "deployment/web"])
            .await?;
        cluster.rolled_out("default", "web").await
    });
}
