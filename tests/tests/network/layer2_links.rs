//! What interfaces, switches and strangers do, and how the speakers take it. The kernels of other namespaces judge.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use openelb_tests::speakers::{NODES, Speakers, VIP, VIP6, tool};
use openelb_tests::{Deadline, Program, eventually, scenario};

/// Solicited-node group of [`VIP6`], as the kernel writes it, and its Ethernet address.
const GROUP: &str = "ff02::1:ff01:100";
const GROUP_MAC: &str = "33:33:ff:01:01:00";

/// The groups that a host's `eth0` receives.
fn groups(speakers: &Speakers, host: &str) -> Result<String> {
    speakers.lan.ip(host, "maddr show dev eth0")
}

#[test]
fn a_switch_that_snoops_forwards_solicitations_to_the_leader() {
    scenario(async || {
        let mut speakers = Speakers::build(&NODES).await?;
        speakers.lan.snoop()?;
        for node in NODES {
            speakers.speak(node, &[])?;
        }
        speakers.wait_steady(&NODES).await?;
        let leader = speakers.leader(VIP6).await?;
        eventually(
            "the switch to know the leader's port",
            Deadline::SHORT,
            async || {
                let groups = speakers
                    .lan
                    .run("switch", &["bridge", "mdb", "show", "dev", "br0"])?;
                let mut members = groups.lines().filter(|line| line.contains(GROUP));
                ensure!(
                    members.any(|line| line.contains(&format!("port {leader} "))),
                    "{groups}"
                );
                Ok(())
            },
        )
        .await?;
        ensure!(groups(&speakers, &leader)?.contains(GROUP_MAC));
        for other in speakers.others(&leader) {
            let joined = groups(&speakers, other)?;
            ensure!(!joined.contains(GROUP_MAC), "{other}: {joined}");
        }
        let answers = speakers.lan.ask("client", VIP6, 1)?;
        ensure!(answers == [speakers.lan.mac(&leader)?], "{answers:?}");
        // It gives the address up: nobody sends it solicitations any more, and the heir gets them.
        speakers.node(&leader)?.signal(Signal::SIGUSR1);
        eventually(
            "the former leader to leave the group",
            Deadline::SHORT,
            async || {
                let joined = groups(&speakers, &leader)?;
                ensure!(!joined.contains(GROUP_MAC), "{joined}");
                Ok(())
            },
        )
        .await?;
        let answers = speakers.lan.ask("client", VIP6, 1)?;
        ensure!(
            !answers.contains(&speakers.lan.mac(&leader)?),
            "{answers:?}"
        );
        Ok(())
    });
}

#[test]
fn a_thousand_addresses_of_ipv6_are_heard_through_a_switch_that_snoops() {
    scenario(async || {
        let mut speakers = Speakers::build(&["alpha"]).await?;
        speakers.lan.snoop()?;
        speakers.speak("alpha", &["--vips", "fd00:10::2:0/117"])?;
        eventually("all addresses to be led", Deadline::LONG, async || {
            let log = speakers.node("alpha")?.log();
            ensure!(
                log.contains("\"answering\":1000"),
                "{:?}",
                log.lines().last()
            );
            Ok(())
        })
        .await?;
        let own = speakers.lan.mac("alpha")?;
        for last in ["0", "64", "3e7"] {
            let vip = format!("fd00:10::2:{last}");
            eventually(
                &format!("{vip} to be answered"),
                Deadline::SHORT,
                async || {
                    let answers = speakers.lan.ask("client", &vip, 1)?;
                    ensure!(answers == [&*own], "{answers:?}");
                    Ok(())
                },
            )
            .await?;
        }
        // By far more groups than a network card filters one by one.
        let link = speakers.lan.ip("alpha", "-d link show eth0")?;
        ensure!(link.contains("allmulti 1"), "{link}");
        Ok(())
    });
}

#[test]
fn a_pulled_cable_moves_the_addresses() {
    scenario(async || {
        for vip in [VIP, VIP6] {
            let speakers = Speakers::start(&NODES, &[]).await?;
            let (leader, prober) = speakers.led(vip).await?;
            speakers.lan.unplug(&leader)?;
            let moved = prober.settled(30, |by| by != leader).await?;
            let heir = speakers.lan.mac(&moved.to)?;
            speakers.believed(vip, &heir).await?;
            // The speaker knows it by its own interface, not only by the others, who may tell it first.
            speakers.says(&leader, "\"answering\"", "on None").await?;
        }
        Ok(())
    });
}

