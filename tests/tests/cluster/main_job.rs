//! The main job: a pool, a router, a Service; and traffic flows. Then what users and machines do to it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use openelb_tests::cluster::Cluster;
use openelb_tests::product::{NAMESPACE, Product, lives};
use openelb_tests::{Deadline, Host, eventually, scenario};

use crate::{ALL, BY_BFD, SPREAD_ANEW, journey};

/// Namespaces without a label may hold nothing but pods that ask for nothing, as in a cluster that is run with care. The
/// lab's own pods and the samples' web server are not the matter here.
const RESTRICTED: &str = r#"{
    "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
    "plugins": [{"name": "PodSecurity", "configuration": {
        "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": "restricted", "enforce-version": "latest"},
        "exemptions": {"namespaces": ["kube-system", "default"]}
    }}]
}"#;

/// One cluster serves all of these, in the order in which a user would meet them.
#[test]
fn traffic_flows_by_bgp_whatever_happens() {
    scenario(async || -> Result<()> {
        let mut rules = tempfile::NamedTempFile::new()?;
        std::io::Write::write_all(&mut rules, RESTRICTED.as_bytes())?;
        let rules = format!("--admission-control-config-file={}", rules.path().display());
        let cluster = Cluster::config(3)
            .audit()
            .api_server_arg(&rules)
            .start()
            .await?;
        let product = Product::new(&cluster).await?;
        let untouched = crate::uninstall::what_nodes_have(&product).await?;
        product.install(&[]).await?;
        ensure!(product.pods("speaker").await?.len() == 3);
        crate::pods::have_what_the_chart_gives_them(&product).await?;
        let (bgp, lan) = product.samples().await?;

        spread_over_all_nodes_with_the_clients_address(&product, bgp).await?;
        one_node_answers_on_the_lan(&product, lan).await?;
        the_pool_tells_who_uses_it(&product, bgp).await?;
        new_addresses_answer_from_the_first_connection(&product).await?;
        crate::rules::the_rules_answer_through_kubectl(&product).await?;
        a_speaker_that_is_killed_comes_back(&product, bgp, lan).await?;
        a_speaker_that_is_replaced_loses_nothing_for_long(&product, bgp, lan).await?;
        an_excluded_node_gets_no_traffic(&product, bgp).await?;
        a_cordoned_node_keeps_its_traffic(&product, bgp).await?;
        the_application_is_updated(&product, bgp).await?;
        nothing_is_announced_without_pods(&product, bgp).await?;
        both_families_flow_with_iptables_too(&product).await?;
        the_chart_is_upgraded(&product, bgp, lan).await?;
        the_router_restarts(&product, bgp).await?;
        a_node_loses_power(&product, bgp).await?;
        product.judge_rights(&[]).await?;
        crate::uninstall::leaves_objects_and_takes_the_rest(&product, [bgp, lan], &untouched).await
    });
}

async fn spread_over_all_nodes_with_the_clients_address(
    product: &Product<'_>,
    bgp: IpAddr,
) -> Result<()> {
    product.leads_to(bgp, &ALL).await?;
    let client = product.cluster().network().client();
    let report = product.flows(client, bgp, 300).await?;
    ensure!(report.by_node().len() == 3, "{:?}", report.by_node());
    ensure!(report.kept_client(), "{report}");
    Ok(())
}

async fn one_node_answers_on_the_lan(product: &Product<'_>, lan: IpAddr) -> Result<()> {
    let leader = product.answerer(lan).await?;
    let client = product.cluster().network().lan_client();
    product.flows(client, lan, 200).await?;
    ensure!(product.answerer(lan).await? == leader, "the leader changed");
    Ok(())
}

/// A node whose kube-proxy does not know the address yet would send a third of them round in circles for a second.
pub(crate) async fn new_addresses_answer_from_the_first_connection(
    product: &Product<'_>,
) -> Result<()> {
    let client = product.cluster().network().client();
    for name in ["new-1", "new-2", "new-3"] {
        product
            .cluster()
            .apply(&crate::nodes::service(name))
            .await?;
        let address = product.address(name).await?;
        // The nodes' routes come one after the other.
        let loss = product.first_connections(client, address, 150).await?;
        loss.at_most(2 * SPREAD_ANEW)?;
        product.user().kubectl(&["delete", "service", name]).await?;
    }
    Ok(())
}

