//! BGP.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use openelb_tests::bgp::{Bgp, Daemon, Peer, Route, Software};
use openelb_tests::{Deadline, Program, eventually, scenario};
use serde_json::{Value, json};

use super::stage::Stage;

pub(super) const ROUTER: u32 = 65001;
pub(super) const NODES: u32 = 65000;
pub(super) const ADDRESS: &str = "203.0.113.1";

pub(super) fn prefix() -> IpNet {
    IpNet::from(IpAddr::from([203, 0, 113, 1]))
}

/// A daemon on the router, with every node as a peer.
pub(super) async fn router(
    stage: &Stage,
    software: Software,
    refine: impl Fn(Peer) -> Peer,
) -> Result<Daemon> {
    let mut bgp = Bgp::new(ROUTER, stage.network.router());
    for node in stage.network.nodes() {
        bgp = bgp.peer(refine(Peer::at(node.v4, NODES).hold(9)));
    }
    bgp.start(software, stage.network.router(), stage.network.folder())
        .await
}

/// The BgpPeer for the router.
pub(super) fn peer_spec(stage: &Stage) -> Value {
    json!({
        "conf": {"neighborAddress": stage.network.router().v4.to_string(), "peerAs": ROUTER},
        "timers": {"config": {"holdTime": "9"}}
    })
}

/// A stage with the usual objects, speakers on all nodes, and a router.
pub(super) async fn served(
    nodes: u8,
    conf: &Value,
    refine: impl Fn(Peer) -> Peer,
) -> Result<(Stage, Daemon)> {
    let mut stage = Stage::start(nodes).await?;
    let daemon = router(&stage, Software::Frr, refine).await?;
    let peer = peer_spec(&stage);
    objects(&stage, conf, &peer).await?;
    for number in 1..=nodes {
        stage.speak(&format!("n{number}"), &[]).await?;
    }
    Ok((stage, daemon))
}

/// The usual objects: one peer, one pool, one Service with an endpoint on n1.
pub(super) async fn objects(stage: &Stage, conf: &Value, peer: &Value) -> Result<()> {
    stage.ours("BgpConf", "default", conf).await?;
    stage.ours("BgpPeer", "router", peer).await?;
    stage
        .ours("Eip", "pool", &json!({"address": "203.0.113.0/24"}))
        .await?;
    stage.service("web", "Cluster", ADDRESS).await?;
    stage.endpoints("web", &["n1"]).await
}

/// Waits until the router sees exactly these nodes behind the address.
pub(super) async fn behind(stage: &Stage, daemon: &Daemon, nodes: &[&str]) -> Result<Vec<Route>> {
    let mut hops: Vec<IpAddr> = Vec::new();
    for node in nodes {
        hops.push(stage.network.node(node)?.v4.into());
    }
    stage.check()?;
    let what = format!("{nodes:?}");
    daemon
        .routes_become(prefix(), &what, |routes| {
            let seen: Vec<IpAddr> = routes.iter().map(|route| route.next_hop).collect();
            seen == hops
        })
        .await
}

/// Waits until the router's kernel has the address behind one node: the daemon hands routes on in its own time.
pub(super) async fn in_kernel(stage: &Stage) -> Result<()> {
    let namespace = stage.network.router().namespace();
    eventually("the route in the kernel", Deadline::SHORT, async || {
        let hops = namespace.next_hops(prefix()).await?;
        ensure!(hops.len() == 1, "{hops:?}");
        Ok(())
    })
    .await
}

/// How often the sessions came up, by the router's count.
pub(super) async fn sessions(daemon: &Daemon) -> Result<Vec<u64>> {
    let text = daemon.ask("show bgp neighbors json").await?;
    let answer: Value = serde_json::from_str(&text)?;
    let peers = answer.as_object().context("no neighbours")?.values();
    Ok(peers
        .filter_map(|peer| peer["connectionsEstablished"].as_u64())
        .collect())
}

/// Waits until FRR has heard so many more keepalives of its one peer.
pub(super) async fn keepalives(daemon: &Daemon, more: u64) -> Result<()> {
    let count = async || -> Result<u64> {
        let answer: Value = serde_json::from_str(&daemon.ask("show bgp neighbors json").await?)?;
        let mut peers = answer.as_object().context("no neighbours")?.values();
        let peer = peers.next().context("no neighbour")?;
        peer["messageStats"]["keepalivesRecv"]
            .as_u64()
            .context("no count")
    };
    let first = count().await?;
    let what = format!("{more} more keepalives");
    eventually(&what, Deadline::LONG, async || {
        let now = count().await?;
        ensure!(now >= first + more, "{first}, then {now}");
        Ok(())
    })
    .await
}

