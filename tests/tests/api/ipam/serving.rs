//! A Service comes, gets an address, changes its mind, goes.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use openelb_api::keys;
use openelb_api::v1alpha2::{Eip, EipSpec, Protocol};
use openelb_tests::ipam::{Asks, Bed, addresses, allocated, service, spec};
use openelb_tests::{Deadline, eventually, story};
use serde_json::json;

#[test]
fn a_service_gets_the_lowest_free_address_and_everything_says_so() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.10-192.0.2.20").await?;
        bed.create(&service("web").eip("lan")).await?;
        bed.shows("web", &["192.0.2.10"]).await?;

        let web = bed.services("default").get("web").await?;
        assert_eq!(web.labels().get(keys::EIP).map(String::as_str), Some("lan"));
        assert!(web.finalizers().is_empty());
        let (status, reason, message) = allocated(&web).unwrap();
        assert_eq!((status.as_str(), reason.as_str()), ("True", "Allocated"));
        assert_eq!(message, "192.0.2.10 from Eip lan");

        let record = bed.record("192.0.2.10").await?.unwrap();
        assert_eq!(record.spec.eip, "lan");
        assert_eq!(record.spec.services.len(), 1);
        assert_eq!(record.spec.services[0].name, "web");
        assert_eq!(Some(&record.spec.services[0].uid), web.uid().as_ref());

        let eips: Api<Eip> = Api::all(bed.client());
        eventually("the Eip's status", Deadline::SHORT, async || {
            let status = eips.get("lan").await?.status.unwrap_or_default();
            ensure!(status.usage == 1 && status.pool_size == 11, "{status:?}");
            ensure!(
                status.used.get("192.0.2.10").map(String::as_str) == Some("default/web"),
                "{status:?}"
            );
            ensure!(
                status.first_ip == "192.0.2.10" && status.last_ip == "192.0.2.20",
                "{status:?}"
            );
            ensure!(status.ready && status.v4 && !status.occupied, "{status:?}");
            Ok(())
        })
        .await?;
        bed.audit().await?;
        Ok(())
    });
}

#[test]
fn a_service_of_a_vip_eip_has_its_address_and_says_that_nobody_announces_it() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        let vip = EipSpec {
            address: "192.0.2.10-192.0.2.20".to_owned(),
            protocol: Some(Protocol::Vip),
            ..EipSpec::default()
        };
        bed.eip_of("vips", vip).await?;
        bed.create(&service("web").eip("vips")).await?;
        bed.shows("web", &["192.0.2.10"]).await?;
        eventually("the condition", Deadline::SHORT, async || {
            let web = bed.services("default").get("web").await?;
            let conditions = web.status.and_then(|status| status.conditions);
            let conditions = conditions.unwrap_or_default();
            let announced = conditions
                .iter()
                .find(|condition| condition.type_ == keys::conditions::ANNOUNCED);
            ensure!(
                announced
                    .is_some_and(|said| said.status == "False" && said.reason == "NotSupportedYet"),
                "{conditions:?}"
            );
            Ok(())
        })
        .await
    });
}

#[test]
fn an_address_is_given_back_when_the_service_opts_out_changes_type_or_goes() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.10-192.0.2.20").await?;
        for (name, address) in [
            ("a", "192.0.2.10"),
            ("b", "192.0.2.11"),
            ("c", "192.0.2.12"),
        ] {
            bed.create(&service(name).eip("lan")).await?;
            bed.shows(name, &[address]).await?;
        }
        bed.patch("a", json!({"metadata": {"annotations": null}}))
            .await?;
        bed.patch("b", spec(&json!({"type": "ClusterIP"}))).await?;
        bed.delete("c").await?;
        for address in ["192.0.2.10", "192.0.2.11", "192.0.2.12"] {
            eventually("the record to go", Deadline::SHORT, async || {
                let record = bed.record(address).await?;
                ensure!(record.is_none(), "{record:?}");
                Ok(())
            })
            .await?;
        }
        bed.shows("a", &[]).await?;
        bed.shows("b", &[]).await?;
        let a = bed.services("default").get("a").await?;
        assert_eq!(a.labels().get(keys::EIP), None);
        bed.audit().await?;
        Ok(())
    });
}

