//! Values of OpenELB's chart: each is accepted with its meaning, or refused with a message that says what to do.

use std::collections::BTreeSet;

use openelb_tests::product::render;
use serde_json::{Value, json};

use super::{object, of_kind};

/// Every value of OpenELB's chart 0.6.1, those too that its templates read and its values file does not have.
const OPENELB: &[&str] = &[
    "global.imageRegistry",
    "global.tag",
    "global.imagePullSecrets",
    "admission.image.registry",
    "admission.image.repository",
    "admission.image.tag",
    "admission.image.digest",
    "admission.image.pullPolicy",
    "admission.serviceAccountName",
    "nameOverride",
    "fullnameOverride",
    "controller.monitorEnable",
    "controller.monitorPort",
    "controller.webhookPort",
    "controller.image.registry",
    "controller.image.repository",
    "controller.image.tag",
    "controller.image.digest",
    "controller.image.pullPolicy",
    "controller.serviceAccountName",
    "controller.resources",
    "controller.tolerations",
    "controller.priorityClass",
    "controller.nodeSelector",
    "controller.affinity",
    "speaker.enable",
    "speaker.vip",
    "speaker.layer2",
    "speaker.memberlistSecret",
    "speaker.apiHosts",
    "speaker.monitorEnable",
    "speaker.monitorPort",
    "speaker.image.registry",
    "speaker.image.repository",
    "speaker.image.tag",
    "speaker.image.digest",
    "speaker.image.pullPolicy",
    "speaker.serviceAccountName",
    "speaker.resources",
    "speaker.tolerations",
    "speaker.priorityClass",
    "speaker.nodeSelector",
    "speaker.affinity",
    "customImage.enable",
    "customImage.forwardImage",
    "customImage.proxyImage",
];

