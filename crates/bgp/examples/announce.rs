//! Announces one prefix to one router until Ctrl-C, then drains.
//!
//! ```sh
//! cargo run -p openelb-bgp --example announce -- 65001 10.0.0.11 65000 10.0.0.1 203.0.113.9/32
//! ```
//!
//! The arguments are our AS number, our router id, the router's AS number and
//! address, and the prefixes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use openelb_bgp::{
    Attributes, Family, GracefulRestart, PeerConfig, PeerSelection, RemoteAs, RouteSet, Shutdown,
    Speaker, SpeakerConfig,
};
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("see the top of this file for usage");
    let asn: u32 = next()?.parse()?;
    let router_id: Ipv4Addr = next()?.parse()?;
    let peer_as: u32 = next()?.parse()?;
    let address: IpAddr = next()?.parse()?;
    let attributes = Arc::new(Attributes::default());
    let mut routes = RouteSet::new();
    for prefix in arguments {
        routes.insert(
            prefix.parse()?,
            Arc::clone(&attributes),
            PeerSelection::default(),
        );
    }

    let mut peer = PeerConfig::new(address, RemoteAs::Exactly(peer_as));
    peer.families = Family::ALL.to_vec();
    peer.graceful_restart = Some(GracefulRestart::default());
    let config = SpeakerConfig::new(asn, router_id).peer("router", peer);

    // The other ends of these channels are how configuration and routes change.
    let (_config, config) = watch::channel(Arc::new(config));
    let (_routes, routes) = watch::channel(Arc::new(routes));
    let speaker = Speaker::spawn(config, routes);

    let mut snapshots = speaker.snapshot();
    let report = tokio::spawn(async move {
        while snapshots.changed().await.is_ok() {
            let snapshot = snapshots.borrow_and_update().clone();
            for (name, peer) in &snapshot.peers {
                println!("{name}: {}", peer.state);
                for (family, told) in &peer.families {
                    println!("  {family}: {} prefixes", told.advertised.count());
                }
                if let Some(error) = &peer.last_error {
                    println!("  {}", error.message);
                }
            }
        }
    });
    tokio::signal::ctrl_c().await?;
    speaker
        .shutdown(Shutdown::Drain {
            wait: Duration::from_secs(1),
            reason: "the example ends".to_owned(),
        })
        .await;
    report.abort();
    Ok(())
}