#[test]
fn a_better_wish_is_met_before_the_old_address_goes_and_a_bad_one_loses_nothing() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.0/24").await?;
        bed.eip("dmz", "198.51.100.0/24").await?;
        bed.create(&service("web").eip("lan")).await?;
        bed.shows("web", &["192.0.2.0"]).await?;
        bed.patch("web", spec(&json!({"loadBalancerIP": "192.0.2.77"})))
            .await?;
        bed.shows("web", &["192.0.2.77"]).await?;
        bed.patch("web", spec(&json!({"loadBalancerIP": "203.0.113.1"})))
            .await?;
        let message = bed.refuses("web", "AddressOutsideEip").await?;
        assert!(
            message.contains("203.0.113.1 is not among the addresses that Eip lan gives"),
            "{message}"
        );
        bed.shows("web", &["192.0.2.77"]).await?;
        let annotations = json!({keys::EIP: "dmz", keys::ADDRESS: "198.51.100.5"});
        bed.patch("web", json!({"metadata": {"annotations": annotations}}))
            .await?;
        bed.shows("web", &["198.51.100.5"]).await?;
        let web = bed.services("default").get("web").await?;
        assert_eq!(web.labels().get(keys::EIP).map(String::as_str), Some("dmz"));
        eventually("one record", Deadline::SHORT, async || bed.audit().await).await?;
        Ok(())
    });
}

#[test]
fn services_that_asked_by_name_share_an_address_and_others_do_not() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.0/24").await?;
        bed.create(&service("http").ip("192.0.2.9").port(80))
            .await?;
        bed.shows("http", &["192.0.2.9"]).await?;
        bed.create(&service("https").ip("192.0.2.9").port(443))
            .await?;
        bed.shows("https", &["192.0.2.9"]).await?;
        bed.create(&service("again").ip("192.0.2.9").port(80))
            .await?;
        let message = bed.refuses("again", "AddressInUse").await?;
        assert!(
            message.contains("default/http holds it and exposes port 80/TCP too"),
            "{message}"
        );
        assert_eq!(
            bed.record("192.0.2.9").await?.unwrap().spec.services.len(),
            2
        );

        // A Service that is edited into a collision is the one that loses.
        bed.patch(
            "https",
            spec(&json!({"ports": [{"name": "p80", "port": 80}]})),
        )
        .await?;
        bed.shows("https", &[]).await?;
        bed.shows("http", &["192.0.2.9"]).await?;

        // The waiting one is served as soon as the holder goes.
        bed.delete("http").await?;
        eventually("one of the two to be served", Deadline::SHORT, async || {
            let (https, again) = (bed.shown("https").await?, bed.shown("again").await?);
            ensure!(https.len() + again.len() == 1, "{https:?} {again:?}");
            Ok(())
        })
        .await?;
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        Ok(())
    });
}

#[test]
fn both_families_come_go_and_come_back_with_the_policy() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.0/24, 2001:db8::/64").await?;
        bed.create(&service("web").dual_stack("RequireDualStack"))
            .await?;
        bed.shows("web", &["192.0.2.0", "2001:db8::"]).await?;
        bed.patch(
            "web",
            spec(&json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": null})),
        )
        .await?;
        bed.shows("web", &["192.0.2.0"]).await?;
        bed.patch(
            "web",
            spec(&json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"]})),
        )
        .await?;
        bed.shows("web", &["192.0.2.0", "2001:db8::1"]).await?;
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        Ok(())
    });
}

