//! What the objects ask for: families, passwords, selectors.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use openelb_tests::bgp::{Bgp, Daemon, Peer, Software};
use openelb_tests::{Deadline, eventually, scenario};
use serde_json::{Value, json};

use super::bgp::{NODES, ROUTER, behind, objects, peer_spec, prefix, router};
use super::stage::Stage;

const SIX: &str = "2001:db8:5::1";

/// Waits until the status of the BgpPeer shows this for n1.
async fn says(stage: &Stage, what: &str, good: impl Fn(&Value) -> bool) -> Result<()> {
    eventually(what, Deadline::LONG, async || {
        stage.check()?;
        let text = stage
            .kubectl(&["get", "bgppeer", "router", "-o", "json"])
            .await?;
        let peer: Value = serde_json::from_str(&text)?;
        let entries = &peer["status"]["nodesPeerStatus"];
        ensure!(good(entries), "{entries}");
        Ok(())
    })
    .await
}

/// An endpoint of the Service `six`: an IPv6 address is delivered by IPv6 endpoints.
fn slice_of_six() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "six-1", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "six"}
        },
        "addressType": "IPv6", "ports": [{"port": 80}],
        "endpoints": [{"addresses": ["fd00:244::1"], "nodeName": "n1", "conditions": {"ready": true}}]
    })
}

#[test]
fn both_families_run_over_one_session_with_a_password_on_the_nodes_that_are_selected() {
    scenario(async || {
        let mut stage = Stage::start(2).await?;
        let daemon = router(&stage, Software::Frr, |peer| peer.password("hush")).await?;
        let mut peer = peer_spec(&stage);
        peer["passwordSecretRef"] = json!({"name": "router-password"});
        peer["nodeSelector"] = json!({"matchLabels": {"uplink": "yes"}});
        let family =
            |afi: &str| json!({"config": {"family": {"afi": afi, "safi": "SAFI_UNICAST"}}});
        peer["afiSafis"] = json!([family("AFI_IP"), family("AFI_IP6")]);
        objects(&stage, &json!({"as": NODES}), &peer).await?;
        let both = json!({"address": "203.0.113.0/24, 2001:db8:5::/120"});
        stage.ours("Eip", "pool", &both).await?;
        stage.service("six", "Cluster", SIX).await?;
        stage.apply(&slice_of_six()).await?;
        stage.speak("n1", &[]).await?;
        stage.speak("n2", &[]).await?;

        // Labels decide, live; and a Secret that is not there yet is named.
        stage
            .kubectl(&["label", "node", "n1", "uplink=yes"])
            .await?;
        says(&stage, "the missing Secret on n1 alone", |entries| {
            entries["n1"]["message"]
                .as_str()
                .is_some_and(|text| text.contains("no Secret router-password"))
                && entries["n2"].is_null()
        })
        .await?;
        let secret = |password: &str| {
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
                "metadata": {"name": "router-password", "namespace": "openelb-system"},
                "stringData": {"password": password}
            })
        };
        stage.apply(&secret("hush")).await?;
        behind(&stage, &daemon, &["n1"]).await?;
        let six: IpNet = IpNet::from(SIX.parse::<IpAddr>()?);
        let n1 = stage.network.node("n1")?;
        let own: Vec<IpAddr> = n1.addresses().into_iter().filter(IpAddr::is_ipv6).collect();
        daemon
            .routes_become(six, "the IPv6 address behind n1", |routes| {
                routes.len() == 1 && own.contains(&routes[0].next_hop)
            })
            .await?;
        says(&stage, "an established session", |entries| {
            entries["n1"]["peerState"]["sessionState"] == "ESTABLISHED"
        })
        .await?;

        // The other node joins, and the first leaves.
        stage
            .kubectl(&["label", "node", "n2", "uplink=yes"])
            .await?;
        behind(&stage, &daemon, &["n1", "n2"]).await?;
        stage.kubectl(&["label", "node", "n1", "uplink-"]).await?;
        behind(&stage, &daemon, &["n2"]).await?;
        daemon
            .routes_become(six, "the IPv6 address behind n2", |routes| {
                routes.len() == 1
            })
            .await?;

        // Another password on our side is another session, which does not come up.
        stage.apply(&secret("wrong")).await?;
        daemon
            .routes_become(prefix(), "nothing", <[_]>::is_empty)
            .await?;
        stage.apply(&secret("hush")).await?;
        behind(&stage, &daemon, &["n2"]).await?;
        Ok(())
    });
}

