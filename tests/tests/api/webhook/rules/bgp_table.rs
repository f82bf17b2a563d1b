//! What is asked about a BgpConf and about one BgpPeer that is new, where there is neither.

use serde_json::{Value, json};

use super::Expect::{Early, Refused, Taken, Warned};
use super::{Expect, object};

pub(super) fn conf(spec: Value) -> Value {
    object("BgpConf", "default", spec)
}

pub(super) fn peer(spec: Value) -> Value {
    object("BgpPeer", "new", spec)
}

/// A peer that nothing is wrong with, with members added; those of `conf` one by one.
pub(super) fn with(members: Value) -> Value {
    let mut spec = json!({ "conf": { "neighborAddress": "192.0.2.1", "peerAs": 65001 } });
    for (name, value) in members.as_object().into_iter().flatten() {
        if name == "conf" {
            for (inner, value) in value.as_object().into_iter().flatten() {
                spec["conf"][inner] = value.clone();
            }
        } else {
            spec[name] = value.clone();
        }
    }
    peer(spec)
}

/// What the schema says of addresses.
const ADDRESS: &str = "must be an IPv4 or IPv6 address";

pub(super) fn cases() -> Vec<(Value, Expect)> {
    [
        confs(),
        neighbors(),
        numbers(),
        timers(),
        paths(),
        bfd(),
        others(),
    ]
    .concat()
}

fn confs() -> Vec<(Value, Expect)> {
    vec![
        (
            conf(json!({ "as": 50001, "listenPort": 17900, "routerId": "10.0.255.254" })),
            Taken,
        ),
        (
            conf(json!({ "as": 4_200_000_000_i64, "families": [0, 1] })),
            Taken,
        ),
        (
            conf(json!({ "asPerRack": { "a": 4_200_000_001_i64 } })),
            Taken,
        ),
        (
            conf(json!({})),
            Refused("spec.as: must be the own AS number, between 1 and 4294967295"),
        ),
        (
            conf(json!({ "as": 4_294_967_296_i64 })),
            Early("spec.as", "spec.as: 4294967296 must be"),
        ),
        (
            conf(json!({ "as": 23456 })),
            Refused("spec.as: 23456 is AS_TRANS (RFC 6793) and nobody's own"),
        ),
        (
            conf(json!({ "as": 4_294_967_295_i64 })),
            Warned("spec.as: 4294967295 is reserved (RFC 7300)"),
        ),
        (
            conf(json!({ "as": 1, "asPerRack": { "a": 4_294_967_296_i64 } })),
            Early(
                "must have an AS number between 1 and 4294967295 for each rack",
                "spec.asPerRack.a: 4294967296 must be",
            ),
        ),
        (
            conf(json!({ "as": 1, "routerId": "x" })),
            Early(
                "must be an IPv4 address",
                "spec.routerId: \"x\" must be an IPv4 address",
            ),
        ),
        (
            conf(json!({ "as": 1, "routerId": "0.0.0.0" })),
            Refused("spec.routerId: \"0.0.0.0\" must be an IPv4 address"),
        ),
        (
            conf(json!({ "as": 1, "routerId": "255.255.255.255" })),
            Refused("spec.routerId: \"255.255.255.255\" must be an IPv4 address that is a host's"),
        ),
        (
            conf(json!({ "as": 1, "listenAddresses": ["10.0.0.300"] })),
            Refused("spec.listenAddresses[0]: \"10.0.0.300\" must be an IPv4 or IPv6 address"),
        ),
        (
            conf(json!({ "as": 1, "listenPort": 70_000 })),
            Early("spec.listenPort", "spec.listenPort: 70000 must be"),
        ),
        (conf(json!({ "as": 1, "listenPort": -1 })), Taken),
        (
            conf(json!({ "as": 1, "listenPort": -1, "listenAddresses": ["10.0.0.1"] })),
            Warned("spec.listenAddresses: has no effect while spec.listenPort is -1"),
        ),
        (
            conf(json!({ "as": 1, "families": [99] })),
            Early(
                "must be GoBGP's index of a family",
                "spec.families[0]: 99 must be GoBGP's index of a family",
            ),
        ),
        (
            conf(json!({ "as": 1, "families": [5] })),
            Refused("spec.families: [5] must hold 0 (IPv4 unicast), 1 (IPv6 unicast) or both"),
        ),
        (
            conf(json!({ "as": 1, "families": [0, 2] })),
            Warned("spec: without effect: families above 1"),
        ),
        (
            conf(json!({ "as": 1, "policy": "Not a name" })),
            Refused("spec.policy: \"Not a name\" is no name of a ConfigMap"),
        ),
        (
            conf(json!({ "as": 1, "useMultiplePaths": true })),
            Warned("spec: without effect: useMultiplePaths"),
        ),
        (
            conf(json!({ "as": 1, "gracefulRestart": { "staleRoutesTime": 5 } })),
            Warned("spec: without effect: gracefulRestart.staleRoutesTime"),
        ),
        (
            conf(json!({ "as": 1, "gracefulRestart": { "restartTime": 4096 } })),
            Early(
                "spec.gracefulRestart.restartTime",
                "spec.gracefulRestart.restartTime: 4096 must be",
            ),
        ),
        (
            object("BgpConf", "other", json!({ "as": 1 })),
            Refused("metadata.name: must be default: there is one BGP configuration"),
        ),
    ]
}

