//! Addresses on a LAN: the kernel of the client's namespace judges what the speakers do.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use openelb_tests::speakers::{Speakers, VIP, VIP6};
use openelb_tests::{Deadline, eventually, scenario};

const NODES: [&str; 3] = ["alpha", "bravo", "charlie"];

/// The speakers that are not `leader`.
fn others(leader: &str) -> Vec<&'static str> {
    NODES.into_iter().filter(|node| *node != leader).collect()
}

#[test]
fn one_node_answers_each_address_and_the_kernel_believes_it() {
    scenario(async || {
        let speakers = Speakers::start(&NODES, &[]).await?;
        for vip in [VIP, VIP6] {
            let leader = speakers.leader(vip).await?;
            let mac = speakers.lan.neighbour("client", vip)?;
            ensure!(
                mac == speakers.lan.mac(&leader)?,
                "{vip}: {mac} is not {leader}"
            );
        }
        let answers = speakers.lan.run(
            "client",
            &["arping", "-c", "3", "-w", "5", "-I", "eth0", VIP],
        )?;
        ensure!(
            answers.contains("Received 3 response"),
            "each request is answered once: {answers}"
        );
        let leader = speakers.leader(VIP6).await?;
        let answer = speakers
            .lan
            .run("client", &["ndisc6", "-1", "-q", VIP6, "eth0"])?;
        ensure!(
            answer.trim().to_lowercase() == speakers.lan.mac(&leader)?,
            "{answer}"
        );
        let page = speakers.lan.run(
            "client",
            &["bash", "-c", &format!("cat < /dev/tcp/{VIP}/8080")],
        )?;
        ensure!(NODES.contains(&page.trim()), "TCP: {page}");
        Ok(())
    });
}

#[test]
fn duplicate_address_detection_finds_the_address_taken() {
    scenario(async || {
        let speakers = Speakers::start(&NODES, &[]).await?;
        let outcome = speakers.lan.run(
            "client",
            &["arping", "-D", "-c", "2", "-w", "5", "-I", "eth0", VIP],
        );
        ensure!(outcome.is_err(), "an ARP probe must be answered");
        speakers.lan.run(
            "client",
            &[
                "sysctl",
                "-qw",
                "net.ipv6.conf.eth0.accept_dad=1",
                "net.ipv6.conf.eth0.dad_transmits=1",
            ],
        )?;
        speakers
            .lan
            .ip("client", &format!("addr add {VIP6}/64 dev eth0"))?;
        eventually(
            "the client's kernel to refuse its duplicate",
            Deadline::SHORT,
            async || {
                let text = speakers.lan.ip("client", "-6 addr show dev eth0")?;
                ensure!(text.contains("dadfailed"), "{text}");
                Ok(())
            },
        )
        .await
    });
}

/// Breaks the leader in some way and says how long the address was gone.
async fn moves(
    vip: &str,
    fault: impl AsyncFnOnce(&Speakers, &str) -> Result<()>,
) -> Result<openelb_tests::speakers::Move> {
    let speakers = Speakers::start(&NODES, &[]).await?;
    let leader = speakers.leader(vip).await?;
    let prober = speakers.prober(vip)?;
    prober.settled(20, |by| by == leader).await?;
    fault(&speakers, &leader).await?;
    let heirs = others(&leader);
    let moved = prober.settled(30, |by| heirs.contains(&by)).await?;
    println!(
        "moved to {}: gap {:?}, {} lost",
        moved.to, moved.gap, moved.lost
    );
    let mac = speakers.lan.neighbour("client", vip)?;
    ensure!(
        mac == speakers.lan.mac(&moved.to)?,
        "the neighbour table has {mac}"
    );
    Ok(moved)
}

#[test]
fn a_silent_death_moves_the_address() {
    scenario(async || {
        for vip in [VIP, VIP6] {
            let moved = moves(vip, async |speakers, leader| speakers.lan.cut(leader)).await?;
            ensure!(moved.lost > 0, "the cut was no cut");
        }
        Ok(())
    });
}

#[test]
fn a_killed_speaker_loses_the_address_and_no_traffic() {
    scenario(async || {
        // Its node forwards on until the next one has announced itself.
        let moved = moves(VIP, async |speakers, leader| {
            speakers.node(leader)?.kill().await;
            Ok(())
        })
        .await?;
        ensure!(moved.lost == 0, "{moved:?}");
        Ok(())
    });
}

#[test]
fn a_speaker_that_stops_hands_over_without_loss() {
    scenario(async || {
        for vip in [VIP, VIP6] {
            let moved = moves(vip, async |speakers, leader| {
                speakers.node(leader)?.terminate();
                Ok(())
            })
            .await?;
            ensure!(moved.lost == 0, "{moved:?}");
        }
        Ok(())
    });
}

