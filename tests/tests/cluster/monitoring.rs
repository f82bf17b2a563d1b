//! What the chart brings for Prometheus and Grafana, judged by the real Prometheus: the alerts by its own test tool, the
//! dashboard's queries by what they find in a run of all our processes.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use openelb_tests::ipam::{Asks, service};
use openelb_tests::monitoring::{Monitored, panels};
use openelb_tests::product::repository;
use openelb_tests::{Deadline, eventually, story};

fn promtool(args: &[&str]) -> Result<()> {
    let output = Command::new("promtool")
        .args(args)
        .current_dir(repository())
        .output()
        .context("promtool is in the Debian package prometheus (hack/tools/apt cluster)")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{error}");
    Ok(())
}

#[test]
fn every_alert_fires_where_it_must_and_only_there() -> Result<()> {
    promtool(&[
        "check",
        "rules",
        "charts/openelb/files/monitoring/rules.yaml",
    ])?;
    promtool(&["test", "rules", "tests/fixtures/monitoring/rules_test.yaml"])?;
    // Each alert has both tests.
    let rules =
        std::fs::read_to_string(repository().join("charts/openelb/files/monitoring/rules.yaml"))?;
    let tests =
        std::fs::read_to_string(repository().join("tests/fixtures/monitoring/rules_test.yaml"))?;
    for line in rules.lines() {
        if let Some(alert) = line.trim().strip_prefix("- alert: ") {
            let tested = tests.matches(&format!("alertname: {alert}")).count();
            ensure!(tested >= 2, "{alert} is tested {tested} times");
        }
    }
    Ok(())
}

#[test]
fn no_query_of_the_dashboard_comes_back_empty() {
    story(async || -> Result<()> {
        let mut stage = Monitored::start().await?;
        stage.bed.eip("lan", "192.0.2.1").await?;
        stage.bed.create(&service("web").eip("lan")).await?;
        stage.bed.shows("web", &["192.0.2.1"]).await?;
        stage.bed.create(&service("late").eip("lan")).await?;
        stage.review("10.0.0.1").await?;
        let panels = panels()?;
        eventually("an answer to every query", Deadline::LONG, async || {
            let mut empty = Vec::new();
            for target in panels.iter().flat_map(|panel| &panel.targets) {
                if stage.query(&target.expr).await?.is_empty() {
                    empty.push(target.expr.clone());
                }
            }
            ensure!(empty.is_empty(), "nothing for\n{}", empty.join("\n"));
            anyhow::Ok(())
        })
        .await
    });
}
