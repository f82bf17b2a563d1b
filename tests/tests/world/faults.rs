//! Level 2: what faults do to traffic, seen by the prober. The times are printed; only what must hold on any machine
//! is asserted.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use openelb_tests::bed::{Bed, VIPS, own, targets};
use openelb_tests::prober::Outcome;
use openelb_tests::{Deadline, Host, Network, Prober, Target, Traffic, eventually, scenario};

pub(crate) use openelb_tests::bed::{all, serve};

#[test]
fn flows_spread_over_three_speakers_and_keep_their_address() {
    scenario(async || {
        let bed = Bed::start(None).await?;
        let mut prober = bed.prober()?;
        prober.answered(800).await?;
        let report = prober.stop().await?;
        ensure!(report.failed() == 0, "{report}");
        ensure!(report.kept_client(), "an address was changed:\n{report}");
        // Each family and each protocol for itself.
        for target in targets(&VIPS)? {
            let of = report.of(target);
            println!("{target:?}: {:?}", of.by_node());
            let fair = of.answered() / 3;
            let even = |count: &usize| (fair / 2..fair * 2).contains(count);
            ensure!(
                of.by_node().len() == 3 && of.by_node().values().all(even),
                "unfair: {target:?} {:?}",
                of.by_node()
            );
        }
        Ok(())
    });
}

/// A router that hashes flows over the paths it has breaks connections of the others too when one goes.
#[test]
fn a_withdrawn_path_breaks_the_connections_that_are_hashed_anew() {
    scenario(async || {
        let bed = Bed::start(None).await?;
        let held = all(&[VIPS[0].parse()?], &[Traffic::Held]);
        let many = held.repeat(60);
        let mut prober = Prober::start(bed.network.client(), &many)?;
        prober.answered(300).await?;
        let fault = prober.mark("n1's speaker withdraws; its server stays");
        bed.speakers.first().context("no speaker")?.stop().await?;
        bed.converged(2).await?;
        prober.answered(600).await?;
        let report = prober.stop().await?;
        let reset = report.probes().iter();
        let reset = reset.filter(|probe| probe.outcome == Outcome::Reset);
        let reset: BTreeSet<usize> = reset.map(|probe| probe.connection).collect();
        println!("{} of 60 connections were reset", reset.len());
        ensure!(report.failed_before(fault) == 0, "{report}");
        // At least those of the node that left, whose third may be a small one; not all.
        ensure!((6..60).contains(&reset.len()), "{reset:?}: {report}");
        Ok(())
    });
}

#[test]
fn a_closed_session_moves_traffic_before_any_timer() {
    scenario(async || {
        let bed = Bed::start(None).await?;
        let mut prober = bed.prober()?;
        prober.answered(100).await?;
        let (Some(speaker), Some(server)) = (bed.speakers.first(), bed.servers.first()) else {
            anyhow::bail!("no bed")
        };
        let fault = prober.mark("n1's speaker and pod are killed");
        tokio::join!(speaker.kill(), server.kill());
        bed.converged(2).await?;
        prober.answered(100).await?;
        let report = prober.stop().await?;
        println!(
            "session closed (reference: about 75 ms): last failing probe {:?} after, gap {:?}\n{report}",
            report.trouble_after(fault),
            report.gap()
        );
        ensure!(report.failed_before(fault) == 0, "{report}");
        // The hold time is 90 s: only the closed connection can have told the router.
        ensure!(
            report.trouble_after(fault) < Duration::from_secs(20),
            "{report}"
        );
        ensure!(report.by_node().len() == 3, "{report}");
        Ok(())
    });
}

#[test]
fn bfd_notices_a_dead_node_long_before_the_hold_time() {
    scenario(async || {
        let bed = Bed::start(Some(100)).await?;
        for node in bed.network.nodes() {
            eventually("BFD to be up", Deadline::LONG, async || {
                let peers = bed.router.bfd_peers().await?;
                ensure!(
                    peers
                        .iter()
                        .any(|peer| peer.up && IpAddr::from(node.v4) == peer.address),
                    "{peers:?}"
                );
                Ok(())
            })
            .await?;
        }
        let mut prober = bed.prober()?;
        prober.answered(100).await?;
        let fault = prober.mark("n1 is unplugged");
        bed.network.unplug(bed.network.node("n1")?).await?;
        bed.converged(2).await?;
        prober.answered(100).await?;
        let report = prober.stop().await?;
        println!(
            "BFD 3 × 100 ms (reference: under 400 ms): last failing probe {:?} after, gap {:?}\n{report}",
            report.trouble_after(fault),
            report.gap()
        );
        ensure!(
            report.lost() > 0,
            "nothing was lost, so nothing was unplugged:\n{report}"
        );
        ensure!(
            report.trouble_after(fault) < Duration::from_secs(20),
            "{report}"
        );
        Ok(())
    });
}