/// What a value must lead to.
enum Means {
    /// The object (`kind/name`) has this at this place.
    Is(&'static str, &'static str, Value),
    /// The text at this place of the object has this in it.
    Has(&'static str, &'static str, &'static str),
    /// There is no object of this kind and name.
    Gone(&'static str),
    /// The chart is not rendered; the message has this in it.
    Refused(&'static str),
}
use Means::{Gone, Has, Is, Refused};

const CONTROLLER: &str = "Deployment/openelb-controller";
const SPEAKER: &str = "DaemonSet/openelb-speaker";
const WEBHOOK: &str = "Deployment/openelb-webhook";
const ADMISSION: &str = "Job/openelb-admission-create";
const IMAGE: &str = "/spec/template/spec/containers/0/image";
const PULL: &str = "/spec/template/spec/containers/0/imagePullPolicy";
const ARGS: &str = "/spec/template/spec/containers/0/args";
const ENV: &str = "/spec/template/spec/containers/0/env";
const ACCOUNT: &str = "/spec/template/spec/serviceAccountName";
const DIGEST: &str = "sha256:0123456789012345678901234567890123456789012345678901234567890123";

fn images() -> Vec<(String, Means)> {
    let mut rows = vec![
        (
            "global.imageRegistry=r.example".to_owned(),
            Has(SPEAKER, IMAGE, "r.example/openelb-rs/openelb-speaker:v"),
        ),
        (
            "global.tag=v9".to_owned(),
            Has(ADMISSION, IMAGE, "openelb-rs/openelb-webhook:v9"),
        ),
        ("global.tag=v0.6.0".to_owned(), Refused("Remove the value")),
        (
            "global.tag=master".to_owned(),
            Refused("release of OpenELB"),
        ),
        (
            "global.imagePullSecrets={one}".to_owned(),
            Is(
                SPEAKER,
                "/spec/template/spec/imagePullSecrets",
                json!([{"name": "one"}]),
            ),
        ),
        (
            "global.imagePullSecrets[0].name=one".to_owned(),
            Is(
                CONTROLLER,
                "/spec/template/spec/imagePullSecrets",
                json!([{"name": "one"}]),
            ),
        ),
        (
            "admission.image.registry=r.example".to_owned(),
            Has(ADMISSION, IMAGE, "r.example/openelb-rs/openelb-webhook:v"),
        ),
        (
            "admission.image.repository=lb/hook,admission.image.tag=v9".to_owned(),
            Has(ADMISSION, IMAGE, "/lb/hook:v9"),
        ),
        (
            "admission.image.repository=kubesphere/kube-webhook-certgen".to_owned(),
            Refused("webhook.image"),
        ),
        (
            "admission.image.tag=v1.1.1".to_owned(),
            Refused("Remove admission.image"),
        ),
        (
            format!("admission.image.digest={DIGEST}"),
            Has(ADMISSION, IMAGE, "openelb-webhook@sha256:0123"),
        ),
        (
            "admission.image.pullPolicy=Always".to_owned(),
            Is(ADMISSION, PULL, json!("Always")),
        ),
    ];
    for (component, workload) in [("controller", CONTROLLER), ("speaker", SPEAKER)] {
        let image = format!("{component}.image");
        rows.extend([
            (
                format!("{image}.registry=r.example"),
                Has(workload, IMAGE, "r.example/openelb-rs/"),
            ),
            (
                format!("{image}.repository=lb/it"),
                Has(workload, IMAGE, "/lb/it:v"),
            ),
            (
                format!("{image}.repository=kubesphere/openelb-{component}"),
                Refused("is an image of OpenELB"),
            ),
            (
                format!("{image}.repository=mirror.example/kubesphereio/openelb-{component}"),
                Refused("name your copy of openelb-"),
            ),
            (format!("{image}.tag=v9"), Has(workload, IMAGE, ":v9")),
            (format!("{image}.tag=v0.6.0"), Refused("image.tag: v0.6.0")),
            (
                format!("{image}.digest={DIGEST}"),
                Has(workload, IMAGE, "@sha256:0123"),
            ),
            (
                format!("{image}.pullPolicy=Always"),
                Is(workload, PULL, json!("Always")),
            ),
        ]);
    }
    rows
}

fn pods() -> Vec<(String, Means)> {
    let mut rows = Vec::new();
    for (component, workload) in [("controller", CONTROLLER), ("speaker", SPEAKER)] {
        rows.extend([
            (
                format!("{component}.serviceAccountName=me"),
                Is(workload, ACCOUNT, json!("me")),
            ),
            (
                format!("{component}.resources.limits.memory=500Mi"),
                Is(workload, RESOURCES_MEMORY, json!("500Mi")),
            ),
            (
                format!("{component}.tolerations[0].key=mine"),
                Has(
                    workload,
                    "/spec/template/spec/tolerations",
                    r#"{"key":"mine"}"#,
                ),
            ),
            (
                format!("{component}.priorityClass=mine"),
                Is(
                    workload,
                    "/spec/template/spec/priorityClassName",
                    json!("mine"),
                ),
            ),
            (
                format!("{component}.nodeSelector.disk=ssd"),
                Is(
                    workload,
                    "/spec/template/spec/nodeSelector/disk",
                    json!("ssd"),
                ),
            ),
            (
                format!("{component}.affinity.nodeAffinity.a=b"),
                Is(
                    workload,
                    "/spec/template/spec/affinity/nodeAffinity/a",
                    json!("b"),
                ),
            ),
        ]);
    }
    rows
}
const RESOURCES_MEMORY: &str = "/spec/template/spec/containers/0/resources/limits/memory";

fn meanings() -> Vec<(String, Means)> {
    let own = |value: &str, means: Means| (value.to_owned(), means);
    vec![
        own(
            "admission.serviceAccountName=me",
            Is(ADMISSION, ACCOUNT, json!("me")),
        ),
        own(
            "nameOverride=balancer",
            Is(
                "Deployment/openelb-balancer-controller",
                "/metadata/labels/app.kubernetes.io~1name",
                json!("balancer"),
            ),
        ),
        own(
            "fullnameOverride=lb",
            Is(
                "DaemonSet/lb-speaker",
                "/metadata/name",
                json!("lb-speaker"),
            ),
        ),
        own(
            "controller.monitorEnable=true",
            Is(
                "Service/openelb-controller",
                "/spec/ports/0/port",
                json!(50052),
            ),
        ),
        own(
            "controller.monitorPort=9999",
            Has(CONTROLLER, ARGS, "--metrics-addr=:9999"),
        ),
        own(
            "controller.webhookPort=443",
            Has(WEBHOOK, ARGS, "--webhook-port=443"),
        ),
        // Without capabilities nobody listens there, unless the pod's network is told so.
        own(
            "controller.webhookPort=443",
            Is(
                WEBHOOK,
                "/spec/template/spec/securityContext/sysctls",
                json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "443"}]),
            ),
        ),
        own(
            "controller.webhookPort=8443",
            Is(
                WEBHOOK,
                "/spec/template/spec/securityContext/sysctls",
                Value::Null,
            ),
        ),
    ]
}

