//! TTL security (RFC 5082) on both sides and on one alone, and sessions over a hop, with FRR and GoBGP, over IPv4 and
//! IPv6. Where there is no session, the error says what may be wrong.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use openelb_bgp::{Hops, PeerConfig, PeerSnapshot};
use openelb_tests::bgp::{Bgp, Daemon, Peer, Software};
use openelb_tests::{Host, Namespace, Network, scenario};

use super::lab::{Us, config, peer, plain};

const ROUTER: u32 = 65000;
const US: u32 = 65001;
const LINK: Hops = Hops::Security(1);

/// What comes of it.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// A session over the connection that we opened.
    WeCall,
    /// A session over the connection that the router opened.
    TheyCall,
    /// No session, and the error says this.
    Refused(&'static str),
    /// No session for the router, which does not hear us. It limits a connection that we open only once its kernel has
    /// it: an OPEN of ours that is quicker gets through, and nothing after it.
    Unheard,
}
use Outcome::{Refused, TheyCall, Unheard, WeCall};

struct Row {
    what: &'static str,
    theirs: fn(Peer) -> Peer,
    ours: fn(&mut PeerConfig),
    outcome: Outcome,
}

/// On one link: a router for each row, all at once.
const LINKS: [Row; 7] = [
    Row {
        what: "both, the router calls",
        theirs: |peer| peer.hops(LINK),
        ours: |us| (us.hops, us.passive) = (LINK, true),
        outcome: TheyCall,
    },
    Row {
        what: "both, we call",
        theirs: |peer| peer.hops(LINK).passive(),
        ours: |us| us.hops = LINK,
        outcome: WeCall,
    },
    Row {
        what: "ours alone, the router calls",
        theirs: |peer| peer,
        ours: |us| (us.hops, us.passive) = (LINK, true),
        outcome: Refused("its packets arrive with TTL 1,"),
    },
    Row {
        what: "ours alone, we call",
        theirs: Peer::passive,
        ours: |us| us.hops = LINK,
        outcome: Refused("nothing arrived with TTL 255"),
    },
    Row {
        what: "ours alone, both call",
        theirs: |peer| peer,
        ours: |us| us.hops = LINK,
        outcome: Refused("TTL security"),
    },
    Row {
        what: "theirs alone, the router calls",
        theirs: |peer| peer.hops(LINK),
        ours: |us| us.passive = true,
        outcome: Refused("does it ask for TTL security"),
    },
    Row {
        what: "theirs alone, we call",
        theirs: |peer| peer.hops(LINK).passive(),
        ours: |_| {},
        outcome: Unheard,
    },
];

/// To a host with a router in between: one row after the other, which is quick where a session comes up.
const OVER_A_HOP: [Row; 6] = [
    Row {
        what: "multihop, the router calls",
        theirs: |peer| peer.hops(Hops::Multihop(2)),
        ours: |us| (us.hops, us.passive) = (Hops::Multihop(2), true),
        outcome: TheyCall,
    },
    Row {
        what: "multihop, we call",
        theirs: |peer| peer.hops(Hops::Multihop(2)).passive(),
        ours: |us| us.hops = Hops::Multihop(2),
        outcome: WeCall,
    },
    Row {
        what: "TTL security over two hops, the router calls",
        theirs: |peer| peer.hops(Hops::Security(2)),
        ours: |us| (us.hops, us.passive) = (Hops::Security(2), true),
        outcome: TheyCall,
    },
    Row {
        what: "TTL security over two hops, we call",
        theirs: |peer| peer.hops(Hops::Security(2)).passive(),
        ours: |us| us.hops = Hops::Security(2),
        outcome: WeCall,
    },
    Row {
        what: "TTL security of one hop over two",
        theirs: |peer| peer.hops(Hops::Security(2)),
        ours: |us| (us.hops, us.passive) = (LINK, true),
        outcome: Refused("its packets arrive with TTL 254,"),
    },
    Row {
        what: "no multihop of ours",
        theirs: |peer| peer.hops(Hops::Multihop(2)).passive(),
        ours: |_| {},
        outcome: Refused("is it on the same link?"),
    },
];