async fn the_pool_tells_who_uses_it(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let path = format!(
        "--output=jsonpath={{.status.used.{}}}",
        bgp.to_string().replace('.', "\\.")
    );
    eventually("the pool's status", Deadline::LONG, async || {
        let used = product
            .user()
            .kubectl(&["get", "eip", "bgp", &path])
            .await?;
        ensure!(used == "default/web-bgp", "used: {used}");
        anyhow::Ok(())
    })
    .await?;
    let holder = product
        .user()
        .kubectl(&[
            "get",
            "eipaddress",
            &bgp.to_string(),
            "--output=jsonpath={.spec.services[0].name}",
        ])
        .await?;
    ensure!(holder == "web-bgp", "{holder}");
    Ok(())
}

/// The node that answers on the LAN, so that both protocols lose something.
async fn a_speaker_that_is_killed_comes_back(
    product: &Product<'_>,
    bgp: IpAddr,
    lan: IpAddr,
) -> Result<()> {
    let cluster = product.cluster();
    let node = product.answerer(lan).await?;
    let speaker = product.speaker_on(&node).await?;
    let address = IpAddr::V4(cluster.node(&node)?.host().v4);
    let before = lives(cluster.router()).await?;
    let before = before.get(&address).copied().unwrap_or_default();
    let [by_bgp, on_lan] = product
        .under_traffics(
            "a speaker is killed (SIGKILL)",
            both(product, bgp, lan),
            async || {
                cluster
                    .signal_pod(NAMESPACE, &speaker, Signal::SIGKILL)
                    .await
            },
            async || {
                // It may be back before anybody has looked: its sessions are counted.
                eventually("another session", Deadline::LONG, async || {
                    let now = lives(cluster.router()).await?;
                    let now = now.get(&address).context("no such peer")?;
                    ensure!(
                        now.dropped > before.dropped && now.established > before.established,
                        "{before:?}, then {now:?}"
                    );
                    anyhow::Ok(())
                })
                .await?;
                product.leads_to(bgp, &ALL).await
            },
        )
        .await?;
    by_bgp.within(BY_BFD)?;
    on_lan.within(BY_BFD)?;
    product.watched_by_bfd().await
}

async fn a_speaker_that_is_replaced_loses_nothing_for_long(
    product: &Product<'_>,
    bgp: IpAddr,
    lan: IpAddr,
) -> Result<()> {
    let node = product.answerer(lan).await?;
    let speaker = product.speaker_on(&node).await?;
    let losses = product
        .under_traffics(
            "a speaker's pod is deleted (SIGTERM)",
            both(product, bgp, lan),
            async || {
                let delete = ["delete", "pod", &speaker, "--namespace", NAMESPACE];
                product.user().kubectl(&delete).await.map(drop)
            },
            async || {
                let speakers = product
                    .user()
                    .rolled_out(NAMESPACE, "daemonset/openelb-speaker");
                speakers.await?;
                product.leads_to(bgp, &ALL).await
            },
        )
        .await?;
    for loss in losses {
        // It goes, and comes back.
        loss.at_most(2 * SPREAD_ANEW)?;
    }
    product.watched_by_bfd().await
}

/// A client behind the router, which learns by BGP; and one on the nodes' own network.
fn both<'a>(product: &'a Product<'_>, bgp: IpAddr, lan: IpAddr) -> [(&'a Host, IpAddr); 2] {
    let network = product.cluster().network();
    [(network.client(), bgp), (network.lan_client(), lan)]
}

async fn an_excluded_node_gets_no_traffic(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let client = (product.cluster().network().client(), bgp);
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    let user = product.user();
    product
        .under_traffic(
            "a node is excluded from load balancing",
            client,
            async || {
                user.kubectl(&["label", "node", "n1", &format!("{label}=true")])
                    .await
                    .map(drop)
            },
            async || product.leads_to(bgp, &["n2", "n3"]).await,
        )
        .await?
        .at_most(SPREAD_ANEW)?;
    user.kubectl(&["label", "node", "n1", &format!("{label}-")])
        .await?;
    product.leads_to(bgp, &ALL).await
}

async fn a_cordoned_node_keeps_its_traffic(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let client = (product.cluster().network().client(), bgp);
    let user = product.user();
    product
        .under_traffic(
            "a node is cordoned",
            client,
            async || user.kubectl(&["cordon", "n1"]).await.map(drop),
            async || product.leads_to(bgp, &ALL).await,
        )
        .await?
        .at_most(0)?;
    user.kubectl(&["uncordon", "n1"]).await.map(drop)
}

