//! What happens to machines and pods in a cluster's life, under traffic: drained, replaced, flapping, cut down one after
//! the other; controllers and webhooks killed; bad links; a second router; a LAN's leader gone.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use nix::sys::signal::Signal;
use openelb_tests::bgp::{Bgp, Peer, Software};
use openelb_tests::cluster::{Cluster, NODE_ASN, ROUTER_ASN};
use openelb_tests::product::{Loss, NAMESPACE, Product, RouteWatch, lives, page, repository};
use openelb_tests::{Deadline, eventually, scenario};
use serde_json::json;

use crate::{ALL, BY_BFD, SESSIONS_BACK, SPREAD_ANEW};

/// One cluster serves all of these.
#[test]
fn traffic_survives_what_happens_to_machines_and_pods() {
    scenario(async || -> Result<()> {
        let cluster = Cluster::start(3).await?;
        let product = Product::new(&cluster).await?;
        installed_by_kubectl(&product).await?;
        let (bgp, lan) = product.samples().await?;
        product.leads_to(bgp, &ALL).await?;
        product.watched_by_bfd().await?;

        nodes_flap_between_ready_and_not(&product, bgp).await?;
        every_controller_is_killed(&product, bgp).await?;
        every_webhook_is_killed(&product, bgp).await?;
        a_node_is_drained(&product, bgp, lan).await?;
        a_link_is_bad(&product, bgp).await?;
        of_two_routers_one_is_enough(&product, bgp).await?;
        the_leader_of_the_lan_loses_power(&product, lan).await?;
        nodes_lose_power_one_after_the_other(&product, bgp).await?;
        a_node_is_replaced(&product, bgp).await
    });
}

/// Without helm: what the documentation says, and no more.
async fn installed_by_kubectl(product: &Product<'_>) -> Result<()> {
    let user = product.user();
    page::follow(user, "docs/tasks/install.md", "With kubectl").await?;
    for workload in [
        "deployment/openelb-webhook",
        "deployment/openelb-controller",
        "daemonset/openelb-speaker",
    ] {
        user.rolled_out(NAMESPACE, workload).await?;
    }
    // helm's hooks tell the API server of the webhook; here it does so itself, once it runs.
    eventually("the webhook completes an Eip", Deadline::LONG, async || {
        let eip = repository().join("config/samples/eip-bgp.yaml");
        let eip = format!("--filename={}", eip.display());
        user.kubectl(&["apply", "--dry-run=server", &eip])
            .await
            .map(drop)
    })
    .await
}

/// A kubelet hangs, so its Node is NotReady for a moment, and again: pods serve on, and no route may move. NotReady for
/// longer than ten seconds moves them, without harm; and Ready moves them back.
async fn nodes_flap_between_ready_and_not(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    let network = cluster.network();
    let nodes: Api<Node> = Api::all(product.user().client());
    // What the node lifecycle controller writes when it has heard nothing of a kubelet for long.
    let becomes = async |status: &str| {
        let flap = json!({"status": {"conditions": [{
            "type": "Ready", "status": status, "reason": "NodeStatusUnknown",
        }]}});
        nodes
            .patch_status("n2", &PatchParams::default(), &Patch::Strategic(&flap))
            .await
    };
    let kubelet = cluster.node("n2")?.kubelet();
    let watch = RouteWatch::start(network, network.router()).await?;
    let loss = product
        .under_traffic(
            "a kubelet hangs for moments",
            (network.client(), bgp),
            async || {
                kubelet.pause();
                for _ in 0..3 {
                    becomes("Unknown").await?;
                    // A hundred a second.
                    product.flows(network.client(), bgp, 100).await?;
                    becomes("True").await?;
                    product.flows(network.client(), bgp, 50).await?;
                }
                Ok(())
            },
            async || Ok(()),
        )
        .await?
        .at_most(0)?;
    let changes = watch.changes(bgp).await?;
    ensure!(
        changes.is_empty() || loss.cannot_be_judged(),
        "routes moved: {changes:#?}"
    );
    product
        .under_traffic(
            "a kubelet hangs for longer",
            (network.client(), bgp),
            async || {
                becomes("Unknown").await?;
                product.leads_to(bgp, &["n1", "n3"]).await
            },
            async || {
                kubelet.resume();
                // It says what is true.
                cluster.ready().await?;
                product.leads_to(bgp, &ALL).await
            },
        )
        .await?
        .at_most(2 * SPREAD_ANEW)?;
    Ok(())
}

/// Nobody gives addresses for a moment; those that were given are announced all the same, and work goes on after.
async fn every_controller_is_killed(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let client = product.cluster().network().client();
    product
        .under_traffic(
            "every controller is killed (SIGKILL)",
            (client, bgp),
            async || {
                kill_all(product, "controller").await?;
                product.cluster().apply(&service("while-killed")).await
            },
            async || product.address("while-killed").await.map(drop),
        )
        .await?
        .at_most(0)?;
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
    product
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
        .await?
        .at_most(0)?;
    user.kubectl(&["delete", "service", "without-webhook"])
        .await
        .map(drop)
}

