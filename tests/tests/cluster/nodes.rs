//! What happens to machines and pods in a cluster's life, under traffic: drained, replaced, flapping, cut down one after
//! the other; controllers and webhooks killed; bad links; a second router; a LAN's leader gone.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use nix::sys::signal::Signal;
use openelb_tests::bgp::{Bgp, Peer, Software};
use openelb_tests::cluster::{Cluster, NODE_ASN, ROUTER_ASN};
use openelb_tests::product::{NAMESPACE, Product};
use openelb_tests::{Deadline, eventually, scenario};
use serde_json::json;

const ALL: [&str; 3] = ["n1", "n2", "n3"];
/// How many connections may be open when a router spreads its flows anew: it may send the rest of one to another node.
const SPREAD_ANEW: usize = 3;

/// One cluster serves all of these.
#[test]
fn traffic_survives_what_happens_to_machines_and_pods() {
    scenario(async || -> Result<()> {
        let cluster = Cluster::start(3).await?;
        let product = Product::new(&cluster).await?;
        product.install(&[]).await?;
        let (bgp, lan) = product.samples().await?;
        product.leads_to(bgp, &ALL).await?;
        product.watched_by_bfd().await?;

        nodes_flap_between_ready_and_not(&product, bgp).await?;
        every_controller_is_killed(&product, bgp).await?;
        every_webhook_is_killed(&product, bgp).await?;
        a_node_is_drained(&product, bgp).await?;
        a_link_loses_packets(&product, bgp).await?;
        a_second_router_takes_over(&product, bgp).await?;
        the_leader_of_the_lan_loses_power(&product, lan).await?;
        nodes_lose_power_one_after_the_other(&product, bgp).await?;
        a_node_is_replaced(&product, bgp).await
    });
}

/// A kubelet that is late makes its Node NotReady for a moment; its pods serve on, and no route may move.
async fn nodes_flap_between_ready_and_not(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let client = product.cluster().network().client();
    let nodes: Api<Node> = Api::all(product.user().client());
    let loss = product
        .under_traffic(
            "a node's Ready condition flaps",
            (client, bgp),
            async || {
                for status in ["Unknown", "True", "False", "True", "Unknown"] {
                    let flap = json!({"status": {"conditions": [{
                        "type": "Ready", "status": status, "reason": "Flapping",
                    }]}});
                    nodes
                        .patch_status("n2", &PatchParams::default(), &Patch::Strategic(&flap))
                        .await?;
                }
                Ok(())
            },
            async || {
                // The kubelet says what is true.
                product.cluster().ready().await?;
                product.leads_to(bgp, &ALL).await
            },
        )
        .await?;
    ensure!(loss.failed == 0, "{loss:?}");
    Ok(())
}

/// Nobody gives addresses for a moment; those that were given are announced all the same, and work goes on after.
async fn every_controller_is_killed(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let client = product.cluster().network().client();
    let loss = product
        .under_traffic(
            "every controller is killed (SIGKILL)",
            (client, bgp),
            async || {
                kill_all(product, "controller").await?;
                product.cluster().apply(&service("while-killed")).await
            },
            async || product.address("while-killed").await.map(drop),
        )
        .await?;
    ensure!(loss.failed == 0, "{loss:?}");
    product
        .user()
        .kubectl(&["delete", "service", "while-killed"])
        .await
        .map(drop)
}

/// Services are made and get their address while no webhook answers; Eips wait until one does.
async fn every_webhook_is_killed(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let client = product.cluster().network().client();
    let user = product.user();
    let loss = product
        .under_traffic(
            "every webhook is killed (SIGKILL)",
            (client, bgp),
            async || {
                kill_all(product, "webhook").await?;
                product.cluster().apply(&service("without-webhook")).await?;
                product.address("without-webhook").await.map(drop)
            },
            async || {
                eventually("the webhook refuses again", Deadline::LONG, async || {
                    let bad = r#"--patch={"spec":{"address":"203.0.113.7/33"}}"#;
                    let patched = user
                        .kubectl(&["patch", "eip", "bgp", "--type=merge", bad])
                        .await;
                    let told = format!("{:#}", patched.err().context("a bad Eip was accepted")?);
                    ensure!(told.contains("denied the request"), "{told}");
                    anyhow::Ok(())
                })
                .await
            },
        )
        .await?;
    ensure!(loss.failed == 0, "{loss:?}");
    user.kubectl(&["delete", "service", "without-webhook"])
        .await
        .map(drop)
}

/// kubectl drain moves the pods away: the node's route goes with the last of them, and no new connection is
/// lost.
async fn a_node_is_drained(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let client = product.cluster().network().client();
    let user = product.user();
    let loss = product
        .under_traffic(
            "a node is drained",
            (client, bgp),
            async || {
                user.kubectl(&[
                    "drain",
                    "n1",
                    "--ignore-daemonsets",
                    "--delete-emptydir-data",
                    "--timeout=100s",
                ])
                .await
                .map(drop)
            },
            async || product.leads_to(bgp, &["n2", "n3"]).await,
        )
        .await?;
    ensure!(loss.failed <= SPREAD_ANEW, "{loss:?}");
    user.kubectl(&["uncordon", "n1"]).await?;
    spread_pods_again(product).await?;
    product.leads_to(bgp, &ALL).await
}

/// Lost packets and a slow link are no reason to drop a session: TCP and three lost BFD packets in a row say so.
async fn a_link_loses_packets(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let network = product.cluster().network();
    let sessions = async || product.cluster().router().neighbors().await;
    let before = sessions().await?;
    let mut prober = product.traffic(network.client(), bgp).await?;
    network.lose(network.node("n2")?, 2).await?;
    prober.answered(1_000).await?;
    network.heal().await?;
    prober.answered(100).await?;
    prober.stop().await?;
    product.leads_to(bgp, &ALL).await?;
    product.watched_by_bfd().await?;
    let after = sessions().await?;
    ensure!(before.len() == after.len(), "{before:?}, then {after:?}");
    Ok(())
}

