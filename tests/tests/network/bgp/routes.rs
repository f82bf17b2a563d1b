//! What routers hold after what we announced, read back from them.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use openelb_bgp::{Attributes, Family, NextHop, Origin, PeerSelection, RouteSet};

use super::lab::{Bird, Frr, Us, config, peer, plain, run, shows, until, with};

const BIRD: &str = "protocol bgp openelb { local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001;
    ipv4 { import all; export none; }; ipv6 { import all; export none; }; }";

fn rich() -> Attributes {
    Attributes {
        origin: Origin::Incomplete,
        med: Some(50),
        prepend: 2,
        communities: ["65000:100".parse().unwrap(), "no-export".parse().unwrap()].into(),
        large_communities: ["65000:1:2".parse().unwrap()].into(),
        extended_communities: ["rt:65000:7".parse().unwrap()].into(),
        ..Attributes::default()
    }
}

#[test]
fn every_attribute_arrives_as_it_was_given() {
    run(async |lab| {
        let bird = lab.bird(BIRD)?;
        let us = Us::start(
            config([peer("10.0.0.1")]),
            with(&["203.0.113.9/32"], rich()),
        );
        let wanted = [
            "BGP.origin: Incomplete",
            "BGP.as_path: 65001 65001 65001",
            "BGP.med: 50",
            "(65000,100)",
            "(65535,65281)",
            "(65000, 1, 2)",
            "(rt, 65000, 7)",
        ];
        shows("the attributes", &wanted, || bird.routes()).await?;
        us.drain().await;
        Ok(())
    });
}

/// How often the session came up, and when it last did, in seconds.
fn sessions(frr: &Frr) -> Result<(i64, i64)> {
    let neighbor = frr.neighbor("10.0.0.11")?;
    let number = |name: &str| neighbor[name].as_i64().context("no number");
    Ok((
        number("connectionsEstablished")?,
        number("bgpTimerUpEstablishedEpoch")?,
    ))
}

#[test]
fn attributes_and_routes_change_without_a_reset() {
    run(async |lab| {
        let frr = lab.frr(" neighbor 10.0.0.11 remote-as 65001").await?;
        let us = Us::start(config([peer("10.0.0.1")]), plain(&["203.0.113.9/32"]));
        let has = async |prefix: &'static str, wanted: &'static str| {
            until(prefix, async || {
                let paths = frr.paths(prefix)?;
                let path = paths.first().context("no path")?;
                ensure!(path.to_string().contains(wanted), "{path}");
                Ok(())
            })
            .await
        };
        has("203.0.113.9/32", "65001").await?;
        let (count_before, since) = sessions(&frr)?;
        us.announce(with(&["203.0.113.9/32"], rich()));
        has("203.0.113.9/32", "65000:100").await?;
        us.announce(with(&["203.0.113.10/32"], rich()));
        has("203.0.113.10/32", "65000:1:2").await?;
        until("the withdrawal", async || {
            ensure!(frr.paths("203.0.113.9/32")?.is_empty());
            Ok(())
        })
        .await?;
        us.change("p0", |peer| peer.description = "changed".to_owned());
        us.sees("the description", "p0", |peer| {
            peer.description == "changed"
        })
        .await?;
        let (count, now) = sessions(&frr)?;
        // The second is computed from an age, so it may be off by one.
        ensure!(count == count_before && (now - since).abs() <= 1, "a reset");
        us.drain().await;
        Ok(())
    });
}

