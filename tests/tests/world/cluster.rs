//! Level 3.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use openelb_tests::cluster::ANSWER;
use openelb_tests::{
    Cluster, Deadline, Host, Prober, ProxyMode, Target, Traffic, eventually, scenario,
};

/// One pod per node behind a Service of both families.
const WEB: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: IMAGE
        imagePullPolicy: Never
        env:
        - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  selector: {app: web}
  ipFamilyPolicy: RequireDualStack
  ports:
  - {name: tcp, port: 80, targetPort: 8080}
  - {name: udp, port: 80, targetPort: 8080, protocol: UDP}
";

/// Deploys `web` and waits for it.
pub(crate) async fn deploy_web(cluster: &Cluster) -> Result<()> {
    let replicas = cluster.nodes().len().to_string();
    cluster
        .apply(&WEB.replace("IMAGE", ANSWER).replace("REPLICAS", &replicas))
        .await?;
    cluster.rolled_out("default", "web").await
}

async fn answers_through_cluster_ips(mode: ProxyMode) -> Result<()> {
    let began = std::time::Instant::now();
    let cluster = Cluster::config(3).proxy(mode).start().await?;
    println!(
        "three nodes Ready and names resolving after {:.1} s",
        began.elapsed().as_secs_f32()
    );
    deploy_web(&cluster).await?;
    println!("rolled out after {:.1} s", began.elapsed().as_secs_f32());

    let service = Api::<Service>::default_namespaced(cluster.client())
        .get("web")
        .await?;
    let addresses = service
        .spec
        .and_then(|spec| spec.cluster_ips)
        .context("no ClusterIPs")?;
    ensure!(addresses.len() == 2, "{addresses:?}");
    let mut targets = Vec::new();
    for address in &addresses {
        let address = (address.parse::<std::net::IpAddr>()?, 80).into();
        targets.extend(
            [Traffic::Tcp, Traffic::Udp, Traffic::Held].map(|traffic| Target { address, traffic }),
        );
    }
    let host = cluster.node("n1")?.host();
    // kube-proxy learns of a pod a moment after the Deployment knows it ready.
    eventually("every node to answer", Deadline::LONG, async || {
        let mut prober = Prober::start(host, &targets)?;
        prober.answered(400).await?;
        let report = prober.stop().await?;
        for target in &targets {
            let report = report.of(*target);
            println!("{mode:?} {target:?}: {:?}", report.by_node());
            ensure!(
                report.answered() > 0,
                "{target:?} is not answered:\n{report}"
            );
            ensure!(
                report.by_node().len() == 3 || target.traffic == Traffic::Held,
                "not every node answered at {target:?}:\n{report}"
            );
        }
        ensure!(
            report.by_pod().len() == 3,
            "not every pod answered:\n{report}"
        );
        anyhow::Ok(())
    })
    .await?;
    forwards_by(host, mode).await
}

/// The rules are of this mode of kube-proxy, in both families, and not of the other.
async fn forwards_by(host: &Host, mode: ProxyMode) -> Result<()> {
    for (family, save) in [("ip", "iptables-save"), ("ip6", "ip6tables-save")] {
        let table = ["nft", "list", "table", family, "kube-proxy"];
        let nftables = host.namespace().run(&table).await.is_ok();
        let saved = host.namespace().run(&[save]).await?;
        let iptables = saved.contains("-A KUBE-SERVICES") && saved.contains("-A KUBE-SVC-");
        ensure!(
            (iptables, nftables) == (mode == ProxyMode::Iptables, mode == ProxyMode::Nftables),
            "{family}: iptables {iptables}, nftables {nftables}: {saved}"
        );
    }
    Ok(())
}

#[test]
fn three_nodes_serve_a_deployment_with_iptables() {
    scenario(async || answers_through_cluster_ips(ProxyMode::Iptables).await);
}

#[test]
fn three_nodes_serve_a_deployment_with_nftables() {
    scenario(async || answers_through_cluster_ips(ProxyMode::Nftables).await);
}