#[test]
fn a_service_that_requires_both_families_waits_with_empty_hands() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("four", "192.0.2.0/24").await?;
        bed.create(&service("web").dual_stack("RequireDualStack"))
            .await?;
        let message = bed.refuses("web", "FamilyMissing").await?;
        assert!(message.contains("IPv6"), "{message}");
        assert!(bed.record("192.0.2.0").await?.is_none());
        bed.create(&service("easy").dual_stack("PreferDualStack"))
            .await?;
        bed.shows("easy", &["192.0.2.0"]).await?;
        bed.eip("six", "2001:db8::/64").await?;
        eventually("both to have both", Deadline::SHORT, async || {
            let (web, easy) = (bed.shown("web").await?, bed.shown("easy").await?);
            ensure!(web.len() == 2 && easy.len() == 2, "{web:?} {easy:?}");
            Ok(())
        })
        .await?;
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        Ok(())
    });
}

#[test]
fn sharing_follows_changes_of_traffic_policy_and_selector() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.0/24").await?;
        let local = json!({"externalTrafficPolicy": "Local", "selector": {"app": "same"}});
        for (name, number) in [("http", 80), ("https", 443)] {
            bed.create(&service(name).ip("192.0.2.9").port(number))
                .await?;
            // Other pods behind each: with policy Cluster that is nobody's concern.
            bed.shows(name, &["192.0.2.9"]).await?;
        }
        bed.patch("http", spec(&json!({"selector": {"app": "same"}})))
            .await?;
        bed.shows("http", &["192.0.2.9"]).await?;
        // With Local a node would draw traffic for pods that it has not: who changes loses.
        bed.patch("https", spec(&json!({"externalTrafficPolicy": "Local"})))
            .await?;
        let message = bed.refuses("https", "AddressInUse").await?;
        assert!(message.contains("the same selector"), "{message}");
        bed.shows("https", &[]).await?;
        bed.shows("http", &["192.0.2.9"]).await?;
        bed.patch("https", spec(&local)).await?;
        bed.shows("https", &["192.0.2.9"]).await?;
        bed.patch("https", spec(&json!({"selector": {"app": "other"}})))
            .await?;
        bed.shows("https", &[]).await?;
        bed.patch("https", spec(&json!({"externalTrafficPolicy": "Cluster"})))
            .await?;
        bed.shows("https", &["192.0.2.9"]).await?;
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        Ok(())
    });
}

#[test]
fn bindings_by_service_and_namespace_steer_and_strict_ones_also_forbid() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.namespace("shop", &[("tier", "front")]).await?;
        bed.eip("any", "192.0.2.0/24").await?;
        let web = EipSpec {
            address: "198.51.100.0/24".to_owned(),
            service_selector: Some(LabelSelector {
                match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
                ..LabelSelector::default()
            }),
            ..EipSpec::default()
        };
        bed.eip_of("web", web).await?;
        let shop = EipSpec {
            address: "203.0.113.0/24".to_owned(),
            namespace_selector: [("tier".to_owned(), "front".to_owned())].into(),
            strict_binding: true,
            ..EipSpec::default()
        };
        bed.eip_of("shop", shop).await?;
        let mut labelled = service("labelled");
        labelled
            .labels_mut()
            .insert("app".to_owned(), "web".to_owned());
        bed.create(&labelled).await?;
        bed.shows("labelled", &["198.51.100.0"]).await?;
        bed.create(&service("plain")).await?;
        bed.shows("plain", &["192.0.2.0"]).await?;
        // A binding only steers: who names the Eip gets it. A strict one is for those alone.
        bed.create(&service("named").eip("web")).await?;
        bed.shows("named", &["198.51.100.1"]).await?;
        for (name, wish) in [
            ("by-eip", service("by-eip").eip("shop")),
            ("by-ip", service("by-ip").ip("203.0.113.9")),
        ] {
            bed.create(&wish).await?;
            eventually("a refusal", Deadline::SHORT, async || {
                let said = allocated(&bed.services("default").get(name).await?);
                ensure!(
                    said.as_ref().is_some_and(|said| said.0 == "False"),
                    "{said:?}"
                );
                Ok(())
            })
            .await?;
            bed.shows(name, &[]).await?;
        }
        let inside = bed.create(&service("inside").within("shop")).await?;
        eventually(
            "the bound namespace to be served",
            Deadline::SHORT,
            async || {
                let shown = addresses(&bed.services("shop").get(&inside.name_any()).await?);
                ensure!(shown == ["203.0.113.0"], "{shown:?}");
                Ok(())
            },
        )
        .await?;
        // The namespace loses its label: what was given stays, and nothing more is.
        let namespaces: Api<Namespace> = Api::all(bed.client());
        let unlabel = Patch::Merge(json!({"metadata": {"labels": {"tier": null}}}));
        namespaces
            .patch("shop", &PatchParams::default(), &unlabel)
            .await?;
        eventually(
            "the next to come from elsewhere",
            Deadline::SHORT,
            async || {
                let name = format!("next-{:x}", rand::random::<u32>());
                bed.create(&service(&name).within("shop")).await?;
                eventually("an address", Deadline::SHORT, async || {
                    let shown = addresses(&bed.services("shop").get(&name).await?);
                    ensure!(!shown.is_empty(), "none");
                    ensure!(!shown[0].starts_with("203."), "still {shown:?}");
                    Ok(())
                })
                .await
            },
        )
        .await?;
        let shown = addresses(&bed.services("shop").get("inside").await?);
        assert_eq!(shown, ["203.0.113.0"]);
        Ok(())
    });
}