#[test]
fn each_peer_gets_what_is_meant_for_it() {
    run(async |lab| {
        let bird = lab.bird(
            "ipv4 table second;
             protocol bgp one { local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001;
               ipv4 { import all; export none; }; }
             protocol bgp two { local fd00:10::1 as 65000; neighbor fd00:10::11 as 65001;
               ipv4 { table second; import all; export none; }; }",
        )?;
        let mut set = RouteSet::new();
        let only = |name: &str| PeerSelection::Only(Arc::new([name.into()].into()));
        let own = Arc::new(rich());
        set.insert(
            "203.0.113.1/32".parse()?,
            Arc::default(),
            PeerSelection::All,
        );
        set.insert("203.0.113.2/32".parse()?, Arc::default(), only("p0"));
        set.insert("203.0.113.3/32".parse()?, Arc::clone(&own), only("p1"));
        set.insert(
            "203.0.113.3/32".parse()?,
            Arc::default(),
            PeerSelection::All,
        );
        let mut second = peer("fd00:10::1");
        second.families = vec![Family::Ipv4];
        let us = Us::start(config([peer("10.0.0.1"), second]), set.clone());
        let one = || bird.ask("show route all protocol one");
        for name in ["p0", "p1"] {
            us.established(name).await?;
        }
        let two = || bird.ask("show route all table second");
        let text = shows(
            "the first",
            &["203.0.113.1", "203.0.113.2", "203.0.113.3"],
            one,
        )
        .await?;
        ensure!(!text.contains("(65000,100)"), "{text}");
        let text = shows(
            "the second",
            &["203.0.113.1", "203.0.113.3", "(65000,100)"],
            two,
        )
        .await?;
        ensure!(!text.contains("203.0.113.2"), "{text}");
        for name in ["p0", "p1"] {
            let expected = set.expected(name, Family::Ipv4);
            us.sees("the digest", name, |peer| {
                peer.families
                    .get(&Family::Ipv4)
                    .is_some_and(|family| family.advertised == expected)
            })
            .await?;
        }
        us.drain().await;
        Ok(())
    });
}

#[test]
fn ipv4_routes_have_ipv6_next_hops_where_both_sides_agree() {
    run(async |lab| {
        let bird = lab.bird(
            "protocol bgp openelb { local fd00:10::1 as 65000; neighbor fd00:10::11 as 65001;
                 ipv4 { import all; export none; extended next hop on; };
                 ipv6 { import all; export none; }; }",
        )?;
        let mut peer = peer("fd00:10::1");
        peer.families = Family::ALL.to_vec();
        let us = Us::start(config([peer]), plain(&["203.0.113.9/32", "2001:db8::/64"]));
        let negotiated = us.established("p0").await?.negotiated.clone();
        ensure!(negotiated.is_some_and(|n| n.extended_next_hop));
        let wanted = ["203.0.113.9/32", "BGP.next_hop: fd00:10::11"];
        shows("the route", &wanted, || bird.routes()).await?;
        us.drain().await;
        Ok(())
    });
}

fn ten_thousand() -> Vec<String> {
    (0..10_000_u32)
        .map(|i| format!("{}/32", std::net::Ipv4Addr::from(0x6440_0000 + i)))
        .collect()
}

async fn has_routes(bird: &Bird, count: usize) -> Result<()> {
    until("the number of routes", async || {
        let text = bird.ask("show route protocol openelb count")?;
        let wanted = format!("{count} of ");
        ensure!(text.lines().any(|line| line.starts_with(&wanted)), "{text}");
        Ok(())
    })
    .await
}

#[test]
fn ten_thousand_routes_come_and_go_in_few_messages() {
    run(async |lab| {
        let bird = lab.bird(BIRD)?;
        let many = ten_thousand();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let us = Us::start(config([peer("10.0.0.1")]), plain(&many));
        let sent = updates_of_ten_thousand(&us, &bird).await?;
        ensure!(sent < 30, "{sent} UPDATEs");
        us.announce(plain(&many[..5_000]));
        us.told("p0", 5_000).await?;
        has_routes(&bird, 5_000).await?;
        us.announce(RouteSet::new());
        us.told("p0", 0).await?;
        has_routes(&bird, 0).await?;
        us.drain().await;
        Ok(())
    });
}

