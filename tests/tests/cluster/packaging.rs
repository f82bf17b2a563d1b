//! Ways onto a cluster and from version to version: one file for kubectl, and the previous chart under load.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use openelb_tests::cluster::Cluster;
use openelb_tests::product::{NAMESPACE, Product, page, repository};
use openelb_tests::{Deadline, eventually, scenario};

const ALL: [&str; 3] = ["n1", "n2", "n3"];
const INSTALL_PAGE: &str = "docs/tasks/install.md";
const OFFLINE_PAGE: &str = "docs/tasks/offline.md";
const MONITOR_PAGE: &str = "docs/tasks/monitor.md";

/// Installed as the page says, applied again, and an address is served all the time.
#[test]
fn one_file_installs_it_all() {
    scenario(async || -> Result<()> {
        let cluster = Cluster::config(3).audit().start().await?;
        let product = Product::new(&cluster).await?;
        let user = product.user();
        page::follow(user, INSTALL_PAGE, "With kubectl").await?;
        let (bgp, _) = product.samples().await?;
        product.leads_to(bgp, &ALL).await?;
        let before = generations(&product).await?;
        page::follow(user, INSTALL_PAGE, "With kubectl").await?;
        ensure!(
            generations(&product).await? == before,
            "the second time something changed"
        );
        let mut prober = product.traffic(cluster.network().client(), bgp).await?;
        prober.answered(100).await?;
        let report = prober.stop().await?;
        ensure!(report.gap().is_zero(), "{report}");
        product.judge_rights(&[]).await
    });
}

/// The chart as a package and nothing else, as on a site without a network.
#[test]
fn a_package_of_the_chart_is_all_that_helm_needs() {
    scenario(async || -> Result<()> {
        let cluster = Cluster::config(1).audit().start().await?;
        let product = Product::new(&cluster).await?;
        let user = product.user();
        let folder = cluster.network().folder().join("carried");
        std::fs::create_dir_all(&folder)?;
        let carried = folder.to_str().context("a path is no text")?;
        let package = ["package", "charts/openelb", "--destination", carried];
        user.helm(&package).await?;
        page::follow_in(user, OFFLINE_PAGE, "Where helm is", &folder).await?;
        user.rolled_out(NAMESPACE, "daemonset/openelb-speaker")
            .await?;
        product.samples().await?;
        guarded_metrics(&product).await
    });
}

/// Metrics by HTTPS, to a token: the kubelet's probes go on, and the speaker's port answers the node.
async fn guarded_metrics(product: &Product<'_>) -> Result<()> {
    let user = product.user();
    let token = page::follow(user, MONITOR_PAGE, "Only for who may").await?;
    // helm says what it did before the token.
    let token = token.lines().last().context("no token")?.trim();
    let header = format!("Authorization: Bearer {token}");
    let url = "https://127.0.0.1:50053/metrics";
    let node = product.cluster().network().node("n1")?.namespace();
    let scrape = [
        "curl",
        "--insecure",
        "--silent",
        "--max-time",
        "5",
        "--include",
    ];
    eventually("guarded metrics", Deadline::LONG, async || {
        let page = node
            .run(&[&scrape[..], &["--header", &header, url]].concat())
            .await?;
        ensure!(
            page.contains(" 200") && page.contains("openelb_build_info"),
            "{page}"
        );
        anyhow::Ok(())
    })
    .await?;
    let page = node.run(&[&scrape[..], &[url]].concat()).await?;
    ensure!(page.contains(" 401"), "{page}");
    product.judge_rights(&[]).await
}

/// The generation of every workload: it grows whenever its spec changes.
async fn generations(product: &Product<'_>) -> Result<String> {
    let path = "--output=jsonpath={range .items[*]}{.metadata.name} {.metadata.generation};{end}";
    let kinds = "deployments,daemonsets";
    let found = product
        .user()
        .kubectl(&["get", kinds, "--namespace", NAMESPACE, path])
        .await?;
    ensure!(found.matches(';').count() == 3, "{found}");
    Ok(found)
}