#[test]
fn a_lost_carrier_moves_the_address() {
    scenario(async || {
        moves(VIP, async |speakers, leader| {
            speakers.lan.ip(leader, "link set eth0 down").map(drop)
        })
        .await?;
        Ok(())
    });
}

#[test]
fn a_paused_speaker_and_its_heir_never_answer_side_by_side() {
    scenario(async || {
        let speakers = Speakers::start(&NODES, &[]).await?;
        let leader = speakers.leader(VIP).await?;
        let prober = speakers.prober(VIP)?;
        prober.settled(20, |by| by == leader).await?;
        speakers.node(&leader)?.pause();
        let heirs = others(&leader);
        // Longer than a pause that a busy machine may cause by itself, which is not acted on.
        prober.settled(150, |by| heirs.contains(&by)).await?;
        speakers.node(&leader)?.resume();
        // While the woken node and its heir agree on who goes on, each request has exactly one answer.
        let text = speakers.lan.run(
            "client",
            &["arping", "-c", "4", "-w", "10", "-I", "eth0", VIP],
        )?;
        ensure!(text.contains("Sent 4 probes"), "{text}");
        ensure!(text.contains("Received 4 response"), "{text}");
        // Then it has its address back, without a loss.
        prober.settled(30, |by| by == leader).await?;
        ensure!(
            prober.probes().iter().all(|probe| probe.by.is_some()),
            "a datagram was lost"
        );
        Ok(())
    });
}

#[test]
fn two_halves_without_gossip_agree_by_what_they_hear_on_the_lan() {
    scenario(async || {
        let speakers = Speakers::start(&NODES, &[]).await?;
        let leader = speakers.leader(VIP).await?;
        let prober = speakers.prober(VIP)?;
        prober.settled(20, |by| by == leader).await?;
        speakers.lan.filter(&[
            &format!("iifname \"{leader}\" udp dport 7946 drop"),
            &format!("oifname \"{leader}\" udp dport 7946 drop"),
        ])?;
        // Each half believes the other dead. The address settles where the election of all would have it.
        eventually(
            "the others to miss the leader",
            Deadline::SHORT,
            async || {
                for other in others(&leader) {
                    let log = speakers.node(other)?.log();
                    let last = log
                        .lines()
                        .rfind(|line| line.contains("\"alive\""))
                        .unwrap_or_default()
                        .to_owned();
                    ensure!(!last.contains(&format!("\"{leader}\"")), "{other}: {last}");
                }
                Ok(())
            },
        )
        .await?;
        let mac = speakers.lan.mac(&leader)?;
        eventually("one answer to each request", Deadline::SHORT, async || {
            let text = speakers.lan.run(
                "client",
                &["arping", "-c", "3", "-w", "5", "-I", "eth0", VIP],
            )?;
            let good = text.contains("Received 3 response")
                && text.to_lowercase().matches(&mac).count() == 3;
            ensure!(good, "{text}");
            Ok(())
        })
        .await?;
        // The leader dies for good: the others hear that on the LAN too.
        speakers.lan.cut(&leader)?;
        let heirs = others(&leader);
        prober.settled(30, |by| heirs.contains(&by)).await?;
        Ok(())
    });
}