#[test]
fn a_new_hardware_address_is_announced_at_once() {
    scenario(async || {
        let speakers = Speakers::start(&NODES, &[]).await?;
        for vip in [VIP, VIP6] {
            let (leader, prober) = speakers.led(vip).await?;
            let mac = if vip == VIP {
                "02:00:00:00:77:04"
            } else {
                "02:00:00:00:77:06"
            };
            speakers
                .lan
                .ip(&leader, &format!("link set eth0 address {mac}"))?;
            speakers.believed(vip, mac).await?;
            prober.settled(20, |by| by == leader).await?;
        }
        Ok(())
    });
}

#[test]
fn an_address_that_the_node_loses_or_gets_decides_whether_it_may_lead() {
    scenario(async || {
        let speakers = Speakers::start(&NODES, &[]).await?;
        let (leader, prober) = speakers.led(VIP6).await?;
        let own = speakers
            .lan
            .ip(&leader, "-6 -o addr show dev eth0 scope global")?;
        let own = own
            .split_whitespace()
            .find(|word| word.starts_with("fd00:10::"))
            .context("no address of IPv6")?;
        // No subnet of any of its interfaces holds the address any more, and there is no default route.
        speakers
            .lan
            .ip(&leader, &format!("addr del {own} dev eth0"))?;
        prober.settled(30, |by| by != leader).await?;
        speakers
            .lan
            .ip(&leader, &format!("addr add {own} dev eth0 nodad"))?;
        prober.settled(30, |by| by == leader).await?;
        Ok(())
    });
}

#[test]
fn a_bridge_answers_once_in_place_of_its_port() {
    scenario(async || {
        let mut speakers = Speakers::build(&["alpha"]).await?;
        let lan = &speakers.lan;
        let mac = lan.mac("alpha")?;
        lan.ip(
            "alpha",
            "link add br0 type bridge mcast_snooping 0 forward_delay 0",
        )?;
        lan.ip("alpha", &format!("link set br0 address {mac}"))?;
        lan.ip("alpha", "addr flush dev eth0")?;
        lan.ip("alpha", "link set eth0 master br0")?;
        lan.ip("alpha", "addr add 10.0.0.1/16 dev br0")?;
        lan.ip("alpha", "addr add fd00:10::1/64 dev br0 nodad")?;
        lan.ip("alpha", "link set br0 up")?;
        speakers.speak("alpha", &[])?;
        ensure!(speakers.leader(VIP).await? == "alpha");
        ensure!(speakers.leader(VIP6).await? == "alpha");
        let log = speakers.node("alpha")?.log();
        ensure!(log.contains("interface: \\\"br0\\\""), "{log}");
        for vip in [VIP, VIP6] {
            let answers = speakers.lan.ask("client", vip, 3)?;
            ensure!(answers.len() == 3, "{answers:?}");
        }
        Ok(())
    });
}

#[test]
fn a_frame_that_two_interfaces_show_is_answered_once_by_the_chosen_one() {
    scenario(async || {
        for chosen in ["eth0", "upper"] {
            let mut speakers = Speakers::build(&["alpha"]).await?;
            let lan = &speakers.lan;
            // Both show what is sent to all, as a bond and its port do.
            lan.ip(
                "alpha",
                "link add link eth0 name upper type macvlan mode bridge",
            )?;
            lan.ip("alpha", "link set upper up")?;
            let path = format!("/sys/class/net/{chosen}/address");
            let mac = lan.run("alpha", &["cat", &path])?.trim().to_lowercase();
            let own = lan.mac("client")?;
            speakers.speak("alpha", &["--interface", chosen])?;
            let capture = speakers.claims().await?;
            for (vip, last) in [(VIP, "10.0.0.1"), (VIP6, "fd00:10::1")] {
                eventually("somebody to answer", Deadline::SHORT, async || {
                    speakers.lan.ask("client", vip, 1).map(drop)
                })
                .await?;
                let answers = async |of: &str| {
                    // What is asked for afterwards, of the kernel, is answered: all that was to come has come.
                    let claims = || capture.claims().into_iter().filter(|one| one.to == own);
                    let told = || {
                        claims()
                            .filter(|one| one.address.to_string() == last)
                            .count()
                    };
                    let before = told();
                    speakers.lan.ask("client", last, 1)?;
                    eventually("the last answer", Deadline::SHORT, async || {
                        ensure!(told() > before);
                        anyhow::Ok(())
                    })
                    .await?;
                    let claims = claims().filter(|one| one.address.to_string() == of);
                    anyhow::Ok(claims.map(|one| one.from).collect::<Vec<_>>())
                };
                let before = answers(vip).await?.len();
                speakers.lan.ask("client", vip, 3)?;
                let after = answers(vip).await?;
                let new = after.get(before..).unwrap_or_default();
                ensure!(*new == vec![mac.clone(); 3], "{vip}: {new:?}, not {mac}");
            }
            let log = speakers.node("alpha")?.log();
            ensure!(!log.contains("Conflict"), "it contradicts itself: {log}");
        }
        Ok(())
    });
}