#[test]
fn a_restarted_router_finds_its_routes_again() {
    scenario(async || {
        let bed = Bed::start(None).await?;
        bed.router.kill().await;
        bed.router.restart().await?;
        bed.converged(3).await?;
        let mut prober = bed.prober()?;
        prober.answered(100).await
    });
}

/// Two addresses of the nodes' segment.
const SEGMENT: [&str; 2] = ["10.0.0.100", "fd00:10::100"];

#[test]
fn a_paused_router_is_missed_by_bfd_and_found_again() {
    scenario(async || {
        let bed = Bed::start(Some(100)).await?;
        let up = async |wanted: bool| {
            eventually("BFD to notice", Deadline::LONG, async || {
                for speaker in &bed.speakers {
                    let peers = speaker.bfd_peers().await?;
                    ensure!(peers.len() == 1 && peers[0].up == wanted, "{peers:?}");
                }
                Ok(())
            })
            .await
        };
        up(true).await?;
        bed.router.pause();
        up(false).await?;
        bed.router.resume();
        up(true).await?;
        bed.converged(3).await
    });
}

/// A move of two addresses from a dead node to another on the segment, and how long these of them were missed; only the
/// IPv4 one is announced, or none.
async fn moves_on_the_segment(announce: bool, watched: &[&str]) -> Result<Vec<Duration>> {
    let [vip, vip6] = SEGMENT;
    let network = Network::start(2).await?;
    let [old, new] = network.nodes() else {
        anyhow::bail!("two nodes")
    };
    // The kernel answers for an IPv6 address on the interface that has it, and on no other.
    let on_link = format!("addr add {vip6}/128 dev eth0 nodad\n");
    let _old_server = serve(&network, old, &[vip]).await?;
    old.namespace().ip(&on_link).await?;
    let _new_server = serve(&network, new, &[]).await?;
    let watched: Vec<IpAddr> = watched
        .iter()
        .map(|vip| vip.parse())
        .collect::<Result<_, _>>()?;
    let targets = all(&watched, &[Traffic::Tcp]);
    let mut prober = Prober::start(network.lan_client(), &targets)?;
    prober.answered(100).await?;
    let fault = prober.mark("the old owner is unplugged, the new one takes the addresses");
    network.unplug(old).await?;
    own(new, vip).await?;
    new.namespace().ip(&on_link).await?;
    if announce {
        new.namespace()
            .run(&["arping", "-q", "-c", "2", "-U", "-I", "eth0", vip])
            .await?;
    }
    // Until the client has found the new owner of both.
    for target in &targets {
        found_by(network.lan_client(), *target, new.name()).await?;
    }
    prober.answered(100).await?;
    let report = prober.stop().await?;
    let mut troubles = Vec::new();
    for target in &targets {
        let of = report.of(*target);
        let trouble = of.trouble_after(fault);
        troubles.push(trouble);
        println!(
            "gratuitous ARP: {announce} (reference: about 30 s without): last failing probe {trouble:?} after\n{of}"
        );
        ensure!(of.by_node().len() == 2, "the address did not move:\n{of}");
    }
    Ok(troubles)
}

/// Waits until a node answers for a target.
async fn found_by(client: &Host, target: Target, node: &str) -> Result<()> {
    eventually(
        &format!("an answer of {node}"),
        Deadline::LONG,
        async || {
            let address = target.address.to_string();
            let line = client.namespace().enter(|| {
                use std::io::Read;
                let within = Duration::from_secs(1);
                let mut stream = std::net::TcpStream::connect_timeout(&target.address, within)?;
                stream.set_read_timeout(Some(within))?;
                let mut line = [0; 64];
                let length = stream.read(&mut line)?;
                Ok(String::from_utf8_lossy(line.get(..length).unwrap_or_default()).into_owned())
            })?;
            ensure!(line.starts_with(node), "{address}: {line}");
            Ok(())
        },
    )
    .await
}

#[test]
fn without_gratuitous_arp_a_moved_address_is_missed_for_long() {
    scenario(async || {
        for trouble in moves_on_the_segment(false, &SEGMENT).await? {
            // The kernel believes an entry for at least 15 s after it was last confirmed.
            ensure!(
                trouble > Duration::from_secs(10),
                "the neighbour table gave up after {trouble:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn gratuitous_arp_moves_an_address_at_once() {
    scenario(async || {
        for trouble in moves_on_the_segment(true, &SEGMENT[..1]).await? {
            ensure!(
                trouble < Duration::from_secs(10),
                "the announcement was not heard for {trouble:?}"
            );
        }
        Ok(())
    });
}
