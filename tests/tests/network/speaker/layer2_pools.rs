//! Pools that come, grow and go while the speaker runs: what the kernel lets through to it follows them.

use anyhow::{Context, Result, ensure};
use openelb_api::v1alpha2::name_for;
use openelb_tests::speakers::tool;
use openelb_tests::{Deadline, eventually, scenario};
use serde_json::json;

use super::layer2::{ADDRESS, leads, metric, served};
use super::stage::Stage;

/// Requests for addresses of a pool that are made to see whether they reach the speaker.
const SOME: u64 = 200;
/// Requests for its one lasting address that are made behind them.
const BEHIND: u64 = 20;

/// Asks from a host of the segment, and returns when all is asked (a flood), or answered.
async fn ask(stage: &Stage, target: &str, count: u64, flood: bool) -> Result<()> {
    let (tool, count) = (tool()?.display().to_string(), count.to_string());
    let mut command = vec![&*tool, "ask", target, "--count", &count];
    command.extend(flood.then_some("--flood"));
    let host = stage.network.lan_client().namespace();
    host.run(&command).await.map(drop)
}

/// How many frames came past the filter while some addresses from this one on were asked for, and the lasting one behind
/// them: with the answer for that one, all have been handled.
async fn heard(stage: &Stage, first: &str) -> Result<u64> {
    let before = metric(stage, "n1", "frames_total").await?;
    ask(stage, first, SOME, true).await?;
    ask(stage, ADDRESS, BEHIND, false).await?;
    Ok(metric(stage, "n1", "frames_total").await? - before)
}

/// Waits until requests for addresses from this one on reach the speaker, or do not.
async fn reach(stage: &Stage, first: &str, wanted: bool) -> Result<()> {
    let what = format!("the speaker to hear of {first}: {wanted}");
    eventually(&what, Deadline::SHORT, async || {
        stage.check()?;
        let heard = heard(stage, first).await?;
        // Others say something now and then.
        let reached = heard > BEHIND + SOME / 2;
        ensure!(reached == wanted, "{heard} frames");
        anyhow::Ok(())
    })
    .await
}

/// The pool that comes and goes, with this range.
async fn pool(stage: &Stage, range: &str) -> Result<()> {
    let spec = json!({"address": range, "protocol": "layer2", "interface": "eth0"});
    stage.ours("Eip", "more", &spec).await
}

#[test]
fn pools_that_come_grow_shrink_and_go_are_followed_without_a_restart() {
    scenario(async || {
        const LOW: &str = "10.0.192.1";
        const HIGH: &str = "10.0.224.1";
        let stage = served(1, "Cluster", &["n1"]).await?;
        leads(&stage, "the node", |_| true).await?;
        reach(&stage, LOW, false).await?;
        // It comes, and has an address for somebody.
        pool(&stage, "10.0.192.0/19").await?;
        reach(&stage, LOW, true).await?;
        reach(&stage, HIGH, false).await?;
        stage.service_of("more", "db", "Cluster", &[LOW]).await?;
        stage.endpoints("db", &["n1"]).await?;
        answered(&stage, LOW).await?;
        // It grows, and has another.
        pool(&stage, "10.0.192.0/18").await?;
        reach(&stage, HIGH, true).await?;
        stage.service_of("more", "log", "Cluster", &[HIGH]).await?;
        stage.endpoints("log", &["n1"]).await?;
        answered(&stage, HIGH).await?;
        // It shrinks, without the one that is in the removed half.
        remove(&stage, "log", HIGH).await?;
        pool(&stage, "10.0.192.0/19").await?;
        reach(&stage, HIGH, false).await?;
        answered(&stage, LOW).await?;
        // It goes.
        remove(&stage, "db", LOW).await?;
        stage.kubectl(&["delete", "eip", "more"]).await?;
        reach(&stage, LOW, false).await?;

        // A flood for what is served no more costs nothing, and what is served is answered meanwhile.
        let read = async |name: &str| metric(&stage, "n1", name).await;
        let figures = [
            "frames_total",
            "requests_total{protocol=\"arp\"}",
            "responses_total{protocol=\"arp\"}",
        ];
        let mut before = Vec::new();
        for name in figures {
            before.push(read(name).await?);
        }
        let (flood, answers) = tokio::join!(
            ask(&stage, LOW, 10_000, true),
            ask(&stage, ADDRESS, 50, false)
        );
        flood.and(answers)?;
        for (name, before) in figures.into_iter().zip(before) {
            let more = read(name).await? - before;
            ensure!(
                (50..100).contains(&more),
                "{name}: {more} of 50 for the address and 10,000 others"
            );
        }
        Ok(())
    });
}

/// Waits until an address is answered.
async fn answered(stage: &Stage, address: &str) -> Result<()> {
    eventually(
        &format!("an answer for {address}"),
        Deadline::SHORT,
        async || {
            stage.check()?;
            ask(stage, address, 1, false).await
        },
    )
    .await
}

/// Deletes a Service and gives its address back, as the controller does.
async fn remove(stage: &Stage, service: &str, address: &str) -> Result<()> {
    stage.kubectl(&["delete", "service", service]).await?;
    let name = name_for(address.parse().context("no address")?);
    stage
        .kubectl(&["delete", "eipaddress", &name])
        .await
        .map(drop)
}
