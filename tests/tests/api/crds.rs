//! The CRDs on a real API server: they replace OpenELB's in place, take every example, and refuse what is wrong in words
//! that help.

// The functions beside the tests are part of them, and a table of cases is long.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::too_many_lines
)]

mod columns;

use openelb_api::v1alpha2::{BgpConf, BgpPeer, Eip};
use openelb_tests::{ControlPlane, Deadline, eventually};
use serde_json::{Value, json};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A control plane with our CRDs.
async fn control_plane() -> ControlPlane {
    let control = ControlPlane::start().await.unwrap();
    apply_ours(&control).await;
    control
}

async fn apply_ours(control: &ControlPlane) {
    let folder = format!("{REPOSITORY}/config/crd/bases");
    control.kubectl(&["apply", "-f", &folder]).await.unwrap();
    established(control).await;
}

async fn established(control: &ControlPlane) {
    control
        .kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd",
            "--all",
        ])
        .await
        .unwrap();
}

async fn apply(control: &ControlPlane, object: &Value) -> Result<String, String> {
    let file = control
        .folder()
        .write("object.json", object.to_string())
        .unwrap();
    control
        .kubectl(&["apply", "-f", file.to_str().unwrap()])
        .await
        .map_err(|error| format!("{error:#}"))
}

async fn get(control: &ControlPlane, name: &str) -> Value {
    let text = control.kubectl(&["get", name, "-o", "json"]).await.unwrap();
    serde_json::from_str(&text).unwrap()
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "network.kubesphere.io/v1alpha2",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// Objects as OpenELB's users have them: its samples, one stored through the old version, and ones that it took
/// although they make no sense.
async fn fill(control: &ControlPlane) -> Vec<&'static str> {
    let fixtures = format!("{REPOSITORY}/tests/fixtures/openelb");
    for kind in ["eips", "bgpconfs", "bgppeers"] {
        let crd = format!("{fixtures}/network.kubesphere.io_{kind}.yaml");
        control.kubectl(&["apply", "-f", &crd]).await.unwrap();
    }
    established(control).await;
    for sample in ["bgpconf", "bgppeer", "eip", "eip_layer2"] {
        let sample = format!("{fixtures}/network_v1alpha2_{sample}.yaml");
        control.kubectl(&["apply", "-f", &sample]).await.unwrap();
    }
    let mut old = object(
        "Eip",
        "old",
        json!({"address": "192.0.2.0/28", "protocol": "bgp"}),
    );
    old["apiVersion"] = "network.kubesphere.io/v1alpha1".into();
    old["metadata"]["finalizers"] = json!(["finalizer.ipam.kubesphere.io/v1alpha1"]);
    apply(control, &old).await.unwrap();
    let mut empty = object("BgpPeer", "empty", json!({}));
    empty["metadata"]["finalizers"] = json!(["finalizer.lb.kubesphere.io/v1alpha1"]);
    apply(control, &empty).await.unwrap();
    let mut bare = json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer",
        "metadata": {"name": "bare", "finalizers": ["finalizer.lb.kubesphere.io/v1alpha1"]},
    });
    apply(control, &bare).await.unwrap();
    bare["kind"] = "BgpConf".into();
    apply(control, &bare).await.unwrap();
    let vast = json!({"as": -5, "gracefulRestart": {"restartTime": -1}, "listenPort": -1});
    apply(control, &object("BgpConf", "vast", vast))
        .await
        .unwrap();
    let status = json!({"status": {
        "firstIP": "172.22.0.188", "lastIP": "172.22.0.200", "poolSize": 13, "usage": 1, "v4": true,
        "used": {"172.22.0.188": "default/web;default/mail"},
    }});
    patch_status(control, "eip/eip-sample-layer2", &status).await;
    let status = json!({"status": {"nodesPeerStatus": {"node1": {
        "peerState": {
            "messages": {"received": {"open": "1", "total": "12"}, "sent": {"update": "3"}},
            "neighborAddress": "172.22.0.2", "peerAs": 50000, "peerType": 1, "queues": {},
            "sessionState": "ESTABLISHED", "routerId": "172.22.0.2",
        },
        "timersState": {"keepaliveInterval": "30", "negotiatedHoldTime": "90", "uptime": "2024-01-02T03:04:05Z"},
    }}}});
    patch_status(control, "bgppeer/bgppeer-sample", &status).await;
    let status = json!({"status": {"nodesConfStatus": {"node1": {"as": 50001, "routerId": "172.22.0.10"}, "node2": {}}}});
    patch_status(control, "bgpconf/default", &status).await;
    vec![
        "eip/eip-sample",
        "eip/eip-sample-layer2",
        "eip/old",
        "bgpconf/default",
        "bgpconf/vast",
        "bgppeer/bgppeer-sample",
        "bgppeer/empty",
        "bgppeer/bare",
        "bgpconf/bare",
    ]
}

