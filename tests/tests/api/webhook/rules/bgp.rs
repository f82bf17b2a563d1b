//! BgpConfs and BgpPeers.

use anyhow::Result;
use openelb_tests::story;
use serde_json::{Value, json};

use super::super::stage::Stage;
use super::Expect::{Refused, Taken};
use super::bgp_table::{cases, conf, peer, with};
use super::{all, object};

#[test]
fn bgp() {
    story(async || -> Result<()> {
        let stage = Stage::set(1, &[]).await?;
        all(&stage, cases()).await?;
        // A neighbour is one peer's on a node, and a peer of the own AS needs no multihop.
        stage.store(&conf(json!({ "as": 65000 }))).await?;
        stage
            .store(&object(
                "BgpPeer",
                "first",
                json!({ "conf": { "neighborAddress": "192.0.2.1", "peerAs": 65001 } }),
            ))
            .await?;
        stage
            .seen(
                &with(json!({})),
                &Refused("192.0.2.1 is the neighbour of BgpPeer first too, on every node"),
            )
            .await?;
        // On other nodes it may be another peer's.
        stage
            .store(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1", "labels": { "rack": "a" } } }))
            .await?;
        stage
            .seen(
                &with(json!({ "nodeSelector": { "matchLabels": { "rack": "a" } } })),
                &Refused(
                    "is the neighbour of BgpPeer first too, on node n1; narrow spec.nodeSelector",
                ),
            )
            .await?;
        stage
            .expect(
                &with(json!({ "nodeSelector": { "matchLabels": { "rack": "b" } } })),
                &Taken,
            )
            .await?;
        let internal = |conf: Value, hops: Value| {
            let mut spec = json!({ "conf": { "neighborAddress": "192.0.2.2", "peerAs": 65000 }, "ebgpMultihop": hops });
            for (name, value) in conf.as_object().into_iter().flatten() {
                spec["conf"][name] = value.clone();
            }
            peer(spec)
        };
        let (near, far) = (json!({ "enabled": false }), json!({ "enabled": true }));
        stage
            .seen(
                &internal(json!({}), far.clone()),
                &Refused("spec.ebgpMultihop: is for peers of another AS"),
            )
            .await?;
        let cases = vec![
            (internal(json!({}), near.clone()), Taken),
            (
                internal(json!({ "removePrivateAs": "ALL" }), near.clone()),
                Refused("spec.conf.removePrivateAs: is for peers of another AS"),
            ),
            (
                internal(json!({ "replacePeerAs": true }), near),
                Refused("spec.conf.replacePeerAs: is for peers of another AS"),
            ),
        ];
        all(&stage, cases).await?;
        // With a number for each rack, which peer is of the own AS depends on the node.
        let racks = json!({ "as": 65000, "asPerRack": { "a": 64999 } });
        stage.store(&conf(racks)).await?;
        stage.seen(&internal(json!({}), far), &Taken).await
    });
}