/// The chart before this one, with its CRDs, is upgraded to this one under traffic.
#[test]
fn the_previous_chart_is_upgraded_under_load() {
    scenario(async || -> Result<()> {
        let cluster = Cluster::config(3).audit().start().await?;
        let product = Product::new(&cluster).await?;
        let user = product.user();
        let folder = cluster.network().folder().join("previous");
        let definitions = previous_definitions(&folder)?;
        let text = std::fs::read_to_string(definitions.join(OLD_CRD))?;
        ensure!(
            !text.contains(FIELD),
            "the chart before has {FIELD} already"
        );
        let definitions = definitions.to_str().context("a path is no text")?;
        user.kubectl(&["apply", "--filename", definitions]).await?;
        cluster.apply(MORE_RIGHTS).await?;
        let tag = format!("global.tag=v{}", env!("CARGO_PKG_VERSION"));
        // Its install job would apply the CRDs that are in our image.
        let values = [tag.as_str(), "install.crds=false"];
        user.install_from(&repository().join(PREVIOUS), &values)
            .await?;
        let (bgp, lan) = product.samples().await?;
        product.leads_to(bgp, &ALL).await?;
        ensure!(charts(&product).await? == "openelb-0.6.99");

        let client: (_, IpAddr) = (cluster.network().client(), bgp);
        product
            .under_traffic(
                "the previous version is upgraded by helm",
                client,
                // A value, so that helm does not go on with those of the release.
                async || product.install(&["install.crds=true"]).await,
                async || product.leads_to(bgp, &ALL).await,
            )
            .await?;

        let this = format!("openelb-{}", env!("CARGO_PKG_VERSION"));
        ensure!(charts(&product).await? == this);
        ensure!(product.address("web-bgp").await? == bgp);
        ensure!(product.address("web-lan").await? == lan);
        let crd = "eipaddresses.network.kubesphere.io";
        let crd = ["get", "crd", crd, "--output=json"];
        ensure!(user.kubectl(&crd).await?.contains(FIELD), "an old CRD");
        // Every job has run, and none is left to be in the way of the next upgrade.
        let jobs = ["get", "jobs", "--namespace", NAMESPACE, "--output=name"];
        let jobs = user.kubectl(&jobs).await?;
        ensure!(jobs.is_empty(), "{jobs}");
        // Once more, without any change, as the page says: every job runs again.
        page::follow(user, INSTALL_PAGE, "With helm").await?;
        let history = user
            .helm(&["history", "openelb", "--namespace", NAMESPACE])
            .await?;
        ensure!(history.matches("openelb-0.").count() == 3, "{history}");
        ensure!(history.contains("deployed"), "{history}");
        product.judge_rights(&[]).await
    });
}

/// The chart before this one, packed by helm as 0.6.99. Its images cannot be had any more: it is installed with ours.
const PREVIOUS: &str = "tests/fixtures/previous/openelb-0.6.99.tgz";
/// One of its CRDs, and a field of ours that it lacks.
const OLD_CRD: &str = "network.kubesphere.io_eipaddresses.yaml";
const FIELD: &str = "holders";

/// What our images read and write that those of the chart before did not.
const MORE_RIGHTS: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: openelb-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: images-of-another-version}
rules:
  - {apiGroups: [''], resources: [pods, configmaps], verbs: [list, watch]}
  - {apiGroups: [events.k8s.io], resources: [events], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: images-of-another-version}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: images-of-another-version}
subjects:
  - {kind: ServiceAccount, name: openelb-controller, namespace: openelb-system}
  - {kind: ServiceAccount, name: openelb-speaker, namespace: openelb-system}
";

/// Unpacks the CRDs of the chart before, and returns their folder.
fn previous_definitions(folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let unpacked = Command::new("tar")
        .args(["--extract", "--gzip", "--file"])
        .arg(repository().join(PREVIOUS))
        .arg("--directory")
        .arg(folder)
        .status()?;
    ensure!(unpacked.success(), "{PREVIOUS} cannot be unpacked");
    Ok(folder.join("openelb/files/crds"))
}

/// The charts that our pods are from.
async fn charts(product: &Product<'_>) -> Result<String> {
    let path = r"--output=jsonpath={range .items[*]}{.metadata.labels.helm\.sh/chart}{'\n'}{end}";
    let found = product
        .user()
        .kubectl(&[
            "get",
            "daemonsets,deployments",
            "--namespace",
            NAMESPACE,
            path,
        ])
        .await?;
    let mut charts: Vec<&str> = found.lines().collect();
    charts.dedup();
    Ok(charts.join(" "))
}
