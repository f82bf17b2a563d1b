//! What OpenELB, administrators and others left or changed, and what becomes of it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use openelb_api::keys;
use openelb_api::v1alpha2::{BgpConf, BgpPeer, Eip, EipSpec};
use openelb_tests::ipam::{Asks, Bed, allocated, service};
use openelb_tests::{Deadline, eventually, story};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Creates an object that carries this finalizer, and perhaps deletes it.
async fn left<K>(api: &Api<K>, object: Value, finalizer: &str, deleted: bool) -> Result<()>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let mut object: K = serde_json::from_value(object)?;
    object.finalizers_mut().push(finalizer.to_owned());
    let created = api.create(&PostParams::default(), &object).await?;
    if deleted {
        api.delete(&created.name_any(), &DeleteParams::default())
            .await?;
    }
    Ok(())
}

/// Waits until nothing of this kind carries a finalizer, and what was deleted is gone.
async fn free<K>(api: &Api<K>, left: usize) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    eventually("objects without finalizers", Deadline::SHORT, async || {
        let found = api.list(&ListParams::default().labels("left=yes")).await?;
        let carrying: Vec<_> = found
            .iter()
            .filter(|object| !object.finalizers().is_empty())
            .map(ResourceExt::name_any)
            .collect();
        ensure!(
            carrying.is_empty() && found.items.len() == left,
            "{carrying:?} of {}",
            found.items.len()
        );
        Ok(())
    })
    .await
}

#[test]
fn nothing_that_openelb_put_a_finalizer_on_hangs() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let confs: Api<BgpConf> = Api::all(bed.client());
        let peers: Api<BgpPeer> = Api::all(bed.client());
        let services = bed.services("default");
        let labels = json!({"left": "yes"});
        let conf = json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpConf",
            "metadata": {"name": "default", "labels": labels}, "spec": {"as": 65000, "routerId": "10.0.0.1"},
        });
        let peer = |name: &str| {
            json!({
                "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer",
                "metadata": {"name": name, "labels": labels},
                "spec": {"conf": {"neighborAddress": "10.0.0.2", "peerAs": 65001}},
            })
        };
        let proxy = |name: &str| {
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {
                    "name": name, "labels": labels,
                    "annotations": {keys::OPT_IN: keys::OPT_IN_VALUE, keys::NODE_PROXY: "daemonset"},
                },
                "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            })
        };
        left(&confs, conf, keys::OPENELB_FINALIZER, false).await?;
        for deleted in [false, true] {
            let name = if deleted { "going" } else { "staying" };
            left(&peers, peer(name), keys::OPENELB_FINALIZER, deleted).await?;
            left(
                &services,
                proxy(name),
                keys::OPENELB_NODE_PROXY_FINALIZER,
                deleted,
            )
            .await?;
        }
        let _controller = bed.controller("one")?;
        free(&confs, 1).await?;
        free(&peers, 1).await?;
        free(&services, 1).await?;
        // Also what comes later.
        left(&peers, peer("late"), keys::OPENELB_FINALIZER, true).await?;
        left(
            &services,
            proxy("late"),
            keys::OPENELB_NODE_PROXY_FINALIZER,
            true,
        )
        .await?;
        free(&peers, 1).await?;
        free(&services, 1).await?;
        Ok(())
    });
}

#[test]
fn services_of_older_openelb_keep_their_addresses_without_label_or_wish() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        bed.eip("lan", "192.0.2.0/29").await?;
        bed.eip("six", "2001:db8::/120").await?;
        let mut six = service("six");
        let fields = six.spec.get_or_insert_default();
        fields.ip_families = Some(vec!["IPv6".to_owned()]);
        for (old, address) in [
            (service("plain"), "192.0.2.3"),
            (
                service("layer2").annotation("protocol.openelb.kubesphere.io/v1alpha1", "layer2"),
                "192.0.2.1",
            ),
            (six, "2001:db8::7"),
        ] {
            bed.create(&old).await?;
            let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
            bed.services("default")
                .patch_status(
                    &old.name_any(),
                    &PatchParams::default(),
                    &Patch::Merge(status),
                )
                .await?;
        }
        // Newcomers ask at the same moment, of two controllers at once.
        for n in 0..3 {
            bed.create(&service(&format!("new{n}"))).await?;
        }
        let alone = ["--leader-elect=false"];
        let _one = bed.controller_with("one", &alone)?;
        let _two = bed.controller_with("two", &alone)?;
        for n in 0..3 {
            eventually("an address", Deadline::SHORT, async || {
                ensure!(bed.shown(&format!("new{n}")).await?.len() == 1, "none");
                Ok(())
            })
            .await?;
        }
        eventually("a clean ledger", Deadline::SHORT, async || {
            let shown = bed.audit().await?;
            ensure!(shown == 6, "{shown} addresses");
            Ok(())
        })
        .await?;
        for (name, address) in [
            ("plain", "192.0.2.3"),
            ("layer2", "192.0.2.1"),
            ("six", "2001:db8::7"),
        ] {
            bed.shows(name, &[address]).await?;
        }
        Ok(())
    });
}