#[test]
fn an_address_that_another_controller_gave_is_adopted_when_the_service_opts_in() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.0/24").await?;
        let mut foreign = service("web");
        foreign.metadata.annotations = None;
        bed.create(&foreign).await?;
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.40"}]}}});
        bed.services("default")
            .patch_status("web", &PatchParams::default(), &Patch::Merge(status))
            .await?;
        // Nobody else gets it meanwhile.
        bed.create(&service("other").ip("192.0.2.40")).await?;
        let message = bed.refuses("other", "AddressInUse").await?;
        assert!(message.contains("default/web shows it"), "{message}");
        assert!(bed.record("192.0.2.40").await?.is_none(), "not ours yet");
        bed.patch(
            "web",
            json!({"metadata": {"annotations": {keys::OPT_IN: keys::OPT_IN_VALUE}}}),
        )
        .await?;
        eventually("adoption", Deadline::SHORT, async || {
            let record = bed.record("192.0.2.40").await?;
            ensure!(
                record.is_some_and(|record| record.spec.services.len() == 1),
                "no record"
            );
            Ok(())
        })
        .await?;
        bed.shows("web", &["192.0.2.40"]).await?;
        eventually("the pool's label", Deadline::SHORT, async || {
            let web = bed.services("default").get("web").await?;
            let pool = web.labels().get(keys::EIP).map(String::as_str);
            ensure!(pool == Some("lan"), "the label is {pool:?}");
            Ok(())
        })
        .await
    });
}

#[test]
fn a_wish_that_breaks_a_rule_of_the_webhook_is_refused_in_its_words() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.0/24").await?;
        bed.create(&service("new").ip("192.0.2.5,192.0.2.6"))
            .await?;
        let message = bed.refuses("new", "InvalidRequest").await?;
        let rule = "spec.loadBalancerIP: a Service gets one address per IP family; name no more";
        assert_eq!(message, rule);
        bed.shows("new", &[]).await?;
        bed.create(&service("old")).await?;
        bed.shows("old", &["192.0.2.0"]).await?;
        bed.patch("old", spec(&json!({"loadBalancerIP": "nonsense"})))
            .await?;
        let message = bed.refuses("old", "InvalidRequest").await?;
        assert!(
            message.contains("\"nonsense\" is no IP address"),
            "{message}"
        );
        bed.shows("old", &["192.0.2.0"]).await?;
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        Ok(())
    });
}
