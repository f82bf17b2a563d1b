//! What is told in events: each change once, in OpenELB's words, and never in a storm.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams};
use openelb_api::v1alpha2::Eip;
use openelb_tests::ipam::{Asks, Bed, service, spec};
use openelb_tests::{Deadline, eventually, story};
use serde_json::json;

/// Events about the allocation of Services in `default`, oldest first.
async fn all(bed: &Bed) -> Result<Vec<Event>> {
    let api: Api<Event> = Api::namespaced(bed.client(), "default");
    let mut events = api.list(&ListParams::default()).await?.items;
    events.retain(|event| event.action.as_deref() == Some("Allocate"));
    events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
    Ok(events)
}

/// What was said of a Service so far, in order: reason and note.
async fn said(bed: &Bed, name: &str) -> Result<Vec<String>> {
    let ours = |event: &Event| {
        event
            .regarding
            .as_ref()
            .is_some_and(|of| of.name.as_deref() == Some(name))
    };
    let words = |event: Event| {
        let (reason, note) = (
            event.reason.unwrap_or_default(),
            event.note.unwrap_or_default(),
        );
        format!("{reason}: {note}")
    };
    Ok(all(bed)
        .await?
        .into_iter()
        .filter(ours)
        .map(words)
        .collect())
}

/// Waits until exactly this was said of a Service.
async fn says(bed: &Bed, name: &str, wanted: &[&str]) -> Result<()> {
    eventually(&format!("events of {name}"), Deadline::SHORT, async || {
        let said = said(bed, name).await?;
        ensure!(said == wanted, "{said:#?}");
        Ok(())
    })
    .await
}

/// Events go out one after the other: once a later one is there, so are all that came before.
async fn all_said(bed: &Bed, probe: &str) -> Result<()> {
    bed.create(&service(probe).ip("203.0.113.99")).await?;
    eventually("a later event", Deadline::SHORT, async || {
        ensure!(!said(bed, probe).await?.is_empty(), "none");
        Ok(())
    })
    .await
}

#[test]
fn each_change_is_told_once_in_openelbs_words() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        // Before the controller, which else may hear of the Service first and say that there is no Eip.
        bed.eip("lan", "192.0.2.0/24").await?;
        let controller = bed.controller("one")?;
        bed.create(&service("web")).await?;
        let mut told = vec!["AssignIP: success to assign ip: 192.0.2.0"];
        says(&bed, "web", &told).await?;
        bed.patch("web", spec(&json!({"loadBalancerIP": "192.0.2.7"})))
            .await?;
        told.extend([
            "ReleaseIP: success to release ip: 192.0.2.0",
            "AssignIP: success to assign ip: 192.0.2.7",
        ]);
        says(&bed, "web", &told).await?;
        bed.patch("web", spec(&json!({"loadBalancerIP": "198.51.100.1"})))
            .await?;
        let refused = "AssignIPFailed: 198.51.100.1 is in no Eip; add it to one, or ask for another address. \
                       Until then the Service has 192.0.2.7.";
        told.push(refused);
        says(&bed, "web", &told).await?;
        // Nothing more is said of what stays as it is, by the next process neither.
        controller.stop().await?;
        let _controller = bed.controller("two")?;
        all_said(&bed, "probe").await?;
        says(&bed, "web", &told).await?;
        bed.delete("web").await?;
        told.push("ReleaseIP: success to release ip: 192.0.2.7");
        says(&bed, "web", &told).await?;
        Ok(())
    });
}

#[test]
fn services_of_a_deleted_eip_are_told_what_becomes_of_them() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        bed.eip("lan", "192.0.2.0/30").await?;
        let _controller = bed.controller("one")?;
        bed.create(&service("free")).await?;
        bed.shows("free", &["192.0.2.0"]).await?;
        bed.create(&service("bound").eip("lan")).await?;
        bed.shows("bound", &["192.0.2.1"]).await?;
        bed.eip("spare", "198.51.100.0/30").await?;
        Api::<Eip>::all(bed.client())
            .delete("lan", &DeleteParams::default())
            .await?;
        let moved = [
            "AssignIP: success to assign ip: 192.0.2.0",
            "ReleaseIP: success to release ip: 192.0.2.0",
            "AssignIP: success to assign ip: 198.51.100.0",
        ];
        says(&bed, "free", &moved).await?;
        eventually("the other to be told", Deadline::SHORT, async || {
            let said = said(&bed, "bound").await?;
            let [_, released, failed] = &said[..] else {
                anyhow::bail!("{said:#?}");
            };
            ensure!(
                released == "ReleaseIP: success to release ip: 192.0.2.1",
                "{released}"
            );
            ensure!(
                failed.starts_with("AssignIPFailed: ") && failed.contains("Eip lan does not exist"),
                "{failed}"
            );
            Ok(())
        })
        .await?;
        Ok(())
    });
}

/// More than go out in a second.
const MANY: usize = 60;

#[test]
fn many_refusals_at_once_are_told_one_after_the_other() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        for n in 0..MANY {
            bed.create(&service(&format!("s{n}"))).await?;
        }
        let _controller = bed.controller("one")?;
        let events = eventually("all of them", Deadline::LONG, async || {
            let events = all(&bed).await?;
            ensure!(events.len() >= MANY, "{}", events.len());
            Ok(events)
        })
        .await?;
        assert_eq!(events.len(), MANY, "one for each");
        let at = |event: Option<&Event>| {
            event
                .and_then(|event| event.event_time.as_ref())
                .map(|time| time.0)
        };
        let (first, last) = (at(events.first()).unwrap(), at(events.last()).unwrap());
        let took = Duration::try_from(last.duration_since(first))?;
        let minimum = Duration::from_millis(40) * u32::try_from(MANY - 1)?;
        assert!(took >= minimum, "{MANY} events in {took:?}");
        Ok(())
    });
}