/// Says of OpenELB's definitions what is true where it has run since 0.4: that there were objects in both versions.
async fn with_a_past(control: &ControlPlane) {
    for kind in ["eips", "bgpconfs", "bgppeers"] {
        let status = json!({"status": {"storedVersions": ["v1alpha1", "v1alpha2"]}});
        let crd = format!("crd/{kind}.network.kubesphere.io");
        patch_status(control, &crd, &status).await;
    }
}

async fn patch_status(control: &ControlPlane, name: &str, patch: &Value) {
    let patch = patch.to_string();
    control
        .kubectl(&[
            "patch",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])
        .await
        .unwrap();
}

#[tokio::test]
async fn our_definitions_replace_openelbs_and_keep_its_objects() {
    let control = ControlPlane::start().await.unwrap();
    let names = fill(&control).await;
    let mut before = Vec::new();
    for name in &names {
        before.push(get(&control, name).await);
    }
    with_a_past(&control).await;
    apply_ours(&control).await;
    let old = control
        .kubectl(&["get", "eips.v1alpha1.network.kubesphere.io"])
        .await;
    assert!(old.is_err(), "v1alpha1 is served: {old:?}");
    for (name, before) in names.iter().zip(&before) {
        let after = get(&control, name).await;
        assert_eq!(&after, before, "{name}");
        let read = match after["kind"].as_str().unwrap() {
            "Eip" => openelb_api::read::<Eip>(&after).map(|eip| json!(eip)),
            "BgpConf" => openelb_api::read::<BgpConf>(&after).map(|conf| json!(conf)),
            _ => openelb_api::read::<BgpPeer>(&after).map(|peer| json!(peer)),
        };
        let read = read.unwrap_or_else(|error| panic!("{name}: {error}"));
        let spec = before.get("spec").cloned().unwrap_or_else(|| json!({}));
        assert_eq!(read["spec"], spec, "{name}");
    }
    // And the way back is open: OpenELB's definitions replace ours, its objects stay.
    for kind in ["eips", "bgpconfs", "bgppeers"] {
        let crd = format!("{REPOSITORY}/tests/fixtures/openelb/network.kubesphere.io_{kind}.yaml");
        control.kubectl(&["apply", "-f", &crd]).await.unwrap();
    }
    for (name, before) in names.iter().zip(&before) {
        assert_eq!(&get(&control, name).await, before, "{name}");
    }
    apply_ours(&control).await;
    // Nothing that was stored keeps an object from being let go of or changed elsewhere.
    for name in names {
        let patch = r#"{"metadata":{"finalizers":null,"labels":{"touched":"yes"}}}"#;
        control
            .kubectl(&["patch", name, "--type=merge", "-p", patch])
            .await
            .unwrap();
        control.kubectl(&["delete", name]).await.unwrap();
    }
}

#[tokio::test]
async fn definitions_are_applied_again_without_change() {
    let control = control_plane().await;
    let folder = format!("{REPOSITORY}/config/crd/bases");
    let answer = control.kubectl(&["apply", "-f", &folder]).await.unwrap();
    assert_eq!(answer.matches("unchanged").count(), 4, "{answer}");
}

