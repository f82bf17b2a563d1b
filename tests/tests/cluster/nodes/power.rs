//! Machines that lose their power, come back, and are replaced.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use openelb_tests::product::Product;
use openelb_tests::{Deadline, eventually};

use super::spread_pods_again;
use crate::{ALL, BY_BFD, SPREAD_ANEW};

/// The node that answers for a LAN's address dies without a word; another with a pod takes over.
pub(super) async fn the_leader_of_the_lan_loses_power(
    product: &Product<'_>,
    lan: IpAddr,
) -> Result<()> {
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

/// Each in turn, and back again, under one load: the address never goes, and at the end all three serve. Nobody is led to
/// a node that boots before its kube-proxy and its pods are there.
pub(super) async fn nodes_lose_power_one_after_the_other(
    product: &Product<'_>,
    bgp: IpAddr,
) -> Result<()> {
    let cluster = product.cluster();
    let client = (cluster.network().client(), bgp);
    for gone in ALL {
        product.watched_by_bfd().await?;
        let left: Vec<&str> = ALL.into_iter().filter(|node| *node != gone).collect();
        product
            .under_traffic(
                &format!("{gone} loses power"),
                client,
                async || cluster.node(gone)?.power_off().await,
                async || product.leads_to(bgp, &left).await,
            )
            .await?
            .within(BY_BFD)?;
        product
            .under_traffic(
                &format!("{gone} has its power back"),
                client,
                async || cluster.node(gone)?.power_on().await,
                async || {
                    cluster.ready().await?;
                    product.leads_to(bgp, &ALL).await
                },
            )
            .await?
            .only_cut(SPREAD_ANEW)?;
    }
    Ok(())
}

/// A machine is thrown out, with its Node; a new one of its name joins and takes its share.
pub(super) async fn a_node_is_replaced(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    let user = product.user();
    let client = (cluster.network().client(), bgp);
    product.watched_by_bfd().await?;
    product
        .under_traffic(
            "a machine is thrown out",
            client,
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
                .await
            },
        )
        .await?
        .within(BY_BFD)?;
    product
        .under_traffic(
            "another machine takes its place",
            client,
            async || cluster.add_node("n3").await,
            async || {
                // The pods of the node that went are made anew; they may have found room elsewhere.
                user.kubectl(&["scale", "deployment/web", "--replicas=6"])
                    .await?;
                user.rolled_out("default", "deployment/web").await?;
                product.leads_to(bgp, &ALL).await
            },
        )
        .await?
        .only_cut(2 * SPREAD_ANEW)?;
    ensure!(product.address("web-bgp").await? == bgp);
    Ok(())
}
