//! BFD against FRR and BIRD.

use std::time::Duration;

use anyhow::{Result, ensure};
use openelb_bgp::{BfdConfig, BfdState, Hops, PeerConfig};

use super::lab::{Lab, Us, config, ended_by_bfd, peer, plain, run, until};

const ROUTE: &str = "203.0.113.9/32";

fn timers(ms: u64) -> BfdConfig {
    BfdConfig {
        transmit: Duration::from_millis(ms),
        receive: Duration::from_millis(ms),
        ..BfdConfig::default()
    }
}

fn watched(address: &str, ms: u64) -> PeerConfig {
    let mut peer = peer(address);
    peer.bfd = Some(timers(ms));
    peer
}

fn bird(lab: &Lab, there: &str, here: &str, ms: u32, more: &str) -> Result<super::lab::Bird> {
    lab.bird(&format!(
        "protocol bfd {{ interface \"*\" {{ interval {ms} ms; multiplier 3; }}; multihop {{ interval {ms} ms; }}; }}
         protocol bgp openelb {{ local {there} as 65000; neighbor {here} as 65001;
         connect delay time 1; connect retry time 1; error wait time 1,1; bfd on; {more}
         ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }}; }}"
    ))
}

async fn up(us: &Us) -> Result<()> {
    us.sees("BFD up", "p0", |peer| {
        peer.bfd.is_some_and(|bfd| bfd.state == BfdState::Up)
    })
    .await?;
    us.established("p0").await?;
    Ok(())
}

/// A silent loss ends the BGP session by BFD, long before the hold time; the
/// session is back when the path is.
async fn silence_is_found(lab: &Lab, us: &Us) -> Result<()> {
    up(us).await?;
    lab.silence(true)?;
    ended_by_bfd(us).await?;
    lab.silence(false)?;
    up(us).await
}

#[test]
fn a_silent_loss_ends_the_session_to_bird_over_both_families() {
    run(async |lab| {
        for (there, here) in [("10.0.0.1", "10.0.0.11"), ("fd00:10::1", "fd00:10::11")] {
            let bird = bird(&lab, there, here, 50, "")?;
            let us = Us::start(config([watched(there, 50)]), plain(&["203.0.113.9/32"]));
            silence_is_found(&lab, &us).await?;
            us.drain().await;
            bird.stop();
        }
        Ok(())
    });
}

#[test]
fn a_silent_loss_ends_the_session_to_frr() {
    run(async |lab| {
        let frr = lab
            .frr(
                " neighbor 10.0.0.11 remote-as 65001
 neighbor 10.0.0.11 timers connect 1
 neighbor 10.0.0.11 bfd 3 50 50",
            )
            .await?;
        let us = Us::start(
            config([watched("10.0.0.1", 50)]),
            plain(&["203.0.113.9/32"]),
        );
        silence_is_found(&lab, &us).await?;
        let peers = frr.json("show bfd peers")?;
        ensure!(peers[0]["status"] == "up", "{peers}");
        us.drain().await;
        Ok(())
    });
}

/// A router that has a route has BFD too, so that a node that dies right after is found as fast as later.
#[test]
fn routes_are_told_once_bfd_is_up_and_without_it_after_a_bounded_wait() {
    run(async |lab| {
        let with = bird(&lab, "10.0.0.1", "10.0.0.11", 50, "")?;
        let us = Us::start(config([watched("10.0.0.1", 50)]), plain(&[ROUTE]));
        let told = us.told("p0", 1).await?;
        ensure!(
            told.bfd.is_some_and(|bfd| bfd.state == BfdState::Up),
            "told without BFD: {:?}",
            told.bfd
        );
        us.drain().await;
        drop(with);

        let _without = lab.bird(
            "protocol bgp openelb { local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001;
                 connect delay time 1; connect retry time 1; ipv4 { import all; export none; }; }",
        )?;
        let us = Us::start(config([watched("10.0.0.1", 50)]), plain(&[ROUTE]));
        let told = us.told("p0", 1).await?;
        ensure!(told.bfd.is_some_and(|bfd| bfd.state == BfdState::Down));
        us.drain().await;
        Ok(())
    });
}

#[test]
fn over_several_hops_with_both_families() {
    run(async |lab| {
        for (there, here) in [("10.0.0.1", "10.0.0.11"), ("fd00:10::1", "fd00:10::11")] {
            let _bird = bird(&lab, there, here, 50, "multihop;")?;
            let mut peer = watched(there, 50);
            peer.hops = Hops::Multihop(4);
            peer.bfd = Some(BfdConfig {
                // BIRD sends with the system's default TTL of 64.
                multihop: Some(60),
                ..timers(50)
            });
            let us = Us::start(config([peer]), plain(&["203.0.113.9/32"]));
            silence_is_found(&lab, &us).await?;
            us.drain().await;
        }
        Ok(())
    });
}

