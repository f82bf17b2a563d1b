//! Every rule through `kubectl apply`: what is taken, what is refused and in which words, what is warned of.

use anyhow::{Context, Result, ensure};
use openelb_tests::{Deadline, eventually};
use serde_json::{Value, json};

use super::stage::{NAMESPACE, Stage};

/// What shall come of an object.
enum Expect {
    Taken,
    Warned(&'static str),
    Refused(&'static str),
}
use Expect::{Refused, Taken, Warned};

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": kind,
        "metadata": { "name": name }, "spec": spec,
    })
}

fn eip(name: &str, spec: Value) -> Value {
    object("Eip", name, spec)
}

fn annotated(mut object: Value, annotations: Value) -> Value {
    object["metadata"]["annotations"] = annotations;
    object
}

fn peer(spec: Value) -> Value {
    object("BgpPeer", "new", spec)
}

fn service(annotations: Value, mut spec: Value) -> Value {
    spec["type"] = json!("LoadBalancer");
    spec["ports"] = json!([{ "port": 80 }]);
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "default", "annotations": annotations }, "spec": spec,
    });
    service["metadata"]["annotations"]["lb.kubesphere.io/v1alpha1"] = json!("openelb");
    service
}

const ADDRESS: &str = "eip.openelb.kubesphere.io/v1alpha1";
const EIP: &str = "eip.openelb.kubesphere.io/v1alpha2";
const DEFAULT: &str = "eip.openelb.kubesphere.io/is-default-eip";
const FORCE: &str = "openelb.kubesphere.io/force-delete";

impl Stage {
    /// Applies without storing, and compares.
    async fn expect(&self, object: &Value, expected: &Expect) -> Result<()> {
        let said = self.apply(object, &["--dry-run=server"]).await?;
        let as_expected = match expected {
            Taken => said.succeeded && !said.err.contains("Warning"),
            Warned(text) => said.succeeded && said.err.contains(text),
            Refused(text) => !said.succeeded && said.err.contains(text),
        };
        let wanted = match expected {
            Taken => "taken in silence",
            Warned(text) | Refused(text) => text,
        };
        ensure!(
            as_expected,
            "{object}\n  wanted: {wanted}\n  said: {}{}",
            said.out,
            said.err
        );
        Ok(())
    }

    async fn store(&self, object: &Value) -> Result<()> {
        let said = self.apply(object, &[]).await?;
        ensure!(said.succeeded, "{object}: {}", said.err);
        Ok(())
    }

    /// As the controller does it, whom nobody asks.
    async fn store_as_controller(&self, object: &Value) -> Result<()> {
        let controller = self
            .control
            .service_account(NAMESPACE, "openelb-controller")
            .await?;
        let binding = [
            "create",
            "clusterrolebinding",
            "controller",
            "--clusterrole=cluster-admin",
        ];
        let account = format!("--serviceaccount={NAMESPACE}:openelb-controller");
        self.control
            .kubectl(&[&binding[..], &[account.as_str()]].concat())
            .await?;
        let file = self
            .control
            .folder()
            .write("by-controller.json", object.to_string())?;
        let file = file.to_str().context("a path is no text")?;
        controller
            .kubectl(&["create", "--filename", file])
            .await
            .map(drop)
    }

    /// Waits until the webhook has seen what was stored: until it answers as it must then.
    async fn seen(&self, object: &Value, expected: &Expect) -> Result<()> {
        eventually("the webhook to see it", Deadline::SHORT, async || {
            self.expect(object, expected).await
        })
        .await
    }
}

