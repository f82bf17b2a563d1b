//! Bad links, and a second router.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use openelb_tests::bgp::{Bgp, Peer, Software};
use openelb_tests::cluster::{NODE_ASN, ROUTER_ASN};
use openelb_tests::product::{Loss, Product, RouteWatch, lives};
use openelb_tests::{Deadline, eventually};

use crate::{ALL, SESSIONS_BACK};

/// Lost packets and a slow link are no reason to drop a session: TCP, and three lost BFD packets in a row, say so.
pub(super) async fn a_link_is_bad(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    // Whatever else this machine does may hold three of BFD's packets back too, but not time and again.
    let mut last = String::new();
    for _ in 0..3 {
        let Some(moved) = moved_by_a_bad_link(product, bgp).await? else {
            return Ok(());
        };
        println!("a bad link: {moved}");
        last = moved;
        product.watched_by_bfd().await?;
    }
    bail!(last)
}

/// Which routes and sessions changed on a bad link, if any did.
async fn moved_by_a_bad_link(product: &Product<'_>, bgp: IpAddr) -> Result<Option<String>> {
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
    let stayed = (changes.is_empty() && before == after) || loss.cannot_be_judged();
    Ok((!stayed).then(|| format!("routes moved: {changes:#?}; {before:?}, then {after:?}")))
}

/// A second router joins: every node announces to both, and users of one do not notice when the other restarts or dies.
pub(super) async fn of_two_routers_one_is_enough(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
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
