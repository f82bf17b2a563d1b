//! The dashboard of the chart, as far as it is data: panels with queries.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::product::repository;

/// A panel, or the heading of those that follow.
#[derive(Clone, Debug, Deserialize)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    #[serde(rename = "type")]
    kind: String,
    /// What it asks; nothing where it is a heading.
    #[serde(default)]
    pub targets: Vec<Target>,
    #[serde(default, rename = "fieldConfig")]
    fields: Value,
}

/// A query of a panel.
#[derive(Clone, Debug, Deserialize)]
pub struct Target {
    /// In Prometheus' language.
    pub expr: String,
    /// How its series are called: `{{label}}` stands for the value of a label.
    #[serde(rename = "legendFormat")]
    pub legend: String,
}

impl Panel {
    /// Whether it is the heading of those that follow.
    #[must_use]
    pub fn is_heading(&self) -> bool {
        self.kind == "row"
    }

    /// Grafana's name of the unit: `s`, `percent`, `cps`.
    #[must_use]
    pub fn unit(&self) -> &str {
        let unit = self.fields.pointer("/defaults/unit");
        unit.and_then(Value::as_str).unwrap_or("none")
    }
}

impl Target {
    /// The name of a series with these labels.
    #[must_use]
    pub fn name(&self, labels: &Value) -> String {
        let mut name = String::new();
        let mut rest = self.legend.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            name += before;
            let (label, after) = after.split_once("}}").unwrap_or((after, ""));
            name += labels.get(label).and_then(Value::as_str).unwrap_or("");
            rest = after;
        }
        name + rest
    }
}

/// The panels in their order, with an interval in place of Grafana's variable.
///
/// # Errors
/// The dashboard cannot be read.
pub fn panels() -> Result<Vec<Panel>> {
    let path = repository().join("charts/openelb/files/monitoring/dashboard.json");
    let mut dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let panels = dashboard.get_mut("panels").map(Value::take);
    let mut panels: Vec<Panel> = serde_json::from_value(panels.context("no panels")?)?;
    for target in panels.iter_mut().flat_map(|panel| &mut panel.targets) {
        target.expr = target.expr.replace("$__rate_interval", "30s");
    }
    let queries = panels.iter().flat_map(|panel| &panel.targets).count();
    ensure!(queries > 20, "only {queries} queries");
    Ok(panels)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_series_is_called_as_its_labels_say() {
        let target = Target {
            expr: String::new(),
            legend: "{{eip}} of {{family}}".to_owned(),
        };
        let labels = json!({"eip": "lan", "family": "ipv4"});
        assert_eq!(target.name(&labels), "lan of ipv4");
    }

    #[test]
    fn the_dashboard_has_headings_and_panels_with_units() {
        let panels = panels().unwrap();
        assert!(panels.iter().any(Panel::is_heading));
        let in_use = panels.iter().find(|panel| panel.title == "Pools: in use");
        assert_eq!(in_use.unwrap().unit(), "percent");
    }
}