#[tokio::test]
async fn every_sample_and_example_applies() {
    let control = control_plane().await;
    let mut count = 0;
    for folder in ["config/samples", "tests/fixtures/openelb"] {
        for entry in std::fs::read_dir(format!("{REPOSITORY}/{folder}")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            if text.contains("\nkind: CustomResourceDefinition")
                || !text.contains("network.kubesphere.io/v1alpha2\nkind")
            {
                continue;
            }
            control
                .kubectl(&["apply", "--validate=strict", "-f", path.to_str().unwrap()])
                .await
                .unwrap();
            count += 1;
        }
    }
    let reference = std::fs::read_to_string(format!("{REPOSITORY}/docs/reference/api.md")).unwrap();
    for example in reference.split("```yaml\n").skip(1) {
        let example = example.split("```").next().unwrap();
        let file = control.folder().write("example.yaml", example).unwrap();
        control
            .kubectl(&["apply", "--validate=strict", "-f", file.to_str().unwrap()])
            .await
            .unwrap_or_else(|error| panic!("{example}\n{error:#}"));
        count += 1;
    }
    assert!(count >= 12, "only {count} examples were found");
}

#[tokio::test]
async fn fields_explain_themselves() {
    let control = control_plane().await;
    // An established CRD is served before the API server's discovery and OpenAPI documents name it.
    let text = eventually("the published schema", Deadline::SHORT, async || {
        control
            .kubectl(&["explain", "eip.spec.bgp", "--recursive"])
            .await
    })
    .await
    .unwrap();
    for line in [
        "aggregationLength\t<integer>",
        "communities\t<[]string>",
        "localPref\t<integer>",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(
        text.contains("How the addresses are announced by BGP."),
        "{text}"
    );
    let text = control
        .kubectl(&["explain", "eip.spec.protocol"])
        .await
        .unwrap();
    for line in ["layer2\n", "`bgp` (routes; when"] {
        assert!(text.contains(line), "{text}");
    }
}

/// Kind, name, spec, and what the user must read.
fn malformed() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let peer = |more: Value| {
        let mut spec = json!({"conf": {"neighborAddress": "192.0.2.1", "peerAs": 64512}});
        for (key, value) in more.as_object().unwrap() {
            match spec[key].as_object_mut() {
                Some(inner) => inner.extend(value.as_object().unwrap().clone()),
                None => spec[key] = value.clone(),
            }
        }
        spec
    };
    let eip = |more: Value| {
        let mut spec = json!({"address": "192.0.2.1"});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        spec
    };
    vec![
        ("Eip", "e", json!({}), "spec.address: Required value"),
        (
            "Eip",
            "e",
            json!({"address": ""}),
            "must be an address, a CIDR or a range first-last",
        ),
        (
            "Eip",
            "e",
            json!({"address": "my addresses"}),
            "must be an address, a CIDR or a range first-last",
        ),
        (
            "Eip",
            "e",
            eip(json!({"protocol": "ospf"})),
            r#"supported values: "bgp", "layer2", "vip""#,
        ),
        (
            "Eip",
            "e",
            eip(json!({"exclude": ["192.0.2.1", "none"]})),
            "spec.exclude[1]: Invalid value",
        ),
        (
            "Eip",
            "e",
            eip(json!({"interface": "can_reach:router"})),
            "must be an interface name, several separated by commas",
        ),
        (
            "Eip",
            "e",
            eip(json!({"sharing": "Always"})),
            r#"supported values: "Never", "SameNamespace", "AnyNamespace""#,
        ),
        (
            "Eip",
            "e",
            eip(json!({"onAddressRemoved": "Drop"})),
            r#"supported values: "Keep", "Reassign""#,
        ),
        (
            "Eip",
            "e",
            eip(json!({"announceInterval": -5})),
            "should be greater than or equal to 0",
        ),
        (
            "Eip",
            "e",
            eip(json!({"bgp": {"aggregationLength": 33}})),
            "should be less than or equal to 32",
        ),
        (
            "Eip",
            "e",
            eip(json!({"bgp": {"communities": ["65000"]}})),
            "must be two numbers up to 65535, such as 65000:100",
        ),
        (
            "Eip",
            "e",
            eip(json!({"bgp": {"largeCommunities": ["65000:1"]}})),
            "must be three numbers up to 4294967295",
        ),
        (
            "Eip",
            "e",
            eip(json!({"bgp": {"extendedCommunities": ["red:1:2"]}})),
            "must be rt:ADMIN:NUMBER, soo:ADMIN:NUMBER",
        ),
        (
            "EipAddress",
            "web",
            json!({"address": "192.0.2.7"}),
            "the name must be the address",
        ),
        (
            "EipAddress",
            "2001-db8-1",
            json!({"address": "2001:db8::1"}),
            "all eight groups of four digits joined by -",
        ),
        (
            "EipAddress",
            "192.0.2.7",
            json!({"address": "192.0.2.7", "reserved": true, "reservedFor": ["web"]}),
            "must be namespace/name",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 0}),
            "should be greater than or equal to 1",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 4_294_967_296_i64}),
            "should be less than or equal to 4294967295",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 1, "routerId": "2001:db8::1"}),
            "must be an IPv4 address (BGP identifiers are 32 bits",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 1, "listenPort": 70000}),
            "should be less than or equal to 65535",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 1, "listenAddresses": ["all"]}),
            "must be an IPv4 or IPv6 address",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 1, "families": [42]}),
            "must be GoBGP's index of a family",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 1, "asPerRack": {"a": -1}}),
            "must have an AS number between 1 and 4294967295 for each rack",
        ),
        (
            "BgpPeer",
            "p",
            json!({}),
            "conf.neighborAddress must be the peer's address",
        ),
        (
            "BgpPeer",
            "p",
            json!({"conf": {"neighborAddress": "192.0.2.1"}}),
            "conf.peerAs must be the peer's AS number",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"conf": {"neighborAddress": "router"}})),
            "must be an IPv4 or IPv6 address",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"timers": {"config": {"holdTime": "2"}}})),
            r#"must be "0" (never) or between "3" and "65535" seconds"#,
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"timers": {"config": {"connectRetry": "10s"}}})),
            "must be a whole number of seconds",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"ttlSecurity": 1, "ebgpMultihop": {"enabled": true}})),
            "ttlSecurity and ebgpMultihop cannot be used together",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"bfd": {"detectMultiplier": 1}})),
            "should be greater than or equal to 2",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"conf": {"removePrivateAs": "SOME"}})),
            "must be NONE, ALL or REPLACE",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"afiSafis": [{"config": {"family": {"afi": "ipv4"}}}]})),
            "afi must be AFI_IP or AFI_IP6",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"dynamicAsn": "any"})),
            r#"supported values: "internal", "external""#,
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"transport": {"remotePort": 65536}})),
            "should be less than or equal to 65535",
        ),
    ]
}