async fn all(stage: &Stage, cases: Vec<(Value, Expect)>) -> Result<()> {
    for (object, expected) in &cases {
        stage.expect(object, expected).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn eips_and_reservations() -> Result<()> {
    let stage = Stage::set(1, &[]).await?;
    stage
        .store(&eip(
            "lan",
            json!({ "address": "192.168.0.100-192.168.0.200", "protocol": "layer2" }),
        ))
        .await?;
    let overlap = "spec.address: eip address overlap with lan: both have";
    stage
        .seen(
            &eip("new", json!({ "address": "192.168.0.1-192.168.0.100" })),
            &Refused(overlap),
        )
        .await?;
    let with =
        |field: &str, value: Value| eip("new", json!({ "address": "10.0.0.1", field: value }));
    let address = |text: &str| eip("new", json!({ "address": text }));
    all(
        &stage,
        vec![
            (address("192.168.0.1"), Taken),
            (address("192.168.1.0/24"), Taken),
            (address("192.168.0.1-192.168.0.99, 2001:db8::/64"), Taken),
            (address("192.168.0.201-192.168.0.250"), Taken),
            (address("192.168.0.200-192.168.0.250"), Refused(overlap)),
            (
                address("192.168.1.100-192.168.1.1"),
                Refused("below its start"),
            ),
            (
                address("192.168.1.1-192.168.1.2-192.168.1.3"),
                Refused("spec.address"),
            ),
            (address("xxxx"), Refused("spec.address")),
            (
                address("192.168.1.1/24"),
                Warned("the range that results is 192.168.1.0-192.168.1.255"),
            ),
            (
                with("interface", json!("haha:hahah")),
                Refused("spec.interface"),
            ),
            (
                with("interface", json!("can_reach:hahah")),
                Refused("spec.interface"),
            ),
            (
                with("interface", json!("lo")),
                Refused("invalid interface lo"),
            ),
            (
                with("interface", json!("eth0")),
                Warned("spec.interface: has no effect"),
            ),
            (
                with("namespaces", json!(["Shop"])),
                Refused("is no namespace name"),
            ),
            (
                with("exclude", json!(["10.0.0.x"])),
                Refused("spec.exclude"),
            ),
            (
                with("announceInterval", json!(-1)),
                Refused("spec.announceInterval"),
            ),
            (
                with("bgp", json!({ "aggregationLength": 33 })),
                Refused("spec.bgp.aggregationLength"),
            ),
            (
                with("protocol", json!("vip")),
                Warned("spec.protocol: vip is accepted"),
            ),
            (
                with("priority", json!(5)),
                Warned("spec.priority: the Eip is bound to no namespace"),
            ),
            (
                with("usingKnownIPs", json!(true)),
                Warned("spec.usingKnownIPs: has no effect"),
            ),
            // A wrong type is refused in words; it never counts as a broken webhook.
            (with("disable", json!("yes")), Refused("spec.disable")),
            (eip("new", json!({ "address": 5 })), Refused("spec.address")),
        ],
    )
    .await?;

    // Filled in and written in one spelling; nothing changes the second time.
    stage
        .store(&eip("v6", json!({ "address": " 2001:DB8:0:1::/64" })))
        .await?;
    let spec = stage
        .control
        .kubectl(&["get", "eip", "v6", "--output=jsonpath={.spec}"])
        .await?;
    let spec: Value = serde_json::from_str(&spec)?;
    assert_eq!(
        spec,
        json!({ "address": "2001:db8:0:1::/64", "protocol": "bgp" })
    );

    // One default.
    stage
        .store(&annotated(
            eip("v6", json!({ "address": "2001:db8:0:1::/64" })),
            json!({ DEFAULT: "true" }),
        ))
        .await?;
    let second = annotated(address("10.0.0.1"), json!({ DEFAULT: "true" }));
    stage
        .seen(&second, &Refused("already exists a default EIP"))
        .await?;

    // An address in use.
    let mut used = object(
        "EipAddress",
        "192.168.0.150",
        json!({ "address": "192.168.0.150", "eip": "lan" }),
    );
    used["spec"]["services"] = json!([{ "namespace": "default", "name": "mail", "uid": "u" }]);
    stage.store_as_controller(&used).await?;
    let smaller = eip(
        "lan",
        json!({ "address": "192.168.0.100-192.168.0.120", "protocol": "layer2" }),
    );
    stage
        .seen(
            &smaller,
            &Refused("in use and would fall out: 192.168.0.150 by default/mail"),
        )
        .await?;
    let lan = |spec: Value| eip("lan", spec);
    let reserve = |address: &str, of: &str| {
        object(
            "EipAddress",
            address,
            json!({ "address": address, "eip": of, "reserved": true, "reservedFor": ["default/web"] }),
        )
    };
    all(
        &stage,
        vec![
            (lan(json!({ "address": "192.168.0.90-192.168.0.210", "protocol": "layer2" })), Taken),
            (lan(json!({ "address": "192.168.0.150", "protocol": "layer2" })), Taken),
            (
                lan(json!({ "address": "192.168.0.100", "protocol": "layer2", "onAddressRemoved": "Reassign" })),
                Warned("192.168.0.150 by default/mail"),
            ),
            (reserve("192.168.0.160", "lan"), Taken),
            (reserve("192.168.3.1", "lan"), Refused("192.168.3.1 is not in Eip lan")),
            (reserve("192.168.0.160", "wan"), Refused("there is no Eip \"wan\"")),
            (
                object("EipAddress", "192.168.0.161", json!({ "address": "192.168.0.161", "eip": "lan" })),
                Refused("EipAddresses are made by the controller"),
            ),
        ],
    )
    .await?;
    let refused = |said: super::stage::Said, text: &str| {
        ensure!(
            !said.succeeded && said.err.contains(text),
            "wanted: {text}\nsaid: {}",
            said.err
        );
        Ok(())
    };
    let admin = stage.control.admin();
    let said = stage.kubectl(admin, &["delete", "eip", "lan"]).await?;
    refused(said, "Eip lan is in use: 192.168.0.150 by default/mail")?;
    let said = stage
        .kubectl(admin, &["delete", "eipaddress", "192.168.0.150"])
        .await?;
    refused(said, "192.168.0.150 is in use by default/mail")?;
    let said = stage
        .kubectl(
            admin,
            &[
                "patch",
                "eipaddress",
                "192.168.0.150",
                "--type=merge",
                "--patch",
                r#"{"spec":{"services":[]}}"#,
            ],
        )
        .await?;
    refused(
        said,
        "only the controller changes the EipAddress of a Service",
    )?;

    // A reservation is completed, and can be taken back; force is force.
    let brief = object(
        "EipAddress",
        "192.168.0.170",
        json!({ "address": "192.168.0.170", "reserved": true }),
    );
    stage.store(&brief).await?;
    let spec = stage
        .control
        .kubectl(&[
            "get",
            "eipaddress",
            "192.168.0.170",
            "--output=jsonpath={.spec.eip}",
        ])
        .await?;
    assert_eq!(spec, "lan");
    stage
        .control
        .kubectl(&["delete", "eipaddress", "192.168.0.170"])
        .await?;
    let force = format!("{FORCE}=true");
    stage
        .control
        .kubectl(&["annotate", "eipaddress", "192.168.0.150", &force])
        .await?;
    stage
        .control
        .kubectl(&["annotate", "eip", "lan", &force])
        .await?;
    stage.control.kubectl(&["delete", "eip", "lan"]).await?;
    stage
        .control
        .kubectl(&["delete", "eipaddress", "192.168.0.150"])
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bgp() -> Result<()> {
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
    let timers = |name: &str, value: &str| with(json!({ "timers": { "config": { name: value } } }));
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
            (
                conf(json!({})),
                Refused("spec.as: must be the own AS number"),
            ),
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
            (with(json!({})), Taken),
            (
                with(json!({ "conf": { "peerAs": 4_200_000_000_i64 } })),
                Taken,
            ),
            (peer(json!({})), Refused("conf")),
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
            (timers("holdTime", "2"), Refused("holdTime")),
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
    let internal = with(json!({
        "conf": { "neighborAddress": "192.0.2.2", "peerAs": 65000 }, "ebgpMultihop": { "enabled": true },
    }));
    stage
        .seen(&internal, &Refused("is for peers of another AS"))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn services() -> Result<()> {
    let stage = Stage::set(1, &[]).await?;
    stage
        .store(&eip("lan", json!({ "address": "192.0.2.0/28" })))
        .await?;
    let outside = service(json!({ EIP: "lan", ADDRESS: "192.0.2.16" }), json!({}));
    stage
        .seen(
            &outside,
            &Refused("the specified ip:<192.0.2.16> is beyond the range of eip[lan:192.0.2.0/28]"),
        )
        .await?;
    all(
        &stage,
        vec![
            (service(json!({}), json!({})), Taken),
            (
                service(json!({ EIP: "lan", ADDRESS: "192.0.2.15" }), json!({})),
                Taken,
            ),
            (
                service(json!({ ADDRESS: "ten" }), json!({})),
                Refused("\"ten\" is no IP address"),
            ),
            (
                service(json!({ EIP: "later" }), json!({})),
                Warned("there is no Eip \"later\" yet"),
            ),
            (
                service(json!({ ADDRESS: "198.51.100.1" }), json!({})),
                Warned("is in no Eip yet"),
            ),
            (
                service(
                    json!({ ADDRESS: "192.0.2.1" }),
                    json!({ "ipFamilies": ["IPv6"] }),
                ),
                Refused("is IPv4, but spec.ipFamilies is [IPv6]"),
            ),
            (
                service(json!({ ADDRESS: "192.0.2.1,192.0.2.2" }), json!({})),
                Refused("one address per IP family"),
            ),
        ],
    )
    .await?;
    // An address that another Service has.
    let mut held = object(
        "EipAddress",
        "192.0.2.5",
        json!({ "address": "192.0.2.5", "eip": "lan" }),
    );
    held["spec"]["services"] = json!([{
        "namespace": "default", "name": "mail", "uid": "u", "requested": true,
        "ports": [{ "protocol": "TCP", "port": 80 }],
    }]);
    stage.store_as_controller(&held).await?;
    let same_port = service(json!({ ADDRESS: "192.0.2.5" }), json!({}));
    let refusal = "192.0.2.5 cannot be shared: default/mail holds it and exposes port 80/TCP too";
    stage.seen(&same_port, &Refused(refusal)).await?;
    let mut other = same_port.clone();
    other["spec"]["ports"] = json!([{ "port": 25 }]);
    stage.expect(&other, &Taken).await?;
    other["metadata"]["namespace"] = json!("kube-public");
    let refusal = "Services of other namespaces may share it only where the Eip allows that";
    stage.expect(&other, &Refused(refusal)).await?;

    // A namespace that is left out is left out.
    let mut system = service(json!({ ADDRESS: "ten" }), json!({}));
    system["metadata"]["namespace"] = json!("kube-system");
    stage.expect(&system, &Taken).await?;

    // Opted in by the default Eip, where nothing else is said.
    let plain = |name: &str, namespace: &str, annotations: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": namespace, "annotations": annotations },
            "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] },
        })
    };
    let is_ours = async |object: &Value| -> Result<bool> {
        let said = stage
            .apply(object, &["--dry-run=server", "--output=json"])
            .await?;
        let service: Value = serde_json::from_str(&said.out).context(said.err)?;
        Ok(service["metadata"]["annotations"]["lb.kubesphere.io/v1alpha1"] == "openelb")
    };
    assert!(!is_ours(&plain("web", "default", json!({}))).await?);
    stage
        .store(&annotated(
            eip("lan", json!({ "address": "192.0.2.0/28" })),
            json!({ DEFAULT: "true" }),
        ))
        .await?;
    eventually("the default Eip to count", Deadline::SHORT, async || {
        ensure!(
            is_ours(&plain("web", "default", json!({}))).await?,
            "not opted in"
        );
        anyhow::Ok(())
    })
    .await?;
    assert!(
        !is_ours(&plain(
            "web",
            "default",
            json!({ "metallb.io/address-pool": "x" })
        ))
        .await?
    );
    stage
        .control
        .kubectl(&["create", "namespace", "quiet"])
        .await?;
    stage
        .control
        .kubectl(&[
            "label",
            "namespace",
            "quiet",
            "openelb.kubesphere.io/default-eip=disabled",
        ])
        .await?;
    eventually("the label to count", Deadline::SHORT, async || {
        ensure!(
            !is_ours(&plain("web", "quiet", json!({}))).await?,
            "opted in"
        );
        anyhow::Ok(())
    })
    .await
}
