//! A connection that is lost while both processes live on: with graceful restart the routes stay, since the kernel of
//! the node never stopped to forward.

use std::time::Duration;

use anyhow::{Result, ensure};
use openelb_bgp::{GracefulRestart, SessionState, SpeakerConfig};
use openelb_tests::Program;

use super::lab::{Lab, Us, command, config, peer, plain, run, until};

const ADDRESS: &str = "203.0.113.9";
const PREFIX: &str = "203.0.113.9/32";
const MARKER: &str = "203.0.113.10";

/// Long after the start of the process: no restart is under way.
fn settled() -> SpeakerConfig {
    let mut peer = peer("10.0.0.1");
    peer.graceful_restart = Some(GracefulRestart::default());
    let mut config = config([peer]);
    config.restart_window = Duration::ZERO;
    config
}

/// Breaks the session's TCP connection and no more: the kernel resets it towards both sides.
fn break_connection() -> Result<()> {
    let broken = command("ss -K -Htn state established '( dport = :179 or sport = :179 )'")?;
    ensure!(
        broken.contains("10.0.0.1"),
        "no connection was broken: {broken:?}"
    );
    Ok(())
}

/// Waits until the router's kernel has the address.
async fn in_kernel(lab: &Lab, address: &str) -> Result<()> {
    until(address, async || {
        let text = lab.in_router(&format!("ip route show {address}"))?;
        ensure!(text.contains(address), "no route");
        Ok(())
    })
    .await
}

/// Breaks an established session, lets it come back, and looks for a gap.
async fn a_lost_connection_leaves_no_gap(lab: &Lab) -> Result<()> {
    let us = Us::start(settled(), plain(&[PREFIX]));
    us.told("p0", 1).await?;
    in_kernel(lab, ADDRESS).await?;
    let monitor = lab.start(Program::new("monitor", "ip").args(["-o", "monitor", "route"]))?;
    until("the monitor to see what happens", async || {
        lab.in_router("ip route replace 198.51.100.1/32 dev lo")?;
        lab.in_router("ip route del 198.51.100.1/32 dev lo")?;
        ensure!(monitor.log().contains("Deleted"), "nothing yet");
        Ok(())
    })
    .await?;
    for round in 1..=3 {
        us.sees("a session that told all", "p0", |peer| {
            peer.state == SessionState::Established
                && peer.counters.read().established == round
                && peer.families.values().all(|family| family.end_of_rib)
        })
        .await?;
        // The last route of this session: the router has dealt with its End-of-RIB by then.
        let marker = format!("{MARKER}{round}");
        us.announce(plain(&[PREFIX, &format!("{marker}/32")]));
        in_kernel(lab, &marker).await?;
        if round < 3 {
            break_connection()?;
        }
    }
    let log = monitor.log();
    let gone = log
        .lines()
        .any(|line| line.starts_with("Deleted") && line.contains("203.0.113.9 "));
    ensure!(!gone, "the route was gone for a while:\n{log}");
    us.drain().await;
    Ok(())
}

#[test]
fn a_lost_connection_leaves_no_gap_at_bird() {
    run(async |lab| {
        let _bird = lab.bird(
            "protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }
             protocol bgp openelb { local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001;
             graceful restart on; connect delay time 1; connect retry time 1; error wait time 1,1;
             ipv4 { import all; export none; }; }",
        )?;
        a_lost_connection_leaves_no_gap(&lab).await
    });
}

#[test]
fn a_lost_connection_leaves_no_gap_at_frr() {
    run(async |lab| {
        let _frr = lab
            .frr(
                " bgp graceful-restart\n neighbor 10.0.0.11 remote-as 65001
 neighbor 10.0.0.11 timers connect 1",
            )
            .await?;
        a_lost_connection_leaves_no_gap(&lab).await
    });
}
