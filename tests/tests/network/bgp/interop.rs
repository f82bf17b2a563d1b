//! What each router and we must agree on before there is a session (who calls, and the password), over IPv4 and
//! IPv6 at once, a session for each; and what it then reads of our attributes.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use openelb_bgp::{Attributes, Family, Origin, Password, PeerConfig, RemoteAs};
use openelb_tests::bgp::{Bgp, Daemon, Peer, Route, Software};
use openelb_tests::{Network, scenario};

use super::lab::{Us, config, peer, plain, with};

const ROUTES: [&str; 2] = ["203.0.113.9/32", "2001:db8:9::9/128"];
/// Their AS number, and ours.
const ROUTER: u32 = 65000;
const US: u32 = 65001;

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// A session over the connection that we opened.
    WeCall,
    /// A session over the connection that the router opened.
    TheyCall,
    /// No session.
    Refused,
}
use Outcome::{Refused, TheyCall, WeCall};

/// A setting of ours, in words too, and what comes of it.
type Cell = (&'static str, fn(&mut PeerConfig), Outcome);

/// How the router is set up, and several settings of ours.
struct Row {
    what: &'static str,
    theirs: fn(Peer) -> Peer,
    ours: &'static [Cell],
}

const TABLE: [Row; 4] = [
    Row {
        what: "a plain router that calls",
        theirs: |peer| peer,
        ours: &[
            ("we wait", |us| us.passive = true, TheyCall),
            ("a password of ours", |us| key(us, "s3cret"), Refused),
        ],
    },
    Row {
        what: "a plain router that waits",
        theirs: Peer::passive,
        ours: &[("we call", |_| {}, WeCall)],
    },
    Row {
        what: "a password, the router calls",
        theirs: |peer| peer.password("s3cret"),
        ours: &[
            ("no password", |_| {}, Refused),
            ("another password", |us| key(us, "other"), Refused),
            (
                "the same, we wait",
                |us| {
                    key(us, "s3cret");
                    us.passive = true;
                },
                TheyCall,
            ),
        ],
    },
    Row {
        what: "a password, the router waits",
        theirs: |peer| peer.password("s3cret").passive(),
        ours: &[("the same, we call", |us| key(us, "s3cret"), WeCall)],
    },
];

fn key(peer: &mut PeerConfig, key: &str) {
    peer.password = Some(Password::new(key));
}

/// A router of this AS with us as a peer, over IPv4 and over IPv6.
async fn router(
    network: &Network,
    software: Software,
    asn: u32,
    theirs: impl Fn(Peer) -> Peer,
) -> Result<Daemon> {
    let host = network.router();
    let us = network.world().addresses();
    let bgp = us.iter().fold(Bgp::new(asn, host), |bgp, address| {
        bgp.peer(theirs(Peer::at(*address, US).hold(9)))
    });
    bgp.start(software, host, network.folder()).await
}

/// Waits until the router has one path to each prefix, by way of us, and returns these paths.
async fn routes(daemon: &Daemon, us: [IpAddr; 2]) -> Result<Vec<Route>> {
    let mut all = Vec::new();
    for (prefix, hop) in ROUTES.iter().zip(us) {
        let prefix: IpNet = prefix.parse()?;
        let found = daemon
            .routes_become(
                prefix,
                "one path by way of us",
                |paths| matches!(paths, [path] if path.next_hop == hop),
            )
            .await?;
        all.extend(found);
    }
    Ok(all)
}

/// The sessions of one cell of the table: `p0` over IPv4, `p1` over IPv6.
async fn meet(
    network: &Network,
    daemon: &Daemon,
    change: fn(&mut PeerConfig),
    outcome: Outcome,
) -> Result<()> {
    let peers = network.router().addresses().map(|address| {
        let mut peer = peer(&address.to_string());
        change(&mut peer);
        peer
    });
    let us = Us::start(config(peers), plain(&ROUTES));
    for name in ["p0", "p1"] {
        if outcome == Refused {
            us.sees("a failed attempt", name, |peer| peer.last_error.is_some())
                .await?;
        } else {
            let seen = us.established(name).await?;
            let agreed = seen.negotiated.as_ref().context("nothing agreed")?;
            ensure!(agreed.inbound == (outcome == TheyCall), "{agreed:?}");
        }
    }
    if outcome == Refused {
        for (name, peer) in us.snapshot().peers {
            ensure!(peer.counters.read().established == 0, "{name}: {peer:?}");
        }
    } else {
        routes(daemon, network.world().addresses()).await?;
    }
    us.drain().await;
    Ok(())
}

async fn table(software: Software) -> Result<()> {
    let network = Network::start(0).await?;
    for row in TABLE {
        let daemon = router(&network, software, ROUTER, row.theirs).await?;
        for (what, change, outcome) in row.ours {
            meet(&network, &daemon, *change, *outcome)
                .await
                .with_context(|| format!("{}; {what}", row.what))?;
        }
        daemon.kill().await;
    }
    Ok(())
}

#[test]
fn frr_and_we_agree_on_who_calls_and_on_passwords() {
    scenario(async || table(Software::Frr).await);
}

#[test]
fn bird_and_we_agree_on_who_calls_and_on_passwords() {
    scenario(async || table(Software::Bird).await);
}

#[test]
fn gobgp_and_we_agree_on_who_calls_and_on_passwords() {
    scenario(async || table(Software::GoBgp).await);
}

fn rich() -> Result<Attributes> {
    Ok(Attributes {
        origin: Origin::Incomplete,
        med: Some(50),
        prepend: 2,
        local_pref: Some(300),
        communities: ["65000:100".parse()?, "65000:200".parse()?].into(),
        large_communities: ["65000:1:2".parse()?].into(),
        extended_communities: ["rt:65000:7".parse()?].into(),
        ..Attributes::default()
    })
}

/// What a router makes of it, as an external peer and as an internal one.
async fn attributes_arrive(software: Software, internal: bool) -> Result<()> {
    let network = Network::start(0).await?;
    let asn = if internal { US } else { ROUTER };
    let daemon = router(&network, software, asn, |peer| peer).await?;
    let mut peer = peer(&network.router().v4.to_string());
    peer.families = Family::ALL.to_vec();
    peer.remote_as = RemoteAs::Exactly(asn);
    let us = Us::start(config([peer]), with(&ROUTES, rich()?));
    for route in routes(&daemon, network.world().addresses()).await? {
        let seen = (route.origin.as_str(), route.med, route.as_path.len());
        // Prepending is for others: inside an AS the path stays as it is (RFC 4271 section 5.1.2).
        let hops = if internal { 0 } else { 3 };
        ensure!(seen == ("incomplete", Some(50), hops), "{route:?}");
        ensure!(route.as_path.iter().all(|hop| *hop == US), "{route:?}");
        ensure!(
            route.communities == ["65000:100", "65000:200"].map(str::to_owned).into()
                && route.large_communities == ["65000:1:2".to_owned()].into()
                && route.extended_communities == ["rt:65000:7".to_owned()].into(),
            "{route:?}"
        );
        ensure!(
            !internal || route.local_preference == Some(300),
            "{route:?}"
        );
    }
    us.drain().await;
    daemon.kill().await;
    Ok(())
}

#[test]
fn every_attribute_reads_the_same_at_frr() {
    scenario(async || attributes_arrive(Software::Frr, false).await);
}

#[test]
fn every_attribute_reads_the_same_at_bird() {
    scenario(async || attributes_arrive(Software::Bird, false).await);
}

#[test]
fn every_attribute_reads_the_same_at_gobgp() {
    scenario(async || attributes_arrive(Software::GoBgp, false).await);
}

#[test]
fn every_attribute_and_the_local_preference_read_the_same_at_frr_inside_an_as() {
    scenario(async || attributes_arrive(Software::Frr, true).await);
}

#[test]
fn every_attribute_and_the_local_preference_read_the_same_at_bird_inside_an_as() {
    scenario(async || attributes_arrive(Software::Bird, true).await);
}

#[test]
fn every_attribute_and_the_local_preference_read_the_same_at_gobgp_inside_an_as() {
    scenario(async || attributes_arrive(Software::GoBgp, true).await);
}
