//! The CRDs on a real API server: they replace OpenELB's in place, take every example, and refuse what is wrong in words
//! that help.

// The functions beside the tests are part of them, and a table of cases is long.
#![allow(
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::too_many_lines
)]

mod columns;

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use openelb_api::v1alpha2::{BgpConf, BgpPeer, Eip};
use openelb_tests::{ControlPlane, Deadline, eventually, story};
use serde_json::{Value, json};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A control plane with our CRDs.
async fn control_plane() -> Result<ControlPlane> {
    let control = ControlPlane::start().await?;
    apply_ours(&control).await?;
    Ok(control)
}

async fn apply_ours(control: &ControlPlane) -> Result<()> {
    let folder = format!("{REPOSITORY}/config/crd/bases");
    control.kubectl(&["apply", "-f", &folder]).await?;
    established(control).await
}

async fn established(control: &ControlPlane) -> Result<()> {
    let wait = [
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd",
        "--all",
    ];
    control.kubectl(&wait).await.map(drop)
}

/// What the user reads when an object is refused.
async fn refused(control: &ControlPlane, object: &Value) -> Result<String> {
    match control.apply(object).await {
        Ok(()) => bail!("{object} was taken"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

async fn apply_strictly(control: &ControlPlane, file: &Path) -> Result<()> {
    let file = file.display().to_string();
    let apply = ["apply", "--validate=strict", "-f", &file];
    control.kubectl(&apply).await.map(drop)
}

async fn get(control: &ControlPlane, name: &str) -> Result<Value> {
    let text = control.kubectl(&["get", name, "-o", "json"]).await?;
    Ok(serde_json::from_str(&text)?)
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
async fn fill(control: &ControlPlane) -> Result<Vec<&'static str>> {
    let fixtures = format!("{REPOSITORY}/tests/fixtures/openelb");
    for kind in ["eips", "bgpconfs", "bgppeers"] {
        let crd = format!("{fixtures}/network.kubesphere.io_{kind}.yaml");
        control.kubectl(&["apply", "-f", &crd]).await?;
    }
    established(control).await?;
    for sample in ["bgpconf", "bgppeer", "eip", "eip_layer2"] {
        let sample = format!("{fixtures}/network_v1alpha2_{sample}.yaml");
        control.kubectl(&["apply", "-f", &sample]).await?;
    }
    let mut old = object(
        "Eip",
        "old",
        json!({"address": "192.0.2.0/28", "protocol": "bgp"}),
    );
    old["apiVersion"] = "network.kubesphere.io/v1alpha1".into();
    old["metadata"]["finalizers"] = json!(["finalizer.ipam.kubesphere.io/v1alpha1"]);
    control.apply(&old).await?;
    let mut empty = object("BgpPeer", "empty", json!({}));
    empty["metadata"]["finalizers"] = json!(["finalizer.lb.kubesphere.io/v1alpha1"]);
    control.apply(&empty).await?;
    let mut bare = json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer",
        "metadata": {"name": "bare", "finalizers": ["finalizer.lb.kubesphere.io/v1alpha1"]},
    });
    control.apply(&bare).await?;
    bare["kind"] = "BgpConf".into();
    control.apply(&bare).await?;
    let vast = json!({"as": -5, "gracefulRestart": {"restartTime": -1}, "listenPort": -1});
    control.apply(&object("BgpConf", "vast", vast)).await?;
    let status = json!({"status": {
        "firstIP": "172.22.0.188", "lastIP": "172.22.0.200", "poolSize": 13, "usage": 1, "v4": true,
        "used": {"172.22.0.188": "default/web;default/mail"},
    }});
    patch_status(control, "eip/eip-sample-layer2", &status).await?;
    let status = json!({"status": {"nodesPeerStatus": {"node1": {
        "peerState": {
            "messages": {"received": {"open": "1", "total": "12"}, "sent": {"update": "3"}},
            "neighborAddress": "172.22.0.2", "peerAs": 50000, "peerType": 1, "queues": {},
            "sessionState": "ESTABLISHED", "routerId": "172.22.0.2",
        },
        "timersState": {"keepaliveInterval": "30", "negotiatedHoldTime": "90", "uptime": "2024-01-02T03:04:05Z"},
    }}}});
    patch_status(control, "bgppeer/bgppeer-sample", &status).await?;
    let status = json!({"status": {"nodesConfStatus": {"node1": {"as": 50001, "routerId": "172.22.0.10"}, "node2": {}}}});
    patch_status(control, "bgpconf/default", &status).await?;
    Ok(vec![
        "eip/eip-sample",
        "eip/eip-sample-layer2",
        "eip/old",
        "bgpconf/default",
        "bgpconf/vast",
        "bgppeer/bgppeer-sample",
        "bgppeer/empty",
        "bgppeer/bare",
        "bgpconf/bare",
    ])
}

/// Says of OpenELB's definitions what is true where it has run since 0.4: that there were objects in both versions.
async fn with_a_past(control: &ControlPlane) -> Result<()> {
    for kind in ["eips", "bgpconfs", "bgppeers"] {
        let status = json!({"status": {"storedVersions": ["v1alpha1", "v1alpha2"]}});
        let crd = format!("crd/{kind}.network.kubesphere.io");
        patch_status(control, &crd, &status).await?;
    }
    Ok(())
}

async fn patch_status(control: &ControlPlane, name: &str, patch: &Value) -> Result<()> {
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
        .map(drop)
}

#[test]
fn our_definitions_replace_openelbs_and_keep_its_objects() {
    story(async || -> Result<()> {
        let control = ControlPlane::start().await?;
        let names = fill(&control).await?;
        let mut before = Vec::new();
        for name in &names {
            before.push(get(&control, name).await?);
        }
        with_a_past(&control).await?;
        apply_ours(&control).await?;
        let old = control
            .kubectl(&["get", "eips.v1alpha1.network.kubesphere.io"])
            .await;
        assert!(old.is_err(), "v1alpha1 is served: {old:?}");
        for (name, before) in names.iter().zip(&before) {
            let after = get(&control, name).await?;
            assert_eq!(&after, before, "{name}");
            let read = match after["kind"].as_str().context("no kind")? {
                "Eip" => openelb_api::read::<Eip>(&after).map(|eip| json!(eip)),
                "BgpConf" => openelb_api::read::<BgpConf>(&after).map(|conf| json!(conf)),
                _ => openelb_api::read::<BgpPeer>(&after).map(|peer| json!(peer)),
            };
            let read = read.map_err(|error| anyhow!("{name}: {error}"))?;
            let spec = before.get("spec").cloned().unwrap_or_else(|| json!({}));
            assert_eq!(read["spec"], spec, "{name}");
        }
        // And the way back is open: OpenELB's definitions replace ours, its objects stay.
        for kind in ["eips", "bgpconfs", "bgppeers"] {
            let crd =
                format!("{REPOSITORY}/tests/fixtures/openelb/network.kubesphere.io_{kind}.yaml");
            control.kubectl(&["apply", "-f", &crd]).await?;
        }
        for (name, before) in names.iter().zip(&before) {
            assert_eq!(&get(&control, name).await?, before, "{name}");
        }
        apply_ours(&control).await?;
        // Nothing that was stored keeps an object from being let go of or changed elsewhere.
        for name in names {
            let patch = r#"{"metadata":{"finalizers":null,"labels":{"touched":"yes"}}}"#;
            control
                .kubectl(&["patch", name, "--type=merge", "-p", patch])
                .await?;
            control.kubectl(&["delete", name]).await?;
        }
        Ok(())
    });
}

#[test]
fn definitions_are_applied_again_without_change() {
    story(async || -> Result<()> {
        let control = control_plane().await?;
        let folder = format!("{REPOSITORY}/config/crd/bases");
        let answer = control.kubectl(&["apply", "-f", &folder]).await?;
        assert_eq!(answer.matches("unchanged").count(), 4, "{answer}");
        Ok(())
    });
}

#[test]
fn every_sample_and_example_applies() {
    story(async || -> Result<()> {
        let control = control_plane().await?;
        let mut count = 0;
        for folder in ["config/samples", "tests/fixtures/openelb"] {
            for entry in std::fs::read_dir(format!("{REPOSITORY}/{folder}"))? {
                let path = entry?.path();
                if path.is_dir() {
                    continue;
                }
                let text = std::fs::read_to_string(&path)?;
                if text.contains("\nkind: CustomResourceDefinition")
                    || !text.contains("network.kubesphere.io/v1alpha2\nkind")
                {
                    continue;
                }
                apply_strictly(&control, &path).await?;
                count += 1;
            }
        }
        let reference = std::fs::read_to_string(format!("{REPOSITORY}/docs/reference/api.md"))?;
        for example in reference.split("```yaml\n").skip(1) {
            let (example, _) = example
                .split_once("```")
                .context("an example without end")?;
            let file = control.folder().write("example.yaml", example)?;
            apply_strictly(&control, &file)
                .await
                .with_context(|| example.to_owned())?;
            count += 1;
        }
        assert!(count >= 12, "only {count} examples were found");
        Ok(())
    });
}

#[test]
fn fields_explain_themselves() {
    story(async || -> Result<()> {
        let control = control_plane().await?;
        // An established CRD is served before the API server's discovery and OpenAPI documents name it.
        let text = eventually("the published schema", Deadline::SHORT, async || {
            control
                .kubectl(&["explain", "eip.spec.bgp", "--recursive"])
                .await
        })
        .await?;
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
        let text = control.kubectl(&["explain", "eip.spec.protocol"]).await?;
        for line in ["layer2\n", "`bgp` (routes; when"] {
            assert!(text.contains(line), "{text}");
        }
        Ok(())
    });
}

/// An object with the fields of another put into it, at every depth.
fn merged(mut object: Value, more: Value) -> Value {
    match (&mut object, more) {
        (Value::Object(fields), Value::Object(more)) => {
            for (key, value) in more {
                let field = fields.entry(key).or_insert(Value::Null);
                *field = merged(field.take(), value);
            }
            object
        }
        (_, more) => more,
    }
}

/// Kind, name, spec, and what the user must read.
fn malformed() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let peer = |more: Value| {
        let spec = json!({"conf": {"neighborAddress": "192.0.2.1", "peerAs": 64512}});
        merged(spec, more)
    };
    let eip = |more: Value| merged(json!({"address": "192.0.2.1"}), more);
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

#[test]
fn malformed_objects_are_refused_in_words_that_help() {
    story(async || -> Result<()> {
        let control = control_plane().await?;
        let cases = malformed();
        assert!(cases.len() >= 25);
        let mut wrong = Vec::new();
        for (kind, name, spec, message) in cases {
            match refused(&control, &object(kind, name, spec.clone())).await {
                Ok(said) if said.contains(message) => {}
                Ok(said) => wrong.push(format!("{kind} {spec}: expected {message:?} in {said}")),
                Err(taken) => wrong.push(taken.to_string()),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
        Ok(())
    });
}

#[test]
fn a_typing_error_is_named() {
    story(async || -> Result<()> {
        let control = control_plane().await?;
        let typo = object(
            "Eip",
            "lan",
            json!({"address": "192.0.2.1", "protocoll": "bgp"}),
        );
        let error = refused(&control, &typo).await?;
        assert!(
            error.contains(r#"unknown field "spec.protocoll""#),
            "{error}"
        );
        Ok(())
    });
}

#[test]
fn an_address_never_changes_its_own() {
    story(async || -> Result<()> {
        let control = control_plane().await?;
        let with = |address: &str| object("EipAddress", "192.0.2.7", json!({"address": address}));
        control.apply(&with("192.0.2.7")).await?;
        let error = refused(&control, &with("192.0.2.8")).await?;
        assert!(
            error.contains("the address cannot change: make another EipAddress"),
            "{error}"
        );
        Ok(())
    });
}
