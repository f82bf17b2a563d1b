//! Crashes, two leaders, users who edit what is not theirs, an API server that goes away.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use openelb_api::keys;
use openelb_api::v1alpha2::{Eip, EipAddress};
use openelb_tests::control_plane::audit::Object;
use openelb_tests::ipam::{Asks, Bed, addresses, service};
use openelb_tests::{ControlPlane, Deadline, eventually, story};
use serde_json::json;

/// Whether the Service says whether it is announced.
fn is_judged(service: &Service) -> bool {
    let conditions = service
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == keys::conditions::ANNOUNCED)
}

pub(super) async fn create_many(bed: &Bed, names: impl Iterator<Item = String>) -> Result<()> {
    stream::iter(names)
        .map(|name| async move { bed.create(&service(&name)).await })
        .buffer_unordered(16)
        .try_for_each(async |_| Ok(()))
        .await
}

pub(super) async fn all_shown(bed: &Bed) -> Result<BTreeMap<String, Vec<String>>> {
    let services = bed.services("default").list(&ListParams::default()).await?;
    Ok(services
        .iter()
        .filter(|service| {
            service
                .spec
                .as_ref()
                .is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
        })
        .map(|service| (service.name_any(), addresses(service)))
        .collect())
}

pub(super) async fn all_served(bed: &Bed, count: usize) -> Result<BTreeMap<String, Vec<String>>> {
    eventually("everybody to be served", Deadline::LONG, async || {
        let shown = all_shown(bed).await?;
        let served = shown.values().filter(|shown| shown.len() == 1).count();
        ensure!(
            served == count && shown.len() == count,
            "{served} of {} are served",
            shown.len()
        );
        Ok(shown)
    })
    .await
}

#[test]
fn a_restart_keeps_the_addresses_of_500_services_and_writes_nothing() {
    story(async || -> Result<()> {
        let bed = Bed::on(ControlPlane::config().audit().start().await?).await?;
        let controller = bed.controller("one")?;
        bed.eip("lan", "10.0.0.0/16").await?;
        create_many(&bed, (0..500).map(|n| format!("s{n}"))).await?;
        let before = all_served(&bed, 500).await?;
        let eips: Api<Eip> = Api::all(bed.client());
        eventually("the view", Deadline::SHORT, async || {
            let status = eips.get("lan").await?.status.unwrap_or_default();
            ensure!(status.usage == 500, "{}", status.usage);
            // Whole, so that OpenELB can take over again.
            let used: BTreeMap<_, _> = status.used.into_iter().collect();
            let shown = before.iter().filter_map(|(name, shown)| {
                Some((shown.first()?.clone(), format!("default/{name}")))
            });
            ensure!(used == shown.collect(), "{used:?}");
            Ok(())
        })
        .await?;
        let versions = async || -> Result<BTreeMap<String, Option<String>>> {
            let services = bed.services("default").list(&ListParams::default()).await?;
            let records = Api::<EipAddress>::all(bed.client())
                .list(&ListParams::default())
                .await?;
            Ok(services
                .iter()
                .map(|service| (service.name_any(), service.resource_version()))
                .chain(
                    records
                        .iter()
                        .map(|record| (record.name_any(), record.resource_version())),
                )
                .chain([("lan".to_owned(), eips.get("lan").await?.resource_version())])
                .filter(|(name, _)| name != "new")
                .collect())
        };
        eventually("every Service to be judged", Deadline::LONG, async || {
            let services = bed.services("default").list(&ListParams::default()).await?;
            let load_balancers = services
                .iter()
                .filter(|service| service.name_any() != "kubernetes");
            let missing = load_balancers.filter(|service| !is_judged(service)).count();
            ensure!(missing == 0, "{missing} are not");
            Ok(())
        })
        .await?;
        let versions_before = versions().await?;
        controller.stop().await?;
        let requests_before = bed.control.audit()?.len();
        bed.create(&service("new").annotation("x", "y")).await?;
        let _controller = bed.controller("two")?;
        eventually("the first new allocation", Deadline::SHORT, async || {
            ensure!(bed.shown("new").await?.len() == 1, "none");
            Ok(())
        })
        .await?;
        let mut after = all_shown(&bed).await?;
        after.remove("new");
        assert_eq!(before, after);
        let mut versions_after = versions().await?;
        versions_after.retain(|name, _| versions_before.contains_key(name));
        let mut versions_before = versions_before;
        // The pool's view follows the new Service.
        versions_before.remove("lan");
        versions_after.remove("lan");
        assert_eq!(versions_before, versions_after);
        let requests = bed.control.audit()?;
        let known = |object: &Object| {
            before.contains_key(&object.name) || versions_before.contains_key(&object.name)
        };
        let written: Vec<_> = requests
            .iter()
            .skip(requests_before)
            .filter(|request| request.is_write() && request.uri.contains("openelb-controller"))
            .filter(|request| request.object_ref.as_ref().is_some_and(known))
            .map(|request| format!("{} {}", request.verb, request.uri))
            .collect();
        assert_eq!(written, Vec::<String>::new());
        bed.audit().await?;
        Ok(())
    });
}

