//! Sessions come up where they should, and only there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use openelb_bgp::{AdminState, Family, Hops, Password, PeerAddress, RemoteAs, SessionState};

use super::lab::{Us, config, peer, plain, run, shows, until};

const ROUTES: [&str; 2] = ["203.0.113.9/32", "2001:db8:9::9/128"];
const BOTH: &str = "ipv4 { import all; export none; }; ipv6 { import all; export none; };";

#[test]
fn one_session_carries_both_families_to_bird_over_v4_and_v6() {
    run(async |lab| {
        for (there, here) in [("10.0.0.1", "10.0.0.11"), ("fd00:10::1", "fd00:10::11")] {
            let bird = lab.bird(&format!(
                    "protocol bgp openelb {{ local {there} as 65000; neighbor {here} as 65001; {BOTH} }}"
                ))?;
            let mut peer = peer(there);
            peer.families = Family::ALL.to_vec();
            let us = Us::start(config([peer]), plain(&ROUTES));
            us.told("p0", 2).await?;
            let wanted = ["203.0.113.9/32", "BGP.next_hop: 10.0.0.11"];
            shows("the IPv4 route", &wanted, || bird.routes()).await?;
            let wanted = ["2001:db8:9::9/128", "BGP.next_hop: fd00:10::11"];
            shows("the IPv6 route", &wanted, || bird.routes()).await?;
            us.drain().await;
            bird.stop();
        }
        Ok(())
    });
}

#[test]
fn frr_and_gobgp_take_both_families_too() {
    run(async |lab| {
        let both = || {
            let mut peer = peer("10.0.0.1");
            peer.families = Family::ALL.to_vec();
            config([peer])
        };
        let frr = lab
            .frr(
                " neighbor 10.0.0.11 remote-as 65001
 address-family ipv6 unicast
  neighbor 10.0.0.11 activate
 exit-address-family",
            )
            .await?;
        let us = Us::start(both(), plain(&ROUTES));
        us.told("p0", 2).await?;
        for prefix in ROUTES {
            until(prefix, async || {
                ensure!(frr.paths(prefix)?.len() == 1);
                Ok(())
            })
            .await?;
        }
        us.drain().await;
        drop(frr);
        let gobgp = lab.gobgp(
            "[[neighbors]]
 [neighbors.config]
  neighbor-address = \"10.0.0.11\"
  peer-as = 65001
 [neighbors.timers.config]
  connect-retry = 1
 [[neighbors.afi-safis]]
  [neighbors.afi-safis.config]
   afi-safi-name = \"ipv4-unicast\"
 [[neighbors.afi-safis]]
  [neighbors.afi-safis.config]
   afi-safi-name = \"ipv6-unicast\"",
        )?;
        let us = Us::start(both(), plain(&ROUTES));
        us.told("p0", 2).await?;
        until("routes at GoBGP", async || {
            let v4 = gobgp.ask("global rib")?;
            let v6 = gobgp.ask("global rib -a ipv6")?;
            ensure!(
                v4.get(ROUTES[0]).is_some() && v6.get(ROUTES[1]).is_some(),
                "{v4} {v6}"
            );
            Ok(())
        })
        .await?;
        us.drain().await;
        Ok(())
    });
}

#[test]
fn an_internal_peer_over_several_hops_with_a_large_as_number() {
    run(async |lab| {
        let bird = lab.bird(&format!(
                "protocol bgp openelb {{ local 10.0.0.1 as 4200000001; neighbor 10.0.0.11 as 4200000001;
                   multihop; {BOTH} }}"
            ))?;
        let mut peer = peer("10.0.0.1");
        peer.remote_as = RemoteAs::Internal;
        peer.local_as = Some(4_200_000_001);
        peer.hops = Hops::Multihop(8);
        let us = Us::start(config([peer]), plain(&ROUTES[..1]));
        us.told("p0", 1).await?;
        let routes = shows("the route", &["203.0.113.9/32"], || bird.routes()).await?;
        ensure!(routes.contains("BGP.local_pref: 100"), "{routes}");
        us.drain().await;
        Ok(())
    });
}

#[test]
fn local_as_is_the_only_one_the_peer_sees() {
    run(async |lab| {
        let bird = lab.bird(&format!(
            "protocol bgp openelb {{ local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 4200000099; {BOTH} }}"
        ))?;
        let mut peer = peer("10.0.0.1");
        peer.local_as = Some(4_200_000_099);
        peer.remote_as = RemoteAs::External;
        let us = Us::start(config([peer]), plain(&ROUTES[..1]));
        us.told("p0", 1).await?;
        shows("the path", &["BGP.as_path: 4200000099\n"], || bird.routes()).await?;
        us.drain().await;
        Ok(())
    });
}