/// A second router joins: every node announces to both, and users behind one do not notice when the other restarts.
async fn a_second_router_takes_over(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    let network = cluster.network();
    let host = network.lan_client();
    let second = network
        .nodes()
        .iter()
        .fold(Bgp::new(ROUTER_ASN, host), |bgp, node| {
            bgp.peer(Peer::at(node.v4, NODE_ASN).bfd(100).passive())
        })
        .start(Software::Frr, host, network.folder())
        .await?;
    cluster
        .apply(&format!(
            r"
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {{name: second}}
spec:
  conf: {{peerAs: {ROUTER_ASN}, neighborAddress: {}}}
  bfd: {{enabled: true, transmitInterval: 100, receiveInterval: 100}}
",
            host.v4
        ))
        .await?;
    for node in network.nodes() {
        second.established(node.v4).await?;
    }
    leads_from(host.namespace(), bgp, network.nodes().len()).await?;
    let loss = product
        .under_traffic(
            "one of two routers restarts",
            (host, bgp),
            async || cluster.router().restart().await,
            async || product.leads_to(bgp, &ALL).await,
        )
        .await?;
    ensure!(loss.failed == 0, "{loss:?}");
    product
        .user()
        .kubectl(&["delete", "bgppeer", "second"])
        .await?;
    leads_from(host.namespace(), bgp, 0).await?;
    second.stop().await
}

/// The node that answers for a LAN's address dies without a word; another with a pod takes over.
async fn the_leader_of_the_lan_loses_power(product: &Product<'_>, lan: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    product
        .user()
        .kubectl(&[
            "patch",
            "service",
            "web-lan",
            r#"--patch={"spec":{"externalTrafficPolicy":"Local"}}"#,
        ])
        .await?;
    let leader = product.answerer(lan).await?;
    product
        .under_traffic(
            "the leader of a LAN's address loses power",
            (cluster.network().lan_client(), lan),
            async || cluster.node(&leader)?.power_off().await,
            async || {
                let next = product.answerer(lan).await?;
                ensure!(next != leader, "{leader} has no power");
                Ok(())
            },
        )
        .await?;
    cluster.node(&leader)?.power_on().await?;
    cluster.ready().await?;
    spread_pods_again(product).await
}

/// Each in turn, under load, and back again: the address never goes, and at the end all three serve.
async fn nodes_lose_power_one_after_the_other(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    for gone in ALL {
        product.leads_to(bgp, &ALL).await?;
        product.watched_by_bfd().await?;
        let left: Vec<&str> = ALL.into_iter().filter(|node| *node != gone).collect();
        product
            .under_traffic(
                "a node loses power (BFD 3 × 100 ms)",
                (cluster.network().client(), bgp),
                async || cluster.node(gone)?.power_off().await,
                async || product.leads_to(bgp, &left).await,
            )
            .await?;
        cluster.node(gone)?.power_on().await?;
        cluster.ready().await?;
    }
    product.leads_to(bgp, &ALL).await
}

/// A machine is thrown out, with its Node; a new one of its name joins and takes its share.
async fn a_node_is_replaced(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    let user = product.user();
    product.watched_by_bfd().await?;
    cluster.remove_node("n3").await?;
    product.leads_to(bgp, &["n1", "n2"]).await?;
    eventually("n3 leaves the peer's status", Deadline::LONG, async || {
        let nodes = user
            .kubectl(&[
                "get",
                "bgppeer",
                "router",
                "--output=jsonpath={.status.nodesPeerStatus}",
            ])
            .await?;
        ensure!(
            nodes.contains("\"n1\"") && !nodes.contains("\"n3\""),
            "{nodes}"
        );
        anyhow::Ok(())
    })
    .await?;
    cluster.add_node("n3").await?;
    spread_pods_again(product).await?;
    product.leads_to(bgp, &ALL).await?;
    ensure!(product.address("web-bgp").await? == bgp);
    Ok(())
}

async fn kill_all(product: &Product<'_>, component: &str) -> Result<()> {
    for (_, pod) in product.pods(component).await? {
        product
            .cluster()
            .signal_pod(NAMESPACE, &pod, Signal::SIGKILL)
            .await?;
    }
    Ok(())
}

/// The scheduler does not move pods to a node that comes back, and counts old pods when it spreads new ones: all are made
/// anew, one for each node.
async fn spread_pods_again(product: &Product<'_>) -> Result<()> {
    let user = product.user();
    user.kubectl(&["scale", "deployment/web", "--replicas=0"])
        .await?;
    user.kubectl(&[
        "wait",
        "--for=delete",
        "pod",
        "--selector=app=web",
        "--timeout=100s",
    ])
    .await?;
    user.kubectl(&["scale", "deployment/web", "--replicas=3"])
        .await?;
    user.rolled_out("default", "deployment/web").await
}

async fn leads_from(
    router: &openelb_tests::Namespace,
    address: IpAddr,
    nodes: usize,
) -> Result<()> {
    eventually("the second router's routes", Deadline::LONG, async || {
        let seen = router.next_hops(ipnet::IpNet::from(address)).await?;
        ensure!(
            seen.len() == nodes,
            "{address} leads to {seen:?}, not to {nodes} nodes"
        );
        anyhow::Ok(())
    })
    .await
}

fn service(name: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: Service
metadata:
  name: {name}
  annotations:
    lb.kubesphere.io/v1alpha1: openelb
    eip.openelb.kubesphere.io/v1alpha2: bgp
spec:
  type: LoadBalancer
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
"
    )
}