fn speakers() -> Vec<(String, Means)> {
    let own = |value: &str, means: Means| (value.to_owned(), means);
    vec![
        own("speaker.enable=false", Gone(SPEAKER)),
        own("speaker.vip=true", Refused("protocol: layer2")),
        own(
            "speaker.layer2=false",
            Has(SPEAKER, ARGS, "--enable-layer2=false"),
        ),
        own(
            "speaker.memberlistSecret=sixteen bytes or more",
            Is(
                "Secret/memberlist",
                "/data/key",
                json!("c2l4dGVlbiBieXRlcyBvciBtb3Jl"),
            ),
        ),
        own(
            "speaker.memberlistSecret=sixteen bytes or more",
            Has(SPEAKER, ENV, r#"{"key":"key","name":"memberlist"}"#),
        ),
        own(
            "speaker.memberlistSecret=short",
            Refused("16 bytes or more"),
        ),
        own(
            "speaker.memberlistSecret=openelb-speakers",
            Gone("Secret/memberlist"),
        ),
        own("speaker.apiHosts=:1", Refused("no control port")),
        own("speaker.apiHosts=:50051", Has(SPEAKER, ARGS, "speaker")),
        own(
            "speaker.monitorEnable=true",
            Is(
                "PodMonitor/openelb-speaker",
                "/spec/podMetricsEndpoints/0/port",
                json!("metrics"),
            ),
        ),
        own(
            "speaker.monitorPort=9999",
            Has(SPEAKER, ARGS, "--metrics-addr=:9999"),
        ),
        own(
            "speaker.kubeProxy=off",
            Has(SPEAKER, ARGS, "--kube-proxy=off"),
        ),
        own("speaker.kubeProxy=nowhere", Refused("kubeProxy")),
        own("customImage.enable=false", Gone("ConfigMap/openelb-images")),
        own(
            "customImage.forwardImage=f:1",
            Is(
                "ConfigMap/openelb-images",
                "/data/forward-image",
                json!("f:1"),
            ),
        ),
        own(
            "customImage.proxyImage=p:1",
            Is(
                "ConfigMap/openelb-images",
                "/data/proxy-image",
                json!("p:1"),
            ),
        ),
    ]
}

#[tokio::test]
async fn every_value_of_openelb_keeps_its_meaning_or_is_refused_with_what_to_do() {
    let rows: Vec<(String, Means)> = images()
        .into_iter()
        .chain(pods())
        .chain(meanings())
        .chain(speakers())
        .collect();
    let mut shown: BTreeSet<&&str> = BTreeSet::new();
    for (values, means) in &rows {
        for value in values.split(',') {
            let path = value.split(['=', '[']).next().unwrap();
            shown.extend(OPENELB.iter().filter(|name| path.starts_with(**name)));
        }
        let rendered = render(&[values]).await;
        let found = match means {
            Refused(_) => None,
            Gone(_) => Some(rendered.as_ref().unwrap()),
            Is(..) | Has(..) => Some(rendered.as_ref().unwrap_or_else(|error| {
                panic!("{values}: {error:#}");
            })),
        };
        let get = |which: &str| {
            let (kind, name) = which.split_once('/').unwrap();
            object(found?, kind, name)
        };
        match means {
            Is(which, pointer, wanted) => {
                let object = get(which).unwrap_or_else(|| panic!("{values}: no {which}"));
                let found = object.pointer(pointer).unwrap_or(&Value::Null);
                assert_eq!(found, wanted, "{values}");
            }
            Has(which, pointer, wanted) => {
                let object = get(which).unwrap_or_else(|| panic!("{values}: no {which}"));
                let found = object.pointer(pointer).unwrap_or(&Value::Null).to_string();
                assert!(found.contains(wanted), "{values}: {found}");
            }
            Gone(which) => assert!(get(which).is_none(), "{values}: {which}"),
            Refused(message) => {
                let error = rendered.unwrap_err().to_string();
                assert!(error.contains(message), "{values}: {error}");
            }
        }
    }
    let missing: Vec<_> = OPENELB
        .iter()
        .filter(|name| !shown.contains(*name))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}

#[tokio::test]
async fn a_value_that_nobody_knows_is_refused_by_name() {
    for value in ["controller.replica=3", "speakr.enable=false"] {
        let error = render(&[value]).await.unwrap_err().to_string();
        let name = value.split(['=', '.']).next().unwrap();
        assert!(error.contains("additional properties"), "{error}");
        assert!(error.contains(name), "{error}");
    }
}

/// The port that the API server calls is the one that the pods listen on, whichever value named it.
#[tokio::test]
async fn the_webhooks_service_leads_to_the_port_that_was_asked_for() {
    for (value, port) in [
        ("controller.webhookPort=443", 443),
        ("webhook.port=8443", 8443),
    ] {
        let objects = render(&[value]).await.unwrap();
        let service = object(&objects, "Service", "openelb-webhook").unwrap();
        assert_eq!(service["spec"]["ports"][0]["port"], 443);
        let name = &service["spec"]["ports"][0]["targetPort"];
        let webhook = of_kind(&objects, "Deployment")
            .into_iter()
            .find(|workload| workload["metadata"]["name"] == "openelb-webhook")
            .unwrap();
        let ports = webhook["spec"]["template"]["spec"]["containers"][0]["ports"]
            .as_array()
            .unwrap();
        let listened = ports.iter().find(|port| port["name"] == *name).unwrap();
        assert_eq!(listened["containerPort"], port, "{value}");
    }
}