#[test]
fn new_timers_are_agreed_without_a_flap() {
    run(async |lab| {
        let _bird = bird(&lab, "10.0.0.1", "10.0.0.11", 50, "")?;
        let us = Us::start(
            config([watched("10.0.0.1", 300)]),
            plain(&["203.0.113.9/32"]),
        );
        up(&us).await?;
        for ms in [50, 500, 100] {
            us.change("p0", |peer| peer.bfd = Some(timers(ms)));
            let wanted = Duration::from_millis(ms);
            us.sees("the new pace", "p0", |peer| {
                peer.bfd
                    .is_some_and(|bfd| bfd.transmit == wanted && bfd.detection == wanted * 3)
            })
            .await?;
        }
        let peer = &us.snapshot().peers["p0"];
        ensure!(
            peer.bfd
                .is_some_and(|bfd| bfd.flaps == 0 && bfd.state == BfdState::Up)
        );
        ensure!(peer.counters.read().established == 1);
        us.drain().await;
        Ok(())
    });
}

#[test]
fn bfd_can_be_switched_on_and_off_under_a_running_session() {
    run(async |lab| {
        let _bird = bird(&lab, "10.0.0.1", "10.0.0.11", 50, "")?;
        let us = Us::start(config([peer("10.0.0.1")]), plain(&["203.0.113.9/32"]));
        us.established("p0").await?;
        us.change("p0", |peer| peer.bfd = Some(timers(50)));
        up(&us).await?;
        let peer = us.snapshot().peers["p0"].clone();
        ensure!(peer.counters.read().dropped == 0, "{peer:?}");
        // BIRD takes even AdminDown for a loss; we do not end the session.
        us.change("p0", |peer| peer.bfd = None);
        us.sees("BFD gone", "p0", |peer| peer.bfd.is_none()).await?;
        let said = us.snapshot().peers["p0"].last_notification.clone();
        ensure!(said.is_none_or(|said| said.received));
        us.change("p0", |peer| peer.bfd = Some(timers(50)));
        up(&us).await?;
        us.drain().await;
        Ok(())
    });
}

/// How long the machine is loaded: 500 intervals of BFD, in any three of which it could fail.
const LOAD: Duration = Duration::from_secs(5);

#[test]
fn a_pace_of_ten_milliseconds_does_not_flap_under_load() {
    run(async |lab| {
        let bird = bird(&lab, "10.0.0.1", "10.0.0.11", 10, "")?;
        // The router has a processor of its own, so to speak: what is loaded
        // is our machine.
        bird.raise_priority()?;
        let us = Us::start(
            config([watched("10.0.0.1", 10)]),
            plain(&["203.0.113.9/32"]),
        );
        up(&us).await?;
        let before = us.snapshot().peers["p0"].bfd.map(|bfd| bfd.flaps);
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let busy: Vec<_> = (0..8)
            .map(|_| {
                let stop = std::sync::Arc::clone(&stop);
                std::thread::spawn(move || {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                })
            })
            .collect();
        tokio::time::sleep(LOAD).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for thread in busy {
            thread.join().unwrap();
        }
        let after = us.snapshot().peers["p0"].bfd.map(|bfd| bfd.flaps);
        ensure!(before == after, "{before:?} flaps became {after:?}");
        us.drain().await;
        Ok(())
    });
}

#[test]
fn admin_down_of_the_far_side_is_no_failure() {
    run(async |lab| {
        let frr = lab
            .frr(
                " neighbor 10.0.0.11 remote-as 65001
 neighbor 10.0.0.11 bfd 3 50 50",
            )
            .await?;
        let us = Us::start(
            config([watched("10.0.0.1", 50)]),
            plain(&["203.0.113.9/32"]),
        );
        up(&us).await?;
        frr.configure(&["bfd", "peer 10.0.0.11", "shutdown"])?;
        us.sees("their AdminDown", "p0", |peer| {
            peer.bfd
                .is_some_and(|bfd| bfd.remote_state == BfdState::AdminDown)
        })
        .await?;
        until("the session still there", async || {
            let peer = &us.snapshot().peers["p0"];
            let ours = peer.last_notification.as_ref().filter(|n| !n.received);
            ensure!(ours.is_none(), "{ours:?}");
            Ok(())
        })
        .await?;
        us.drain().await;
        Ok(())
    });
}