async fn the_application_is_updated(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let client = (product.cluster().network().client(), bgp);
    let user = product.user();
    let pods = async || {
        let names = [
            "get",
            "pods",
            "--selector=app=web",
            "--output=jsonpath={.items[*].metadata.name}",
        ];
        let names = user.kubectl(&names).await?;
        anyhow::Ok(names.split(' ').map(str::to_owned).collect::<BTreeSet<_>>())
    };
    let old = pods().await?;
    product
        .under_traffic(
            "the application is updated, pod by pod",
            client,
            async || {
                user.kubectl(&["rollout", "restart", "deployment/web"])
                    .await?;
                user.rolled_out("default", "deployment/web").await
            },
            async || {
                eventually("the last old pod to go", Deadline::LONG, async || {
                    let now = pods().await?;
                    ensure!(now.is_disjoint(&old), "{old:?}, now {now:?}");
                    anyhow::Ok(())
                })
                .await
            },
        )
        .await?
        // Each node may lose its last pod, and get one again.
        .at_most(2 * ALL.len() * SPREAD_ANEW)
        .map(drop)
}

async fn nothing_is_announced_without_pods(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let user = product.user();
    user.kubectl(&["scale", "deployment/web", "--replicas=0"])
        .await?;
    product.leads_to(bgp, &[]).await?;
    user.kubectl(&["scale", "deployment/web", "--replicas=6"])
        .await?;
    user.rolled_out("default", "deployment/web").await?;
    product.leads_to(bgp, &ALL).await?;
    ensure!(product.address("web-bgp").await? == bgp);
    Ok(())
}

/// The journey tells it of nftables.
async fn both_families_flow_with_iptables_too(product: &Product<'_>) -> Result<()> {
    journey::a_service_has_an_address_of_each_family(product, "router").await?;
    journey::a_service_of_one_family_gets_no_other(product).await?;
    let user = product.user();
    user.kubectl(&["delete", "service", "web-both", "web-six"])
        .await?;
    eventually("a pool without users", Deadline::LONG, async || {
        user.kubectl(&["delete", "eip", "both"]).await.map(drop)
    })
    .await?;
    product.watched_by_bfd().await
}

/// Another log level, which makes every pod anew.
async fn the_chart_is_upgraded(product: &Product<'_>, bgp: IpAddr, lan: IpAddr) -> Result<()> {
    let before = crate::pods::of_ours(product).await?;
    let losses = product
        .under_traffics(
            "helm upgrade replaces every pod of ours",
            both(product, bgp, lan),
            async || product.install(&["log.level=debug"]).await,
            async || product.leads_to(bgp, &ALL).await,
        )
        .await?;
    for loss in losses {
        // Each speaker goes, and comes back.
        loss.at_most(2 * ALL.len() * SPREAD_ANEW)?;
    }
    let after = crate::pods::of_ours(product).await?;
    ensure!(before.is_disjoint(&after), "{before:?}, then {after:?}");
    ensure!(product.address("web-bgp").await? == bgp);
    product.watched_by_bfd().await
}

/// The router's own memory is gone: until it has its sessions back it knows no way, and nobody else can help that.
async fn the_router_restarts(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    product
        .under_traffic(
            "the router restarts",
            (cluster.network().client(), bgp),
            async || cluster.router().restart().await,
            async || {
                for node in cluster.nodes() {
                    cluster.router().established(node.host().v4).await?;
                }
                product.leads_to(bgp, &ALL).await
            },
        )
        .await?
        .within(crate::SESSIONS_BACK)?;
    product.watched_by_bfd().await
}

/// And boots again, still under load: it announces nothing before its kube-proxy and its pods are there.
pub(crate) async fn a_node_loses_power(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    let client = (cluster.network().client(), bgp);
    product
        .under_traffic(
            "a node loses power",
            client,
            async || cluster.node("n2")?.power_off().await,
            async || product.leads_to(bgp, &["n1", "n3"]).await,
        )
        .await?
        .within(BY_BFD)?;
    product
        .under_traffic(
            "a node has its power back",
            client,
            async || cluster.node("n2")?.power_on().await,
            async || {
                cluster.ready().await?;
                product.leads_to(bgp, &ALL).await
            },
        )
        .await?
        .at_most(2 * SPREAD_ANEW)
        .map(drop)
}