/// UPDATEs in which ten thousand routes leave.
async fn updates_of_ten_thousand(us: &Us, bird: &Bird) -> Result<u64> {
    us.told("p0", 10_000).await?;
    has_routes(bird, 10_000).await?;
    Ok(us.snapshot().peers["p0"].counters.read().update_sent)
}

#[test]
fn long_messages_carry_more_where_the_router_takes_them() {
    run(async |lab| {
        let many = ten_thousand();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut sent = Vec::new();
        for long in ["off", "on"] {
            let bird = lab.bird(&BIRD.replace(
                "65001;",
                &format!("65001; enable extended messages {long};"),
            ))?;
            let us = Us::start(config([peer("10.0.0.1")]), plain(&many));
            let agreed = us.established("p0").await?.negotiated.clone();
            ensure!(agreed.is_some_and(|agreed| agreed.extended_messages == (long == "on")));
            sent.push(updates_of_ten_thousand(&us, &bird).await?);
            us.drain().await;
        }
        // 50,000 octets of routes: in messages of 4,096 octets, and in one of 65,535.
        println!("UPDATEs: {sent:?}");
        ensure!(sent[1] * 4 < sent[0], "{sent:?}");
        Ok(())
    });
}

#[test]
fn a_router_that_asks_again_is_told_again() {
    run(async |lab| {
        let bird = lab.bird(BIRD)?;
        let us = Us::start(config([peer("10.0.0.1")]), plain(&["203.0.113.9/32"]));
        us.told("p0", 1).await?;
        shows("the route", &["203.0.113.9/32"], || bird.routes()).await?;
        let before = us.snapshot().peers["p0"].counters.read();
        bird.ask("reload in openelb")?;
        until("the refresh", async || {
            let after = us.snapshot().peers["p0"].counters.read();
            ensure!(after.refresh_received == 1 && after.update_sent > before.update_sent);
            // The markers of RFC 7313, begin and end.
            ensure!(after.refresh_sent == 2, "{after:?}");
            Ok(())
        })
        .await?;
        shows("the route", &["203.0.113.9/32"], || bird.routes()).await?;
        us.drain().await;
        Ok(())
    });
}

#[test]
fn several_paths_for_a_prefix_arrive_by_add_path() {
    run(async |lab| {
        let bird = lab.bird(
            "protocol bgp openelb { local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001;
             ipv4 { import all; export none; add paths rx; }; }",
        )?;
        let mut peer = peer("10.0.0.1");
        peer.add_path_send = true;
        let mut set = RouteSet::new();
        for last in [21, 22, 23] {
            let attributes = Attributes {
                next_hop: NextHop::Address(std::net::Ipv4Addr::new(10, 0, 0, last).into()),
                ..Attributes::default()
            };
            set.insert(
                "203.0.113.9/32".parse()?,
                Arc::new(attributes),
                PeerSelection::All,
            );
        }
        let us = Us::start(config([peer]), set);
        let wanted = ["via 10.0.0.21", "via 10.0.0.22", "via 10.0.0.23"];
        shows("three paths", &wanted, || bird.routes()).await?;
        us.drain().await;
        Ok(())
    });
}

#[test]
fn what_a_router_sends_is_counted_and_kept_nowhere() {
    run(async |lab| {
        let bird = lab.bird(
            "protocol static { ipv4; route 198.51.100.0/24 blackhole; route 198.51.101.0/24 blackhole; }
             protocol bgp openelb { local 10.0.0.1 as 65000; neighbor 10.0.0.11 as 65001;
             ipv4 { import all; export where source = RTS_STATIC; }; }",
        )?;
        let us = Us::start(config([peer("10.0.0.1")]), plain(&["203.0.113.9/32"]));
        us.told("p0", 1).await?;
        until("their routes", async || {
            let read = us.snapshot().peers["p0"].counters.read();
            ensure!(read.prefixes_dropped == 2, "{read:?}");
            Ok(())
        })
        .await?;
        shows("ours", &["203.0.113.9/32"], || bird.routes()).await?;
        us.drain().await;
        Ok(())
    });
}
