//! Level 2: every fault of a link, seen by the prober, and mended again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use openelb_tests::{Host, Network, Prober, Process, Traffic, scenario};

use crate::faults::{all, serve};

/// Every kind of traffic that has an answer of `openelb-answer serve`.
const KINDS: [Traffic; 4] = [Traffic::Tcp, Traffic::Udp, Traffic::Held, Traffic::Flow];

/// A network whose nodes serve their own addresses.
async fn serving(nodes: u8) -> Result<(Network, Vec<Process>)> {
    let network = Network::start(nodes).await?;
    let mut servers = Vec::new();
    for node in network.nodes() {
        servers.push(serve(&network, node, &[]).await?);
    }
    Ok((network, servers))
}

/// New connections over both families from one host to another.
fn connections(from: &Host, to: &Host) -> Result<Prober> {
    Prober::start(from, &all(&to.addresses(), &[Traffic::Tcp, Traffic::Udp]))
}

/// Makes a fault between healthy traffic, mends it, and checks that the traffic saw it, and saw its end.
pub(crate) async fn seen(
    what: &str,
    mut prober: Prober,
    fault: impl AsyncFnOnce() -> Result<()>,
    mend: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    prober.answered(40).await?;
    let began = prober.mark(what);
    fault().await.with_context(|| what.to_owned())?;
    prober.failed(10).await.with_context(|| what.to_owned())?;
    mend().await.with_context(|| what.to_owned())?;
    let mended = prober.mark("mended");
    // Those asked during the fault may be answered late; these are more than can be under way.
    prober
        .answered(600)
        .await
        .with_context(|| what.to_owned())?;
    let report = prober.stop().await?;
    println!("{what}: gap {:?}, lost {}", report.gap(), report.lost());
    ensure!(report.failed_before(began) == 0, "{what}: {report}");
    let after = report.probes().iter().filter(|probe| probe.at > mended);
    ensure!(
        after.filter(|probe| probe.outcome.is_good()).count() >= 100,
        "{what}: {report}"
    );
    Ok(())
}

#[test]
fn each_fault_of_a_link_is_seen_and_mended() {
    scenario(async || {
        let (network, servers) = serving(2).await?;
        let [one, two] = network.nodes() else {
            anyhow::bail!("two nodes")
        };
        let lan = network.lan_client();
        let heal = async || network.heal().await;
        let plug = async || network.plug(one).await;
        seen(
            "unplugged silently",
            connections(lan, one)?,
            async || network.unplug(one).await,
            plug,
        )
        .await?;
        seen(
            "the cable pulled",
            connections(lan, one)?,
            async || network.cut(one).await,
            plug,
        )
        .await?;
        let apart = async || network.partition(&[one], &[two]).await;
        seen("a partition", connections(two, one)?, apart, heal).await?;
        seen(
            "half the frames lost",
            connections(lan, one)?,
            async || network.lose(one, 50).await,
            heal,
        )
        .await?;
        seen(
            "64 kbit/s",
            connections(lan, one)?,
            async || network.limit(one, 64).await,
            heal,
        )
        .await?;
        let slow = async || network.delay(one, Duration::from_millis(400)).await;
        seen(
            "slower than anybody waits",
            connections(lan, one)?,
            slow,
            heal,
        )
        .await?;
        let [server, _] = servers.as_slice() else {
            anyhow::bail!("two servers")
        };
        let pause = async || {
            server.pause();
            Ok(())
        };
        let resume = async || {
            server.resume();
            Ok(())
        };
        seen("a paused process", connections(lan, one)?, pause, resume).await?;
        let kill = async || {
            server.kill().await;
            Ok(())
        };
        seen(
            "a killed process",
            connections(lan, one)?,
            kill,
            async || server.restart().await,
        )
        .await
    });
}

#[test]
fn a_delay_holds_every_frame_both_ways_and_other_faults_go_on_beside_it() {
    scenario(async || {
        let (network, _servers) = serving(3).await?;
        let [one, two, three] = network.nodes() else {
            anyhow::bail!("three nodes")
        };
        let lan = network.lan_client();
        let delay = Duration::from_millis(20);
        network.delay(one, delay).await?;
        let mut targets = all(&one.addresses(), &KINDS);
        targets.extend(all(&two.addresses(), &KINDS));
        let mut prober = Prober::start(lan, &targets)?;
        prober.answered(400).await?;
        let report = prober.stop().await?;
        for target in &targets {
            let slow = one.addresses().contains(&target.address.ip());
            let fastest = report.of(*target).fastest();
            let fastest = fastest.with_context(|| format!("no answer: {target:?}\n{report}"))?;
            ensure!(!slow || fastest >= delay * 2, "{target:?}: {fastest:?}");
            ensure!(
                slow || fastest < delay * 2,
                "another host is slow: {target:?}: {fastest:?}"
            );
        }

        // Long transfers cross it whole, both ways.
        let bytes = 2_000_000;
        let said = echoed(one, two, bytes)?;
        ensure!(said == bytes, "{said} bytes of {bytes}");

        // Unplugged is unplugged, and plugged is still slow.
        network.unplug(one).await?;
        ensure!(!answers(lan, one).await?, "an unplugged node answers");
        network.plug(one).await?;
        ensure!(
            slowest_first(lan, one).await? >= delay * 2,
            "the delay went with the plug"
        );
        network.partition(&[one], &[two]).await?;
        ensure!(
            !answers(two, one).await?,
            "a partition leaks through a slow cable"
        );
        ensure!(answers(three, one).await?, "a partition harms others");

        network.delay(one, Duration::from_millis(40)).await?;
        ensure!(
            slowest_first(lan, one).await? >= Duration::from_millis(80),
            "not slower"
        );
        network.heal().await?;
        let report = ask(two, one).await?;
        ensure!(
            report.fastest().is_some_and(|fastest| fastest < delay * 2),
            "still slow: {report}"
        );
        let links = network.switch().run(&["ip", "-o", "link"]).await?;
        ensure!(!links.contains("near") && !links.contains("far"), "{links}");
        Ok(())
    });
}

async fn ask(from: &Host, to: &Host) -> Result<openelb_tests::prober::Report> {
    let mut prober = connections(from, to)?;
    prober.answered(20).await?;
    prober.stop().await
}

async fn slowest_first(from: &Host, to: &Host) -> Result<Duration> {
    ask(from, to).await?.fastest().context("no answer")
}

/// Whether a ping comes back in either family.
async fn answers(from: &Host, to: &Host) -> Result<bool> {
    for address in to.addresses() {
        let ping = ["ping", "-n", "-c", "1", "-W", "1", &address.to_string()];
        if from.namespace().run(&ping).await.is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sends so many bytes from a host to another that echoes them, and returns how many came back.
fn echoed(server: &Host, client: &Host, bytes: usize) -> Result<usize> {
    let address = IpAddr::V6(server.v6);
    client.namespace().enter(|| {
        let stream = std::net::TcpStream::connect((address, 80))?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        let mut sender = stream.try_clone()?;
        let writer = std::thread::spawn(move || -> std::io::Result<()> {
            sender.write_all(&vec![b'x'; bytes])?;
            sender.shutdown(std::net::Shutdown::Write)
        });
        let mut reader = BufReader::new(stream);
        // The first line says who answers.
        reader.read_line(&mut String::new())?;
        let mut echo = Vec::new();
        reader.read_to_end(&mut echo)?;
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        Ok(echo.len())
    })
}