/// How many frames came past the filter of a node's speaker so far.
async fn frames(speakers: &Speakers, node: &str) -> Result<u64> {
    let process = speakers.node(node)?;
    let told = || process.log().matches("\"frames\":").count();
    let before = told();
    process.signal(Signal::SIGUSR2);
    eventually(
        "the speaker to tell its figure",
        Deadline::SHORT,
        async || {
            ensure!(told() > before);
            let log = process.log();
            let last = log.rsplit("\"frames\":").next().unwrap_or_default();
            let number: String = last.chars().take_while(char::is_ascii_digit).collect();
            Ok(number.parse()?)
        },
    )
    .await
}

#[test]
fn a_flood_for_other_addresses_stays_in_the_kernel() {
    scenario(async || {
        let speakers = Speakers::alone(&["--vips", &format!("10.0.128.0/24,{VIP},{VIP6}")]).await?;
        let ask = async |arguments: &[&str]| -> Result<()> {
            let name = format!("ask-{}", rand::random::<u32>());
            let program = Program::new(&name, tool()?).args(arguments);
            let status = speakers
                .lan
                .start("client", program)?
                .ended(Deadline::SHORT)
                .await?;
            ensure!(status.success(), "{status}");
            Ok(())
        };
        let before = frames(&speakers, "alpha").await?;
        ask(&["ask", "10.0.192.0", "--count", "10000", "--flood"]).await?;
        // What is asked for afterwards is answered: the flood is through.
        ask(&["ask", VIP, "--count", "20"]).await?;
        let came = frames(&speakers, "alpha").await? - before;
        ensure!(
            (20..200).contains(&came),
            "{came} frames of 10,020 reached the speaker"
        );
        Ok(())
    });
}

#[test]
fn a_request_in_a_vlan_is_none_of_the_interface_that_carries_it() {
    scenario(async || {
        let speakers = Speakers::alone(&[]).await?;
        for (vlan, answered) in [("0", true), ("100", false)] {
            let program = Program::new(&format!("ask-in-{vlan}"), tool()?)
                .args(["ask", VIP, "--count", "1", "--vlan", vlan]);
            let asked = speakers.lan.start("client", program)?;
            let status = asked.ended(Deadline::SHORT).await?;
            ensure!(status.success() == answered, "VLAN {vlan}: {}", asked.log());
        }
        Ok(())
    });
}

#[test]
fn a_third_host_that_believed_a_foreign_claim_is_told_better() {
    scenario(async || {
        let mut speakers = Speakers::build(&["alpha", "third"]).await?;
        speakers
            .lan
            .ip("third", &format!("addr del {VIP}/32 dev lo"))?;
        speakers.lan.run(
            "third",
            &["sysctl", "-qw", "net.ipv4.neigh.eth0.locktime=0"],
        )?;
        speakers.speak("alpha", &[])?;
        ensure!(speakers.leader(VIP).await? == "alpha");
        let (own, foreign) = (speakers.lan.mac("alpha")?, speakers.lan.mac("client")?);
        let monitor = Program::new("monitor", "/sbin/ip").args(["monitor", "neigh"]);
        let monitor = speakers.lan.start("third", monitor)?;
        // Since when it hears of changes it does not say.
        eventually("the monitor to listen", Deadline::SHORT, async || {
            let other = "neigh replace 10.0.0.254 lladdr 02:00:00:00:00:fe dev eth0 nud permanent";
            speakers.lan.ip("third", other)?;
            speakers.lan.ip("third", "neigh del 10.0.0.254 dev eth0")?;
            ensure!(monitor.log().contains("10.0.0.254"), "it hears nothing");
            Ok(())
        })
        .await?;
        speakers
            .lan
            .run("third", &["ping", "-n", "-c", "1", "-W", "5", VIP])?;
        speakers
            .lan
            .run("client", &["sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1"])?;
        let claim = [
            "arping", "-U", "-c", "1", "-w", "2", "-I", "eth0", "-s", VIP, VIP,
        ];
        // It reports that nobody answered a gratuitous request.
        let _ = speakers.lan.run("client", &claim);
        eventually(
            "the third host to be told better",
            Deadline::SHORT,
            async || {
                let log = monitor.log();
                let changes: Vec<&str> = log.lines().filter(|line| line.contains(VIP)).collect();
                let poisoned = changes.iter().position(|line| line.contains(&foreign));
                let poisoned =
                    poisoned.with_context(|| format!("it never believed it: {changes:?}"))?;
                let later = changes.get(poisoned..).unwrap_or_default();
                ensure!(later.iter().any(|line| line.contains(&own)), "{changes:?}");
                Ok(())
            },
        )
        .await
    });
}
