//! Eips, and addresses that are reserved by hand.

use anyhow::Result;
use openelb_tests::story;
use serde_json::{Value, json};

use super::super::stage::Stage;
use super::Expect::{Refused, Taken, Warned};
use super::{DEFAULT, FORCE, all, annotated, eip, object, refused};

#[test]
fn eips_and_reservations() {
    story(async || -> Result<()> {
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
                (
                    eip(
                        "new",
                        json!({ "address": "192.168.0.90-192.168.0.210", "exclude": ["192.168.0.100-192.168.0.200"] }),
                    ),
                    Taken,
                ),
                (address("192.168.0.0/33"), Refused("spec.address")),
                (address("192.168.1.1,"), Refused("is empty")),
                (address(""), Refused("spec.address")),
                (
                    address("10.0.0.0/24, 10.0.0.128/25"),
                    Warned("spec.address"),
                ),
                (with("interface", json!("can_reach:192.0.2.1")), Warned("has no effect")),
                (
                    eip(
                        "new",
                        json!({ "address": "10.0.0.1", "protocol": "layer2", "interface": "eth0, bond*" }),
                    ),
                    Taken,
                ),
                (
                    eip("new", json!({ "address": "10.0.0.1", "protocol": "layer2" })),
                    Taken,
                ),
                (
                    with("interface", json!("averyveryverylongname")),
                    Refused("more than 15 letters"),
                ),
                (with("announceInterval", json!(60)), Taken),
                (
                    with("announceInterval", json!(86_401)),
                    Refused("spec.announceInterval"),
                ),
                (
                    with("bgp", json!({ "aggregationLength": 24, "aggregationLengthV6": 64 })),
                    Taken,
                ),
                (
                    with("bgp", json!({ "aggregationLengthV6": 129 })),
                    Refused("spec.bgp.aggregationLengthV6"),
                ),
                (
                    with("bgp", json!({ "asPathPrepend": 17 })),
                    Refused("spec.bgp.asPathPrepend"),
                ),
                (
                    with("bgp", json!({ "communities": ["65000:1"] })),
                    Taken,
                ),
                (
                    with("bgp", json!({ "communities": ["65000:70000"] })),
                    Refused("spec.bgp.communities[0]"),
                ),
                (
                    eip(
                        "new",
                        json!({ "address": "10.0.0.1", "protocol": "layer2", "bgp": { "localPref": 1 } }),
                    ),
                    Warned("spec.bgp: has no effect"),
                ),
                (with("namespaces", json!(["shop"])), Taken),
                (
                    eip(
                        "new",
                        json!({ "address": "10.0.0.1", "priority": 5, "namespaces": ["shop"] }),
                    ),
                    Taken,
                ),
                (
                    with("strictBinding", json!(true)),
                    Warned("spec.strictBinding: the Eip is bound to no namespace"),
                ),
                (
                    with(
                        "nodeSelector",
                        json!({ "matchExpressions": [{ "key": "a", "operator": "Near" }] }),
                    ),
                    Refused("spec.nodeSelector"),
                ),
                (with("protocol", json!("ospf")), Refused("spec.protocol")),
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

        stage
            .store(&eip("v6", json!({ "address": " 2001:DB8:0:1::/64" })))
            .await?;
        let generation = "--output=jsonpath={.metadata.generation}";
        let generation = stage
            .control
            .kubectl(&["get", "eip", "v6", generation])
            .await?;
        assert_eq!(generation, "1");
        stage
            .seen(
                &address("2001:db8::-2001:db8:0:1::"),
                &Refused("eip address overlap with v6: both have 2001:db8:0:1::"),
            )
            .await?;
        stage
            .expect(&address("2001:db8::-2001:db8::ffff"), &Taken)
            .await?;

        // A pool over a node.
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": "worker" },
            "status": { "addresses": [{ "type": "InternalIP", "address": "10.1.0.9" }] },
        });
        stage.store(&node).await?;
        let status = json!({ "status": node["status"] }).to_string();
        stage
            .control
            .kubectl(&[
                "patch",
                "node",
                "worker",
                "--subresource=status",
                "--type=merge",
                "--patch",
                &status,
            ])
            .await?;
        stage
            .seen(
                &address("10.1.0.0/24"),
                &Warned("10.1.0.9 is the address of node worker; list it in spec.exclude"),
            )
            .await?;
        let without = json!({ "address": "10.1.0.0/24", "exclude": ["10.1.0.9"] });
        stage.expect(&eip("new", without), &Taken).await?;

        // One default; a dry run makes none.
        let default = annotated(
            eip("v6", json!({ "address": "2001:db8:0:1::/64" })),
            json!({ DEFAULT: "true" }),
        );
        let second = annotated(address("10.0.0.1"), json!({ DEFAULT: "true" }));
        stage.expect(&default, &Taken).await?;
        stage.expect(&second, &Taken).await?;
        stage.store(&default).await?;
        stage
            .seen(&second, &Refused("already exists a default EIP: v6"))
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
                (lan(json!({ "address": "192.168.0.100-192.168.0.200", "protocol": "layer2", "disable": true })), Taken),
                (
                    lan(json!({
                        "address": "192.168.0.100-192.168.0.200", "protocol": "layer2", "exclude": ["192.168.0.150"],
                    })),
                    Refused("in use and would fall out: 192.168.0.150 by default/mail"),
                ),
                (reserve("192.168.0.160", "lan"), Taken),
                (
                    object(
                        "EipAddress",
                        "somewhere",
                        json!({ "address": "192.168.0.160", "reserved": true, "reservedFor": ["default/web"] }),
                    ),
                    Refused("the name must be the address"),
                ),
                (
                    object(
                        "EipAddress",
                        "192.168.0.160",
                        json!({ "address": "192.168.0.160", "reserved": true, "reservedFor": ["web"] }),
                    ),
                    Refused("must be namespace/name, or namespace/*"),
                ),
                (
                    object(
                        "EipAddress",
                        "192.168.0.160",
                        json!({ "address": "192.168.0.160", "reserved": true }),
                    ),
                    Warned("spec.reservedFor: is empty"),
                ),
                (
                    object(
                        "EipAddress",
                        "2001-0db8-0000-0001-0000-0000-0000-0005",
                        json!({ "address": "2001:DB8:0:1::5", "reserved": true, "reservedFor": ["default/*"] }),
                    ),
                    Taken,
                ),
                (reserve("192.168.3.1", "lan"), Refused("192.168.3.1 is not in Eip lan")),
                (reserve("192.168.0.160", "wan"), Refused("there is no Eip \"wan\"")),
                (
                    object("EipAddress", "192.168.0.161", json!({ "address": "192.168.0.161", "eip": "lan" })),
                    Refused("EipAddresses are made by the controller"),
                ),
            ],
        )
        .await?;
        let admin = stage.control.admin();
        let said = stage.kubectl(admin, &["delete", "eip", "lan"]).await?;
        refused(&said, "Eip lan is in use: 192.168.0.150 by default/mail")?;
        let said = stage
            .kubectl(admin, &["delete", "eipaddress", "192.168.0.150"])
            .await?;
        refused(&said, "192.168.0.150 is in use by default/mail")?;
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
            &said,
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
    });
}