#[test]
fn nothing_is_written_while_openelb_leads() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let leases: Api<Lease> = Api::namespaced(bed.client(), "openelb-system");
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(keys::CONTROLLER_LEASE.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some("openelb-controller-6b7f_8e1c".to_owned()),
                lease_duration_seconds: Some(15),
                renew_time: Some(MicroTime(jiff::Timestamp::now())),
                ..LeaseSpec::default()
            }),
        };
        leases.create(&PostParams::default(), &lease).await?;
        bed.eip("lan", "192.0.2.0/24").await?;
        bed.create(&service("web")).await?;
        let controller = bed.controller("one")?;
        eventually(
            "the controller to know everything",
            Deadline::SHORT,
            async || {
                ensure!(controller.log().contains("everything is known"), "not yet");
                Ok(())
            },
        )
        .await?;
        // It saw the Lease, and what happens; somebody else's writes come and go.
        for round in 0..3 {
            let renewed = json!({"spec": {"renewTime": MicroTime(jiff::Timestamp::now())}});
            leases
                .patch(
                    keys::CONTROLLER_LEASE,
                    &PatchParams::default(),
                    &Patch::Merge(renewed),
                )
                .await?;
            bed.patch(
                "web",
                json!({"metadata": {"labels": {"round": format!("{round}")}}}),
            )
            .await?;
            let web = bed.services("default").get("web").await?;
            ensure!(allocated(&web).is_none(), "{:?}", allocated(&web));
            ensure!(bed.record("192.0.2.0").await?.is_none(), "a record");
        }
        let gone = json!({"spec": {"holderIdentity": ""}});
        leases
            .patch(
                keys::CONTROLLER_LEASE,
                &PatchParams::default(),
                &Patch::Merge(gone),
            )
            .await?;
        bed.shows("web", &["192.0.2.0"]).await?;
        Ok(())
    });
}

