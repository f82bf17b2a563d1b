//! What users write into records and statuses, and what an Eip says of itself.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use openelb_api::keys::conditions::ORPHANED;
use openelb_api::v1alpha2::{Eip, EipAddress, EipSpec};
use openelb_tests::ipam::{Bed, service};
use openelb_tests::{Deadline, eventually, story};
use serde_json::json;

#[test]
fn what_is_edited_in_records_and_statuses_is_put_right() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        bed.eip("lan", "192.0.2.0/24").await?;
        bed.create(&service("web")).await?;
        bed.shows("web", &["192.0.2.0"]).await?;
        let eips: Api<Eip> = Api::all(bed.client());
        let records: Api<EipAddress> = Api::all(bed.client());
        let merge = PatchParams::default();
        // The Service struck off its record.
        let none = json!({"spec": {"services": []}});
        records
            .patch("192.0.2.0", &merge, &Patch::Merge(none))
            .await?;
        eventually("the Service to be back", Deadline::SHORT, async || {
            let record = bed.record("192.0.2.0").await?;
            ensure!(
                record
                    .as_ref()
                    .is_some_and(|record| record.spec.services.len() == 1),
                "{record:?}"
            );
            Ok(())
        })
        .await?;
        // Somebody who does not exist put into a record beside it.
        let ghost = json!({"namespace": "default", "name": "ghost", "uid": "nobody"});
        let web = serde_json::to_value(&records.get("192.0.2.0").await?.spec.services[0])?;
        let both = json!({"spec": {"services": [web, ghost]}});
        records
            .patch("192.0.2.0", &merge, &Patch::Merge(both))
            .await?;
        eventually("a clean ledger", Deadline::SHORT, async || {
            bed.audit().await
        })
        .await?;
        // Words in the status of a Service and of an Eip that are not ours.
        let odd = json!({"status": {"loadBalancer": {"ingress": [
            {"ip": "192.0.2.0", "ipMode": "Proxy"}, {"hostname": "example.com"},
        ]}}});
        bed.services("default")
            .patch_status("web", &merge, &Patch::Merge(odd))
            .await?;
        let view =
            json!({"status": {"usage": 7, "used": {"192.0.2.5": "default/none"}, "ready": false}});
        eips.patch_status("lan", &merge, &Patch::Merge(view))
            .await?;
        eventually("both to be put right", Deadline::SHORT, async || {
            let web: Service = bed.services("default").get("web").await?;
            let shown = serde_json::to_value(&web.status.unwrap_or_default().load_balancer)?;
            ensure!(
                shown == json!({"ingress": [{"ip": "192.0.2.0", "ipMode": "VIP"}]}),
                "{shown}"
            );
            let status = eips.get("lan").await?.status.unwrap_or_default();
            let used: Vec<_> = status.used.iter().collect();
            ensure!(
                status.usage == 1 && status.ready && used.len() == 1,
                "{status:?}"
            );
            Ok(())
        })
        .await?;
        Ok(())
    });
}

#[test]
fn an_eip_says_when_it_is_full_and_when_it_cannot_be_used() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        let eips: Api<Eip> = Api::all(bed.client());
        let says = async |kind: &str, wanted: bool, occupied: bool| {
            eventually(
                &format!("{kind} to be {wanted}"),
                Deadline::SHORT,
                async || {
                    let status = eips.get("lan").await?.status.unwrap_or_default();
                    let found = status
                        .conditions
                        .iter()
                        .find(|condition| condition.type_ == kind);
                    let holds = found.is_some_and(|condition| condition.status == "True");
                    ensure!(holds == wanted && status.occupied == occupied, "{status:?}");
                    Ok(())
                },
            )
            .await
        };
        bed.eip("lan", "192.0.2.0/31").await?;
        bed.create(&service("a")).await?;
        bed.shows("a", &["192.0.2.0"]).await?;
        says("Exhausted", false, false).await?;
        bed.create(&service("b")).await?;
        bed.shows("b", &["192.0.2.1"]).await?;
        says("Exhausted", true, true).await?;
        bed.delete("b").await?;
        says("Exhausted", false, false).await?;
        // It got past the webhook, which is not there.
        bed.patch_eip("lan", json!({"spec": {"address": "192.0.2.0-nonsense"}}))
            .await?;
        says("Invalid", true, false).await?;
        says("Ready", false, false).await?;
        bed.shows("a", &["192.0.2.0"]).await?;
        bed.patch_eip("lan", json!({"spec": {"address": "192.0.2.0/31"}}))
            .await?;
        says("Ready", true, false).await?;
        says("Invalid", false, false).await?;
        Ok(())
    });
}

#[test]
fn an_address_that_left_every_eip_says_so_until_it_is_back_in_one() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        let _controller = bed.controller("one")?;
        let sticky = EipSpec {
            address: "192.0.2.0/30".to_owned(),
            sticky: true,
            ..EipSpec::default()
        };
        bed.eip_of("lan", sticky).await?;
        for (name, address) in [("gone", "192.0.2.0"), ("web", "192.0.2.1")] {
            bed.create(&service(name)).await?;
            bed.shows(name, &[address]).await?;
        }
        // Of the one nobody is left but the memory.
        bed.delete("gone").await?;
        let says = async |address: &str, wanted: bool| -> Result<String> {
            let what = format!("{address} to be an orphan: {wanted}");
            eventually(&what, Deadline::SHORT, async || {
                let record = bed.record(address).await?.context("no record")?;
                let conditions = record.status.unwrap_or_default().conditions;
                let said = conditions.into_iter().find(|one| one.type_ == ORPHANED);
                let said = said.context("nothing is said")?;
                ensure!((said.status == "True") == wanted, "{said:?}");
                Ok(said.message)
            })
            .await
        };
        bed.patch_eip("lan", json!({"spec": {"address": "192.0.2.2/31"}}))
            .await?;
        let message = says("192.0.2.1", true).await?;
        assert!(message.contains("default/web has it"), "{message}");
        let message = says("192.0.2.0", true).await?;
        assert!(message.contains("delete this EipAddress"), "{message}");
        bed.shows("web", &["192.0.2.1"]).await?;
        // Any Eip will do.
        bed.eip("other", "192.0.2.0/31").await?;
        assert_eq!(says("192.0.2.0", false).await?, "");
        assert_eq!(says("192.0.2.1", false).await?, "");
        bed.shows("web", &["192.0.2.1"]).await?;
        Ok(())
    });
}
