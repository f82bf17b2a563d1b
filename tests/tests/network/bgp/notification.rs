//! What a NOTIFICATION does to routes where both sides speak RFC 8538: FRR keeps them when a hold timer expires, and
//! drops them when we leave for good.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use openelb_bgp::{GracefulRestart, SessionState, SpeakerConfig};

use super::lab::{Frr, Lab, Us, config, peer, plain, run, until};

const PREFIX: &str = "203.0.113.9/32";
/// The code of a NOTIFICATION that says that the hold timer expired.
const HOLD_TIMER: u8 = 4;

fn ours(notification: bool) -> SpeakerConfig {
    let mut peer = peer("10.0.0.1");
    peer.timers.hold = Duration::from_secs(3);
    peer.graceful_restart = Some(GracefulRestart {
        notification,
        ..GracefulRestart::default()
    });
    let mut config = config([peer]);
    config.restart_window = Duration::ZERO;
    config
}

async fn frr(lab: &Lab) -> Result<Frr> {
    lab.frr(
        " bgp graceful-restart\n bgp graceful-restart notification
 neighbor 10.0.0.11 remote-as 65001
 neighbor 10.0.0.11 timers 1 3
 neighbor 10.0.0.11 timers connect 1",
    )
    .await
}

/// Waits until FRR has the route, of this session or (`stale`) of the one before.
async fn route(frr: &Frr, stale: bool) -> Result<()> {
    until("the route", async || {
        let paths = frr.paths(PREFIX)?;
        let path = paths.first().context("no path")?;
        ensure!((path["stale"] == true) == stale, "{path}");
        Ok(())
    })
    .await
}

async fn no_session(frr: &Frr) -> Result<()> {
    until("the end of the session", async || {
        let state = frr.neighbor("10.0.0.11")?["bgpState"].clone();
        ensure!(state != "Established", "{state}");
        Ok(())
    })
    .await
}

/// We hear nothing of the router until our hold timer expires, and tell it so.
async fn silence(lab: &Lab, us: &Us, frr: &Frr) -> Result<()> {
    lab.silence(true)?;
    let lost = us
        .sees("the loss", "p0", |peer| {
            peer.state != SessionState::Established
        })
        .await?;
    let said = lost.last_notification.as_ref().context("nothing said")?;
    ensure!(said.code == HOLD_TIMER, "{said:?}");
    no_session(frr).await
}

#[test]
fn an_expired_hold_timer_keeps_routes_and_a_drain_drops_them() {
    run(async |lab| {
        let frr = frr(&lab).await?;
        let us = Us::start(ours(true), plain(&[PREFIX]));
        let told = us.told("p0", 1).await?;
        let agreed = told.negotiated.as_ref().context("no session")?;
        ensure!(agreed.notification_restart, "{agreed:?}");
        route(&frr, false).await?;
        silence(&lab, &us, &frr).await?;
        route(&frr, true).await?;
        lab.silence(false)?;
        us.told("p0", 1).await?;
        route(&frr, false).await?;

        // For good: the route goes though the restart time is two minutes.
        us.drain().await;
        until("a hard reset, and the route gone", async || {
            let log = frr.log();
            ensure!(log.contains("NOTIFICATION(Hard Reset): received"), "{log}");
            let paths = frr.paths(PREFIX)?;
            ensure!(paths.is_empty(), "{paths:?}");
            Ok(())
        })
        .await
    });
}

#[test]
fn without_that_capability_an_expired_hold_timer_drops_routes() {
    run(async |lab| {
        let frr = frr(&lab).await?;
        let us = Us::start(ours(false), plain(&[PREFIX]));
        us.told("p0", 1).await?;
        route(&frr, false).await?;
        silence(&lab, &us, &frr).await?;
        until("the route gone", async || {
            let paths = frr.paths(PREFIX)?;
            ensure!(paths.is_empty(), "{paths:?}");
            Ok(())
        })
        .await?;
        lab.silence(false)?;
        us.drain().await;
        Ok(())
    });
}
