//! Monitors of Prometheus' operator: each selects something that the chart makes, by a port that it has.

use anyhow::Result;
use openelb_tests::ControlPlane;
use openelb_tests::product::render;
use serde_json::{Value, json};

use super::{GUARDED, MONITORED, of_kind, workloads};

/// Whether an object with `labels` is what a selector of labels selects.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().unwrap();
    assert!(!wanted.is_empty(), "it would select everything");
    wanted.iter().all(|(key, value)| labels[key] == *value)
}

fn has_port(ports: &Value, name: &Value) -> bool {
    ports
        .as_array()
        .unwrap()
        .iter()
        .any(|port| port["name"] == *name)
}

#[tokio::test]
async fn every_monitor_finds_one_set_of_pods_by_a_port_that_they_have() {
    let objects = render(MONITORED).await.unwrap();
    let pods: Vec<&Value> = workloads(&objects)
        .into_iter()
        .map(|workload| &workload["spec"]["template"])
        .collect();
    let services = of_kind(&objects, "Service");
    let mut components = Vec::new();
    for monitor in of_kind(&objects, "ServiceMonitor") {
        let selector = &monitor["spec"]["selector"]["matchLabels"];
        let found: Vec<&&Value> = services
            .iter()
            .filter(|service| selects(selector, &service["metadata"]["labels"]))
            .collect();
        assert_eq!(found.len(), 1, "{monitor}");
        let service = &found[0]["spec"];
        let endpoint = &monitor["spec"]["endpoints"][0]["port"];
        assert!(has_port(&service["ports"], endpoint), "{monitor}");
        let behind: Vec<&&Value> = pods
            .iter()
            .filter(|pod| selects(&service["selector"], &pod["metadata"]["labels"]))
            .collect();
        assert_eq!(behind.len(), 1, "{service}");
        let target = &service["ports"][0]["targetPort"];
        assert!(has_port(
            &behind[0]["spec"]["containers"][0]["ports"],
            target
        ));
        components.push(behind[0]["metadata"]["labels"]["component"].clone());
    }
    for monitor in of_kind(&objects, "PodMonitor") {
        let selector = &monitor["spec"]["selector"]["matchLabels"];
        let found: Vec<&&Value> = pods
            .iter()
            .filter(|pod| selects(selector, &pod["metadata"]["labels"]))
            .collect();
        assert_eq!(found.len(), 1, "{monitor}");
        let endpoint = &monitor["spec"]["podMetricsEndpoints"][0]["port"];
        assert!(has_port(
            &found[0]["spec"]["containers"][0]["ports"],
            endpoint
        ));
        components.push(found[0]["metadata"]["labels"]["component"].clone());
    }
    components.sort_by_key(Value::to_string);
    assert_eq!(components, ["controller", "speaker", "webhook"]);
}

/// Monitors, with the endpoint that each has.
fn endpoints(objects: &[Value]) -> Vec<(&Value, &Value)> {
    let services = of_kind(objects, "ServiceMonitor")
        .into_iter()
        .map(|monitor| (monitor, &monitor["spec"]["endpoints"][0]));
    let pods = of_kind(objects, "PodMonitor")
        .into_iter()
        .map(|monitor| (monitor, &monitor["spec"]["podMetricsEndpoints"][0]));
    services.chain(pods).collect()
}

#[tokio::test]
async fn monitors_have_the_labels_that_prometheus_looks_for() {
    let objects = render(GUARDED).await.unwrap();
    let found = endpoints(&objects);
    assert_eq!(found.len(), 3);
    let rules = of_kind(&objects, "PrometheusRule");
    for object in found.iter().map(|(monitor, _)| monitor).chain(&rules) {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["release"], "prometheus", "{object}");
    }
}

#[tokio::test]
async fn a_certificate_is_verified_as_the_user_says_and_only_else_not_at_all() {
    let unsaid = render(GUARDED).await.unwrap();
    for (_, endpoint) in endpoints(&unsaid) {
        assert_eq!(endpoint["tlsConfig"], json!({"insecureSkipVerify": true}));
    }
    let own = "monitoring.secure.tlsConfig.serverName=metrics.example";
    let said = render(&[GUARDED, &[own]].concat()).await.unwrap();
    for (_, endpoint) in endpoints(&said) {
        let tls = json!({"serverName": "metrics.example"});
        assert_eq!(endpoint["tlsConfig"], tls);
    }
}

#[tokio::test]
async fn nothing_of_prometheus_operator_is_rendered_unasked() {
    for object in render(&[]).await.unwrap() {
        let version = object["apiVersion"].as_str().unwrap();
        assert!(!version.starts_with("monitoring.coreos.com"), "{object}");
    }
}

/// The kinds of Prometheus' operator with the fields that a monitor may have, so that a wrong one is refused.
pub(super) async fn kinds_of_prometheus(control: &ControlPlane) -> Result<()> {
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let selector = json!({"type": "object", "properties": {"matchLabels": {
        "type": "object", "additionalProperties": {"type": "string"},
    }}});
    let endpoints = json!({"type": "array", "items": {"type": "object", "properties": {
        "port": {"type": "string"},
        "path": {"type": "string"},
        "scheme": {"type": "string"},
        "interval": {"type": "string"},
        "bearerTokenFile": {"type": "string"},
        "authorization": free,
        "tlsConfig": free,
    }}});
    for (kind, plural, field, schema) in [
        ("ServiceMonitor", "servicemonitors", "endpoints", &endpoints),
        (
            "PodMonitor",
            "podmonitors",
            "podMetricsEndpoints",
            &endpoints,
        ),
        (
            "PrometheusRule",
            "prometheusrules",
            "groups",
            &json!({"type": "array", "items": free}),
        ),
    ] {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
            "spec": {
                "group": "monitoring.coreos.com",
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {
                    "openAPIV3Schema": {"type": "object", "properties": {"spec": {
                        "type": "object",
                        "properties": {"selector": selector, field: schema},
                    }}},
                }}],
            },
        });
        let file = control
            .folder()
            .write(format!("{plural}.json"), definition.to_string())?;
        let file = file.to_string_lossy();
        control.kubectl(&["apply", "--filename", &file]).await?;
    }
    let established = [
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=60s",
    ];
    control.kubectl(&established).await.map(drop)
}
