//! The chart, as helm renders it: what holds for every set of values, and that a real API server takes all of it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers may panic as the test itself"
)]

mod install;
mod manifests;
mod monitors;
mod values;
mod workloads;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use openelb_tests::product::{NAMESPACE, render};
use openelb_tests::{ControlPlane, story};
use serde_json::Value;

/// Sets of values that people use; the empty one first.
const VALUES: [&[&str]; 9] = [
    &[],
    &[
        "global.imageRegistry=registry.example",
        "global.tag=v1",
        "global.imagePullSecrets={one,two}",
        "networkPolicy.enable=true",
        "log.format=json",
    ],
    &[
        "speaker.enable=false",
        "customImage.enable=false",
        "controller.replicas=1",
        "webhook.replicas=1",
    ],
    &[
        "speaker.layer2=false",
        "speaker.apiHosts=:50051",
        "controller.webhookPort=8443",
        "install.replaceOpenELB=false",
        "install.podSecurity=false",
    ],
    &["speaker.membership=lease"],
    SECRETS_GIVEN,
    MONITORED,
    GUARDED,
    &[
        "controller.webhookPort=443",
        "speaker.memberlistSecret=openelb-speakers",
        "customImage.forwardImage=registry.example/forward:1",
    ],
];
/// Where Prometheus' operator is installed.
const MONITORED: &[&str] = &[
    "webhook.monitorEnable=true",
    "controller.monitorEnable=true",
    "speaker.monitorEnable=true",
];
/// The same with all else that the chart has for Prometheus and Grafana.
const GUARDED: &[&str] = &[
    "webhook.monitorEnable=true",
    "controller.monitorEnable=true",
    "speaker.monitorEnable=true",
    "monitoring.labels.release=prometheus",
    "monitoring.rules.enable=true",
    "monitoring.rules.labels.release=prometheus",
    "monitoring.dashboard.enable=true",
    "monitoring.secure.enable=true",
];
/// Where the user brings the key and the certificate.
const SECRETS_GIVEN: &[&str] = &[
    "speaker.memberlistSecret=sixteen bytes or more",
    "speaker.memberlistPort=7947",
    "nameOverride=balancer",
    "webhook.certificate.secretName=lb-tls",
    "webhook.certificate.annotations.cert-manager\\.io/inject-ca-from=openelb-system/lb",
    "controller.image.digest=sha256:0123456789012345678901234567890123456789012345678901234567890123",
];

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

fn workloads(objects: &[Value]) -> Vec<&Value> {
    ["Deployment", "DaemonSet"]
        .iter()
        .flat_map(|kind| of_kind(objects, kind))
        .collect()
}

/// One object.
fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

#[test]
fn an_api_server_takes_everything_strictly() {
    story(async || -> Result<()> {
        let control = ControlPlane::start().await?;
        control.kubectl(&["create", "namespace", NAMESPACE]).await?;
        monitors::kinds_of_prometheus(&control).await?;
        for values in VALUES {
            let objects = render(values).await?;
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
            let file = control.folder().write("rendered.json", list.to_string())?;
            let answer = control
                .kubectl(&[
                    "apply",
                    "--dry-run=server",
                    "--validate=strict",
                    "--filename",
                    &file.to_string_lossy(),
                ])
                .await
                .with_context(|| format!("{values:?}"))?;
            assert_eq!(
                answer.lines().count(),
                objects.len(),
                "{values:?}: {answer}"
            );
        }
        Ok(())
    });
}

#[tokio::test]
async fn selectors_never_change_with_the_version() {
    for values in VALUES {
        for workload in workloads(&render(values).await.unwrap()) {
            let selector = workload["spec"]["selector"]["matchLabels"]
                .as_object()
                .unwrap();
            let keys: BTreeSet<&str> = selector.keys().map(String::as_str).collect();
            assert_eq!(keys, BTreeSet::from(["app", "component"]), "{values:?}");
        }
    }
}

#[tokio::test]
async fn every_container_gives_up_what_it_does_not_need() {
    for values in VALUES {
        let objects = render(values).await.unwrap();
        let pods = workloads(&objects)
            .into_iter()
            .chain(of_kind(&objects, "Job"));
        for workload in pods {
            let name = &workload["metadata"]["name"];
            let pod = &workload["spec"]["template"]["spec"];
            let speaker = workload["kind"] == "DaemonSet";
            assert_eq!(
                pod["securityContext"]["seccompProfile"]["type"],
                "RuntimeDefault"
            );
            assert_eq!(
                pod["securityContext"]["runAsNonRoot"] == true,
                !speaker,
                "{name}"
            );
            assert_eq!(pod["hostNetwork"] == true, speaker, "{name}");
            for container in pod["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(context["capabilities"]["drop"][0], "ALL", "{name}");
                let added = context["capabilities"]["add"].as_array();
                let added: Vec<&str> = added
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                let expected: &[&str] = if speaker {
                    &["NET_RAW", "NET_BIND_SERVICE"]
                } else {
                    &[]
                };
                assert_eq!(added, expected, "{name}");
                assert!(container["resources"]["requests"]["memory"].is_string());
                // A process that is throttled misses its deadlines.
                assert!(container["resources"]["limits"]["cpu"].is_null(), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_registry_a_tag_and_pull_secrets_reach_every_pod() {
    let objects = render(VALUES[1]).await.unwrap();
    let pods = workloads(&objects)
        .into_iter()
        .chain(of_kind(&objects, "Job"));
    for workload in pods {
        let pod = &workload["spec"]["template"]["spec"];
        let image = pod["containers"][0]["image"].as_str().unwrap();
        assert!(
            image.starts_with("registry.example/openelb-rs/openelb-"),
            "{image}"
        );
        assert!(image.ends_with(":v1"), "{image}");
        assert_eq!(
            pod["imagePullSecrets"],
            serde_json::json!([{"name": "one"}, {"name": "two"}])
        );
    }
}

#[tokio::test]
async fn a_certificate_that_somebody_else_keeps_is_mounted_and_left_to_him() {
    let objects = render(SECRETS_GIVEN).await.unwrap();
    let webhook = workloads(&objects)
        .into_iter()
        .find(|workload| workload["metadata"]["labels"]["component"] == "webhook")
        .unwrap();
    let pod = &webhook["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let mount = &container["volumeMounts"][0];
    let argument = format!("--cert-dir={}", mount["mountPath"].as_str().unwrap());
    assert!(
        container["args"]
            .as_array()
            .unwrap()
            .contains(&argument.into())
    );
    assert_eq!(mount["name"], pod["volumes"][0]["name"]);
    assert_eq!(pod["volumes"][0]["secret"]["secretName"], "lb-tls");
    let is_admissions = |object: &Value| object["metadata"]["labels"]["component"] == "admission";
    assert!(
        !objects.iter().any(is_admissions),
        "its jobs would overwrite"
    );
    for kind in [
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
    ] {
        let annotations = &of_kind(&objects, kind)[0]["metadata"]["annotations"];
        assert_eq!(
            annotations["cert-manager.io/inject-ca-from"],
            "openelb-system/lb"
        );
    }
}

#[tokio::test]
async fn a_key_that_everybody_knows_is_not_installed() {
    let objects = render(&["speaker.memberlistSecret=openelb-speakers"])
        .await
        .unwrap();
    assert!(of_kind(&objects, "Secret").is_empty());
    let given = render(SECRETS_GIVEN).await.unwrap();
    assert_eq!(of_kind(&given, "Secret").len(), 1);
}
