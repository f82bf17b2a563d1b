//! Eips, and addresses that are reserved by hand.

use anyhow::Result;
use openelb_tests::story;
use serde_json::{Value, json};

use super::super::stage::Stage;
use super::Expect::{Early, Limited, Refused, Taken, Warned};
use super::eip_table::{OVERLAP, address, cases, lan};
use super::{DEFAULT, FORCE, all, annotated, eip, object, refused};

#[test]
fn eips_and_reservations() {
    story(async || -> Result<()> {
        let stage = Stage::set(1, &[]).await?;
        stage.store(&lan()).await?;
        stage
            .seen(&address("192.168.0.1-192.168.0.100"), &Refused(OVERLAP))
            .await?;
        all(&stage, cases()).await?;

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
        let edited = |spec: Value| eip("lan", spec);
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
                (edited(json!({ "address": "192.168.0.90-192.168.0.210", "protocol": "layer2" })), Taken),
                (edited(json!({ "address": "192.168.0.150", "protocol": "layer2" })), Taken),
                (
                    edited(json!({ "address": "192.168.0.100", "protocol": "layer2", "onAddressRemoved": "Reassign" })),
                    Warned("192.168.0.150 by default/mail"),
                ),
                (edited(json!({ "address": "192.168.0.100-192.168.0.200", "protocol": "layer2", "disable": true })), Taken),
                (
                    edited(json!({
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
                    Early(
                        "the name must be the address",
                        "metadata.name: must be 192.168.0.160, the name of the address 192.168.0.160",
                    ),
                ),
                (
                    object(
                        "EipAddress",
                        "192.168.0.160",
                        json!({ "address": "192.168.0.160", "reserved": true, "reservedFor": ["web"] }),
                    ),
                    Early(
                        "must be namespace/name, or namespace/*",
                        "spec.reservedFor[0]: \"web\" must be namespace/name of a Service",
                    ),
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
                (
                    object(
                        "EipAddress",
                        "192.168.0.160",
                        json!({ "address": "192.168.0.160", "reserved": true, "reservedFor": ["-shop/web"] }),
                    ),
                    Refused("spec.reservedFor[0]: \"-shop/web\" must be namespace/name of a Service"),
                ),
                (reserve("1.2.3", "lan"), Refused("spec.address: \"1.2.3\" is no IP address")),
                (reserve("192.168.3.1", "lan"), Refused("spec.eip: 192.168.3.1 is not in Eip lan (192.168.0.100-192.168.0.200)")),
                (reserve("192.168.3.1", ""), Refused("spec.address: 192.168.3.1 is in no Eip; make the Eip first")),
                (reserve("192.168.0.160", "wan"), Refused("spec.eip: there is no Eip \"wan\"")),
                (
                    object(
                        "EipAddress",
                        "192.168.0.160",
                        json!({ "address": "192.168.0.160", "reserved": true, "reservedFor": vec!["a/b"; 257] }),
                    ),
                    Limited("Too many: 257: must have at most 256 items"),
                ),
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
        // Whom it is for can change; what it is cannot.
        let reserved = |members: Value| {
            let mut spec = json!({ "address": "192.168.0.170", "eip": "lan", "reserved": true });
            for (name, value) in members.as_object().into_iter().flatten() {
                spec[name] = value.clone();
            }
            object("EipAddress", "192.168.0.170", spec)
        };
        let holder = json!([{ "namespace": "default", "name": "mail", "uid": "u" }]);
        let kept =
            "spec.reserved: only a reservation can be kept by hand: reserved true and no services";
        all(
            &stage,
            vec![
                (
                    reserved(json!({ "reservedFor": ["default/web", "shop/*"] })),
                    Taken,
                ),
                (
                    reserved(json!({ "eip": "v6", "reservedFor": ["default/web"] })),
                    Refused("spec.address: address and eip cannot be changed"),
                ),
                (reserved(json!({ "reserved": false })), Refused(kept)),
                (reserved(json!({ "services": holder })), Refused(kept)),
            ],
        )
        .await?;
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
