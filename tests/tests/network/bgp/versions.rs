//! The same story with each version of FRR that can be had.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use openelb_bgp::{BfdConfig, BfdState, Family, GracefulRestart, Shutdown};

use super::lab::{Lab, Us, Version, config, ended_by_bfd, is_stale, peer, plain, run, until};

const ROUTES: [&str; 2] = ["203.0.113.9/32", "2001:db8:9::9/128"];

/// Both families, attributes that change live, a loss that BFD finds, and a restart that the router bears.
async fn story(lab: &Lab, version: &Version) -> Result<()> {
    let frr = lab
        .frr_of(
            version,
            " bgp graceful-restart\n neighbor 10.0.0.11 remote-as 65001
 neighbor 10.0.0.11 timers connect 1
 neighbor 10.0.0.11 bfd 3 150 150
 address-family ipv6 unicast
  neighbor 10.0.0.11 activate
 exit-address-family",
        )
        .await?;
    println!(
        "{}",
        frr.ask("show version")?.lines().next().unwrap_or_default()
    );
    let wanted = || {
        let mut peer = peer("10.0.0.1");
        peer.families = Family::ALL.to_vec();
        peer.graceful_restart = Some(GracefulRestart::default());
        peer.bfd = Some(BfdConfig {
            transmit: Duration::from_millis(150),
            receive: Duration::from_millis(150),
            ..BfdConfig::default()
        });
        let mut config = config([peer]);
        config.restart_window = Duration::from_mins(2);
        config
    };
    let both = async |frr: &super::lab::Frr| {
        until("both routes", async || {
            for route in ROUTES {
                let paths = frr.paths(route)?;
                ensure!(paths.len() == 1, "{route}: {paths:?}");
                // One that only waits for us to come back would be dropped at the next loss (RFC 4724 section 4.2).
                ensure!(!is_stale(&paths[0]), "{route} of the session before");
            }
            Ok(())
        })
        .await
    };
    let us = Us::start(wanted(), plain(&ROUTES));
    let watched = async || {
        us.established("p0").await?;
        both(&frr).await?;
        us.sees("BFD up", "p0", |peer| {
            peer.bfd.is_some_and(|bfd| bfd.state == BfdState::Up)
        })
        .await
    };
    watched().await?;

    lab.silence(true)?;
    ended_by_bfd(&us).await?;
    lab.silence(false)?;
    watched().await?;

    let wait = Duration::ZERO;
    us.speaker.shutdown(Shutdown::Restart { wait }).await;
    for route in ROUTES {
        let paths = frr.paths(route)?;
        ensure!(paths.len() == 1, "{route} went with the speaker: {paths:?}");
        ensure!(
            is_stale(&paths[0]),
            "{route} of a session that goes on: {paths:?}"
        );
    }
    let us = Us::start(wanted(), plain(&ROUTES[..1]));
    let told = us.told("p0", 1).await?;
    ensure!(
        told.negotiated
            .as_ref()
            .context("nothing agreed")?
            .graceful_restart
            .is_some()
    );
    until("the route that did not come back to go", async || {
        let gone = frr.paths(ROUTES[1])?;
        ensure!(gone.is_empty(), "{gone:?}");
        let stays = frr.paths(ROUTES[0])?;
        ensure!(stays.len() == 1, "{stays:?}");
        Ok(())
    })
    .await?;
    us.drain().await;
    Ok(())
}

#[test]
fn the_frr_that_is_installed() {
    run(async |lab| story(&lab, &Version::installed()).await);
}

#[test]
fn a_newer_frr_where_it_can_be_had() {
    // Outside of the namespace, which reaches no mirror.
    let version = match Version::newer() {
        Ok(version) => version,
        Err(error) => {
            println!("no newer FRR: {error:#}");
            return;
        }
    };
    run(async |lab| story(&lab, &version).await);
}