/// A router on this host with us as a peer over IPv4 and IPv6, set up as the row says.
async fn router(network: &Network, software: Software, host: &Host, row: &Row) -> Result<Daemon> {
    if software == Software::GoBgp {
        // GoBGP means to answer calls with a TTL of 255 and sets that for IPv4 alone: over IPv6 nobody who has TTL
        // security could call it.
        let hop_limit = format!("net.ipv6.conf.{}.hop_limit=255", host.interface);
        host.namespace().sysctl(&[&hop_limit]).await?;
    }
    let us = network.world().addresses();
    let bgp = us.iter().fold(Bgp::new(ROUTER, host), |bgp, address| {
        bgp.peer((row.theirs)(Peer::at(*address, US).hold(9)))
    });
    bgp.start(software, host, network.folder()).await
}

/// What we are set up for towards the router on this host.
fn ours(host: &Host, row: &Row) -> [PeerConfig; 2] {
    host.addresses().map(|address| {
        let mut peer = peer(&address.to_string());
        (row.ours)(&mut peer);
        peer
    })
}

/// Waits until what comes of a row is there to see, at the peers of these names and at the router.
async fn comes_of(us: &Us, names: [&str; 2], router: &Daemon, row: &Row) -> Result<()> {
    for name in names {
        outcome(us, name, row.outcome)
            .await
            .with_context(|| format!("{}, {name}", row.what))?;
    }
    if let Refused(_) | Unheard = row.outcome {
        let seen = router.neighbors().await?;
        ensure!(
            seen.iter().all(|peer| !peer.established),
            "{}: {seen:?}",
            row.what
        );
    }
    Ok(())
}

async fn outcome(us: &Us, name: &str, outcome: Outcome) -> Result<()> {
    let inbound = match outcome {
        WeCall => false,
        TheyCall => true,
        Refused(text) => {
            let seen = us.sees(text, name, |peer| says(peer, text)).await?;
            let counted = seen.counters.read();
            // An attempt that fails is none that another connection won over.
            ensure!(
                (counted.established, counted.collisions) == (0, 0),
                "{seen:?}"
            );
            return Ok(());
        }
        Unheard => {
            us.sees("that we are not heard", name, |peer| {
                says(peer, "does it ask for TTL security")
                    || says(peer, "peer ended the session: Hold Timer Expired")
            })
            .await?;
            return Ok(());
        }
    };
    let seen = us.established(name).await?;
    let agreed = seen.negotiated.as_ref().context("nothing agreed")?;
    ensure!(agreed.inbound == inbound, "{seen:?}");
    Ok(())
}

fn says(peer: &PeerSnapshot, text: &str) -> bool {
    let error = peer.last_error.as_ref();
    error.is_some_and(|error| error.message.contains(text))
}

async fn on_the_link(software: Software) -> Result<()> {
    let network = Network::start(u8::try_from(LINKS.len())?).await?;
    let rows = || network.nodes().iter().zip(&LINKS);
    let routers =
        try_join_all(rows().map(|(host, row)| router(&network, software, host, row))).await?;
    let us = Us::start(
        config(rows().flat_map(|(host, row)| ours(host, row))),
        plain(&[]),
    );
    let each = (0..).zip(routers.iter().zip(&LINKS));
    try_join_all(each.map(async |(index, (router, row))| {
        let names = [2 * index, 2 * index + 1].map(|index| format!("p{index}"));
        comes_of(&us, names.each_ref().map(String::as_str), router, row).await
    }))
    .await?;
    us.drain().await;
    Ok(())
}

async fn over_a_hop(software: Software) -> Result<()> {
    let network = Network::start(0).await?;
    Namespace::own()
        .ip("route add 192.168.100.0/24 via 10.0.0.1\nroute add fd00:100::/64 via fd00:10::1\n")
        .await?;
    for row in &OVER_A_HOP {
        let router = router(&network, software, network.client(), row).await?;
        let us = Us::start(config(ours(network.client(), row)), plain(&[]));
        comes_of(&us, ["p0", "p1"], &router, row).await?;
        us.drain().await;
        router.kill().await;
    }
    Ok(())
}

#[test]
fn frr_and_we_have_a_session_where_both_or_neither_have_ttl_security() {
    scenario(async || on_the_link(Software::Frr).await);
}

#[test]
fn gobgp_and_we_have_a_session_where_both_or_neither_have_ttl_security() {
    scenario(async || on_the_link(Software::GoBgp).await);
}

#[test]
fn frr_and_we_have_a_session_over_as_many_hops_as_both_allow() {
    scenario(async || over_a_hop(Software::Frr).await);
}

#[test]
fn gobgp_and_we_have_a_session_over_as_many_hops_as_both_allow() {
    scenario(async || over_a_hop(Software::GoBgp).await);
}
