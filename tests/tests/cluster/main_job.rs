//! The main job: a pool, a router, a Service; and traffic flows. Then what users and machines do to it.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use openelb_tests::cluster::Cluster;
use openelb_tests::product::{NAMESPACE, Product, page};
use openelb_tests::{Deadline, eventually, scenario};

const INSTALL_PAGE: &str = "docs/tasks/install.md";
const ALL: [&str; 3] = ["n1", "n2", "n3"];

/// One cluster serves all of these, in the order in which a user would meet them.
#[test]
fn traffic_flows_by_bgp_whatever_happens() {
    scenario(async || -> Result<()> {
        let cluster = Cluster::config(3).audit().start().await?;
        let product = Product::new(&cluster).await?;
        let untouched = what_nodes_have(&product).await?;
        product.install(&[]).await?;
        ensure!(product.pods("speaker").await?.len() == 3);
        let (bgp, lan) = product.samples().await?;

        spread_over_all_nodes_with_the_clients_address(&product, bgp).await?;
        one_node_answers_on_the_lan(&product, lan).await?;
        the_pool_tells_who_uses_it(&product, bgp).await?;
        crate::rules::the_rules_answer_through_kubectl(&product).await?;
        a_speaker_that_is_killed_comes_back(&product, bgp).await?;
        a_speaker_that_is_replaced_loses_nothing_for_long(&product, bgp).await?;
        an_excluded_node_gets_no_traffic(&product, bgp).await?;
        a_cordoned_node_keeps_its_traffic(&product, bgp).await?;
        the_application_is_updated(&product, bgp).await?;
        nothing_is_announced_without_pods(&product, bgp).await?;
        the_chart_is_upgraded(&product, bgp).await?;
        the_router_restarts(&product, bgp).await?;
        a_node_loses_power(&product, bgp).await?;
        uninstalling_leaves_objects_and_takes_the_rest(&product, bgp, &untouched).await
    });
}

async fn spread_over_all_nodes_with_the_clients_address(
    product: &Product<'_>,
    bgp: IpAddr,
) -> Result<()> {
    product.leads_to(bgp, &ALL).await?;
    let client = product.cluster().network().client();
    let mut prober = product.traffic(client, bgp).await?;
    prober.answered(300).await?;
    let report = prober.stop().await?;
    ensure!(report.gap().is_zero(), "{report}");
    ensure!(report.by_node().len() == 3, "{:?}", report.by_node());
    ensure!(report.kept_client(), "{report}");
    Ok(())
}