fn neighbors() -> Vec<(Value, Expect)> {
    let conf = |members: Value| with(json!({ "conf": members }));
    vec![
        (with(json!({})), Taken),
        (
            peer(json!({ "conf": { "neighborInterface": "eth1", "peerAs": 65001 } })),
            Taken,
        ),
        (
            conf(json!({ "neighborAddress": "fe80::1", "neighborInterface": "eth0" })),
            Taken,
        ),
        (
            peer(json!({})),
            Early(
                "conf.neighborAddress must be the peer's address",
                "spec.conf.neighborAddress: must be the peer's address",
            ),
        ),
        (
            peer(json!({ "conf": { "peerAs": 65001 } })),
            Early(
                "conf.neighborAddress must be the peer's address",
                "spec.conf.neighborAddress: must be the peer's address",
            ),
        ),
        (
            conf(json!({ "neighborAddress": "router" })),
            Early(
                ADDRESS,
                "spec.conf.neighborAddress: \"router\" must be an IPv4 or IPv6 address",
            ),
        ),
        (
            conf(json!({ "neighborAddress": "224.0.0.5" })),
            Refused("spec.conf.neighborAddress: \"224.0.0.5\" must be the address of one host"),
        ),
        (
            conf(json!({ "neighborAddress": "fe80::1" })),
            Refused("\"fe80::1\" is link-local: set conf.neighborInterface to its interface too"),
        ),
        (
            conf(json!({ "neighborInterface": "eth1" })),
            Refused(
                "contradicts neighborAddress: a peer has an address, or is found on an interface",
            ),
        ),
        (
            conf(json!({ "neighborAddress": "fe80::1%eth0", "neighborInterface": "eth1" })),
            Refused("contradicts neighborAddress, which names another interface"),
        ),
        (with(json!({ "sourceAddress": "192.0.2.9" })), Taken),
        (
            with(json!({ "sourceAddress": "2001:db8::1" })),
            Refused("spec.sourceAddress: \"2001:db8::1\" must be IPv4, as the peer's address is"),
        ),
        (
            with(json!({ "sourceAddress": "here" })),
            Early(
                ADDRESS,
                "spec.sourceAddress: \"here\" must be an IPv4 or IPv6 address",
            ),
        ),
        (with(json!({ "transport": { "remotePort": 1790 } })), Taken),
        (
            with(json!({ "transport": { "remotePort": 70000 } })),
            Early(
                "spec.transport.remotePort",
                "spec.transport.remotePort: 70000 must be",
            ),
        ),
        (
            with(
                json!({ "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "Near" }] } }),
            ),
            Refused(
                "spec.nodeSelector.matchExpressions[0].operator: \"Near\" must be In, NotIn, Exists",
            ),
        ),
    ]
}

fn numbers() -> Vec<(Value, Expect)> {
    let conf = |members: Value| with(json!({ "conf": members }));
    vec![
        (conf(json!({ "peerAs": 4_200_000_000_i64 })), Taken),
        (
            conf(json!({ "peerAs": 0 })),
            Early(
                "conf.peerAs must be the peer's AS number",
                "spec.conf.peerAs: 0 must be",
            ),
        ),
        (
            peer(json!({ "conf": { "neighborAddress": "192.0.2.1" } })),
            Early(
                "conf.peerAs must be the peer's AS number",
                "spec.conf.peerAs: must be the peer's AS number",
            ),
        ),
        (
            conf(json!({ "peerAs": 4_294_967_296_i64 })),
            Early("spec.conf.peerAs", "spec.conf.peerAs: 4294967296 must be"),
        ),
        (
            conf(json!({ "peerAs": 65535 })),
            Warned("spec.conf.peerAs: 65535 is reserved (RFC 7300)"),
        ),
        (
            conf(json!({ "localAs": 23456 })),
            Refused("spec.conf.localAs: 23456 is AS_TRANS (RFC 6793)"),
        ),
        (
            conf(json!({ "localAs": 4_294_967_296_i64 })),
            Early("spec.conf.localAs", "spec.conf.localAs: 4294967296 must be"),
        ),
        (
            with(json!({ "dynamicAsn": "external" })),
            Refused("spec.dynamicAsn: contradicts conf.peerAs: give one of them"),
        ),
        (
            peer(json!({ "conf": { "neighborAddress": "192.0.2.1" }, "dynamicAsn": "external" })),
            Taken,
        ),
        (
            with(json!({ "dynamicAsn": "any" })),
            Early("spec.dynamicAsn", "spec.dynamicAsn: unknown variant `any`"),
        ),
        (
            conf(json!({ "removePrivateAs": "SOME" })),
            Early(
                "must be NONE, ALL or REPLACE",
                "spec.conf.removePrivateAs: \"SOME\" must be NONE, ALL or REPLACE",
            ),
        ),
    ]
}

fn timers() -> Vec<(Value, Expect)> {
    let timers = |name: &str, value: &str| with(json!({ "timers": { "config": { name: value } } }));
    let hold = "must be \"0\" (never) or between \"3\" and \"65535\" seconds";
    let whole = "must be a whole number of seconds up to 65535";
    vec![
        (timers("holdTime", "0"), Taken),
        (timers("holdTime", "3"), Taken),
        (
            timers("holdTime", "1"),
            Early(hold, "must be 0 (off) or at least 3 seconds"),
        ),
        (
            timers("holdTime", "2"),
            Early(hold, "must be 0 (off) or at least 3 seconds"),
        ),
        (timers("holdTime", "65536"), Early(hold, whole)),
        (timers("holdTime", "ninety"), Early(hold, whole)),
        (
            timers("connectRetry", "10s"),
            Early(
                "must be a whole number of seconds",
                "spec.timers.config.connectRetry: \"10s\" must be a whole number of seconds",
            ),
        ),
        (
            timers("connectRetry", "99999"),
            Refused(
                "spec.timers.config.connectRetry: \"99999\" must be a whole number of seconds up to 65535",
            ),
        ),
        (timers("keepaliveInterval", "30"), Taken),
        (
            timers("keepaliveInterval", "90"),
            Refused(
                "spec.timers.config.keepaliveInterval: 90 must be less than the hold time of 90 seconds",
            ),
        ),
        (
            timers("keepaliveInterval", "40"),
            Warned("keepaliveInterval: 40 is more than a third of the hold time of 90 seconds"),
        ),
        (
            timers("minimumAdvertisementInterval", "5"),
            Warned("spec: without effect: timers.config.minimumAdvertisementInterval"),
        ),
    ]
}

/// How far away the peer is, and what the session carries.
fn paths() -> Vec<(Value, Expect)> {
    let family =
        |afi: &str, safi: &str| json!({ "config": { "family": { "afi": afi, "safi": safi } } });
    let families = |all: Value| with(json!({ "afiSafis": all }));
    let v4 = || family("AFI_IP", "SAFI_UNICAST");
    vec![
        (
            with(json!({ "ebgpMultihop": { "enabled": true, "multihopTtl": 3 } })),
            Taken,
        ),
        (
            with(json!({ "ebgpMultihop": { "enabled": true, "multihopTtl": 256 } })),
            Early(
                "spec.ebgpMultihop.multihopTtl",
                "spec.ebgpMultihop.multihopTtl: 256 must be",
            ),
        ),
        (
            with(json!({ "ebgpMultihop": { "enabled": false, "multihopTtl": 5 } })),
            Warned("spec.ebgpMultihop.multihopTtl: has no effect while enabled is false"),
        ),
        (with(json!({ "ttlSecurity": 254 })), Taken),
        (
            with(json!({ "ttlSecurity": 255 })),
            Early("spec.ttlSecurity", "spec.ttlSecurity: 255 must be"),
        ),
        (
            with(json!({ "ttlSecurity": 1, "ebgpMultihop": { "enabled": true } })),
            Early(
                "ttlSecurity and ebgpMultihop cannot be used together",
                "spec.ttlSecurity: 1 cannot be combined with ebgpMultihop",
            ),
        ),
        (families(json!([v4()])), Taken),
        (
            families(json!([v4(), v4()])),
            Refused("spec.afiSafis[1].config.family: AFI_IP is listed twice"),
        ),
        (
            families(json!([family("AFI_L2VPN", "SAFI_EVPN")])),
            Refused("must list AFI_IP or AFI_IP6 with SAFI_UNICAST: no other family is announced"),
        ),
        (
            families(json!([v4(), family("AFI_L2VPN", "SAFI_EVPN")])),
            Warned("spec: without effect: afiSafis other than unicast of AFI_IP and AFI_IP6"),
        ),
        (
            families(json!([family("ipv4", "SAFI_UNICAST")])),
            Early(
                "afi must be AFI_IP or AFI_IP6",
                "spec.afiSafis[0].config.family.afi: \"ipv4\" must be AFI_IP or AFI_IP6",
            ),
        ),
        (
            families(json!([{
                "config": { "family": { "afi": "AFI_IP", "safi": "SAFI_UNICAST" } },
                "addPaths": { "config": { "sendMax": 256 } },
            }])),
            Early(
                "sendMax",
                "spec.afiSafis[0].addPaths.config.sendMax: 256 must be between 0 and 255",
            ),
        ),
        (
            with(json!({ "gracefulRestart": { "restartTime": 4096 } })),
            Early(
                "spec.gracefulRestart.restartTime",
                "spec.gracefulRestart.restartTime: 4096 must be",
            ),
        ),
    ]
}

fn bfd() -> Vec<(Value, Expect)> {
    let bfd = |field: &str, value: i64| with(json!({ "bfd": { "enabled": true, field: value } }));
    vec![
        (
            with(
                json!({ "bfd": { "enabled": true, "transmitInterval": 100, "receiveInterval": 100 } }),
            ),
            Taken,
        ),
        (
            bfd("transmitInterval", 5),
            Early(
                "spec.bfd.transmitInterval",
                "spec.bfd.transmitInterval: 5 must be between 10 and 60000 milliseconds",
            ),
        ),
        (
            bfd("receiveInterval", 60_001),
            Early(
                "spec.bfd.receiveInterval",
                "spec.bfd.receiveInterval: 60001 must be between 10 and 60000 milliseconds",
            ),
        ),
        (
            bfd("detectMultiplier", 0),
            Early(
                "spec.bfd.detectMultiplier",
                "spec.bfd.detectMultiplier: 0 must be between 2 and 255",
            ),
        ),
        (
            bfd("minimumTtl", 0),
            Early(
                "spec.bfd.minimumTtl",
                "spec.bfd.minimumTtl: 0 must be between 1 and 254",
            ),
        ),
        (
            bfd("minimumTtl", 200),
            Warned("spec.bfd.minimumTtl: has no effect: the peer is one hop away"),
        ),
    ]
}

fn others() -> Vec<(Value, Expect)> {
    let reference = |name: &str| json!({ "name": name });
    vec![
        (
            with(json!({ "conf": { "authPassword": "x" } })),
            Warned("can be read by everybody who can read BgpPeers; use spec.passwordSecretRef"),
        ),
        (
            with(json!({ "conf": { "authPassword": "x".repeat(81) } })),
            Refused("has 81 bytes; TCP MD5 takes at most 80"),
        ),
        (
            with(
                json!({ "conf": { "authPassword": "x" }, "passwordSecretRef": reference("peer") }),
            ),
            Warned(
                "spec.conf.authPassword: is ignored, because passwordSecretRef is set; remove it",
            ),
        ),
        (
            with(json!({ "passwordSecretRef": reference("peer") })),
            Taken,
        ),
        (
            with(json!({ "passwordSecretRef": reference("") })),
            Refused("must be the name of a Secret"),
        ),
        (
            with(json!({ "conf": { "vrf": "red" } })),
            Warned("spec: without effect: conf.vrf"),
        ),
        (
            with(json!({ "gracefulRestart": { "mode": "helper" } })),
            Warned("spec: without effect: gracefulRestart.mode"),
        ),
    ]
}
