//! Services: what they ask for, what they share, and who opts them in.

use anyhow::{Context, Result};
use openelb_tests::product::NAMESPACE;
use openelb_tests::story;
use serde_json::{Value, json};

use super::super::stage::Stage;
use super::Expect::{Refused, Taken, Warned};
use super::{ADDRESS, EIP, all, eip, object};

/// Our class.
const CLASS: &str = "openelb.kubesphere.io/openelb";

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

#[test]
fn services() {
    story(async || -> Result<()> {
        let stage = Stage::set(1, &[]).await?;
        stage
            .store(&eip("lan", json!({ "address": "192.0.2.0/28" })))
            .await?;
        let outside = service(json!({ EIP: "lan", ADDRESS: "192.0.2.16" }), json!({}));
        stage
            .seen(
                &outside,
                &Refused(
                    "the specified ip:<192.0.2.16> is beyond the range of eip[lan:192.0.2.0/28]",
                ),
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
                    service(json!({}), json!({ "loadBalancerIP": "192.0.2.300" })),
                    Refused("spec.loadBalancerIP: \"192.0.2.300\" is no IP address"),
                ),
                (
                    service(json!({}), json!({ "loadBalancerIP": "192.0.2.3" })),
                    Taken,
                ),
                (
                    service(
                        json!({ ADDRESS: "192.0.2.3" }),
                        json!({ "loadBalancerIP": "192.0.2.4" }),
                    ),
                    Warned("spec.loadBalancerIP: ignored"),
                ),
                (
                    service(
                        json!({ "protocol.openelb.kubesphere.io/v1alpha1": "ospf" }),
                        json!({}),
                    ),
                    Warned("\"ospf\" is ignored"),
                ),
                (
                    service(
                        json!({ ADDRESS: "192.0.2.1,2001:db8::1" }),
                        json!({ "ipFamilyPolicy": "SingleStack" }),
                    ),
                    Refused("2001:db8::1 is IPv6, but spec.ipFamilies is [IPv4]"),
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
        // A Service of our class is ours without the annotation, and one of another's is not with it.
        let of_class = |class: &str| {
            let mut service = service(
                json!({ ADDRESS: "ten" }),
                json!({ "loadBalancerClass": class }),
            );
            if class == CLASS
                && let Some(all) = service["metadata"]["annotations"].as_object_mut()
            {
                all.remove("lb.kubesphere.io/v1alpha1");
            }
            service
        };
        stage
            .expect(&of_class(CLASS), &Refused("\"ten\" is no IP address"))
            .await?;
        stage.expect(&of_class("example.com/other"), &Taken).await?;

        // Eips that give nothing.
        stage
            .store(&eip(
                "off",
                json!({ "address": "198.18.0.0/28", "disable": true }),
            ))
            .await?;
        let mut leaving = eip("leaving", json!({ "address": "198.18.1.0/28" }));
        leaving["metadata"]["finalizers"] = json!(["example.com/keep"]);
        stage.store(&leaving).await?;
        let delete = ["delete", "eip", "leaving", "--wait=false"];
        stage.control.kubectl(&delete).await?;
        for (name, warning) in [
            ("off", "Eip off is disabled and gives no new address"),
            (
                "leaving",
                "Eip leaving is being deleted and gives no new address",
            ),
        ] {
            stage
                .seen(&service(json!({ EIP: name }), json!({})), &Warned(warning))
                .await?;
        }

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
        let refusal =
            "192.0.2.5 cannot be shared: default/mail holds it and exposes port 80/TCP too";
        stage.seen(&same_port, &Refused(refusal)).await?;
        let mut other = same_port.clone();
        other["spec"]["ports"] = json!([{ "port": 25 }]);
        stage.expect(&other, &Taken).await?;
        other["metadata"]["namespace"] = json!("kube-public");
        let refusal = "Services of other namespaces may share it only where the Eip allows that";
        stage.expect(&other, &Refused(refusal)).await?;

        // One that its Service did not ask for, and one whose Service serves on its own nodes only.
        for (address, member) in [
            ("192.0.2.8", json!({ "requested": false })),
            (
                "192.0.2.9",
                json!({ "requested": true, "local": true, "selector": { "app": "mail" } }),
            ),
        ] {
            let mut held = held.clone();
            held["metadata"]["name"] = json!(address);
            held["spec"]["address"] = json!(address);
            let holder = &mut held["spec"]["services"][0];
            for (name, value) in member.as_object().into_iter().flatten() {
                holder[name] = value.clone();
            }
            stage.store_as_controller(&held).await?;
        }
        let mut beside = other.clone();
        beside["metadata"]["namespace"] = json!("default");
        beside["metadata"]["annotations"][ADDRESS] = json!("192.0.2.8");
        let refusal =
            "192.0.2.8 cannot be shared: default/mail holds it without having asked for it by name";
        stage.seen(&beside, &Refused(refusal)).await?;
        beside["metadata"]["annotations"][ADDRESS] = json!("192.0.2.9");
        beside["spec"]["externalTrafficPolicy"] = json!("Local");
        beside["spec"]["selector"] = json!({ "app": "web" });
        let refusal = "with externalTrafficPolicy Local both must have the same selector";
        stage.seen(&beside, &Refused(refusal)).await?;
        beside["spec"]["selector"] = json!({ "app": "mail" });
        stage.expect(&beside, &Taken).await?;

        // One that is set aside, and a pool that lets nobody share.
        let reservation =
            json!({ "address": "192.0.2.6", "reserved": true, "reservedFor": ["default/other"] });
        stage
            .store(&object("EipAddress", "192.0.2.6", reservation))
            .await?;
        let reserved = service(json!({ ADDRESS: "192.0.2.6" }), json!({}));
        stage
            .seen(
                &reserved,
                &Warned("192.0.2.6 is reserved and not for this Service"),
            )
            .await?;
        stage
            .store(&eip(
                "lan",
                json!({ "address": "192.0.2.0/28", "sharing": "Never" }),
            ))
            .await?;
        other["metadata"]["namespace"] = json!("default");
        stage
            .seen(
                &other,
                &Refused(
                    "192.0.2.5 is held by default/mail, and Eip lan lets nobody share an address",
                ),
            )
            .await?;
        stage
            .store(&eip(
                "lan",
                json!({ "address": "192.0.2.0/28", "sharing": "SameNamespace" }),
            ))
            .await?;
        stage.seen(&other, &Taken).await?;

        // Requested addresses get one spelling.
        let untidy = service(
            json!({ ADDRESS: " 2001:DB8::0:1 , 192.0.2.7 " }),
            json!({ "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"] }),
        );
        let said = stage
            .apply(&untidy, &["--dry-run=server", "--output=json"])
            .await?;
        let tidy: Value = serde_json::from_str(&said.out).context(said.err)?;
        assert_eq!(
            tidy["metadata"]["annotations"][ADDRESS],
            "2001:db8::1,192.0.2.7"
        );

        // Namespaces that are left out are left out, and so is everything that is no LoadBalancer.
        for namespace in ["kube-system", NAMESPACE] {
            let mut system = service(json!({ ADDRESS: "ten" }), json!({}));
            system["metadata"]["namespace"] = json!(namespace);
            stage.expect(&system, &Taken).await?;
        }
        let mut internal = service(json!({ ADDRESS: "ten" }), json!({}));
        internal["spec"]["type"] = json!("ClusterIP");
        stage.expect(&internal, &Taken).await?;
        Ok(())
    });
}
