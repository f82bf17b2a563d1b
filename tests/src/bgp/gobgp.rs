//! GoBGP: one daemon, which holds routes but installs none; asked by `gobgp` in JSON.

#![allow(
    clippy::indexing_slicing,
    reason = "an index into a JSON value that is not there gives null"
)]

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Bgp, Daemon, Hops, IpNet, Neighbor, Peer, Route};
use crate::process::Program;

/// What is written down at the end.
pub(super) const QUESTIONS: &[&str] = &["neighbor", "global rib -a ipv4", "global rib -a ipv6"];

pub(super) fn programs(daemon: &Daemon) -> Result<Vec<Program>> {
    ensure!(
        daemon.config.announce.is_empty(),
        "GoBGP announces by its API only: use BIRD or FRR to announce"
    );
    let config = daemon.place.join("gobgpd.json");
    std::fs::write(&config, render(&daemon.config).to_string())?;
    Ok(vec![
        Program::new("gobgpd", crate::tools::tool("gobgpd")?)
            .args([
                "--config-type",
                "json",
                "--log-level",
                "debug",
                "--config-file",
            ])
            .arg(config)
            .args(["--pprof-disable", "--api-hosts", "127.0.0.1:50051"]),
    ])
}

fn render(config: &Bgp) -> Value {
    let port = if config.port == 0 {
        -1
    } else {
        i32::from(config.port)
    };
    let (ranges, single): (Vec<&Peer>, Vec<&Peer>) =
        config.peers.iter().partition(|peer| peer.is_range());
    json!({
        "global": { "config": { "as": config.asn, "router-id": config.router_id, "port": port } },
        "neighbors": single.iter().map(|peer| settings(peer, "neighbor-address", &peer.addresses.addr().to_string())).collect::<Vec<_>>(),
        "peer-groups": ranges.iter().enumerate()
            .map(|(index, peer)| settings(peer, "peer-group-name", &format!("range{index}"))).collect::<Vec<_>>(),
        "dynamic-neighbors": ranges.iter().enumerate()
            .map(|(index, peer)| json!({ "config": { "prefix": peer.addresses, "peer-group": format!("range{index}") } })).collect::<Vec<_>>(),
    })
}

fn settings(peer: &Peer, name: &str, value: &str) -> Value {
    let families = ["ipv4-unicast", "ipv6-unicast"].map(|family| {
        json!({
            "config": { "afi-safi-name": family },
            "mp-graceful-restart": { "config": { "enabled": peer.graceful_restart } },
        })
    });
    let (least_ttl, multihop_ttl) = match peer.hops {
        Hops::Direct => (None, None),
        Hops::Multihop(ttl) => (None, Some(ttl)),
        Hops::Security(hops) => (Some(u8::MAX - (hops - 1)), None),
    };
    json!({
        "config": { name: value, "peer-as": peer.asn, "auth-password": peer.password.clone().unwrap_or_default() },
        "timers": { "config": {
            "hold-time": peer.hold, "keepalive-interval": peer.keepalive(), "connect-retry": 1, "idle-hold-time-after-reset": 1,
        } },
        "ttl-security": { "config": { "enabled": least_ttl.is_some(), "ttl-min": least_ttl.unwrap_or(0) } },
        "ebgp-multihop": { "config": { "enabled": multihop_ttl.is_some(), "multihop-ttl": multihop_ttl.unwrap_or(0) } },
        "transport": { "config": { "passive-mode": peer.passive } },
        "graceful-restart": { "config": { "enabled": peer.graceful_restart, "restart-time": 60 } },
        "afi-safis": families,
    })
}

pub(super) fn tool(_: &Daemon, question: &str) -> Result<Vec<String>> {
    let program = crate::tools::tool("gobgp")?.display().to_string();
    let mut words = vec![program, "-j".to_owned()];
    words.extend(question.split_whitespace().map(str::to_owned));
    Ok(words)
}

async fn ask(daemon: &Daemon, question: &str) -> Result<Value> {
    let text = daemon.ask(question).await?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).with_context(|| format!("gobgp answered `{question}` with {text}"))
}

pub(super) async fn neighbors(daemon: &Daemon) -> Result<Vec<Neighbor>> {
    let answer = ask(daemon, "neighbor").await?;
    let peers = answer.as_array().into_iter().flatten();
    Ok(peers
        .filter_map(|peer| {
            let address = peer["state"]["neighbor_address"]
                .as_str()
                .or_else(|| peer["conf"]["neighbor_address"].as_str())?;
            let state = peer["state"]["session_state"].clone();
            Some(Neighbor {
                address: address.parse().ok()?,
                established: state == json!(6)
                    || state
                        .as_str()
                        .is_some_and(|word| word.ends_with("ESTABLISHED")),
                state: state.to_string(),
            })
        })
        .collect())
}

pub(super) async fn routes(daemon: &Daemon, prefix: IpNet) -> Result<Vec<Route>> {
    let family = if prefix.addr().is_ipv4() {
        "ipv4"
    } else {
        "ipv6"
    };
    // A network that is not in the table is an error of the tool.
    let answer = ask(daemon, &format!("global rib -a {family}")).await?;
    let paths = answer[prefix.to_string()].as_array().into_iter().flatten();
    Ok(paths.filter_map(|path| route(prefix, path)).collect())
}

/// Attributes are objects with the number of their type (RFC 4271 §4.3 and successors) and fields of their own.
fn route(prefix: IpNet, path: &Value) -> Option<Route> {
    let attributes = path["attrs"].as_array()?;
    let attribute = |number: u64| {
        attributes
            .iter()
            .find(|attribute| attribute["type"] == number)
    };
    let next_hop = attribute(3)
        .or_else(|| attribute(14))?
        .get("nexthop")?
        .as_str()?
        .parse()
        .ok()?;
    let number = |kind: u64, field: &str| {
        attribute(kind)
            .and_then(|a| a[field].as_u64())
            .and_then(|n| n.try_into().ok())
    };
    let as_path = attribute(2)
        .and_then(|a| a["as_paths"].as_array())
        .into_iter()
        .flatten()
        .filter_map(|segment| segment["asns"].as_array())
        .flatten()
        .filter_map(|asn| asn.as_u64()?.try_into().ok())
        .collect();
    let communities = attribute(8)
        .and_then(|a| a["communities"].as_array())
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .map(|value| format!("{}:{}", value >> 16, value & 0xffff))
        .collect();
    let large_communities: BTreeSet<String> = attribute(32)
        .and_then(|a| a["value"].as_array())
        .into_iter()
        .flatten()
        .map(|value| {
            format!(
                "{}:{}:{}",
                value["ASN"], value["LocalData1"], value["LocalData2"]
            )
        })
        .collect();
    let extended_communities = attribute(16)
        .and_then(|a| a["value"].as_array())
        .into_iter()
        .flatten()
        .filter_map(extended)
        .collect();
    let origin = match number(1, "value") {
        Some(0) => "igp",
        Some(1) => "egp",
        _ => "incomplete",
    };
    Some(Route {
        prefix,
        next_hop,
        origin: origin.to_owned(),
        as_path,
        communities,
        large_communities,
        extended_communities,
        local_preference: number(5, "value"),
        med: number(4, "metric"),
    })
}

/// An extended community, by what its subtype is called (RFC 4360 §4 and §5).
fn extended(community: &Value) -> Option<String> {
    let kind = match community["subtype"].as_u64()? {
        2 => "rt",
        3 => "ro",
        _ => return None,
    };
    Some(format!("{kind}:{}", community["value"].as_str()?))
}
