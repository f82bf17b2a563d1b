//! Layer 2 without an API server, for as long as one likes.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use openelb_tests::prober::Target;
use openelb_tests::{Deadline, Prober, Traffic, eventually, scenario};

use super::layer2::{ADDRESS, answering, leads, served, shown};
use super::layer2_moves::serve;
use super::stage::Stage;

/// For how many seconds at least the API server is gone. Half of them are over when the node dies.
const AWAY: &str = "OPENELB_API_AWAY";

/// The time that the user wants the API server to be gone for. It is over at once where nobody said anything: then the
/// speakers' own waits are all that takes time.
fn away() -> Result<Duration> {
    let seconds = std::env::var(AWAY).unwrap_or_else(|_| "0".to_owned());
    let seconds = seconds.parse();
    Ok(Duration::from_secs(seconds.context(AWAY)?))
}

/// Lets time pass, as long as the speakers live.
async fn pass(stage: &Stage, until: Instant) -> Result<()> {
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        stage.check()?;
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
    }
    Ok(())
}

#[test]
fn an_address_moves_although_the_api_server_is_gone() {
    scenario(async || {
        let away = away()?;
        let stage = served(2, "Cluster", &["n1"]).await?;
        let mut servers = Vec::new();
        for node in stage.network.nodes() {
            servers.push(serve(&stage, node).await?);
        }
        let first = leads(&stage, "a node", |_| true).await?;
        let survivor = if first == "n1" { "n2" } else { "n1" };
        let target = Target {
            address: SocketAddr::new(ADDRESS.parse::<IpAddr>()?, 80),
            traffic: Traffic::Udp,
        };
        let mut prober = Prober::start(stage.network.lan_client(), &[target])?;
        prober.answered(50).await?;
        // Without a word, as a machine that loses power.
        let network = &stage.network;
        let gone = prober.mark("the API server is gone");
        network.unplug(network.world()).await?;
        let speaker = stage.speaker(survivor)?;
        // A silent connection is given up after 6 s, a list or watch is tried again after 0.8, 2.4, 7.2, 21.6 s, and never
        // later than every 30 s: with the fifth failure all that time could change has changed. (A NotReady node stays for
        // 10 s; the gossip needs no API server.)
        eventually(
            "the longest wait of the watches",
            Deadline::LONG,
            async || {
                let log = speaker.log();
                let failed = log.lines().filter(|line| {
                    line.contains("the watch is interrupted") && line.contains("Node")
                });
                let failed = failed.count();
                ensure!(failed >= 5, "it has failed {failed} times");
                Ok(())
            },
        )
        .await?;
        pass(&stage, gone + away / 2).await?;
        ensure!(answering(&stage).await? == first, "the address moved");
        let died = prober.mark("the node that answers loses power");
        network.unplug(network.node(&first)?).await?;
        leads(&stage, "the other node", |node| node == survivor).await?;
        prober.answered(50).await?;
        let moved = Instant::now();
        pass(&stage, gone + away).await?;
        // Back again, it hears who answers now.
        prober.mark("the API server is back");
        network.plug(network.world()).await?;
        shown(&stage, survivor).await?;
        let gone = gone.elapsed();
        let report = prober.stop().await?;
        println!("{report}");
        println!(
            "the API server was gone for {} s; the address was for {} ms",
            gone.as_secs(),
            report.gap().as_millis()
        );
        ensure!(report.failed_before(died) == 0, "{report}");
        ensure!(died + report.trouble_after(died) < moved, "{report}");
        Ok(())
    });
}