#[test]
fn an_address_is_announced_by_the_nodes_that_can_deliver() {
    scenario(async || {
        let conf = json!({"as": NODES});
        let (stage, daemon) = served(2, &conf, |peer| peer).await?;
        let routes = behind(&stage, &daemon, &["n1", "n2"]).await?;
        ensure!(
            routes.iter().all(|route| route.as_path == [NODES]),
            "{routes:?}"
        );
        eventually("two next hops in the kernel", Deadline::SHORT, async || {
            let hops = stage
                .network
                .router()
                .namespace()
                .next_hops(prefix())
                .await?;
            ensure!(hops.len() == 2, "{hops:?}");
            Ok(())
        })
        .await?;
        let before = sessions(&daemon).await?;

        stage
            .kubectl(&[
                "label",
                "node",
                "n1",
                "node.kubernetes.io/exclude-from-external-load-balancers=",
            ])
            .await?;
        behind(&stage, &daemon, &["n2"]).await?;
        stage
            .kubectl(&[
                "label",
                "node",
                "n1",
                "node.kubernetes.io/exclude-from-external-load-balancers-",
            ])
            .await?;
        behind(&stage, &daemon, &["n1", "n2"]).await?;

        stage.kubectl(&["cordon", "n1"]).await?;
        stage.service("web", "Local", ADDRESS).await?;
        behind(&stage, &daemon, &["n1"]).await?;
        stage.endpoints("web", &["n2"]).await?;
        behind(&stage, &daemon, &["n2"]).await?;
        stage.endpoints("web", &[]).await?;
        behind(&stage, &daemon, &[]).await?;
        stage.endpoints("web", &["n1", "n2"]).await?;
        behind(&stage, &daemon, &["n1", "n2"]).await?;
        let after = sessions(&daemon).await?;
        ensure!(
            before == after,
            "sessions were reset: {before:?}, then {after:?}"
        );
        Ok(())
    });
}

#[test]
fn attributes_peers_and_aggregates_change_without_a_reset() {
    scenario(async || {
        let conf = json!({"as": NODES});
        let (stage, daemon) = served(2, &conf, |peer| peer).await?;
        behind(&stage, &daemon, &["n1", "n2"]).await?;
        let before = sessions(&daemon).await?;
        // Attributes and descriptions change by UPDATE, not by a reset.
        let bgp = json!({"communities": ["65000:7"], "largeCommunities": ["65000:1:2"], "med": 5, "asPathPrepend": 1});
        stage
            .ours(
                "Eip",
                "pool",
                &json!({"address": "203.0.113.0/24", "bgp": bgp}),
            )
            .await?;
        daemon
            .routes_become(prefix(), "the attributes of the Eip", |routes| {
                routes.len() == 2
                    && routes.iter().all(|route| {
                        route.communities.contains("65000:7")
                            && route.large_communities.contains("65000:1:2")
                            && route.med == Some(5)
                            && route.as_path == [NODES, NODES]
                    })
            })
            .await?;
        let mut described = peer_spec(&stage);
        described["conf"]["description"] = json!("spine");
        stage.ours("BgpPeer", "router", &described).await?;
        eventually(
            "the new description in the status",
            Deadline::SHORT,
            async || {
                stage.check()?;
                let text = stage
                    .kubectl(&["get", "bgppeer", "router", "-o", "json"])
                    .await?;
                let peer: Value = serde_json::from_str(&text)?;
                for node in ["n1", "n2"] {
                    let entry = &peer["status"]["nodesPeerStatus"][node];
                    ensure!(entry["peerState"]["description"] == "spine", "{entry}");
                    ensure!(
                        entry["peerState"]["sessionState"] == "ESTABLISHED",
                        "{entry}"
                    );
                    ensure!(entry["announced"]["prefixes"] == 1, "{entry}");
                }
                Ok(())
            },
        )
        .await?;
        let after = sessions(&daemon).await?;
        ensure!(
            before == after,
            "sessions were reset: {before:?}, then {after:?}"
        );

        // An Eip for other peers, and an aggregate.
        let elsewhere = json!({"peers": ["another"]});
        stage
            .ours(
                "Eip",
                "pool",
                &json!({"address": "203.0.113.0/24", "bgp": elsewhere}),
            )
            .await?;
        behind(&stage, &daemon, &[]).await?;
        let aggregate = json!({"aggregationLength": 24});
        stage
            .ours(
                "Eip",
                "pool",
                &json!({"address": "203.0.113.0/24", "bgp": aggregate}),
            )
            .await?;
        let whole: IpNet = "203.0.113.0/24".parse()?;
        daemon
            .routes_become(whole, "the aggregate", |routes| routes.len() == 2)
            .await?;
        ensure!(
            daemon.routes(prefix()).await?.is_empty(),
            "the address itself is announced too"
        );

        without_bgpconf(&stage, &daemon, &conf, whole).await
    });
}

