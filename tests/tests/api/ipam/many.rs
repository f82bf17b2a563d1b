//! Ten thousand Services: the same promises, and no object that grows with them.

use anyhow::{Context as _, Result, ensure};
use kube::api::Api;
use openelb_api::keys::conditions::USED_TRUNCATED;
use openelb_api::v1alpha2::Eip;
use openelb_tests::ipam::{Bed, service};
use openelb_tests::{Deadline, eventually, story};

use super::faults::{all_shown, create_many};

const MANY: usize = 10_000;
/// What `status.used` lists at most.
const LISTED: usize = 1024;

async fn in_use(bed: &Bed, count: usize) -> Result<()> {
    let eips: Api<Eip> = Api::all(bed.client());
    let what = format!("{count} addresses to be in use");
    eventually(&what, Deadline::seconds(600), async || {
        let status = eips.get("lan").await?.status.unwrap_or_default();
        let usage = usize::try_from(status.usage)?;
        ensure!(usage == count, "{usage} are");
        Ok(())
    })
    .await
}

#[test]
fn ten_thousand_are_each_served_once_although_the_controller_is_killed_meanwhile() {
    story(async || -> Result<()> {
        let bed = Bed::start().await?;
        bed.eip("lan", "10.0.0.0/16").await?;
        let controller = bed.controller_with("one", &["--log", "warn"])?;
        let some = |range: std::ops::Range<usize>| range.map(|n| format!("s{n}"));
        create_many(&bed, some(0..MANY / 2)).await?;
        controller.kill().await;
        create_many(&bed, some(MANY / 2..MANY * 3 / 4)).await?;
        controller.restart().await?;
        create_many(&bed, some(MANY * 3 / 4..MANY)).await?;
        in_use(&bed, MANY).await?;
        let before = all_shown(&bed).await?;
        let served = before.values().filter(|shown| shown.len() == 1).count();
        ensure!(served == MANY, "{served} have one address");
        let shown = bed.audit().await?;
        ensure!(shown == MANY, "{shown} addresses");
        // The view is bounded, and says so.
        let eip = Api::<Eip>::all(bed.client()).get("lan").await?;
        let status = eip.status.context("no status")?;
        ensure!(
            status.used.len() == LISTED,
            "{} are listed",
            status.used.len()
        );
        let mut conditions = status.conditions.iter();
        let truncated = conditions.find(|one| one.type_ == USED_TRUNCATED);
        ensure!(
            truncated.is_some_and(|one| one.status == "True"),
            "{truncated:?}"
        );
        // The next process finds all of them as they are.
        controller.kill().await;
        controller.restart().await?;
        bed.create(&service("new")).await?;
        in_use(&bed, MANY + 1).await?;
        let mut after = all_shown(&bed).await?;
        after.remove("new").context("the newcomer is gone")?;
        ensure!(before == after, "an address moved");
        Ok(())
    });
}