#[tokio::test]
async fn malformed_objects_are_refused_in_words_that_help() {
    let control = control_plane().await;
    let cases = malformed();
    assert!(cases.len() >= 25);
    let mut wrong = Vec::new();
    for (kind, name, spec, message) in cases {
        match apply(&control, &object(kind, name, spec.clone())).await {
            Ok(_) => wrong.push(format!("{kind} {spec} was taken")),
            Err(error) if error.contains(message) => {}
            Err(error) => wrong.push(format!("{kind} {spec}: expected {message:?} in {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn a_typing_error_is_named() {
    let control = control_plane().await;
    let typo = object(
        "Eip",
        "lan",
        json!({"address": "192.0.2.1", "protocoll": "bgp"}),
    );
    let error = apply(&control, &typo).await.unwrap_err();
    assert!(
        error.contains(r#"unknown field "spec.protocoll""#),
        "{error}"
    );
}

#[tokio::test]
async fn an_address_never_changes_its_own() {
    let control = control_plane().await;
    apply(
        &control,
        &object("EipAddress", "192.0.2.7", json!({"address": "192.0.2.7"})),
    )
    .await
    .unwrap();
    let error = apply(
        &control,
        &object("EipAddress", "192.0.2.7", json!({"address": "192.0.2.8"})),
    )
    .await
    .unwrap_err();
    assert!(
        error.contains("the address cannot change: make another EipAddress"),
        "{error}"
    );
}