#[test]
fn what_a_user_writes_into_a_status_or_takes_out_is_put_right() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.0/24").await?;
        bed.create(&service("web")).await?;
        bed.shows("web", &["192.0.2.0"]).await?;
        let write = async |body: serde_json::Value| {
            let api = bed.services("default");
            api.patch_status("web", &PatchParams::default(), &Patch::Merge(body))
                .await
        };
        write(json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.99"}]}}})).await?;
        bed.shows("web", &["192.0.2.0"]).await?;
        write(json!({"status": {"loadBalancer": null, "conditions": null}})).await?;
        bed.shows("web", &["192.0.2.0"]).await?;
        Api::<EipAddress>::all(bed.client())
            .delete("192.0.2.0", &DeleteParams::default())
            .await?;
        eventually("the record to be back", Deadline::SHORT, async || {
            let record = bed.record("192.0.2.0").await?;
            ensure!(
                record.is_some_and(|record| record.spec.services.len() == 1),
                "none"
            );
            Ok(())
        })
        .await?;
        bed.shows("web", &["192.0.2.0"]).await?;
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        Ok(())
    });
}

#[test]
fn a_service_deleted_while_no_controller_runs_gives_its_address_back() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.0/24").await?;
        bed.create(&service("web")).await?;
        bed.shows("web", &["192.0.2.0"]).await?;
        controller.kill().await;
        bed.delete("web").await?;
        let _controller = bed.controller("two")?;
        eventually("the record to go", Deadline::SHORT, async || {
            ensure!(bed.record("192.0.2.0").await?.is_none(), "it is there");
            Ok(())
        })
        .await?;
        Ok(())
    });
}

#[test]
fn two_that_both_believe_to_lead_give_nothing_twice_and_move_nothing() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        bed.eip("lan", "10.0.0.0/20").await?;
        let first = bed.controller("first")?;
        create_many(&bed, (0..50).map(|n| format!("a{n}"))).await?;
        let early = all_served(&bed, 50).await?;
        let second = bed.controller("second")?;
        // The first is stopped in the midst of work, its Lease goes, the second takes over.
        let storm = async { create_many(&bed, (0..150).map(|n| format!("b{n}"))).await };
        let switch = async {
            eventually("some work", Deadline::SHORT, async || {
                let served = all_shown(&bed)
                    .await?
                    .values()
                    .filter(|shown| !shown.is_empty())
                    .count();
                ensure!(served > 60, "{served}");
                Ok(())
            })
            .await?;
            first.pause();
            Api::<Lease>::namespaced(bed.client(), "openelb-system")
                .delete(keys::CONTROLLER_LEASE, &DeleteParams::default())
                .await?;
            anyhow::Ok(())
        };
        let (created, switched) = futures::join!(storm, switch);
        created?;
        switched?;
        let middle = all_served(&bed, 200)
            .await
            .context("with the first one paused")?;
        for n in 0..25 {
            bed.delete(&format!("b{n}")).await?;
        }
        first.resume();
        create_many(&bed, (0..50).map(|n| format!("c{n}"))).await?;
        let late = all_served(&bed, 225).await.context("with both running")?;
        for (name, shown) in &early {
            assert_eq!(middle.get(name), Some(shown), "{name} moved");
            assert_eq!(late.get(name), Some(shown), "{name} moved");
        }
        for (name, shown) in late.iter().filter(|(name, _)| middle.contains_key(*name)) {
            assert_eq!(middle.get(name), Some(shown), "{name} moved");
        }
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        drop(second);
        Ok(())
    });
}

/// How long a controller of the crash loop lives: whatever it is doing then is what the kill interrupts.
const LIFE: Duration = Duration::from_millis(300);

