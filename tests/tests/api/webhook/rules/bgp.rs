//! BgpConfs and BgpPeers.

use anyhow::Result;
use openelb_tests::story;
use serde_json::{Value, json};

use super::super::stage::Stage;
use super::Expect::{Refused, Taken, Warned};
use super::{all, object};

fn peer(spec: Value) -> Value {
    object("BgpPeer", "new", spec)
}

#[test]
fn bgp() {
    story(async || -> Result<()> {
        let stage = Stage::set(1, &[]).await?;
        let conf = |spec: Value| object("BgpConf", "default", spec);
        let with = |members: Value| {
            let mut spec = json!({ "conf": { "neighborAddress": "192.0.2.1", "peerAs": 65001 } });
            for (name, value) in members.as_object().into_iter().flatten() {
                for (inner, value) in value
                    .as_object()
                    .filter(|_| name == "conf")
                    .into_iter()
                    .flatten()
                {
                    spec["conf"][inner] = value.clone();
                }
                if name != "conf" {
                    spec[name] = value.clone();
                }
            }
            peer(spec)
        };
        let timers =
            |name: &str, value: &str| with(json!({ "timers": { "config": { name: value } } }));
        all(
            &stage,
            vec![
                (
                    conf(json!({ "as": 50001, "listenPort": 17900, "routerId": "10.0.255.254" })),
                    Taken,
                ),
                (
                    conf(json!({ "as": 4_200_000_000_i64, "families": [0, 1] })),
                    Taken,
                ),
                (conf(json!({})), Refused("spec.as: must be the own AS number")),
                (conf(json!({ "as": 4_294_967_296_i64 })), Refused("spec.as")),
                (conf(json!({ "as": 23456 })), Refused("AS_TRANS")),
                (
                    conf(json!({ "as": 1, "routerId": "x" })),
                    Refused("spec.routerId"),
                ),
                (
                    conf(json!({ "as": 1, "listenAddresses": ["10.0.0.300"] })),
                    Refused("spec.listenAddresses[0]"),
                ),
                (
                    conf(json!({ "as": 1, "useMultiplePaths": true })),
                    Warned("spec.useMultiplePaths: has no effect"),
                ),
                (
                    object("BgpConf", "other", json!({ "as": 1 })),
                    Refused("must be default"),
                ),
                (conf(json!({ "as": 4_294_967_295_i64 })), Warned("is reserved (RFC 7300)")),
                (conf(json!({ "as": 1, "families": [23] })), Refused("spec.families[0]")),
                (conf(json!({ "as": 1, "families": [5] })), Refused("spec.families: [5] must hold 0 (IPv4 unicast)")),
                (conf(json!({ "as": 1, "listenPort": 70_000 })), Refused("spec.listenPort")),
                (conf(json!({ "as": 1, "listenPort": -1 })), Taken),
                (conf(json!({ "as": 1, "policy": "Not a name" })), Refused("spec.policy")),
                (conf(json!({ "asPerRack": { "a": 4_200_000_001_i64 } })), Taken),
                (conf(json!({ "as": 1, "asPerRack": { "a": 4_294_967_296_i64 } })), Refused("spec.asPerRack")),
                (
                    conf(json!({ "as": 1, "gracefulRestart": { "staleRoutesTime": 5 } })),
                    Warned("without effect: staleRoutesTime"),
                ),
                (with(json!({})), Taken),
                (
                    with(json!({ "conf": { "peerAs": 4_200_000_000_i64 } })),
                    Taken,
                ),
                (peer(json!({})), Refused("conf.neighborAddress must be")),
                (
                    with(json!({ "conf": { "neighborAddress": "router" } })),
                    Refused("neighborAddress"),
                ),
                (
                    with(json!({ "conf": { "neighborAddress": "224.0.0.5" } })),
                    Refused("must be the address of one host"),
                ),
                (
                    with(json!({ "conf": { "neighborInterface": "eth1" } })),
                    Refused("neighborInterface"),
                ),
                (with(json!({ "conf": { "peerAs": 0 } })), Refused("peerAs")),
                (timers("holdTime", "0"), Taken),
                (timers("holdTime", "3"), Taken),
                (timers("holdTime", "1"), Refused("must be \"0\" (never) or between \"3\" and \"65535\" seconds")),
                (timers("holdTime", "2"), Refused("must be \"0\" (never) or between \"3\" and \"65535\" seconds")),
                (timers("holdTime", "65536"), Refused("must be \"0\" (never) or between \"3\" and \"65535\" seconds")),
                (timers("holdTime", "ninety"), Refused("must be \"0\" (never) or between \"3\" and \"65535\" seconds")),
                (timers("connectRetry", "10s"), Refused("spec.timers.config.connectRetry")),
                (timers("keepaliveInterval", "30"), Taken),
                (
                    timers("minimumAdvertisementInterval", "5"),
                    Warned("minimumAdvertisementInterval: has no effect"),
                ),
                (
                    timers("keepaliveInterval", "90"),
                    Refused("keepaliveInterval: 90 must be less"),
                ),
                (
                    timers("keepaliveInterval", "40"),
                    Warned("more than a third of the hold time"),
                ),
                (
                    with(json!({ "transport": { "remotePort": 70000 } })),
                    Refused("remotePort"),
                ),
                (
                    with(json!({ "bfd": { "enabled": true, "transmitInterval": 5 } })),
                    Refused("transmitInterval"),
                ),
                (
                    with(json!({ "conf": { "authPassword": "x" } })),
                    Warned("use spec.passwordSecretRef"),
                ),
                (
                    with(json!({ "conf": { "authPassword": "x".repeat(81) } })),
                    Refused("TCP MD5 takes at most 80"),
                ),
                (
                    with(json!({ "sourceAddress": "2001:db8::1" })),
                    Refused("must be IPv4, as the peer's address is"),
                ),
                (
                    with(json!({ "sourceAddress": "here" })),
                    Refused("spec.sourceAddress: Invalid value: \"here\""),
                ),
                (with(json!({ "sourceAddress": "192.0.2.9" })), Taken),
                (with(json!({ "transport": { "remotePort": 1790 } })), Taken),
                (
                    with(json!({ "bfd": { "enabled": true, "transmitInterval": 100, "receiveInterval": 100 } })),
                    Taken,
                ),
                (
                    with(json!({ "bfd": { "enabled": true, "detectMultiplier": 0 } })),
                    Refused("detectMultiplier"),
                ),
                (
                    with(json!({ "ttlSecurity": 1, "ebgpMultihop": { "enabled": true } })),
                    Refused("ttlSecurity and ebgpMultihop cannot be used together"),
                ),
                (
                    with(json!({ "ebgpMultihop": { "enabled": false, "multihopTtl": 5 } })),
                    Warned("multihopTtl: has no effect"),
                ),
                (
                    with(json!({ "dynamicAsn": "external" })),
                    Refused("contradicts conf.peerAs"),
                ),
                (
                    peer(json!({ "conf": { "neighborAddress": "192.0.2.1" } })),
                    Refused("conf.peerAs must be the peer's AS number"),
                ),
                (
                    peer(json!({ "conf": { "neighborInterface": "eth1", "peerAs": 65001 } })),
                    Taken,
                ),
                (
                    with(json!({ "conf": { "peerAs": 4_294_967_296_i64 } })),
                    Refused("peerAs"),
                ),
                (
                    with(json!({ "conf": { "localAs": 23456 } })),
                    Refused("AS_TRANS"),
                ),
                (
                    with(json!({ "conf": { "removePrivateAs": "SOME" } })),
                    Refused("removePrivateAs"),
                ),
                (
                    with(json!({
                        "afiSafis": [{ "config": { "family": { "afi": "AFI_L2VPN", "safi": "SAFI_EVPN" } } }],
                    })),
                    Refused("must list AFI_IP or AFI_IP6 with SAFI_UNICAST"),
                ),
                (
                    with(json!({
                        "afiSafis": [{ "config": { "family": { "afi": "AFI_IP", "safi": "SAFI_UNICAST" } } }],
                    })),
                    Taken,
                ),
                (
                    with(json!({ "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "Near" }] } })),
                    Refused("spec.nodeSelector"),
                ),
                (
                    with(json!({ "passwordSecretRef": { "name": "" } })),
                    Refused("passwordSecretRef"),
                ),
                (with(json!({ "passwordSecretRef": { "name": "peer" } })), Taken),
                (
                    with(json!({ "conf": { "vrf": "red" } })),
                    Warned("without effect: conf.vrf"),
                ),
            ],
        )
        .await?;
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
                &Refused("is the neighbour of BgpPeer first too"),
            )
            .await?;
        // On other nodes it may be another peer's.
        stage
            .store(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1", "labels": { "rack": "a" } } }))
            .await?;
        stage
            .seen(
                &with(json!({ "nodeSelector": { "matchLabels": { "rack": "a" } } })),
                &Refused("is the neighbour of BgpPeer first too, on node n1"),
            )
            .await?;
        stage
            .expect(
                &with(json!({ "nodeSelector": { "matchLabels": { "rack": "b" } } })),
                &Taken,
            )
            .await?;
        let internal = with(json!({
            "conf": { "neighborAddress": "192.0.2.2", "peerAs": 65000 }, "ebgpMultihop": { "enabled": true },
        }));
        stage
            .seen(&internal, &Refused("is for peers of another AS"))
            .await
    });
}
