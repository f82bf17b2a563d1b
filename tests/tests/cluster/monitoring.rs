//! The alerts that the chart brings, judged by Prometheus' own test tool.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use openelb_tests::product::repository;

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
