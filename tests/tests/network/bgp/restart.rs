//! Planned stops and restarts, with and without graceful restart.

use std::time::Duration;

use anyhow::{Result, ensure};
use openelb_bgp::{BfdConfig, BfdState, Family, GracefulRestart, Shutdown, SpeakerConfig};
use serde_json::Value;

use super::lab::{Bird, Frr, Lab, Us, config, is_stale, peer, plain, run, shows, until};

const PREFIX: &str = "203.0.113.9/32";

fn restarting(bfd: bool) -> SpeakerConfig {
    let mut peer = peer("10.0.0.1");
    peer.graceful_restart = Some(GracefulRestart::default());
    peer.bfd = bfd.then(|| BfdConfig {
        transmit: Duration::from_millis(50),
        receive: Duration::from_millis(50),
        ..BfdConfig::default()
    });
    let mut config = config([peer]);
    config.restart_window = Duration::from_mins(2);
    config
}

fn bird(lab: &Lab, more: &str) -> Result<Bird> {
    lab.bird(&format!(
        "protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
         protocol bfd {{ interface \"*\" {{ min rx interval 50 ms; min tx interval 50 ms; }}; }}
         protocol bgp openelb {{ local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001;
         graceful restart on; connect delay time 1; connect retry time 1; {more}
         ipv4 {{ import all; export none; }}; }}"
    ))
}

async fn frr(lab: &Lab, more: &str) -> Result<Frr> {
    lab.frr(&format!(
        " bgp graceful-restart\n neighbor 10.0.0.11 remote-as 65001
 neighbor 10.0.0.11 timers connect 1\n{more}"
    ))
    .await
}

/// Looks at the router's kernel until told to stop, and counts the looks that
/// did not find the route.
async fn watch_route(
    lab: &Lab,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) -> Result<(u32, u32)> {
    let (mut looks, mut missing) = (0, 0);
    loop {
        looks += 1;
        if !lab
            .in_router("ip route show 203.0.113.9")?
            .contains("203.0.113.9")
        {
            missing += 1;
        }
        if stop.try_recv().is_ok() {
            return Ok((looks, missing));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn in_kernel(lab: &Lab) -> Result<()> {
    until("the route in the kernel", async || {
        let text = lab.in_router("ip route show 203.0.113.9")?;
        ensure!(text.contains("203.0.113.9"), "no route");
        Ok(())
    })
    .await
}

/// A router that helps a speaker over its restart (RFC 4724 section 4.2).
trait Helper {
    /// That it keeps what the speaker told it, and waits for its return.
    fn waits(&self) -> Result<()>;
    /// That it waits no longer: the speaker is back and has said End-of-RIB, so what did not come again is gone.
    fn is_done(&self) -> Result<()>;
    /// That BFD has noticed the speaker's end.
    fn misses_bfd(&self) -> Result<()>;
}

impl Helper for Bird {
    fn waits(&self) -> Result<()> {
        let said = self.ask("show protocols all openelb")?;
        ensure!(said.contains("Neighbor graceful restart active"), "{said}");
        Ok(())
    }

    fn is_done(&self) -> Result<()> {
        let said = self.ask("show protocols all openelb")?;
        let waits = said.contains("Neighbor graceful restart active");
        ensure!(said.contains("Established") && !waits, "{said}");
        Ok(())
    }

    fn misses_bfd(&self) -> Result<()> {
        let said = self.ask("show bfd sessions")?;
        ensure!(!said.contains("Up"), "{said}");
        Ok(())
    }
}

impl Helper for Frr {
    fn waits(&self) -> Result<()> {
        let paths = self.paths(PREFIX)?;
        ensure!(paths.len() == 1 && paths.iter().all(is_stale), "{paths:?}");
        let ended = end_of_rib(self)?;
        ensure!(ended != true, "End-of-RIB of the session before: {ended}");
        Ok(())
    }

    fn is_done(&self) -> Result<()> {
        let paths = self.paths(PREFIX)?;
        ensure!(paths.len() == 1 && !paths.iter().any(is_stale), "{paths:?}");
        let ended = end_of_rib(self)?;
        ensure!(ended == true, "no End-of-RIB: {ended}");
        Ok(())
    }

    fn misses_bfd(&self) -> Result<()> {
        let said = self.ask("show bfd peers")?;
        ensure!(!said.contains("Status: up"), "{said}");
        Ok(())
    }
}

/// Whether FRR has heard End-of-RIB in this session.
fn end_of_rib(router: &Frr) -> Result<Value> {
    let us = router.neighbor("10.0.0.11")?;
    Ok(us["gracefulRestartInfo"]["endOfRibRecv"]["ipv4Unicast"].clone())
}

/// Stops a speaker as for a restart and starts another; the route must stay in
/// the router's kernel all the time.
async fn restart_keeps_the_route(lab: &Lab, router: &impl Helper, bfd: bool) -> Result<()> {
    let us = Us::start(restarting(bfd), plain(&[PREFIX]));
    us.told("p0", 1).await?;
    in_kernel(lab).await?;
    if bfd {
        us.sees("BFD up", "p0", |peer| {
            peer.bfd.is_some_and(|bfd| bfd.state == BfdState::Up)
        })
        .await?;
    }
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let watching = watch_route(lab, stopped);
    let restart = async {
        let wait = Duration::from_secs(1);
        us.speaker.shutdown(Shutdown::Restart { wait }).await;
        until("the router to wait", async || router.waits()).await?;
        if bfd {
            until("BFD to notice", async || router.misses_bfd()).await?;
            router.waits()?;
        }
        let us = Us::start(restarting(bfd), plain(&[PREFIX]));
        let told = us.told("p0", 1).await?;
        ensure!(told.families[&Family::Ipv4].end_of_rib);
        until("the end of the restart", async || router.is_done()).await?;
        let _ = stop.send(());
        Ok(us)
    };
    let (watched, us) = tokio::join!(watching, restart);
    let (looks, missing) = watched?;
    ensure!(
        missing == 0,
        "the route was missing in {missing} of {looks} looks"
    );
    us?.drain().await;
    Ok(())
}

#[test]
fn a_restart_keeps_routes_at_bird() {
    run(async |lab| {
        let bird = bird(&lab, "")?;
        restart_keeps_the_route(&lab, &bird, false).await
    });
}

#[test]
fn a_restart_keeps_routes_at_frr() {
    run(async |lab| {
        let frr = frr(&lab, "").await?;
        restart_keeps_the_route(&lab, &frr, false).await
    });
}

#[test]
fn a_restart_keeps_routes_at_bird_with_bfd() {
    run(async |lab| {
        let bird = bird(&lab, "bfd graceful;")?;
        restart_keeps_the_route(&lab, &bird, true).await
    });
}

#[test]
fn a_restart_keeps_routes_at_frr_with_bfd() {
    run(async |lab| {
        let frr = frr(&lab, " neighbor 10.0.0.11 bfd").await?;
        restart_keeps_the_route(&lab, &frr, true).await
    });
}

#[test]
fn an_incomplete_set_after_a_restart_keeps_what_is_not_announced_yet() {
    run(async |lab| {
        let bird = bird(&lab, "")?;
        let us = Us::start(restarting(false), plain(&[PREFIX, "203.0.113.10/32"]));
        us.told("p0", 2).await?;
        shows("both", &[PREFIX, "203.0.113.10/32"], || bird.routes()).await?;
        let wait = Duration::ZERO;
        us.speaker.shutdown(Shutdown::Restart { wait }).await;
        let mut partial = openelb_bgp::RouteSet::incomplete();
        let all = openelb_bgp::PeerSelection::All;
        partial.insert(PREFIX.parse()?, std::sync::Arc::default(), all);
        let us = Us::start(restarting(false), partial);
        us.told("p0", 1).await?;
        shows("both still", &[PREFIX, "203.0.113.10/32"], || bird.routes()).await?;
        us.announce(plain(&[PREFIX]));
        until("the stale one gone", async || {
            let text = bird.routes()?;
            ensure!(
                text.contains(PREFIX) && !text.contains("203.0.113.10"),
                "{text}"
            );
            Ok(())
        })
        .await?;
        us.drain().await;
        Ok(())
    });
}

#[test]
fn without_graceful_restart_a_restart_withdraws() {
    run(async |lab| {
        let bird = bird(&lab, "")?;
        let us = Us::start(config([peer("10.0.0.1")]), plain(&[PREFIX]));
        us.told("p0", 1).await?;
        shows("the route", &[PREFIX], || bird.routes()).await?;
        let wait = Duration::ZERO;
        us.speaker.shutdown(Shutdown::Restart { wait }).await;
        until("the route gone", async || {
            let text = bird.routes()?;
            ensure!(!text.contains(PREFIX), "{text}");
            Ok(())
        })
        .await
    });
}

#[test]
fn a_drain_announces_the_shutdown_before_it_withdraws() {
    run(async |lab| {
        let bird = bird(&lab, "")?;
        let us = Us::start(restarting(false), plain(&[PREFIX]));
        us.told("p0", 1).await?;
        shows("the route", &[PREFIX], || bird.routes()).await?;
        let drain = us.speaker.shutdown(Shutdown::Drain {
            wait: Duration::from_secs(3),
            reason: "node leaves".to_owned(),
        });
        let seen = shows("the community", &["(65535,0)"], || bird.routes());
        let ((), seen) = tokio::join!(drain, seen);
        seen?;
        until("the route gone", async || {
            let text = bird.routes()?;
            ensure!(!text.contains(PREFIX), "{text}");
            Ok(())
        })
        .await?;
        let state = bird.ask("show protocols all openelb")?;
        ensure!(state.contains("Administrative shutdown"), "{state}");
        Ok(())
    });
}

#[test]
fn a_crash_keeps_routes_until_the_speaker_is_back() {
    run(async |lab| {
        let bird = bird(&lab, "")?;
        let us = Us::start(restarting(false), plain(&[PREFIX]));
        us.told("p0", 1).await?;
        shows("the route", &[PREFIX], || bird.routes()).await?;
        us.crash();
        until("the session lost", async || {
            let text = bird.ask("show protocols openelb")?;
            ensure!(!text.contains("Established"), "{text}");
            Ok(())
        })
        .await?;
        let text = bird.routes()?;
        ensure!(text.contains(PREFIX), "{text}");
        let us = Us::start(restarting(false), plain(&[PREFIX]));
        us.told("p0", 1).await?;
        ensure!(bird.routes()?.contains(PREFIX));
        us.drain().await;
        Ok(())
    });
}

#[test]
fn with_llgr_a_route_outlives_the_restart_time_as_long_lived_stale() {
    run(async |lab| {
        let bird = bird(&lab, "long lived graceful restart on;")?;
        let llgr = || {
            let mut peer = peer("10.0.0.1");
            peer.graceful_restart = Some(GracefulRestart {
                restart_time: Duration::from_secs(1),
                long_lived: Duration::from_hours(1),
                ..GracefulRestart::default()
            });
            let mut config = config([peer]);
            config.restart_window = Duration::from_mins(2);
            config
        };
        let us = Us::start(llgr(), plain(&[PREFIX]));
        let told = us.told("p0", 1).await?;
        ensure!(
            told.negotiated
                .as_ref()
                .is_some_and(|agreed| agreed.long_lived_restart),
            "{told:?}"
        );
        shows("the route", &[PREFIX], || bird.routes()).await?;
        us.crash();
        // BIRD marks what it keeps past the restart time: LLGR_STALE (RFC 9494 §4.7).
        shows("the stale route", &[PREFIX, "(65535,6)"], || bird.routes()).await?;
        let us = Us::start(llgr(), plain(&[PREFIX]));
        us.told("p0", 1).await?;
        until("the fresh route", async || {
            let text = bird.routes()?;
            ensure!(
                text.contains(PREFIX) && !text.contains("(65535,6)"),
                "{text}"
            );
            Ok(())
        })
        .await?;
        us.drain().await;
        Ok(())
    });
}
