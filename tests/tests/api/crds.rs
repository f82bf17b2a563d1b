//! The CRDs on a real API server: they replace OpenELB's in place, take every example, and refuse what is wrong in words
//! that help.

// The functions beside the tests are part of them.
#![allow(clippy::indexing_slicing, clippy::needless_pass_by_value)]

mod columns;
mod refused;

use std::path::Path;

use anyhow::{Context, Result, anyhow};
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
        for page in ["docs", "docs/tasks", "docs/reference"] {
            for entry in std::fs::read_dir(format!("{REPOSITORY}/{page}"))? {
                let path = entry?.path();
                if path.extension().is_none_or(|extension| extension != "md") {
                    continue;
                }
                for example in examples(&std::fs::read_to_string(&path)?) {
                    let file = control.folder().write("example.yaml", &example)?;
                    apply_strictly(&control, &file)
                        .await
                        .with_context(|| format!("{}:\n{example}", path.display()))?;
                    count += 1;
                }
            }
        }
        assert!(count >= 19, "only {count} examples were found");
        Ok(())
    });
}

/// The whole objects that a page shows; other YAML there is part of one.
fn examples(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(indent) = line.strip_suffix("```yaml") else {
            continue;
        };
        let block = lines.by_ref().take_while(|line| line.trim() != "```");
        let block: Vec<&str> = block
            .map(|line| line.strip_prefix(indent).unwrap_or(line))
            .collect();
        if block
            .first()
            .is_some_and(|line| line.starts_with("apiVersion:"))
        {
            found.push(block.join("\n"));
        }
    }
    found
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