/// Takes the BgpConf away and brings it back, in one go and slowly.
async fn without_bgpconf(stage: &Stage, daemon: &Daemon, conf: &Value, whole: IpNet) -> Result<()> {
    // Replaced in one go, as `kubectl replace --force` does: the engine before ends first.
    let before: u64 = sessions(daemon).await?.iter().sum();
    stage.kubectl(&["delete", "bgpconf", "default"]).await?;
    stage.ours("BgpConf", "default", conf).await?;
    eventually("the sessions to come back", Deadline::LONG, async || {
        stage.check()?;
        let now: u64 = sessions(daemon).await?.iter().sum();
        ensure!(now >= before + 2, "{before}, then {now}");
        Ok(())
    })
    .await?;
    daemon
        .routes_become(whole, "the aggregate again", |routes| routes.len() == 2)
        .await?;

    // Without a BgpConf nothing is announced; with a new one all is.
    stage.kubectl(&["delete", "bgpconf", "default"]).await?;
    daemon
        .routes_become(whole, "nothing", <[Route]>::is_empty)
        .await?;
    stage.ours("BgpConf", "default", conf).await?;
    daemon
        .routes_become(whole, "the aggregate", |routes| routes.len() == 2)
        .await?;
    Ok(())
}

#[test]
fn nothing_is_withdrawn_while_the_api_server_is_gone() {
    scenario(async || {
        let (stage, daemon) = served(1, &json!({"as": NODES}), |peer| peer).await?;
        behind(&stage, &daemon, &["n1"]).await?;
        let before = sessions(&daemon).await?;
        in_kernel(&stage).await?;
        let monitor = stage
            .network
            .router()
            .namespace()
            .program(Program::new("monitor", "ip").args(["-o", "-t", "monitor", "route"]));
        let monitor = monitor.start(stage.network.folder().path())?;
        stage.control.api_server().kill().await;
        let speaker = stage.speaker("n1")?;
        eventually("the speaker to notice", Deadline::LONG, async || {
            ensure!(
                speaker.log().contains("the watch is interrupted"),
                "not yet"
            );
            Ok(())
        })
        .await?;
        // Longer than the hold time: keepalives go on.
        keepalives(&daemon, 5).await?;
        behind(&stage, &daemon, &["n1"]).await?;
        stage.control.api_server().restart().await?;
        stage.control.ready().await?;
        // What changed meanwhile or after is followed again.
        stage.service("dns", "Cluster", "203.0.113.2").await?;
        stage.endpoints("dns", &["n1"]).await?;
        let other: IpNet = "203.0.113.2/32".parse()?;
        daemon
            .routes_become(other, "the new address", |routes| routes.len() == 1)
            .await?;
        ensure!(
            !monitor.log().contains(ADDRESS),
            "the route was touched:\n{}",
            monitor.log()
        );
        ensure!(sessions(&daemon).await? == before, "the session was reset");
        Ok(())
    });
}

#[test]
fn the_controller_says_who_announces_and_sums_up_the_sessions() {
    scenario(async || {
        let (stage, daemon) = served(2, &json!({"as": NODES}), |peer| peer).await?;
        let _controller = stage.controller()?;
        behind(&stage, &daemon, &["n1", "n2"]).await?;
        stage
            .announced("web", "True", "2/2 nodes, 1/1 peers")
            .await?;
        let sum = |sum: &'static str| move |status: &Value| status["summary"] == sum;
        stage
            .peer("router", "the summary", sum("2/2 Established"))
            .await?;
        stage.endpoints("web", &[]).await?;
        stage
            .announced("web", "False", "no endpoint is ready")
            .await?;
        stage.endpoints("web", &["n1"]).await?;
        stage
            .announced("web", "True", "2/2 nodes, 1/1 peers")
            .await?;
        let events = stage.kubectl(&["get", "events", "-o", "json"]).await?;
        ensure!(
            events.contains("success to add nexthops [n1, n2]"),
            "{events}"
        );
        // A speaker that is dead reports no more, however Ready its Node is.
        stage.pod("n1").await?;
        stage.pod("n2").await?;
        stage.speaker("n2")?.kill().await;
        stage.pod_fails("n2").await?;
        stage.announced("web", "True", "1/2 nodes").await?;
        stage
            .peer("router", "the dead speaker", |status| {
                let conditions = status["conditions"].as_array().into_iter().flatten();
                let ready = conditions.filter(|one| one["type"] == "Ready");
                let texts: Vec<&str> = ready.filter_map(|one| one["message"].as_str()).collect();
                status["summary"] == "1/2 Established" && texts == ["n2: no speaker is ready there"]
            })
            .await?;
        // The entries of a node that is no more are removed.
        stage.kubectl(&["delete", "node", "n2"]).await?;
        stage
            .peer("router", "the entry of n2 to go", |status| {
                status["nodesPeerStatus"]["n2"].is_null() && status["summary"] == "1/1 Established"
            })
            .await?;
        Ok(())
    });
}