/// How often the session with this neighbour came up, by the router's count, and whether it is up.
async fn came_up(daemon: &Daemon, neighbour: IpAddr) -> Result<u64> {
    let text = daemon.ask("show bgp neighbors json").await?;
    let all: Value = serde_json::from_str(&text)?;
    let peer = &all[neighbour.to_string()];
    ensure!(peer["bgpState"] == "Established", "{}", peer["bgpState"]);
    peer["connectionsEstablished"].as_u64().context("no count")
}

#[test]
fn each_family_over_its_own_session_is_confirmed_and_a_reset_is_one_peers_matter() {
    scenario(async || {
        let mut stage = Stage::start(1).await?;
        let n1 = stage.network.node("n1")?;
        let (four, six) = (IpAddr::from(n1.v4), IpAddr::from(n1.v6));
        let bgp = Bgp::new(ROUTER, stage.network.router())
            .peer(Peer::at(four, NODES).hold(9))
            .peer(Peer::at(six, NODES).hold(9));
        let daemon = bgp
            .start(
                Software::Frr,
                stage.network.router(),
                stage.network.folder(),
            )
            .await?;
        // One BgpPeer for each family, as most dual-stack networks have it.
        objects(&stage, &json!({"as": NODES}), &peer_spec(&stage)).await?;
        let router_six = stage.network.router().v6.to_string();
        let over_six = |more: Value| {
            let mut spec = json!({
                "conf": {"neighborAddress": router_six, "peerAs": ROUTER},
                "timers": {"config": {"holdTime": "9"}}
            });
            for (key, value) in more.as_object().into_iter().flatten() {
                spec[key] = value.clone();
            }
            spec
        };
        stage
            .ours("BgpPeer", "router-six", &over_six(json!({})))
            .await?;
        let both = json!({"address": "203.0.113.0/24, 2001:db8:5::/120"});
        stage.ours("Eip", "pool", &both).await?;
        stage.service("six", "Cluster", SIX).await?;
        stage.apply(&slice_of_six()).await?;
        stage.speak("n1", &[]).await?;
        let _controller = stage.controller()?;
        behind(&stage, &daemon, &["n1"]).await?;
        stage
            .announced("web", "True", "203.0.113.1: 1/1 nodes, 1/1 peers")
            .await?;
        stage
            .announced("six", "True", "2001:db8:5::1: 1/1 nodes, 1/1 peers")
            .await?;

        // What is bound to one session resets that one, and the other goes on.
        let before = (came_up(&daemon, four).await?, came_up(&daemon, six).await?);
        let longer = over_six(json!({"timers": {"config": {"holdTime": "12"}}}));
        stage.ours("BgpPeer", "router-six", &longer).await?;
        eventually(
            "the session over IPv6 to be a new one",
            Deadline::LONG,
            async || {
                stage.check()?;
                let now = came_up(&daemon, six).await?;
                ensure!(now > before.1, "{now}");
                Ok(())
            },
        )
        .await?;
        ensure!(came_up(&daemon, four).await? == before.0, "both were reset");
        Ok(())
    });
}

#[test]
fn the_rack_of_a_node_decides_its_as_number_live_and_a_passive_peer_lets_the_router_call() {
    const RACK: u32 = 65010;
    scenario(async || {
        let mut stage = Stage::start(1).await?;
        let n1 = IpAddr::from(stage.network.node("n1")?.v4);
        let daemon = Bgp::new(ROUTER, stage.network.router())
            .peer(Peer::at(n1, RACK).hold(9))
            .start(
                Software::Frr,
                stage.network.router(),
                stage.network.folder(),
            )
            .await?;
        let mut peer = peer_spec(&stage);
        peer["transport"] = json!({"passiveMode": true});
        let conf = json!({"as": NODES, "asPerRack": {"r1": RACK}});
        objects(&stage, &conf, &peer).await?;
        let rack = "openelb.kubesphere.io/rack";
        let labelled = format!("{rack}=r1");
        stage.kubectl(&["label", "node", "n1", &labelled]).await?;
        stage.speak("n1", &[]).await?;
        let routes = behind(&stage, &daemon, &["n1"]).await?;
        ensure!(routes[0].as_path == [RACK], "{routes:?}");
        // The label decides also later: with the common number the router does not know us.
        stage
            .kubectl(&["label", "node", "n1", &format!("{rack}-")])
            .await?;
        behind(&stage, &daemon, &[]).await?;
        stage.kubectl(&["label", "node", "n1", &labelled]).await?;
        behind(&stage, &daemon, &["n1"]).await?;
        Ok(())
    });
}