async fn one_node_answers_on_the_lan(product: &Product<'_>, lan: IpAddr) -> Result<()> {
    let leader = product.answerer(lan).await?;
    let client = product.cluster().network().lan_client();
    let mut prober = product.traffic(client, lan).await?;
    prober.answered(200).await?;
    let report = prober.stop().await?;
    ensure!(report.gap().is_zero(), "{report}");
    ensure!(product.answerer(lan).await? == leader, "the leader changed");
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

async fn a_speaker_that_is_killed_comes_back(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    let speaker = product.speaker_on("n2").await?;
    let client = (cluster.network().client(), bgp);
    product
        .under_traffic(
            "a speaker is killed (SIGKILL)",
            client,
            async || {
                cluster
                    .signal_pod(NAMESPACE, &speaker, Signal::SIGKILL)
                    .await?;
                product.leads_to(bgp, &["n1", "n3"]).await
            },
            async || product.leads_to(bgp, &ALL).await,
        )
        .await
        .map(drop)
}

async fn a_speaker_that_is_replaced_loses_nothing_for_long(
    product: &Product<'_>,
    bgp: IpAddr,
) -> Result<()> {
    let client = (product.cluster().network().client(), bgp);
    let speaker = product.speaker_on("n3").await?;
    product
        .under_traffic(
            "a speaker's pod is deleted (SIGTERM)",
            client,
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
        .await
        .map(drop)
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
        .await?;
    user.kubectl(&["label", "node", "n1", &format!("{label}-")])
        .await?;
    product.leads_to(bgp, &ALL).await
}

async fn a_cordoned_node_keeps_its_traffic(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let client = (product.cluster().network().client(), bgp);
    let user = product.user();
    let loss = product
        .under_traffic(
            "a node is cordoned",
            client,
            async || user.kubectl(&["cordon", "n1"]).await.map(drop),
            async || product.leads_to(bgp, &ALL).await,
        )
        .await?;
    ensure!(loss.failed == 0, "{loss:?}");
    user.kubectl(&["uncordon", "n1"]).await.map(drop)
}

async fn the_application_is_updated(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let client = (product.cluster().network().client(), bgp);
    let user = product.user();
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
                user.kubectl(&[
                    "wait",
                    "--for=delete",
                    "pod",
                    "--selector=app=web",
                    "--timeout=1s",
                ])
                .await
                .ok();
                Ok(())
            },
        )
        .await
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

async fn the_chart_is_upgraded(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let client = (product.cluster().network().client(), bgp);
    product
        .under_traffic(
            "helm upgrade replaces every pod of ours",
            client,
            async || product.install(&["log.level=debug"]).await,
            async || product.leads_to(bgp, &ALL).await,
        )
        .await?;
    ensure!(product.address("web-bgp").await? == bgp);
    Ok(())
}

async fn the_router_restarts(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    product.cluster().router().restart().await?;
    product.leads_to(bgp, &ALL).await
}

async fn a_node_loses_power(product: &Product<'_>, bgp: IpAddr) -> Result<()> {
    let cluster = product.cluster();
    product.watched_by_bfd().await?;
    product
        .under_traffic(
            "a node loses power (BFD 3 × 100 ms)",
            (cluster.network().client(), bgp),
            async || cluster.node("n2")?.power_off().await,
            async || product.leads_to(bgp, &["n1", "n3"]).await,
        )
        .await?;
    cluster.node("n2")?.power_on().await?;
    cluster.ready().await?;
    product.leads_to(bgp, &ALL).await
}

async fn uninstalling_leaves_objects_and_takes_the_rest(
    product: &Product<'_>,
    bgp: IpAddr,
    untouched: &[(String, String)],
) -> Result<()> {
    let user = product.user();
    page::follow(user, INSTALL_PAGE, "Uninstall").await?;
    product.leads_to(bgp, &[]).await?;
    ensure!(product.address("web-bgp").await? == bgp, "the status stays");
    let eips = user.kubectl(&["get", "eips", "--output=name"]).await?;
    ensure!(eips.lines().count() == 2, "{eips}");
    let left = user
        .kubectl(&[
            "get",
            "deployments,daemonsets,validatingwebhookconfigurations,mutatingwebhookconfigurations,clusterroles",
            "--all-namespaces",
            "--selector=app=openelb",
            "--output=name",
        ])
        .await?;
    ensure!(left.is_empty(), "left: {left}");
    eventually("nodes as they were", Deadline::LONG, async || {
        for (before, after) in untouched.iter().zip(what_nodes_have(product).await?) {
            let added: Vec<&str> = after
                .1
                .lines()
                .filter(|line| !before.1.lines().any(|known| known == *line))
                .collect();
            ensure!(added.is_empty(), "on {}: {added:#?}", after.0);
        }
        anyhow::Ok(())
    })
    .await?;
    // What the documentation says removes the rest, and nothing hangs.
    page::follow(user, INSTALL_PAGE, "Remove what is left").await?;
    let status = [
        "get",
        "services",
        "web-bgp",
        "web-lan",
        "--output=jsonpath={.items[*].status}",
    ];
    let status = user.kubectl(&status).await?;
    ensure!(
        !status.contains("ip") && !status.contains("openelb"),
        "{status}"
    );
    let kinds = user
        .kubectl(&["api-resources", "--verbs=list", "--output=name"])
        .await?;
    let kinds = kinds
        .lines()
        // Events tell what was; they go by themselves.
        .filter(|kind| !kind.starts_with("events") && !kind.starts_with("componentstatuses"))
        .collect::<Vec<_>>()
        .join(",");
    let all = ["get", &kinds, "--all-namespaces", "--output=name"];
    let left = user.kubectl(&all).await?;
    let ours: Vec<&str> = left
        .lines()
        .filter(|name| name.contains("openelb"))
        .collect();
    ensure!(ours.is_empty(), "left: {ours:?}");
    Ok(())
}

/// What an administrator finds on each node: settings of interfaces, addresses, groups, rules, routes, neighbours for
/// which the node answers. Groups of the node's own addresses are left out: a boot joins them in another way.
async fn what_nodes_have(product: &Product<'_>) -> Result<Vec<(String, String)>> {
    const LOOK: &str = r"
        sysctl --all 2>/dev/null | grep -E '^net\.ipv[46]\.(conf|neigh)\.(all|default|eth0|lo)\.'
        ip -o addr show dev eth0 scope global | sed 's/valid_lft.*//'
        ip maddr show dev eth0 | grep -vE 'ff02::1:ff00:(0|[bcd])$'
        ip rule; ip -6 rule
        ip route show dev eth0; ip -6 route show dev eth0
        ip neigh show proxy; ip -6 neigh show proxy";
    let mut found = Vec::new();
    for node in product.cluster().nodes() {
        let namespace = node.host().namespace();
        let text = namespace.run(&["sh", "-c", LOOK]).await?;
        found.push((node.name().to_owned(), text));
    }
    Ok(found)
}
