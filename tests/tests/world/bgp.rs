//! Level 2: routers that are not ours, among themselves.

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;
use openelb_tests::bgp::Tags;
use openelb_tests::{Bgp, Deadline, Host, Network, Peer, Software, eventually, scenario};

const V4: &str = "203.0.113.9/32";
const V6: &str = "2001:db8:9::9/128";
const ROUTER: u32 = 65000;
const NODES: u32 = 65001;

fn prefixes() -> Result<[IpNet; 2]> {
    Ok([V4.parse()?, V6.parse()?])
}

/// What a router of any make needs to hear three BIRDs.
async fn three_speakers_are_heard_by(software: Software) -> Result<()> {
    let network = Network::start(3).await?;
    let router = network.router();
    let mut config = Bgp::new(ROUTER, router);
    for node in network.nodes() {
        config = config.peer(Peer::at(node.v4, NODES).password("secret").bfd(100));
    }
    let router = config.start(software, router, network.folder()).await?;
    let mut speakers = Vec::new();
    for node in network.nodes() {
        let mut speaker = Bgp::new(NODES, node).peer(
            Peer::at(network.router().v4, ROUTER)
                .password("secret")
                .bfd(100),
        );
        speaker.announce = prefixes()?.to_vec();
        speakers.push(
            speaker
                .start(Software::Bird, node, network.folder())
                .await?,
        );
    }
    for node in network.nodes() {
        router.established(node.v4).await?;
    }
    for prefix in prefixes()? {
        let paths = router
            .routes_become(prefix, "three paths", |routes| routes.len() == 3)
            .await?;
        assert!(
            paths.iter().all(|path| path.as_path == [NODES]),
            "{paths:?}"
        );
    }
    let [v4, _] = prefixes()?;
    let wanted: Vec<IpAddr> = network.nodes().iter().map(|node| node.v4.into()).collect();
    let found: Vec<IpAddr> = router
        .routes(v4)
        .await?
        .iter()
        .map(|route| route.next_hop)
        .collect();
    assert_eq!(found, wanted);
    if software != Software::GoBgp {
        in_the_kernel(network.router(), &wanted).await?;
    }

    let [first, ..] = speakers.as_slice() else {
        anyhow::bail!("three speakers")
    };
    first.kill().await;
    router
        .routes_become(v4, "two paths", |routes| routes.len() == 2)
        .await?;
    first.restart().await?;
    router
        .routes_become(v4, "three paths again", |routes| routes.len() == 3)
        .await?;
    Ok(())
}

async fn in_the_kernel(host: &Host, wanted: &[IpAddr]) -> Result<()> {
    for prefix in prefixes()? {
        eventually(
            &format!("three next hops of {prefix}"),
            Deadline::LONG,
            async || {
                let hops = host.namespace().next_hops(prefix).await?;
                anyhow::ensure!(hops.len() == wanted.len(), "{hops:?}");
                anyhow::ensure!(prefix.addr().is_ipv6() || hops == wanted, "{hops:?}");
                Ok(())
            },
        )
        .await?;
    }
    Ok(())
}

#[test]
fn frr_hears_three_speakers_and_the_loss_of_one() {
    scenario(async || three_speakers_are_heard_by(Software::Frr).await);
}

#[test]
fn bird_hears_three_speakers_and_the_loss_of_one() {
    scenario(async || three_speakers_are_heard_by(Software::Bird).await);
}

#[test]
fn gobgp_hears_three_speakers_and_the_loss_of_one() {
    scenario(async || three_speakers_are_heard_by(Software::GoBgp).await);
}

/// FRR and BIRD say what they were told to say, and every make of router shows it in the same words.
#[test]
fn attributes_are_shown_alike_by_every_router() {
    scenario(async || {
        let network = Network::start(2).await?;
        let [one, two] = network.nodes() else {
            anyhow::bail!("two nodes")
        };
        let tags = Tags {
            communities: vec![(65001, 7), (65001, 8)],
            large_communities: vec![(65001, 1, 2)],
            med: Some(30),
        };
        let [v4, v6] = prefixes()?;
        let mut speakers = Vec::new();
        for (software, node) in [(Software::Bird, one), (Software::Frr, two)] {
            let speaker = Bgp::new(NODES, node)
                .peer(Peer::at(network.router().v4, ROUTER))
                .announce(v4)
                .announce(v6)
                .tags(tags.clone());
            speakers.push(speaker.start(software, node, network.folder()).await?);
        }
        // Dropping a part of a world means that the story has ended.
        let mut stopped = Vec::new();
        for software in Software::ALL {
            let mut config = Bgp::new(ROUTER, network.router());
            for node in network.nodes() {
                config = config.peer(Peer::at(node.v4, NODES));
            }
            let router = config
                .start(software, network.router(), network.folder())
                .await?;
            let paths = router
                .routes_become(v4, "two paths", |routes| routes.len() == 2)
                .await?;
            for (path, node) in paths.iter().zip([one, two]) {
                assert_eq!(path.next_hop, IpAddr::from(node.v4), "{software:?}");
                assert_eq!(path.as_path, [NODES], "{software:?}");
                assert_eq!(path.med, Some(30), "{software:?}: {path:?}");
                let communities: Vec<&str> = path.communities.iter().map(String::as_str).collect();
                assert_eq!(communities, ["65001:7", "65001:8"], "{software:?}");
                let large: Vec<&str> = path.large_communities.iter().map(String::as_str).collect();
                assert_eq!(large, ["65001:1:2"], "{software:?}");
            }
            let neighbors = router.neighbors().await?;
            assert_eq!(neighbors.len(), 2, "{neighbors:?}");
            router.stop().await?;
            stopped.push(router);
        }
        // The kernel's side: who answers for a next hop, and what is installed by whom.
        let neighbor = network.router().namespace().neighbor(one.v4.into()).await?;
        let mac = one.namespace().hardware_address("eth0").await?;
        assert_eq!(neighbor.and_then(|entry| entry.hardware_address), Some(mac));
        Ok(())
    });
}