#[test]
fn an_address_that_is_kept_is_given_when_nothing_else_is_left() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let controller = bed.controller("one")?;
        let sticky = EipSpec {
            address: "192.0.2.0/31".to_owned(),
            sticky: true,
            ..EipSpec::default()
        };
        bed.eip_of("lan", sticky).await?;
        for (name, address) in [("a", "192.0.2.0"), ("b", "192.0.2.1")] {
            bed.create(&service(name)).await?;
            bed.shows(name, &[address]).await?;
        }
        // What is kept outlives the process, and comes back though a lower address is free.
        bed.delete("b").await?;
        eventually("the memory", Deadline::SHORT, async || {
            let record = bed.record("192.0.2.1").await?;
            ensure!(
                record
                    .as_ref()
                    .is_some_and(|record| record.spec.remembered.is_some()),
                "{record:?}"
            );
            Ok(())
        })
        .await?;
        controller.kill().await;
        bed.delete("a").await?;
        let _controller = bed.controller("two")?;
        bed.create(&service("b")).await?;
        bed.shows("b", &["192.0.2.1"]).await?;
        // The other one is kept for `a`: it is the last there is.
        bed.create(&service("c")).await?;
        bed.shows("c", &["192.0.2.0"]).await?;
        // Full. Who waits gets what somebody leaves behind, although it is kept.
        bed.create(&service("d")).await?;
        bed.refuses("d", "EipExhausted").await?;
        bed.delete("c").await?;
        bed.shows("d", &["192.0.2.0"]).await?;
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        Ok(())
    });
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one cluster's leftovers, kind by kind, and what becomes of each"
)]
fn what_openelb_left_is_adopted_with_no_address_changed() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        bed.eip("lan", "192.0.2.0/24").await?;
        let eips: Api<Eip> = Api::all(bed.client());
        let finalizer = json!({"metadata": {"finalizers": [keys::OPENELB_IPAM_FINALIZER]}});
        eips.patch("lan", &PatchParams::default(), &Patch::Merge(finalizer))
            .await?;
        let used = json!({
            "192.0.2.7": "default/a", "192.0.2.9": "default/b;default/c",
            "192.0.2.11": "default/d", "192.0.2.12": "default/e",
        });
        let view = json!({"status": {
            "firstIP": "192.0.2.0", "lastIP": "192.0.2.255", "poolSize": 256, "usage": 2, "v4": true, "used": used,
        }});
        eips.patch_status("lan", &PatchParams::default(), &Patch::Merge(view))
            .await?;
        // Blind sharing: both have port 80.
        let all = [
            ("a", "192.0.2.7"),
            ("b", "192.0.2.9"),
            ("c", "192.0.2.9"),
            ("d", "192.0.2.11"),
            ("e", "192.0.2.12"),
            ("gone", "192.0.2.13"),
        ];
        for (name, address) in all {
            let mut old: Service = service(name).ip(address);
            match name {
                // 0.5 wrote the protocol beside the Eip.
                "d" => old = old.annotation(keys::PROTOCOL, "bgp").eip("lan"),
                // Without a wish of its own, as most are; and with one that OpenELB could not read.
                "e" => old = old.ip("").annotation(keys::ADDRESS, "not an address"),
                // Opted out by taking the annotations away, which OpenELB never noticed.
                "gone" => old.metadata.annotations = None,
                _ => {}
            }
            old.labels_mut()
                .insert(keys::EIP.to_owned(), "lan".to_owned());
            old.finalizers_mut()
                .push(keys::OPENELB_FINALIZER.to_owned());
            bed.create(&old).await?;
            let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
            bed.services("default")
                .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
                .await?;
        }
        let _controller = bed.controller("one")?;
        eventually("adoption", Deadline::SHORT, async || {
            bed.audit().await?;
            ensure!(
                bed.record("192.0.2.9")
                    .await?
                    .is_some_and(|record| record.spec.services.len() == 2),
                "not shared"
            );
            for (name, _) in all {
                let service = bed.services("default").get(name).await?;
                ensure!(
                    service.finalizers().is_empty(),
                    "{:?}",
                    service.finalizers()
                );
            }
            ensure!(
                eips.get("lan").await?.finalizers().is_empty(),
                "the Eip has finalizers"
            );
            Ok(())
        })
        .await?;
        bed.shows("a", &["192.0.2.7"]).await?;
        bed.shows("b", &["192.0.2.9"]).await?;
        bed.shows("c", &["192.0.2.9"]).await?;
        bed.shows("d", &["192.0.2.11"]).await?;
        bed.shows("e", &["192.0.2.12"]).await?;
        bed.shows("gone", &[]).await?;
        let message = bed.refuses("e", "InvalidRequest").await?;
        assert!(
            message.contains("\"not an address\" is no IP address"),
            "{message}"
        );
        // What stands on one address against the rules says so, and no longer when one of them changes.
        let warned = async |name: &str| -> Result<bool> {
            let said = allocated(&bed.services("default").get(name).await?);
            let (status, reason, message) = said.context("no condition")?;
            ensure!(status == "True", "{name}: {reason}: {message}");
            Ok(reason == "SharedWithoutAgreement" && message.contains("exposes port 80/TCP too"))
        };
        for name in ["b", "c"] {
            eventually("a warning", Deadline::SHORT, async || {
                ensure!(warned(name).await?, "{name} is not warned");
                Ok(())
            })
            .await?;
        }
        let https = json!({"ports": [{"name": "p443", "port": 443}]});
        bed.patch("c", json!({"spec": https})).await?;
        for name in ["b", "c"] {
            eventually("no warning any more", Deadline::SHORT, async || {
                ensure!(!warned(name).await?, "{name} is warned");
                Ok(())
            })
            .await?;
            bed.shows(name, &["192.0.2.9"]).await?;
        }
        let text: BTreeMap<String, String> = serde_json::from_value(used)?;
        let sorted = |value: &str| {
            let mut parts: Vec<_> = value.split(';').map(str::to_owned).collect();
            parts.sort();
            parts
        };
        eventually("OpenELB's view of the pool", Deadline::SHORT, async || {
            let status = eips.get("lan").await?.status.unwrap_or_default();
            let same = |(ip, who): (&String, &String)| {
                status
                    .used
                    .get(ip)
                    .is_some_and(|now| sorted(now) == sorted(who))
            };
            ensure!(
                text.iter().all(same) && status.used.len() == text.len(),
                "{:?}",
                status.used
            );
            Ok(())
        })
        .await?;
        Ok(())
    });
}
