//! What happens to machines and pods in a cluster's life, under traffic: flapping, drained, controllers and webhooks
//! killed; then bad links and a second router (`links`), and machines without power or replaced (`power`).

mod links;
mod power;

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use nix::sys::signal::Signal;
use openelb_tests::cluster::Cluster;
use openelb_tests::product::{NAMESPACE, Product, RouteWatch, page, repository};
use openelb_tests::{Deadline, eventually, scenario};
use serde_json::json;

use crate::{ALL, SPREAD_ANEW};

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
        links::a_link_is_bad(&product, bgp).await?;
        links::of_two_routers_one_is_enough(&product, bgp).await?;
        power::the_leader_of_the_lan_loses_power(&product, lan).await?;
        power::nodes_lose_power_one_after_the_other(&product, bgp).await?;
        power::a_node_is_replaced(&product, bgp).await
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
