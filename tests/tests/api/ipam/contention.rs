//! Two controllers that both work, all the time, and users who never rest.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Patch, PatchParams};
use openelb_tests::ipam::{Asks, Bed, service};
use openelb_tests::{Deadline, eventually, story};
use serde_json::json;

use super::faults::{all_served, all_shown, create_many};

async fn delete_many(bed: &Bed, names: impl Iterator<Item = String>) -> Result<()> {
    stream::iter(names)
        .map(|name| async move { bed.delete(&name).await })
        .buffer_unordered(16)
        .try_for_each(async |()| Ok(()))
        .await
}

#[test]
fn two_that_lead_side_by_side_give_nothing_twice_and_move_nothing() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        bed.eip("lan", "10.0.0.0/20").await?;
        let alone = ["--leader-elect=false"];
        let _first = bed.controller_with("first", &alone)?;
        let _second = bed.controller_with("second", &alone)?;
        create_many(&bed, (0..100).map(|n| format!("stay{n}"))).await?;
        let before = all_served(&bed, 100).await?;
        // Ten that agree on one address, and one that does not.
        for n in 0..10 {
            let name = format!("share{n}");
            bed.create(&service(&name).ip("10.0.15.9").port(1000 + n))
                .await?;
        }
        for _ in 0..4 {
            let churn = || (0..50).map(|n| format!("churn{n}"));
            create_many(&bed, churn()).await?;
            delete_many(&bed, churn().take(25)).await?;
            // The same names again, while the old ones may not be given back yet.
            create_many(&bed, churn().take(25)).await?;
            delete_many(&bed, churn()).await?;
        }
        create_many(&bed, (0..50).map(|n| format!("churn{n}"))).await?;
        bed.create(&service("rival").ip("10.0.15.9").port(1003))
            .await?;
        bed.refuses("rival", "AddressInUse").await?;
        bed.delete("rival").await?;
        let after = all_served(&bed, 160).await?;
        moved_nothing(&before, &after);
        for n in 0..10 {
            bed.shows(&format!("share{n}"), &["10.0.15.9"]).await?;
        }
        eventually("a clean ledger", Deadline::SHORT, async || {
            let shown = bed.audit().await?;
            ensure!(shown == 151, "{shown} addresses");
            Ok(())
        })
        .await?;
        // Nothing moves afterwards either.
        let late = all_shown(&bed).await?;
        moved_nothing(&after, &late);
        Ok(())
    });
}

#[test]
fn two_that_adopt_side_by_side_move_nothing_and_record_everybody_once() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        // What another controller left: an address for each, one of them for two.
        let address = |n: usize| format!("192.0.2.{}", n.min(48));
        for n in 0..50 {
            let name = format!("s{n}");
            bed.create(&service(&name)).await?;
            let ingress = json!({"status": {"loadBalancer": {"ingress": [{"ip": address(n)}]}}});
            bed.services("default")
                .patch_status(&name, &PatchParams::default(), &Patch::Merge(ingress))
                .await?;
        }
        let before = all_shown(&bed).await?;
        bed.eip("lan", "192.0.2.0/24").await?;
        let alone = ["--leader-elect=false"];
        let _first = bed.controller_with("first", &alone)?;
        let _second = bed.controller_with("second", &alone)?;
        // A newcomer gets none of theirs, whoever of the two serves it.
        bed.create(&service("new")).await?;
        bed.shows("new", &["192.0.2.49"]).await?;
        eventually("a record for everybody", Deadline::SHORT, async || {
            let shown = bed.audit().await?;
            ensure!(shown == 50, "{shown} addresses");
            Ok(())
        })
        .await?;
        moved_nothing(&before, &all_shown(&bed).await?);
        let shared = bed.record("192.0.2.48").await?;
        let holders = shared.map(|record| record.spec.services.len());
        ensure!(
            holders == Some(2),
            "{holders:?} hold the one that two were given"
        );
        Ok(())
    });
}

fn moved_nothing(before: &BTreeMap<String, Vec<String>>, after: &BTreeMap<String, Vec<String>>) {
    for (name, shown) in before {
        assert_eq!(after.get(name), Some(shown), "{name} moved");
    }
}
