//! What no rule stands in the way of: metadata, finalizers and the end of objects that no rule would take today.

use anyhow::{Result, ensure};
use openelb_tests::story;
use serde_json::json;

use super::super::stage::Stage;
use super::Expect::{Taken, Warned};
use super::{eip, object, refused};

#[test]
fn objects_from_before_the_webhook_can_be_finalized_labelled_and_deleted() {
    story(async || -> Result<()> {
        let stage = Stage::prepare(1, &[]).await?;
        // One that the CRD's own rules let pass.
        let mut interface = eip(
            "old",
            json!({ "address": "10.0.0.1", "interface": "can_reach:127.0.0.1" }),
        );
        interface["metadata"]["finalizers"] = json!(["example.com/keep"]);
        let peer = json!({
            "conf": { "neighborAddress": "192.0.2.1", "peerAs": 65001 },
            "timers": { "config": { "holdTime": "9", "keepaliveInterval": "9" } },
        });
        let objects = [
            interface,
            eip("older", json!({ "address": "10.0.0.0/24" })),
            object("BgpPeer", "old", peer),
            object("BgpConf", "other", json!({ "as": 1 })),
        ];
        for object in &objects {
            stage.store(object).await?;
        }
        stage.configure().await?;
        stage.ready().await?;

        let admin = stage.control.admin();
        for kind in ["eip/old", "eip/older", "bgppeer/old", "bgpconf/other"] {
            for change in [["label", kind, "team=a"], ["annotate", kind, "team=a"]] {
                let said = stage.kubectl(admin, &change).await?;
                ensure!(said.succeeded, "{change:?}: {}", said.err);
            }
            let finalizers = r#"{"metadata":{"finalizers":["example.com/other"]}}"#;
            let patch = ["patch", kind, "--type=merge", "--patch"];
            let said = stage
                .kubectl(admin, &[&patch[..], &[finalizers]].concat())
                .await?;
            ensure!(said.succeeded, "{kind}: {}", said.err);
        }
        // A change of what is wrong is refused as long as it is wrong.
        let said = stage
            .kubectl(
                admin,
                &[
                    "patch",
                    "eip",
                    "old",
                    "--type=merge",
                    "--patch",
                    r#"{"spec":{"priority":1}}"#,
                ],
            )
            .await?;
        refused(&said, "invalid interface lo")?;
        // One BgpConf too many that is there already can be edited, and says what is wrong with it.
        stage
            .expect(
                &object("BgpConf", "other", json!({ "as": 2 })),
                &Warned("metadata.name: must be default: there is one BGP configuration"),
            )
            .await?;
        // An overlap that slipped past hinders no other change.
        stage
            .expect(
                &eip(
                    "older",
                    json!({ "address": "10.0.0.0/24", "disable": true }),
                ),
                &Taken,
            )
            .await?;

        let none = r#"{"metadata":{"finalizers":null}}"#;
        for kind in ["eip/old", "eip/older", "bgppeer/old", "bgpconf/other"] {
            let said = stage
                .kubectl(admin, &["delete", kind, "--wait=false"])
                .await?;
            ensure!(said.succeeded, "{kind}: {}", said.err);
            let said = stage
                .kubectl(admin, &["patch", kind, "--type=merge", "--patch", none])
                .await?;
            ensure!(said.succeeded, "{kind}: {}", said.err);
        }
        let left = stage
            .kubectl(admin, &["get", "eips,bgppeers,bgpconfs", "--output=name"])
            .await?;
        assert_eq!(left.out, "");
        Ok(())
    });
}