#[test]
fn a_password_must_be_the_same_on_both_sides() {
    run(async |lab| {
        let bird = lab.bird(&format!(
            "protocol bgp openelb {{ local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001;
               connect delay time 1; connect retry time 1; error wait time 1,1;
               password \"s3cret\"; {BOTH} }}"
        ))?;
        let mut wrong = peer("10.0.0.1");
        wrong.password = Some(Password::new("other"));
        let us = Us::start(config([wrong]), plain(&ROUTES[..1]));
        us.sees("a failed attempt", "p0", |peer| peer.last_error.is_some())
            .await?;
        ensure!(us.snapshot().peers["p0"].counters.read().established == 0);
        us.change("p0", |peer| peer.password = None);
        us.sees("another one", "p0", |peer| {
            peer.state == SessionState::Active
        })
        .await?;
        ensure!(us.snapshot().peers["p0"].counters.read().established == 0);
        us.change("p0", |peer| peer.password = Some(Password::new("s3cret")));
        us.established("p0").await?;
        // Now the router connects to us: the key counts on the listener too.
        us.change("p0", |peer| peer.passive = true);
        bird.ask("restart openelb")?;
        let back = us
            .sees("inbound", "p0", |peer| {
                peer.negotiated.as_ref().is_some_and(|n| n.inbound)
            })
            .await?;
        ensure!(back.state == SessionState::Established);
        us.drain().await;
        Ok(())
    });
}

#[test]
fn ttl_security_lets_only_the_link_in() {
    run(async |lab| {
        let bird = lab.bird(&format!(
            "protocol bgp openelb {{ local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001; direct;
               connect delay time 1; connect retry time 1; error wait time 1,1;
               ttl security on; {BOTH} }}"
        ))?;
        // Without it our packets leave with TTL 1 and the router drops them.
        let us = Us::start(config([peer("10.0.0.1")]), plain(&ROUTES[..1]));
        us.sees("a failed attempt", "p0", |peer| peer.last_error.is_some())
            .await?;
        ensure!(us.snapshot().peers["p0"].counters.read().established == 0);
        us.change("p0", |peer| peer.hops = Hops::Security(1));
        us.established("p0").await?;
        us.change("p0", |peer| peer.passive = true);
        bird.ask("restart openelb")?;
        us.sees("inbound", "p0", |peer| {
            peer.negotiated.as_ref().is_some_and(|n| n.inbound)
        })
        .await?;
        us.drain().await;
        Ok(())
    });
}

#[test]
fn a_router_that_connects_at_the_same_time_ends_with_one_session() {
    run(async |lab| {
        // BIRD waits a second before it connects: long enough for both to
        // be under way in some rounds, and for either side to be first.
        let bird = lab.bird(&format!(
            "protocol bgp openelb {{ local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001;
                   connect delay time 0; connect retry time 1; error wait time 1,1; {BOTH} }}"
        ))?;
        let us = Us::start(config([peer("10.0.0.1")]), plain(&ROUTES[..1]));
        for round in 1..=10 {
            us.told("p0", 1).await?;
            shows("the route", &["203.0.113.9/32"], || bird.routes()).await?;
            if round < 10 {
                bird.ask("restart openelb")?;
                us.sees("the next session", "p0", |peer| {
                    peer.counters.read().established > round
                })
                .await?;
            }
        }
        us.drain().await;
        Ok(())
    });
}

#[test]
fn shutdown_texts_travel_both_ways() {
    run(async |lab| {
        let frr = lab.frr(" neighbor 10.0.0.11 remote-as 65001").await?;
        let us = Us::start(config([peer("10.0.0.1")]), plain(&ROUTES[..1]));
        us.established("p0").await?;
        frr.configure(&["neighbor 10.0.0.11 shutdown message new cables"])?;
        let down = us
            .sees("the text", "p0", |peer| {
                peer.last_notification
                    .as_ref()
                    .is_some_and(|n| n.received && n.text.as_deref() == Some("new cables"))
            })
            .await?;
        ensure!(
            down.last_error
                .as_ref()
                .is_some_and(|e| e.message.contains("new cables"))
        );
        frr.configure(&["no neighbor 10.0.0.11 shutdown"])?;
        us.established("p0").await?;
        us.change("p0", |peer| {
            peer.admin = AdminState::Down("hands off".to_owned());
        });
        until("our text at FRR", async || {
            let log = frr.log();
            ensure!(log.contains("hands off"), "{log}");
            Ok(())
        })
        .await?;
        us.drain().await;
        Ok(())
    });
}

#[test]
fn a_taken_port_stops_no_outgoing_session() {
    run(async |lab| {
        let _taken = std::net::TcpListener::bind("0.0.0.0:179")?;
        let _bird = lab.bird(&format!(
            "protocol bgp openelb {{ local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001; passive; {BOTH} }}"
        ))?;
        let us = Us::start(config([peer("10.0.0.1")]), plain(&ROUTES[..1]));
        us.established("p0").await?;
        let listeners = us.snapshot().listeners;
        let error = listeners[&"0.0.0.0:179".parse()?].clone().unwrap_err();
        ensure!(error.contains("another program listens"), "{error}");
        us.drain().await;
        Ok(())
    });
}