/// kubectl drain moves the pods away: the node's route goes with the last of them, and no new connection is
/// lost.
async fn a_node_is_drained(product: &Product<'_>, bgp: IpAddr, lan: IpAddr) -> Result<()> {
    let client = product.cluster().network().client();
    let user = product.user();
    let lan_client = product.cluster().network().lan_client();
    let losses = product
        .under_traffics(
            "a node is drained",
            [(client, bgp), (lan_client, lan)],
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
    for loss in losses {
        loss.at_most(SPREAD_ANEW)?;
    }
    user.kubectl(&["uncordon", "n1"]).await?;
    spread_pods_again(product).await?;
    product.leads_to(bgp, &ALL).await
}

/// Lost packets and a slow link are no reason to drop a session: TCP, and three lost BFD packets in a row, say so.
async fn a_link_is_bad(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let network = product.cluster().network();
    let router = product.cluster().router();
    let slow = network.node("n2")?;
    let before = lives(router).await?;
    let watch = RouteWatch::start(network, network.router()).await?;
    let mut prober = product.traffic(network.client(), bgp).await?;
    for (latency, percent) in [(0, 2), (50, 0), (50, 2)] {
        if latency > 0 {
            network.delay(slow, Duration::from_millis(latency)).await?;
        }
        if percent > 0 {
            network.lose(slow, percent).await?;
        }
        prober.mark(&format!("{latency} ms, {percent} % lost"));
        prober.answered(500).await?;
        network.heal().await?;
    }
    prober.answered(100).await?;
    let report = prober.stop().await?;
    // The prober waits for less time than a lost SYN takes to be sent again: each loss on the third of the connections
    // that goes by way of this node counts. More than a few in a hundred would be ours.
    let loss = Loss::in_all(&report);
    println!("a bad link: {loss:?}");
    loss.at_most(report.probes().len() / 20)?;
    let changes = watch.changes(bgp).await?;
    let after = lives(router).await?;
    ensure!(
        (changes.is_empty() && before == after) || loss.cannot_be_judged(),
        "routes moved: {changes:#?}; {before:?}, then {after:?}"
    );
    Ok(())
}

/// A second router joins: every node announces to both, and users of one do not notice when the other restarts or dies.
async fn of_two_routers_one_is_enough(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
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
    let users = [(network.client(), bgp), (host, bgp)];
    let before = lives(&second).await?;
    let [of_first, of_second] = product
        .under_traffics(
            "the first of two routers restarts",
            users,
            async || cluster.router().restart().await,
            async || {
                for node in network.nodes() {
                    cluster.router().established(node.v4).await?;
                }
                product.leads_to(bgp, &ALL).await
            },
        )
        .await?;
    of_first.within(SESSIONS_BACK)?;
    let judged = of_second.at_most(0)?;
    let after = lives(&second).await?;
    ensure!(
        before == after || judged.cannot_be_judged(),
        "{before:?}, then {after:?}"
    );
    product.watched_by_bfd().await?;
    let before = lives(cluster.router()).await?;
    let judged = product
        .under_traffic(
            "the second of two routers dies",
            (network.client(), bgp),
            async || {
                second.kill().await;
                Ok(())
            },
            async || second_is_seen_to_be_gone(product).await,
        )
        .await?
        .at_most(0)?;
    let after = lives(cluster.router()).await?;
    ensure!(
        before == after || judged.cannot_be_judged(),
        "{before:?}, then {after:?}"
    );
    second.restart().await?;
    leads_from(host.namespace(), bgp, network.nodes().len()).await?;
    product
        .user()
        .kubectl(&["delete", "bgppeer", "second"])
        .await?;
    leads_from(host.namespace(), bgp, 0).await?;
    second.stop().await
}

/// Every node says in the peer's status that its session is down.
async fn second_is_seen_to_be_gone(product: &Product<'_>) -> Result<()> {
    eventually(
        "the second router's sessions to end",
        Deadline::LONG,
        async || {
            let status = product
                .user()
                .kubectl(&[
                    "get",
                    "bgppeer",
                    "second",
                    "--output=jsonpath={.status.nodesPeerStatus}",
                ])
                .await?;
            ensure!(
                status.contains("n1") && !status.to_lowercase().contains("\"established\""),
                "{status}"
            );
            anyhow::Ok(())
        },
    )
    .await
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
                cluster.node(&leader)?.power_on().await?;
                cluster.ready().await?;
                product.answers(cluster.network().lan_client(), lan).await
            },
        )
        .await?
        .within(BY_BFD)?;
    spread_pods_again(product).await
}

/// Each in turn, and back again, under one load: the address never goes, and at the end all three serve.
async fn nodes_lose_power_one_after_the_other(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    for gone in ALL {
        product.watched_by_bfd().await?;
        let left: Vec<&str> = ALL.into_iter().filter(|node| *node != gone).collect();
        product
            .under_traffic(
                &format!("{gone} loses power, and has it back"),
                (cluster.network().client(), bgp),
                async || cluster.node(gone)?.power_off().await,
                async || {
                    product.leads_to(bgp, &left).await?;
                    cluster.node(gone)?.power_on().await?;
                    cluster.ready().await?;
                    product.leads_to(bgp, &ALL).await?;
                    // Its speaker may be there before its kube-proxy and its pods are.
                    product.answers(cluster.network().client(), bgp).await
                },
            )
            .await?
            .within(BY_BFD)?;
    }
    Ok(())
}

/// A machine is thrown out, with its Node; a new one of its name joins and takes its share.
async fn a_node_is_replaced(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    let user = product.user();
    product.watched_by_bfd().await?;
    product
        .under_traffic(
            "a machine is thrown out, and another takes its place",
            (cluster.network().client(), bgp),
            async || {
                cluster.remove_node("n3").await?;
                product.leads_to(bgp, &["n1", "n2"]).await
            },
            async || {
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
                // The pods of the node that went are made anew; they may have found room elsewhere.
                user.kubectl(&["scale", "deployment/web", "--replicas=6"])
                    .await?;
                user.rolled_out("default", "deployment/web").await?;
                product.leads_to(bgp, &ALL).await?;
                product.answers(cluster.network().client(), bgp).await
            },
        )
        .await?
        .within(BY_BFD)?;
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

/// A Service for the web server, with an address of the pool `bgp`.
pub(crate) fn service(name: &str) -> String {
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