#[test]
fn a_crash_loop_doubles_leaks_and_moves_nothing() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        bed.eip("lan", "10.0.0.0/20").await?;
        let controller = bed.controller("one")?;
        create_many(&bed, (0..250).map(|n| format!("stay{n}"))).await?;
        let before = all_served(&bed, 250).await?;
        let kills = AtomicU32::new(0);
        let churn = async {
            let mut round = 0;
            while round < 5 || kills.load(Relaxed) < 5 {
                create_many(&bed, (0..50).map(|n| format!("churn{n}"))).await?;
                // Names come again before what they had is given back.
                for n in 0..25 {
                    bed.delete(&format!("churn{n}")).await?;
                }
                create_many(&bed, (0..25).map(|n| format!("churn{n}"))).await?;
                for n in 0..50 {
                    bed.delete(&format!("churn{n}")).await?;
                }
                round += 1;
            }
            create_many(&bed, (0..125).map(|n| format!("last{n}"))).await
        };
        tokio::pin!(churn);
        loop {
            tokio::select! {
                done = &mut churn => { done?; break; }
                () = tokio::time::sleep(LIFE) => {
                    controller.kill().await;
                    controller.restart().await?;
                    kills.fetch_add(1, Relaxed);
                }
            }
        }
        let after = all_served(&bed, 375).await?;
        for (name, shown) in &before {
            assert_eq!(after.get(name), Some(shown), "{name} moved");
        }
        eventually("a clean ledger", Deadline::SHORT, async || {
            let shown = bed.audit().await?;
            ensure!(shown == 375, "{shown} addresses");
            Ok(())
        })
        .await?;
        Ok(())
    });
}

/// How long the API server is away: past the leader's Lease, and past the longest back-off of a watch or an elector.
const OUTAGE: Duration = Duration::from_mins(1);

#[test]
fn an_api_server_away_for_a_minute_changes_nothing_and_work_goes_on_with_its_return() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.0/24").await?;
        create_many(&bed, (0..20).map(|n| format!("s{n}"))).await?;
        let before = all_served(&bed, 20).await?;
        bed.control.api_server().kill().await;
        tokio::time::sleep(OUTAGE).await;
        controller.check()?;
        bed.control.api_server().restart().await?;
        bed.control.ready().await?;
        bed.create(&service("late")).await?;
        // A second is meant; a crowded machine may take longer, and an elector or a watch that waits for its
        // longest back-off would take more than this.
        let soon = Deadline::seconds(10);
        eventually("work to go on", soon, async || {
            ensure!(bed.shown("late").await?.len() == 1, "not yet");
            Ok(())
        })
        .await?;
        let mut after = all_shown(&bed).await?;
        after.remove("late");
        assert_eq!(before, after);
        bed.audit().await?;
        Ok(())
    });
}

async fn leader(bed: &Bed) -> Result<Option<String>> {
    let lease = Api::<Lease>::namespaced(bed.client(), "openelb-system")
        .get_opt(keys::CONTROLLER_LEASE)
        .await?;
    Ok(lease.and_then(|lease| lease.spec?.holder_identity))
}

async fn led_by(bed: &Bed, name: &str) -> Result<()> {
    eventually("a leader", Deadline::SHORT, async || {
        let found = leader(bed).await?;
        ensure!(found.as_deref() == Some(name), "{found:?} leads");
        Ok(())
    })
    .await
}

#[test]
fn a_standby_finishes_what_a_killed_leader_began_and_takes_over_at_once_from_one_that_stops() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        bed.eip("lan", "10.0.0.0/20").await?;
        let first = bed.controller("first")?;
        led_by(&bed, "first").await?;
        let second = bed.controller("second")?;
        create_many(&bed, (0..40).map(|n| format!("a{n}"))).await?;
        let before = all_served(&bed, 40).await?;
        let storm = create_many(&bed, (0..60).map(|n| format!("b{n}")));
        let kill = async {
            eventually("the first of the storm", Deadline::SHORT, async || {
                let shown = all_shown(&bed).await?;
                let served = shown.values().filter(|shown| !shown.is_empty()).count();
                ensure!(served > 45, "{served} are served");
                Ok(())
            })
            .await?;
            first.kill().await;
            anyhow::Ok(())
        };
        let (created, killed) = futures::join!(storm, kill);
        created?;
        killed?;
        let after = all_served(&bed, 100).await?;
        assert_eq!(leader(&bed).await?.as_deref(), Some("second"));
        for (name, shown) in &before {
            assert_eq!(after.get(name), Some(shown), "{name} moved");
        }
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        // An orderly end gives the Lease back.
        first.restart().await?;
        second.stop().await?;
        led_by(&bed, "first").await?;
        Ok(())
    });
}