#[test]
fn another_port_and_source_address_are_honoured() {
    run(async |lab| {
        std::process::Command::new("ip")
            .args(["addr", "add", "10.0.0.12/24", "dev", "eth0"])
            .status()?;
        let bird = lab.bird(&format!(
                "protocol bgp openelb {{ local 10.0.0.1 port 1790 as 65000; neighbor 10.0.0.12 as 65001;
               passive; {BOTH} }}"
            ))?;
        let mut peer = peer("10.0.0.1");
        peer.remote_port = 1790;
        peer.source = Some("10.0.0.12".parse()?);
        let us = Us::start(config([peer]), plain(&ROUTES[..1]));
        us.told("p0", 1).await?;
        shows("the next hop", &["BGP.next_hop: 10.0.0.12"], || {
            bird.routes()
        })
        .await?;
        us.drain().await;
        Ok(())
    });
}

#[test]
fn a_vanished_router_is_noticed_by_the_hold_timer_and_found_again() {
    run(async |lab| {
        let _bird = lab.bird(&format!(
                "protocol bgp openelb {{ local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001; hold time 3;
                   connect delay time 1; connect retry time 1; error wait time 1,1; {BOTH} }}"
            ))?;
        let us = Us::start(config([peer("10.0.0.1")]), plain(&ROUTES[..1]));
        us.established("p0").await?;
        lab.silence(true)?;
        let lost = us
            .sees("the loss", "p0", |peer| {
                peer.state != SessionState::Established
            })
            .await?;
        let said = lost
            .last_notification
            .as_ref()
            .map(|n| (n.code, n.received));
        ensure!(said == Some((4, false)), "{said:?}");
        lab.silence(false)?;
        us.established("p0").await?;
        ensure!(us.snapshot().peers["p0"].counters.read().dropped == 1);
        us.drain().await;
        Ok(())
    });
}

#[test]
fn a_removed_peer_is_left_and_its_name_can_be_used_again() {
    run(async |lab| {
        let frr = lab.frr(" neighbor 10.0.0.11 remote-as 65001").await?;
        let us = Us::start(config([peer("10.0.0.1")]), plain(&ROUTES[..1]));
        for _ in 0..3 {
            us.told("p0", 1).await?;
            us.config.send_replace(std::sync::Arc::new(config([])));
            until("the session gone at FRR", async || {
                let state = frr.neighbor("10.0.0.11")?;
                ensure!(state["bgpState"] != "Established", "{state}");
                Ok(())
            })
            .await?;
            ensure!(us.snapshot().peers.is_empty());
            us.config
                .send_replace(std::sync::Arc::new(config([peer("10.0.0.1")])));
        }
        us.established("p0").await?;
        us.drain().await;
        Ok(())
    });
}

#[test]
fn the_router_of_an_interface_is_found_by_its_advertisements() {
    run(async |lab| {
        let ours = link_local("eth0")?;
        // It waits: the session is there only if we find it.
        let bird = lab.bird(&format!(
                "protocol radv {{ interface \"eth0\" {{ min ra interval 3; max ra interval 4; }}; }}
                 protocol bgp openelb {{ local as 65000; neighbor {ours} as 65001; interface \"eth0\"; passive;
                 ipv4 {{ import all; export none; extended next hop yes; }};
                 ipv6 {{ import all; export none; }}; }}"
            ))?;
        let mut peer = peer("10.0.0.1");
        peer.address = PeerAddress::Interface("eth0".to_owned());
        peer.families = Family::ALL.to_vec();
        peer.timers.connect_retry = Duration::from_secs(1);
        let us = Us::start(
            config([peer]),
            plain(&["203.0.113.9/32", "2001:db8::9/128"]),
        );
        let seen = us.established("p0").await?;
        let agreed = seen.negotiated.as_ref().context("nothing agreed")?;
        ensure!(
            !agreed.inbound && agreed.peer_address.is_ipv6(),
            "{agreed:?}"
        );
        until("both routes", async || {
            let text = bird.routes()?;
            ensure!(
                text.contains("203.0.113.9/32") && text.contains("2001:db8::9/128"),
                "{text}"
            );
            Ok(())
        })
        .await?;
        us.drain().await;
        Ok(())
    });
}

/// The link-local address of an interface of ours.
fn link_local(interface: &str) -> Result<String> {
    let text = super::lab::command(&format!("ip -o -6 addr show dev {interface} scope link"))?;
    let address = text
        .split_whitespace()
        .find_map(|word| word.strip_suffix("/64"))
        .context("no link-local address")?;
    Ok(address.to_owned())
}
