//! Level 2.

use anyhow::{Result, ensure};
use openelb_tests::{Deadline, Host, Network, eventually, scenario};

async fn reaches(from: &Host, to: &Host) -> bool {
    let mut reached = true;
    for address in to.addresses() {
        let ping = ["ping", "-n", "-c", "1", "-W", "1", &address.to_string()];
        reached &= from.namespace().run(&ping).await.is_ok();
    }
    reached
}

#[test]
fn every_host_reaches_every_other_at_once_in_both_families() {
    scenario(async || {
        let began = std::time::Instant::now();
        let network = Network::start(3).await?;
        println!("a network of three nodes after {:?}", began.elapsed());
        let mut hosts: Vec<&Host> = network.nodes().iter().collect();
        hosts.extend([network.router(), network.client(), network.lan_client()]);
        for from in &hosts {
            for to in &hosts {
                ensure!(
                    reaches(from, to).await,
                    "{} does not reach {}",
                    from.name(),
                    to.name()
                );
            }
        }
        Ok(())
    });
}

#[test]
fn an_unplugged_node_keeps_its_carrier_and_a_cut_one_does_not() {
    scenario(async || {
        let network = Network::start(2).await?;
        let [one, other] = network.nodes() else {
            anyhow::bail!("two nodes")
        };
        network.unplug(one).await?;
        ensure!(!reaches(other, one).await, "an unplugged node answers");
        ensure!(
            has_carrier(one).await?,
            "an unplugged node lost its carrier"
        );
        network.plug(one).await?;
        eventually("a plugged node's answer", Deadline::SHORT, async || {
            ensure!(reaches(other, one).await, "none");
            Ok(())
        })
        .await?;
        network.cut(one).await?;
        ensure!(!has_carrier(one).await?, "a cut node kept its carrier");
        network.plug(one).await?;
        ensure!(has_carrier(one).await?, "a mended cable has no carrier");
        Ok(())
    });
}

async fn has_carrier(host: &Host) -> Result<bool> {
    let link = host
        .namespace()
        .run(&["ip", "link", "show", "dev", host.interface])
        .await?;
    Ok(link.contains("LOWER_UP"))
}

#[test]
fn a_partition_divides_two_groups_and_nobody_else() {
    scenario(async || {
        let network = Network::start(3).await?;
        let [a, b, c] = network.nodes() else {
            anyhow::bail!("three nodes")
        };
        network.partition(&[a], &[b]).await?;
        ensure!(
            !reaches(a, b).await && !reaches(b, a).await,
            "the partition leaks"
        );
        ensure!(
            reaches(a, c).await && reaches(b, c).await,
            "the partition harms others"
        );
        network.heal().await?;
        // Each side believes for a while that the other is not there.
        eventually("the partition's end", Deadline::SHORT, async || {
            ensure!(reaches(a, b).await, "no answer");
            Ok(())
        })
        .await
    });
}

#[test]
fn a_lossy_link_loses_about_what_was_asked() {
    scenario(async || {
        let network = Network::start(1).await?;
        let [node] = network.nodes() else {
            anyhow::bail!("one node")
        };
        network.lose(node, 30).await?;
        let ping = [
            "sh",
            "-c",
            "ping -n -q -i 0.002 -c 500 -W 1 10.0.0.11; true",
        ];
        let said = network.router().namespace().run(&ping).await?;
        let lost: f64 = said
            .split(", ")
            .find_map(|part| {
                part.strip_suffix("% packet loss")
                    .or_else(|| part.split_once("% packet loss").map(|(n, _)| n))
            })
            .and_then(|number| number.trim().parse().ok())
            .ok_or_else(|| anyhow::anyhow!("ping said {said}"))?;
        // Request and answer each pass with 70 %: 51 % of them are lost, give or take.
        ensure!((38.0..64.0).contains(&lost), "{lost} % were lost");
        Ok(())
    });
}
