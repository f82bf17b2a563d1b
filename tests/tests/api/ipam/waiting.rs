//! Services that cannot be served, and the moment when they can.

use anyhow::{Result, ensure};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use openelb_api::v1alpha2::{Eip, EipAddress, EipAddressSpec, EipSpec, OnAddressRemoved};
use openelb_tests::ipam::{Asks, Bed, allocated, service};
use openelb_tests::{Deadline, eventually, story};
use serde_json::json;

#[test]
fn each_thing_that_can_help_serves_the_oldest_that_waits() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        // No Eip at all.
        bed.create(&service("a")).await?;
        bed.refuses("a", "NoEip").await?;
        bed.eip("lan", "192.0.2.1").await?;
        bed.shows("a", &["192.0.2.1"]).await?;

        // A full one; then a freed address goes to the older of two.
        bed.create(&service("b")).await?;
        let message = bed.refuses("b", "EipExhausted").await?;
        assert!(
            message.contains("every IPv4 address of Eip lan is in use"),
            "{message}"
        );
        // Creation times are whole seconds.
        let b = bed
            .services("default")
            .get("b")
            .await?
            .metadata
            .creation_timestamp;
        eventually("a later second", Deadline::SHORT, async || {
            let name = format!("probe-{:x}", rand::random::<u32>());
            let later = bed
                .create(&service(&name).annotation("x", "y"))
                .await?
                .metadata
                .creation_timestamp;
            bed.delete(&name).await?;
            ensure!(later > b, "{later:?}");
            Ok(())
        })
        .await?;
        bed.create(&service("c")).await?;
        bed.refuses("c", "EipExhausted").await?;
        bed.delete("a").await?;
        bed.shows("b", &["192.0.2.1"]).await?;
        bed.shows("c", &[]).await?;

        // A larger pool, an enabled one, a relabelled namespace.
        let no_longer = json!({"spec": {"address": "192.0.2.1-192.0.2.2"}});
        Api::<Eip>::all(bed.client())
            .patch("lan", &PatchParams::default(), &Patch::Merge(no_longer))
            .await?;
        bed.shows("c", &["192.0.2.2"]).await?;
        let spec = EipSpec {
            address: "198.51.100.1".to_owned(),
            disable: true,
            ..EipSpec::default()
        };
        bed.eip_of("off", spec).await?;
        bed.create(&service("d").eip("off")).await?;
        let message = bed.refuses("d", "NoEip").await?;
        assert!(message.contains("off is disabled"), "{message}");
        bed.patch_eip("off", json!({"spec": {"disable": false}}))
            .await?;
        bed.shows("d", &["198.51.100.1"]).await?;

        let spec = EipSpec {
            address: "203.0.113.1".to_owned(),
            namespace_selector: [("tier".to_owned(), "front".to_owned())].into(),
            ..EipSpec::default()
        };
        bed.eip_of("front", spec).await?;
        bed.create(&service("e")).await?;
        bed.refuses("e", "EipExhausted").await?;
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(bed.client());
        let label = Patch::Merge(json!({"metadata": {"labels": {"tier": "front"}}}));
        namespaces
            .patch("default", &PatchParams::default(), &label)
            .await?;
        bed.shows("e", &["203.0.113.1"]).await?;
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        Ok(())
    });
}

#[test]
fn a_shrunk_or_disabled_pool_keeps_what_it_gave_unless_told_to_move() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.0/24").await?;
        bed.create(&service("web")).await?;
        bed.shows("web", &["192.0.2.0"]).await?;
        bed.patch_eip(
            "lan",
            json!({"spec": {"exclude": ["192.0.2.0"], "disable": true}}),
        )
        .await?;
        eventually("a warning", Deadline::SHORT, async || {
            let web = bed.services("default").get("web").await?;
            let said = allocated(&web);
            ensure!(
                said.as_ref()
                    .is_some_and(|said| said.0 == "True" && said.1 == "AddressRemoved"),
                "{said:?}"
            );
            Ok(())
        })
        .await?;
        bed.shows("web", &["192.0.2.0"]).await?;
        let reassign =
            json!({"spec": {"disable": false, "onAddressRemoved": OnAddressRemoved::Reassign}});
        bed.patch_eip("lan", reassign).await?;
        bed.shows("web", &["192.0.2.1"]).await?;
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        Ok(())
    });
}

#[test]
fn services_of_a_deleted_eip_move_or_are_cleared() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.0/30").await?;
        bed.create(&service("free")).await?;
        bed.shows("free", &["192.0.2.0"]).await?;
        bed.create(&service("bound").eip("lan")).await?;
        bed.shows("bound", &["192.0.2.1"]).await?;
        bed.eip("spare", "198.51.100.0/30").await?;
        Api::<Eip>::all(bed.client())
            .delete("lan", &DeleteParams::default())
            .await?;
        bed.shows("free", &["198.51.100.0"]).await?;
        bed.shows("bound", &[]).await?;
        let message = bed.refuses("bound", "NoEip").await?;
        assert!(message.contains("Eip lan does not exist"), "{message}");
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        Ok(())
    });
}

