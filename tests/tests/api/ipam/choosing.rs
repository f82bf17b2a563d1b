//! Which Eip and which address: by name, by binding and priority, by default; and what several names ask for.

use anyhow::Result;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use openelb_api::keys;
use openelb_api::v1alpha2::{Eip, EipSpec, Sharing};
use openelb_tests::ipam::{Asks, Bed, addresses, allocated, service};
use openelb_tests::{Deadline, eventually, story};
use serde_json::json;

fn pool(address: &str) -> EipSpec {
    EipSpec {
        address: address.to_owned(),
        ..EipSpec::default()
    }
}

#[test]
fn bound_eips_serve_by_priority_and_the_next_one_when_one_is_full() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let controller = bed.controller("one")?;
        bed.namespace("shop", &[("tier", "front")]).await?;
        let late = EipSpec {
            namespaces: vec!["shop".to_owned()],
            priority: 20,
            ..pool("198.51.100.0")
        };
        let first = EipSpec {
            namespace_selector: [("tier".to_owned(), "front".to_owned())].into(),
            priority: 10,
            ..pool("203.0.113.0")
        };
        bed.eip_of("late", late).await?;
        bed.eip_of("first", first).await?;
        bed.eip("common", "192.0.2.0").await?;
        let shown = async |name: &str, wanted: &str| {
            eventually(name, Deadline::SHORT, async || {
                let shown = addresses(&bed.services("shop").get(name).await?);
                anyhow::ensure!(shown == [wanted], "{shown:?}");
                Ok(())
            })
            .await
        };
        let served = [
            ("a", "203.0.113.0"),
            ("b", "198.51.100.0"),
            ("c", "192.0.2.0"),
        ];
        for (name, address) in served {
            bed.create(&service(name).within("shop")).await?;
            shown(name, address).await?;
        }
        bed.create(&service("d")).await?;
        let message = bed.refuses("d", "EipExhausted").await?;
        assert!(message.contains("Eip common"), "{message}");
        // Every pool is full; whoever has an address has it after any number of restarts.
        for _ in 0..3 {
            controller.kill().await;
            controller.restart().await?;
        }
        bed.create(&service("probe")).await?;
        bed.refuses("probe", "EipExhausted").await?;
        for (name, address) in served {
            shown(name, address).await?;
        }
        Ok(())
    });
}

#[test]
fn the_default_eip_serves_who_names_none_and_a_foreign_class_wins_over_all() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("a-common", "192.0.2.0/24").await?;
        let mut default = Eip::new("z-default", pool("198.51.100.0/24"));
        default
            .annotations_mut()
            .insert(keys::DEFAULT_EIP.to_owned(), "true".to_owned());
        kube::Api::all(bed.client())
            .create(&kube::api::PostParams::default(), &default)
            .await?;
        let classed = |name: &str, class: &str| -> Service {
            let mut service = service(name);
            let fields = service.spec.get_or_insert_default();
            fields.load_balancer_class = Some(class.to_owned());
            service
        };
        let mut ours = classed("ours", keys::LOAD_BALANCER_CLASS);
        ours.metadata.annotations = None;
        bed.create(&classed("foreign", "example.com/other")).await?;
        bed.create(&ours).await?;
        bed.shows("ours", &["198.51.100.0"]).await?;
        // What an annotation names goes before the field.
        let both = service("both")
            .ip("192.0.2.8")
            .annotation(keys::ADDRESS, "192.0.2.9");
        bed.create(&both).await?;
        bed.shows("both", &["192.0.2.9"]).await?;
        let foreign = bed.services("default").get("foreign").await?;
        assert_eq!((addresses(&foreign), allocated(&foreign)), (vec![], None));
        Ok(())
    });
}

#[test]
fn the_eip_says_who_may_share() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.namespace("shop", &[]).await?;
        let alone = EipSpec {
            sharing: Some(Sharing::Never),
            ..pool("192.0.2.1")
        };
        let open = EipSpec {
            sharing: Some(Sharing::AnyNamespace),
            ..pool("198.51.100.1")
        };
        bed.eip_of("alone", alone).await?;
        bed.eip_of("open", open).await?;
        for (address, shared) in [("192.0.2.1", false), ("198.51.100.1", true)] {
            let [one, other] = [format!("one-{shared}"), format!("other-{shared}")];
            bed.create(&service(&one).ip(address)).await?;
            bed.shows(&one, &[address]).await?;
            bed.create(&service(&other).ip(address).port(443).within("shop"))
                .await?;
            eventually("a decision", Deadline::SHORT, async || {
                let service = bed.services("shop").get(&other).await?;
                let said = allocated(&service);
                let status = said.as_ref().map(|said| said.0 == "True");
                anyhow::ensure!(status == Some(shared), "{said:?}");
                anyhow::ensure!(addresses(&service).is_empty() != shared);
                Ok(())
            })
            .await?;
        }
        // The same number over another protocol is another port.
        let mut udp = service("udp").ip("198.51.100.1");
        for port in udp.spec.get_or_insert_default().ports.iter_mut().flatten() {
            port.protocol = Some("UDP".to_owned());
        }
        bed.create(&udp).await?;
        bed.shows("udp", &["198.51.100.1"]).await?;
        Ok(())
    });
}

#[test]
fn an_address_of_each_family_can_be_asked_for_and_all_or_some_are_had() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("four", "192.0.2.0/24").await?;
        bed.eip("six", "2001:db8::/64").await?;
        let both = "192.0.2.9,2001:db8::9";
        bed.create(&service("web").dual_stack("RequireDualStack").ip(both))
            .await?;
        bed.shows("web", &["192.0.2.9", "2001:db8::9"]).await?;
        // One of the two is another's: who needs both has neither, and holds nothing back.
        let half = "192.0.2.10,2001:db8::9";
        bed.create(&service("all").dual_stack("RequireDualStack").ip(half))
            .await?;
        let message = bed.refuses("all", "AddressInUse").await?;
        assert!(message.contains("2001:db8::9"), "{message}");
        bed.shows("all", &[]).await?;
        assert!(bed.record("192.0.2.10").await?.is_none());
        bed.create(&service("some").dual_stack("PreferDualStack").ip(half))
            .await?;
        bed.shows("some", &["192.0.2.10"]).await?;
        let message = bed.refuses("some", "AddressInUse").await?;
        assert!(
            message.contains("Until then the Service has 192.0.2.10"),
            "{message}"
        );
        // Both are given when the first one goes; the one that needs both waits for the other's.
        bed.delete("web").await?;
        bed.delete("some").await?;
        bed.shows("all", &["192.0.2.10", "2001:db8::9"]).await?;
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        Ok(())
    });
}

#[test]
fn a_pool_that_gets_a_second_family_adds_it_and_moves_nothing() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.8").await?;
        bed.create(&service("web").dual_stack("PreferDualStack"))
            .await?;
        bed.shows("web", &["192.0.2.8"]).await?;
        bed.patch_eip(
            "lan",
            json!({"spec": {"address": "192.0.2.0/24,2001:db8::/64"}}),
        )
        .await?;
        bed.shows("web", &["192.0.2.8", "2001:db8::"]).await?;
        Ok(())
    });
}
