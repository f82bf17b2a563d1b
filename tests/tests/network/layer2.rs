//! Addresses on a LAN: the kernel of the client's namespace judges what the speakers do.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use openelb_tests::speakers::{NODES, Speakers, VIP, VIP6};
use openelb_tests::{Deadline, eventually, scenario};

/// Both families: every fault is made for each.
const BOTH: [&str; 2] = [VIP, VIP6];

#[test]
fn one_node_answers_each_address_and_the_kernel_believes_it() {
    scenario(async || {
        let speakers = Speakers::start(&NODES, &[]).await?;
        for vip in BOTH {
            let leader = speakers.leader(vip).await?;
            let mac = speakers.lan.mac(&leader)?;
            speakers.believed(vip, &mac).await?;
            let answers = speakers.lan.ask("client", vip, 3)?;
            ensure!(answers == [&*mac; 3], "{vip}: {answers:?}, not {mac}");
        }
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
    let (leader, prober) = speakers.led(vip).await?;
    fault(&speakers, &leader).await?;
    let heirs = speakers.others(&leader);
    let moved = prober.settled(30, |by| heirs.contains(&by)).await?;
    println!(
        "{vip} moved to {}: gap {:?}, {} lost",
        moved.to, moved.gap, moved.lost
    );
    let heir = speakers.lan.mac(&moved.to)?;
    speakers.believed(vip, &heir).await?;
    Ok(moved)
}

#[test]
fn a_silent_death_moves_the_address() {
    scenario(async || {
        for vip in BOTH {
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
        for vip in BOTH {
            let moved = moves(vip, async |speakers, leader| {
                speakers.node(leader)?.kill().await;
                Ok(())
            })
            .await?;
            ensure!(moved.lost == 0, "{moved:?}");
        }
        Ok(())
    });
}

#[test]
fn a_speaker_that_stops_hands_over_without_loss() {
    scenario(async || {
        for vip in BOTH {
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
        for vip in BOTH {
            moves(vip, async |speakers, leader| {
                speakers.lan.ip(leader, "link set eth0 down").map(drop)
            })
            .await?;
        }
        Ok(())
    });
}

#[test]
fn a_paused_speaker_and_its_heir_never_answer_side_by_side() {
    scenario(async || {
        for vip in BOTH {
            let speakers = Speakers::start(&NODES, &[]).await?;
            let (leader, prober) = speakers.led(vip).await?;
            speakers.node(&leader)?.pause();
            let heirs = speakers.others(&leader);
            // Longer than a pause that a busy machine may cause by itself, which is not acted on.
            prober.settled(150, |by| heirs.contains(&by)).await?;
            speakers.node(&leader)?.resume();
            // While the woken node and its heir agree on who goes on, each request has exactly one answer.
            let answers = speakers.lan.ask("client", vip, 4)?;
            ensure!(answers.len() == 4, "{vip}: {answers:?}");
            // Then it has its address back, without a loss.
            prober.settled(30, |by| by == leader).await?;
            ensure!(
                prober.probes().iter().all(|probe| probe.by.is_some()),
                "{vip}: a datagram was lost"
            );
        }
        Ok(())
    });
}

#[test]
fn two_halves_without_gossip_agree_by_what_they_hear_on_the_lan() {
    scenario(async || {
        for vip in BOTH {
            let speakers = Speakers::start(&NODES, &[]).await?;
            let (leader, prober) = speakers.led(vip).await?;
            speakers.lan.filter(&[
                &format!("iifname \"{leader}\" udp dport 7946 drop"),
                &format!("oifname \"{leader}\" udp dport 7946 drop"),
            ])?;
            // Each half believes the other dead. The address settles where the election of all would have it.
            eventually(
                "the others to miss the leader",
                Deadline::SHORT,
                async || {
                    for other in speakers.others(&leader) {
                        let last = speakers.last_word(other, "\"alive\"")?;
                        ensure!(!last.contains(&format!("\"{leader}\"")), "{other}: {last}");
                    }
                    Ok(())
                },
            )
            .await?;
            let mac = speakers.lan.mac(&leader)?;
            eventually("one answer to each request", Deadline::SHORT, async || {
                let answers = speakers.lan.ask("client", vip, 3)?;
                ensure!(answers == [&*mac; 3], "{vip}: {answers:?}, not {mac}");
                Ok(())
            })
            .await?;
            // The leader dies for good: the others hear that on the LAN too.
            speakers.lan.cut(&leader)?;
            let heirs = speakers.others(&leader);
            prober.settled(30, |by| heirs.contains(&by)).await?;
        }
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
        let answers = speakers.lan.ask("client", VIP, 2)?;
        ensure!(answers == [&*own; 2], "{answers:?}, not {own}");
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
                    let answering = speakers.last_word("alpha", "\"answering\"")?;
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

/// How many addresses a node answers for, by its own account.
fn answering(speakers: &Speakers, node: &str) -> Result<usize> {
    let last = speakers.last_word(node, "\"answering\"")?;
    let count = last
        .split("\"answering\":")
        .nth(1)
        .and_then(|rest| rest.trim_end_matches('}').parse().ok());
    count.with_context(|| format!("{node}: {last}"))
}

/// Waits until these nodes together answer for so many addresses.
pub(super) async fn all_led(speakers: &Speakers, nodes: &[&str], wanted: usize) -> Result<()> {
    eventually("all addresses to be led", Deadline::SHORT, async || {
        let mut all = 0;
        for node in nodes {
            all += answering(speakers, node)?;
        }
        ensure!(all == wanted, "{all} addresses are answered");
        Ok(())
    })
    .await
}

/// Waits until the client's kernel has all of these addresses at one of these nodes. Until it has an entry for each it is
/// made to look.
async fn all_believed(speakers: &Speakers, addresses: &[String], nodes: &[&str]) -> Result<()> {
    let macs = nodes.iter().map(|node| speakers.lan.mac(node));
    let macs = macs.collect::<Result<BTreeSet<String>>>()?;
    let wanted: BTreeSet<&str> = addresses.iter().map(String::as_str).collect();
    eventually(
        "all addresses to be believed",
        Deadline::SHORT,
        async || {
            let table = speakers.lan.ip("client", "neigh show dev eth0")?;
            let entries = table.lines().filter_map(|line| {
                let (address, rest) = line.split_once(' ')?;
                let (_, mac) = rest.split_once("lladdr ")?;
                Some((address, mac.split(' ').next()?))
            });
            let found: BTreeMap<&str, &str> = entries
                .filter(|(address, _)| wanted.contains(address))
                .collect();
            let missing = wanted.iter().filter(|ip| !found.contains_key(*ip));
            let look = missing.map(|ip| format!("echo > /dev/udp/{ip}/9; "));
            let look = look.collect::<Vec<_>>().concat();
            if !look.is_empty() {
                speakers.lan.run("client", &["bash", "-c", &look])?;
            }
            let wrong: Vec<_> = found
                .iter()
                .filter(|(_, mac)| !macs.contains(**mac))
                .collect();
            ensure!(look.is_empty() && wrong.is_empty(), "{look} {wrong:?}");
            Ok(())
        },
    )
    .await
}

#[test]
fn a_thousand_addresses_move() {
    scenario(async || {
        // So many of them as a kernel remembers without tidying up.
        let v4: Vec<String> = (1..=100).map(|n| format!("10.0.129.{n}")).collect();
        let v6: Vec<String> = (1..=100).map(|n| format!("fd00:10::2:{n:x}")).collect();
        for (vip, range, count, sample) in [
            (VIP, "10.0.128.0/22", 1023, v4),
            (VIP6, "fd00:10::2:0/117", 1001, v6),
        ] {
            let speakers = Speakers::start(&NODES, &["--vips", &format!("{range},{vip}")]).await?;
            all_led(&speakers, &NODES, count).await?;
            for node in NODES {
                let led = answering(&speakers, node)?;
                ensure!((240..=440).contains(&led), "{node} leads {led}");
            }
            all_believed(&speakers, &sample, &NODES).await?;
            let leader = speakers.leader(vip).await?;
            speakers.lan.cut(&leader)?;
            let heirs = speakers.others(&leader);
            all_led(&speakers, &heirs, count).await?;
            // Nobody asks again: it is told.
            all_believed(&speakers, &sample, &heirs).await?;
        }
        Ok(())
    });
}

#[test]
fn an_interface_that_appears_or_goes_is_acted_on() {
    scenario(async || {
        let mut speakers = Speakers::build(&["alpha"]).await?;
        speakers.speak("alpha", &["--interface", "lan*", "--vips", VIP])?;
        let sees = async |what: &str| speakers.says("alpha", "\"answering\"", what).await;
        sees("\"answering\":0").await?;
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
