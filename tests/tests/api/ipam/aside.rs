//! What speakers must know of an address before they probe it, and what follows when they set it aside.

use anyhow::{Context as _, Result, ensure};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use openelb_api::keys;
use openelb_api::v1alpha2::EipAddress;
use openelb_tests::ipam::{Asks as _, Bed, service};
use openelb_tests::{Deadline, eventually, story};
use serde_json::json;

/// Says of an address what a speaker says that found a foreign host there.
async fn set_aside(bed: &Bed, address: &str) -> Result<()> {
    let status = json!({"status": {"announcers": [], "conditions": [{
        "type": keys::conditions::CONFLICT, "status": "True", "reason": keys::conditions::SET_ASIDE,
        "message": "a host has it", "lastTransitionTime": "2026-01-01T00:00:00Z"
    }]}});
    let addresses = Api::<EipAddress>::all(bed.client());
    addresses
        .patch_status(address, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}

#[test]
fn an_address_that_a_speaker_set_aside_is_exchanged_unless_it_was_asked_for() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.10-192.0.2.20").await?;
        bed.create(&service("named").ip("192.0.2.15")).await?;
        bed.shows("named", &["192.0.2.15"]).await?;
        bed.create(&service("web")).await?;
        bed.shows("web", &["192.0.2.10"]).await?;
        set_aside(&bed, "192.0.2.15").await?;
        set_aside(&bed, "192.0.2.10").await?;
        bed.shows("web", &["192.0.2.11"]).await?;
        eventually("the first to be given back", Deadline::SHORT, async || {
            ensure!(bed.record("192.0.2.10").await?.is_none(), "it is held");
            Ok(())
        })
        .await?;
        // The next one does not get it either, and the one that insists keeps its own.
        bed.create(&service("next")).await?;
        bed.shows("next", &["192.0.2.12"]).await?;
        bed.shows("named", &["192.0.2.15"]).await
    });
}

#[test]
fn an_adopted_address_is_marked_so_that_no_speaker_probes_it() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        bed.create(&service("old")).await?;
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.40"}]}}});
        bed.services("default")
            .patch_status("old", &PatchParams::default(), &Patch::Merge(status))
            .await?;
        bed.eip("lan", "192.0.2.0/24").await?;
        let _controller = bed.controller("one")?;
        bed.shows("old", &["192.0.2.40"]).await?;
        bed.create(&service("new")).await?;
        bed.shows("new", &["192.0.2.0"]).await?;
        for (address, adopted) in [("192.0.2.40", true), ("192.0.2.0", false)] {
            eventually("the record", Deadline::SHORT, async || {
                let record = bed.record(address).await?.context("no record")?;
                let marked = record.annotations().contains_key(keys::ADOPTED);
                ensure!(marked == adopted, "{address} is marked: {marked}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    });
}
