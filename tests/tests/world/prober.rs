//! Level 2: the prober tells apart what can become of traffic.

use std::net::IpAddr;

use anyhow::ensure;
use openelb_tests::prober::{Outcome, Refusal, Report};
use openelb_tests::{Deadline, Host, Network, Prober, Target, Traffic, eventually, scenario};

use crate::faults::{all, serve};

const KINDS: [Traffic; 4] = [Traffic::Tcp, Traffic::Udp, Traffic::Held, Traffic::Flow];

/// How many probes of one kind, in both families together, ended so.
fn count(report: &Report, addresses: &[IpAddr], kind: Traffic, outcome: &Outcome) -> usize {
    all(addresses, &[kind])
        .into_iter()
        .flat_map(|target| report.of(target).probes().to_vec())
        .filter(|probe| probe.outcome == *outcome)
        .count()
}

#[test]
fn answers_losses_resets_and_refusals_are_told_apart_for_every_kind_of_traffic() {
    scenario(async || {
        let network = Network::start(1).await?;
        let [node] = network.nodes() else {
            anyhow::bail!("one node")
        };
        let server = serve(&network, node, &[]).await?;
        let addresses = node.addresses();
        let targets = all(&addresses, &KINDS);
        let mut prober = Prober::start(network.client(), &targets)?;
        prober.answered(400).await?;
        let fault = prober.mark("the server is killed");
        server.kill().await;
        prober.failed(100).await?;
        server.restart().await?;
        prober.answered(400).await?;
        let dark = prober.mark("unplugged");
        network.unplug(node).await?;
        prober.failed(400).await?;
        network.plug(node).await?;
        prober.answered(400).await?;
        let report = prober.stop().await?;
        println!("{report}");
        ensure!(report.failed_before(fault) == 0, "{report}");
        ensure!(
            report.kept_client(),
            "the client's address was changed: {report}"
        );
        ensure!(
            report.by_node().into_keys().eq(["n1".to_owned()])
                && report.by_pod().into_keys().eq(["pod-n1".to_owned()]),
            "{:?} {:?}",
            report.by_node(),
            report.by_pod()
        );
        for target in &targets {
            ensure!(report.of(*target).answered() > 0, "{target:?}: {report}");
            ensure!(
                report.of(*target).lost() > 0,
                "{target:?} lost nothing: {report}"
            );
        }
        for (kind, outcome) in [
            // The kernel of a host without the server closes what is open and refuses what is new.
            (Traffic::Held, Outcome::Reset),
            (Traffic::Tcp, Outcome::Refused(Refusal::Reset)),
            (Traffic::Udp, Outcome::Refused(Refusal::Untold)),
            (Traffic::Flow, Outcome::Refused(Refusal::Untold)),
        ] {
            ensure!(
                count(&report, &addresses, kind, &outcome) > 0,
                "{kind:?} saw no {outcome:?}: {report}"
            );
        }
        ensure!(report.gap() > std::time::Duration::ZERO, "{report}");
        ensure!(report.marks().len() == 2 && report.clock(dark) > report.clock(fault));
        Ok(())
    });
}

#[test]
fn a_changed_client_address_is_noticed() {
    scenario(async || {
        let network = Network::start(1).await?;
        let [node] = network.nodes() else {
            anyhow::bail!("one node")
        };
        let _server = serve(&network, node, &[]).await?;
        network
            .router()
            .namespace()
            .nft("table ip hide { chain out { type nat hook postrouting priority 100; oifname \"lan0\" masquerade; }; }\n")
            .await?;
        for (address, kept) in [(IpAddr::from(node.v4), false), (node.v6.into(), true)] {
            let mut prober = Prober::start(network.client(), &all(&[address], &KINDS))?;
            prober.answered(50).await?;
            let report = prober.stop().await?;
            ensure!(report.kept_client() == kept, "{address}: {report}");
        }
        Ok(())
    });
}

/// Asks from a host until somebody has refused, and tells who did.
async fn refusal(from: &Host, target: Target) -> anyhow::Result<Outcome> {
    let what = format!("a refusal of {}", target.address);
    eventually(&what, Deadline::SHORT, async || {
        let mut prober = Prober::start(from, &[target])?;
        prober.failed(1).await?;
        let report = prober.stop().await?;
        let refused = report.probes().iter().map(|probe| &probe.outcome);
        let mut refused =
            refused.filter(|outcome| !outcome.is_good() && **outcome != Outcome::Lost);
        let first = refused.next().cloned();
        anyhow::Context::context(first, report.to_string())
    })
    .await
}

/// A closed port and a packet filter are two things, though both of them refuse.
#[test]
fn who_refuses_is_told() {
    scenario(async || {
        let network = Network::start(1).await?;
        let [node] = network.nodes() else {
            anyhow::bail!("one node")
        };
        let targets = all(&node.addresses(), &[Traffic::Tcp]);
        for target in &targets {
            let seen = refusal(network.lan_client(), *target).await?;
            ensure!(seen == Outcome::Refused(Refusal::Reset), "{seen}");
        }
        node.namespace()
            .nft("table inet no { chain in { type filter hook input priority 0; tcp dport 80 reject with icmpx type port-unreachable; }; }\n")
            .await?;
        for target in &targets {
            let (kind, code) = if target.address.is_ipv4() {
                (3, 3)
            } else {
                (1, 4)
            };
            let from = Some(target.address.ip());
            let seen = refusal(network.lan_client(), *target).await?;
            let wanted = Outcome::Refused(Refusal::Icmp { from, kind, code });
            ensure!(seen == wanted, "{seen}");
        }
        Ok(())
    });
}

/// Nobody answers ARP or NDP for a host that is dead, and who asked in vain says so: the router to the client behind it,
/// and a host's own kernel to itself.
#[test]
fn a_dead_neighbour_is_told_by_who_asked_for_it() {
    scenario(async || {
        let network = Network::start(1).await?;
        let [node] = network.nodes() else {
            anyhow::bail!("one node")
        };
        let targets = all(&node.addresses(), &[Traffic::Tcp]);
        // The kernel asks three times before it says no: within the second that a probe waits.
        for (host, interface) in [(network.router(), "lan0"), (network.lan_client(), "eth0")] {
            let sooner = ["ipv4", "ipv6"]
                .map(|family| format!("net.{family}.neigh.{interface}.retrans_time_ms=100"));
            let sooner: Vec<&str> = sooner.iter().map(String::as_str).collect();
            host.namespace().sysctl(&sooner).await?;
        }
        network.unplug(node).await?;
        let (client, lan) = (network.client(), network.lan_client());
        for (from, tellers) in [
            (client, ["192.168.100.1", "fd00:100::1"].map(str::parse)),
            (lan, lan.addresses().map(Ok)),
        ] {
            for (target, teller) in targets.iter().zip(tellers) {
                let (kind, code) = if target.address.is_ipv4() {
                    (3, 1)
                } else {
                    (1, 3)
                };
                let seen = refusal(from, *target).await?;
                let from = Some(teller?);
                let wanted = Outcome::Unreachable(Refusal::Icmp { from, kind, code });
                ensure!(seen == wanted, "{seen}, not {wanted}");
            }
        }
        Ok(())
    });
}
