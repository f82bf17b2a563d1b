//! Ways onto a cluster and from version to version: one file for kubectl, and the previous chart under load.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use openelb_tests::cluster::Cluster;
use openelb_tests::product::{NAMESPACE, Product, page, repository};
use openelb_tests::scenario;
use serde_json::Value;

const ALL: [&str; 3] = ["n1", "n2", "n3"];
const INSTALL_PAGE: &str = "docs/tasks/install.md";
const OFFLINE_PAGE: &str = "docs/tasks/offline.md";

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
        product.samples().await.map(drop)
    });
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
        let chart = cluster.network().folder().join("previous");
        previous(&chart)?;
        let older = older_crd()?;
        ensure!(!older.contains(FIELD));
        user.apply("config/crd/bases").await?;
        cluster.apply(&older).await?;
        let tag = format!("global.tag=v{}", env!("CARGO_PKG_VERSION"));
        user.install_from(&chart, &[&tag, "install.crds=false"])
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
        let crd = ["get", "crd", "eips.network.kubesphere.io", "--output=json"];
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

/// A field of the Eip that the version before did not have.
const FIELD: &str = "avoidBuggyIPs";

/// The CRD of Eips without [`FIELD`].
fn older_crd() -> Result<String> {
    let path = repository().join("config/crd/bases/network.kubesphere.io_eips.yaml");
    let mut crd: Value = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
    let versions = crd
        .pointer_mut("/spec/versions")
        .and_then(Value::as_array_mut)
        .context("the CRD has no versions")?;
    for version in versions {
        if let Some(properties) =
            version.pointer_mut("/schema/openAPIV3Schema/properties/spec/properties")
        {
            properties
                .as_object_mut()
                .and_then(|fields| fields.remove(FIELD));
        }
    }
    Ok(crd.to_string())
}

/// A copy of this chart that calls itself older.
fn previous(folder: &Path) -> Result<()> {
    copy(&repository().join("charts/openelb"), folder)?;
    let file = folder.join("Chart.yaml");
    let text = std::fs::read_to_string(&file)?;
    let older = text.replace(env!("CARGO_PKG_VERSION"), "0.6.99");
    ensure!(older != text);
    Ok(std::fs::write(&file, older)?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
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
