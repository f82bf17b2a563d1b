//! Both sides connect at once, and one connection stays (RFC 4271 section 6.8): made to happen, not hoped for. What
//! would decide is kept back until both connections are open.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use openelb_tests::bgp::{Bgp, Peer, Software};
use openelb_tests::{Namespace, Network, scenario};

use super::lab::{Us, config, peer, plain, until};

const ROUTE: &str = "203.0.113.9/32";

/// Lets connections open and no message through.
const NO_MESSAGE: &str = "table inet hold {
  chain in { type filter hook input priority 0;
    tcp sport 179 tcp flags & psh == psh drop; tcp dport 179 tcp flags & psh == psh drop; }
}";
/// At the router, besides: it cannot be called.
const NO_CALL: &str = "table inet deaf {
  chain in { type filter hook input priority 0; tcp dport 179 tcp flags & (syn | ack) == syn drop; }
}";

/// How many connections are open that the router opened to us.
async fn calls(world: &Namespace) -> Result<usize> {
    let text = world
        .run(&["ss", "-Htn", "state", "established", "sport", "=", ":179"])
        .await?;
    Ok(text.lines().count())
}

/// The router calls first, then we do, and then each hears the other's OPEN on both connections.
async fn both_call(software: Software, our_id: Ipv4Addr) -> Result<()> {
    let network = Network::start(0).await?;
    let (host, world) = (network.router(), Namespace::own());
    world.nft(NO_MESSAGE).await?;
    host.namespace().nft(NO_MESSAGE).await?;
    host.namespace().nft(NO_CALL).await?;
    let daemon = Bgp::new(65000, host)
        .peer(Peer::at(network.world().v4, 65001))
        .start(software, host, network.folder())
        .await?;
    let mut config = config([peer(&host.v4.to_string())]);
    config.router_id = our_id;
    let us = Us::start(config, plain(&[ROUTE]));
    until("the router's call", async || {
        ensure!(calls(&world).await? == 1, "none yet");
        Ok(())
    })
    .await?;
    host.namespace().nft("delete table inet deaf").await?;
    until("an OPEN on each connection", async || {
        let peer = us.snapshot().peers["p0"].clone();
        ensure!(peer.counters.read().open_sent >= 2, "{peer:?}");
        Ok(())
    })
    .await?;
    host.namespace().nft("delete table inet hold").await?;
    world.nft("delete table inet hold").await?;

    us.told("p0", 1).await?;
    daemon
        .routes_become(ROUTE.parse()?, "the route", |paths| paths.len() == 1)
        .await?;
    let peer = us.snapshot().peers["p0"].clone();
    let counted = peer.counters.read();
    // FRR 8.4 now and then ends the session that stays once more ("No AFI/SAFI activated for peer"), before any route.
    let flaps = u64::from(software == Software::Frr);
    ensure!(
        counted.dropped <= flaps && counted.established == counted.dropped + 1,
        "{counted:?}"
    );
    if software != Software::GoBgp {
        // The connection of the side with the larger identifier stays. GoBGP hangs up whoever calls second.
        let inbound = peer.negotiated.as_ref().context("no session")?.inbound;
        ensure!(counted.collisions == 1, "{counted:?}");
        ensure!(inbound == (our_id < host.v4), "{peer:?}");
    }
    us.drain().await;
    Ok(())
}

/// Identifiers beside the router's, which is its address.
const LARGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);
const SMALLER: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

#[test]
fn with_frr_our_connection_stays_where_our_identifier_is_larger() {
    scenario(async || both_call(Software::Frr, LARGER).await);
}

#[test]
fn with_frr_its_connection_stays_where_our_identifier_is_smaller() {
    scenario(async || both_call(Software::Frr, SMALLER).await);
}

#[test]
fn with_bird_our_connection_stays_where_our_identifier_is_larger() {
    scenario(async || both_call(Software::Bird, LARGER).await);
}

#[test]
fn with_bird_its_connection_stays_where_our_identifier_is_smaller() {
    scenario(async || both_call(Software::Bird, SMALLER).await);
}

#[test]
fn with_gobgp_one_connection_stays() {
    scenario(async || both_call(Software::GoBgp, LARGER).await);
}
