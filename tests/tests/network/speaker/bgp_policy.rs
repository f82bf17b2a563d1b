//! Policies in GoBGP's form (`BgpConf.spec.policy`), read back from routers.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use ipnet::IpNet;
use openelb_tests::bgp::{Bgp, Peer, Route, Software};
use openelb_tests::scenario;
use serde_json::json;

use super::bgp::{NODES, behind, objects, peer_spec, prefix, router, served, sessions};
use super::stage::Stage;

/// Puts a policy in force.
async fn apply(stage: &Stage, policy: &str) -> Result<()> {
    stage
        .apply(&json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "policy", "namespace": "openelb-system"},
            "data": {"gobgp.conf": policy}
        }))
        .await?;
    let conf = json!({"as": NODES, "policy": "policy"});
    stage.ours("BgpConf", "default", &conf).await
}

#[test]
fn a_policy_that_the_bgpconf_names_applies_live() {
    scenario(async || {
        let conf = json!({"as": NODES});
        let (stage, daemon) = served(2, &conf, |peer| peer).await?;
        behind(&stage, &daemon, &["n1", "n2"]).await?;
        let before = sessions(&daemon).await?;
        // It comes and goes by UPDATE.
        let policy = r#"
            [global.apply-policy.config]
            export-policy-list = ["out"]
            [[policy-definitions]]
            name = "out"
            [[policy-definitions.statements]]
            actions.bgp-actions.set-med = "+20"
            actions.bgp-actions.set-community = {options = "replace", set-community-method.communities-list = ["65000:9"]}
        "#;
        apply(&stage, policy).await?;
        daemon
            .routes_become(prefix(), "the attributes of the policy", |routes| {
                routes.len() == 2
                    && routes.iter().all(|route| {
                        route.communities == ["65000:9".to_owned()].into() && route.med == Some(20)
                    })
            })
            .await?;
        stage.ours("BgpConf", "default", &conf).await?;
        daemon
            .routes_become(prefix(), "the plain route", |routes| {
                routes.len() == 2 && routes.iter().all(|route| route.communities.is_empty())
            })
            .await?;
        let after = sessions(&daemon).await?;
        ensure!(
            before == after,
            "a policy reset sessions: {before:?}, then {after:?}"
        );
        Ok(())
    });
}

/// Prepends, sets the next hop, extended and large communities towards all; inside the AS it sets the local preference
/// and keeps the second address to itself.
const ACTIONS: &str = r#"
    [global.apply-policy.config]
    export-policy-list = ["out"]
    [[defined-sets.prefix-sets]]
    prefix-set-name = "second"
    prefix-list = [{ip-prefix = "203.0.113.2/32"}]
    [[defined-sets.neighbor-sets]]
    neighbor-set-name = "inside"
    neighbor-info-list = ["10.0.0.200"]
    [[policy-definitions]]
    name = "out"
    [[policy-definitions.statements]]
    conditions.match-prefix-set.prefix-set = "second"
    conditions.match-neighbor-set.neighbor-set = "inside"
    actions.route-disposition = "reject-route"
    [[policy-definitions.statements]]
    conditions.match-neighbor-set.neighbor-set = "inside"
    actions.bgp-actions.set-local-pref = 250
    [[policy-definitions.statements]]
    actions.bgp-actions.set-next-hop = "10.0.0.77"
    actions.bgp-actions.set-as-path-prepend = {as = "65000", repeat-n = 2}
    actions.bgp-actions.set-ext-community = {options = "add", set-ext-community-method.communities-list = ["RT:65000:9"]}
    actions.bgp-actions.set-large-community = {options = "add", set-large-community-method.communities-list = ["65000:1:9"]}
"#;

/// What all routers read of these actions.
fn tagged(route: &Route) -> bool {
    route.next_hop == IpAddr::from([10, 0, 0, 77])
        && route.extended_communities == ["rt:65000:9".to_owned()].into()
        && route.large_communities == ["65000:1:9".to_owned()].into()
}

#[test]
fn each_action_arrives_at_the_routers_that_it_is_for() {
    scenario(async || {
        let mut stage = Stage::start(1).await?;
        let second: IpNet = "203.0.113.2/32".parse()?;
        let outside = router(&stage, Software::Frr, |peer| peer).await?;
        let host = stage.network.lan_client();
        let inside = Bgp::new(NODES, host)
            .peer(Peer::at(stage.network.node("n1")?.v4, NODES).hold(9))
            .start(Software::Bird, host, stage.network.folder())
            .await?;
        objects(&stage, &json!({"as": NODES}), &peer_spec(&stage)).await?;
        let internal = json!({
            "conf": {"neighborAddress": host.v4.to_string(), "peerAs": NODES},
            "timers": {"config": {"holdTime": "9"}}
        });
        stage.ours("BgpPeer", "inside", &internal).await?;
        stage.service("dns", "Cluster", "203.0.113.2").await?;
        stage.endpoints("dns", &["n1"]).await?;
        stage.speak("n1", &[]).await?;
        for daemon in [&outside, &inside] {
            behind(&stage, daemon, &["n1"]).await?;
            daemon
                .routes_become(second, "the second address", |routes| routes.len() == 1)
                .await?;
        }

        apply(&stage, ACTIONS).await?;
        for address in [prefix(), second] {
            outside
                .routes_become(address, "the actions outside", |routes| {
                    matches!(routes, [route] if tagged(route) && route.as_path == [NODES; 3])
                })
                .await?;
        }
        inside
            .routes_become(prefix(), "the actions inside", |routes| {
                matches!(routes, [route] if tagged(route)
                    && route.local_preference == Some(250)
                    && route.as_path.is_empty())
            })
            .await?;
        inside
            .routes_become(second, "nothing", <[Route]>::is_empty)
            .await?;
        ensure!(
            sessions(&outside).await? == [1],
            "the policy reset a session"
        );
        Ok(())
    });
}