#[test]
fn a_wrong_key_is_refused() {
    scenario(async || {
        let mut speakers = Speakers::build(&NODES).await?;
        speakers.speak("alpha", &[])?;
        speakers.speak("bravo", &[])?;
        speakers.speak("charlie", &["--key", "another key, known to nobody else"])?;
        speakers.wait_steady(&["alpha", "bravo"]).await?;
        speakers.wait_steady(&["charlie"]).await?;
        for (node, stranger) in [
            ("alpha", "charlie"),
            ("bravo", "charlie"),
            ("charlie", "alpha"),
        ] {
            let log = speakers.node(node)?.log();
            ensure!(
                !log.lines()
                    .any(|line| line.contains("alive") && line.contains(stranger)),
                "{node} knows {stranger}: {log}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_foreign_host_with_our_address_is_reported_and_contradicted() {
    scenario(async || {
        let speakers = Speakers::start(&NODES, &[]).await?;
        let leader = speakers.leader(VIP).await?;
        let own = speakers.lan.mac(&leader)?;
        let foreign = speakers.lan.mac("client")?;
        speakers
            .lan
            .run("client", &["sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1"])?;
        speakers.lan.run(
            "client",
            &["arping", "-U", "-c", "1", "-I", "eth0", "-s", VIP, VIP],
        )?;
        eventually(
            "the leader to report the conflict",
            Deadline::SHORT,
            async || {
                let log = speakers.node(&leader)?.log();
                ensure!(
                    log.contains("Conflict") && log.contains(&octets(&foreign)),
                    "{log}"
                );
                Ok(())
            },
        )
        .await?;
        // It goes on answering: the defence was heard, and traffic is still its own.
        ensure!(
            speakers.leader(VIP).await? == leader,
            "the foreign host was obeyed"
        );
        let answers = speakers.lan.run(
            "client",
            &["arping", "-c", "2", "-w", "5", "-I", "eth0", VIP],
        )?;
        ensure!(
            answers.to_lowercase().matches(&own).count() == 2,
            "{answers}"
        );
        Ok(())
    });
}

/// A hardware address as the speakers' debug output has it.
fn octets(mac: &str) -> String {
    let octets: Vec<String> = mac
        .split(':')
        .map(|o| u8::from_str_radix(o, 16).unwrap_or_default().to_string())
        .collect();
    format!("MacAddr([{}])", octets.join(", "))
}

#[test]
fn an_address_that_a_foreign_host_holds_is_reported_or_avoided() {
    scenario(async || {
        for (policy, announced) in [("avoid", false), ("report", true)] {
            let mut speakers = Speakers::build(&["alpha"]).await?;
            speakers
                .lan
                .ip("client", "addr add 10.0.200.1/16 dev eth0")?;
            speakers
                .lan
                .ip("client", "addr add fd00:10::200:1/64 dev eth0 nodad")?;
            speakers.speak(
                "alpha",
                &["--probe", policy, "--vips", "10.0.200.1,fd00:10::200:1"],
            )?;
            eventually(
                "the probes to find the client",
                Deadline::SHORT,
                async || {
                    let log = speakers.node("alpha")?.log();
                    let found = log.matches("Taken {").count();
                    ensure!(found == 2, "{log}");
                    let answering = log
                        .lines()
                        .rfind(|line| line.contains("\"answering\""))
                        .unwrap_or_default()
                        .to_owned();
                    let count = if announced { 2 } else { 0 };
                    ensure!(
                        answering.contains(&format!("\"answering\":{count}")),
                        "{answering}"
                    );
                    ensure!(answering.contains("SetAside") != announced, "{answering}");
                    Ok(())
                },
            )
            .await?;
        }
        Ok(())
    });
}

#[test]
fn a_thousand_addresses_move() {
    scenario(async || {
        let vips = ["--vips", "10.0.128.0/22,10.0.100.1"];
        let speakers = Speakers::start(&NODES, &vips).await?;
        let answering = |node: &str| -> Result<usize> {
            let log = speakers.node(node)?.log();
            let last = log
                .lines()
                .rfind(|line| line.contains("\"answering\""))
                .unwrap_or_default();
            let count = last
                .split("\"answering\":")
                .nth(1)
                .and_then(|rest| rest.trim_end_matches('}').parse().ok());
            count.with_context(|| format!("{node}: {last}"))
        };
        let sum = async |nodes: &[&str]| {
            eventually("all addresses to be led", Deadline::SHORT, async || {
                let mut all = 0;
                for node in nodes {
                    all += answering(node)?;
                }
                ensure!(all == 1023, "{all} addresses are answered");
                Ok(())
            })
            .await
        };
        sum(&NODES).await?;
        for node in NODES {
            let count = answering(node)?;
            ensure!((240..=440).contains(&count), "{node} leads {count}");
        }
        let leader = speakers.leader(VIP).await?;
        speakers.lan.cut(&leader)?;
        sum(&others(&leader)).await
    });
}

#[test]
fn an_interface_that_appears_or_goes_is_acted_on() {
    scenario(async || {
        let mut speakers = Speakers::build(&["alpha"]).await?;
        speakers.speak("alpha", &["--interface", "lan*", "--vips", VIP])?;
        let sees = async |what: &str| {
            eventually(what, Deadline::SHORT, async || {
                let log = speakers.node("alpha")?.log();
                let last = log
                    .lines()
                    .rfind(|line| line.contains("\"answering\""))
                    .unwrap_or_default()
                    .to_owned();
                ensure!(last.contains(what), "{last}");
                Ok(())
            })
            .await
        };
        tokio::time::timeout(Duration::from_secs(30), sees("\"answering\":0")).await??;
        speakers
            .lan
            .ip("alpha", "link add lan0 type veth peer name lan1")?;
        speakers.lan.ip("alpha", "link set lan1 up")?;
        speakers.lan.ip("alpha", "link set lan0 up")?;
        sees("Answering").await?;
        speakers.lan.ip("alpha", "link del lan0")?;
        sees("\"answering\":0").await
    });
}