#[test]
fn a_reserved_address_is_given_only_by_name_and_to_those_listed() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        let reserved = EipAddressSpec {
            address: "192.0.2.1".to_owned(),
            reserved: true,
            reserved_for: vec!["default/vip".to_owned()],
            ..EipAddressSpec::default()
        };
        Api::all(bed.client())
            .create(
                &PostParams::default(),
                &EipAddress::new("192.0.2.1", reserved),
            )
            .await?;
        bed.eip("lan", "192.0.2.1-192.0.2.2").await?;
        bed.create(&service("any")).await?;
        bed.shows("any", &["192.0.2.2"]).await?;
        bed.create(&service("other").ip("192.0.2.1")).await?;
        bed.refuses("other", "AddressReserved").await?;
        bed.create(&service("vip").ip("192.0.2.1")).await?;
        bed.shows("vip", &["192.0.2.1"]).await?;
        bed.delete("vip").await?;
        eventually("the reservation to stay", Deadline::SHORT, async || {
            let record = bed.record("192.0.2.1").await?;
            ensure!(
                record
                    .as_ref()
                    .is_some_and(|r| r.spec.reserved && r.spec.services.is_empty()),
                "{record:?}"
            );
            Ok(())
        })
        .await?;
        Ok(())
    });
}

#[test]
fn a_sticky_address_comes_back_to_a_service_of_the_same_name() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        let spec = EipSpec {
            address: "192.0.2.0/24".to_owned(),
            sticky: true,
            ..EipSpec::default()
        };
        bed.eip_of("lan", spec).await?;
        for name in ["a", "b"] {
            bed.create(&service(name)).await?;
            eventually("an address", Deadline::SHORT, async || {
                ensure!(!bed.shown(name).await?.is_empty(), "none");
                Ok(())
            })
            .await?;
        }
        let before = bed.shown("a").await?;
        bed.delete("a").await?;
        eventually("the memory", Deadline::SHORT, async || {
            let record = bed.record(&before[0]).await?;
            let remembered = record.as_ref().and_then(|r| r.spec.remembered.as_ref());
            ensure!(
                remembered.is_some_and(|kept| kept.name == "a" && kept.since.is_some()),
                "{record:?}"
            );
            Ok(())
        })
        .await?;
        // Nobody else is given it while there is other room.
        bed.create(&service("c")).await?;
        eventually("another address", Deadline::SHORT, async || {
            let shown = bed.shown("c").await?;
            ensure!(!shown.is_empty() && shown != before, "{shown:?}");
            Ok(())
        })
        .await?;
        bed.create(&service("a")).await?;
        bed.shows("a", &[&before[0]]).await?;
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        Ok(())
    });
}

#[test]
fn of_eips_that_overlap_the_older_works_on_and_the_younger_serves_nothing_that_collides() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        // Created in the same second the name decides.
        bed.eip("a-older", "192.0.2.0-192.0.2.1").await?;
        bed.eip("b-younger", "192.0.2.1-192.0.2.2").await?;
        let overlapping = async |name: &str| -> Result<(String, String)> {
            let eip = Api::<Eip>::all(bed.client()).get(name).await?;
            let conditions = eip.status.unwrap_or_default().conditions;
            let found = conditions
                .into_iter()
                .find(|condition| condition.type_ == "Overlapping");
            let found = found.ok_or_else(|| anyhow::anyhow!("{name} says nothing"))?;
            Ok((found.status, found.message))
        };
        eventually("both to know", Deadline::SHORT, async || {
            let (older, younger) = (
                overlapping("a-older").await?,
                overlapping("b-younger").await?,
            );
            ensure!(older.0 == "False", "{older:?}");
            ensure!(
                younger.0 == "True" && younger.1.contains("a-older"),
                "{younger:?}"
            );
            Ok(())
        })
        .await?;
        bed.create(&service("y").eip("b-younger")).await?;
        bed.shows("y", &["192.0.2.2"]).await?;
        bed.create(&service("y-named").eip("b-younger").ip("192.0.2.1"))
            .await?;
        bed.refuses("y-named", "AddressOutsideEip").await?;
        for (name, address) in [("o1", "192.0.2.0"), ("o2", "192.0.2.1")] {
            bed.create(&service(name).eip("a-older")).await?;
            bed.shows(name, &[address]).await?;
        }
        // Put right by the user, it serves what waits.
        bed.patch_eip("a-older", json!({"spec": {"address": "192.0.2.0"}}))
            .await?;
        eventually("no overlap any more", Deadline::SHORT, async || {
            let younger = overlapping("b-younger").await?;
            ensure!(younger.0 == "False", "{younger:?}");
            Ok(())
        })
        .await?;
        bed.shows("o2", &["192.0.2.1"]).await?;
        Ok(())
    });
}
