//! BIRD 2: one daemon; asked by `birdc`, whose text is read here.

use std::fmt::Write;

use anyhow::Result;

use super::{BfdPeer, Bgp, Daemon, Hops, IpNet, Neighbor, Peer, Route, Tags};
use crate::process::Program;

/// What is written down at the end.
pub(super) const QUESTIONS: &[&str] =
    &["show protocols all", "show route all", "show bfd sessions"];

pub(super) fn programs(daemon: &Daemon) -> Result<Vec<Program>> {
    let config = daemon.place.join("bird.conf");
    std::fs::write(&config, render(&daemon.config)?)?;
    Ok(vec![
        Program::new("bird", "bird")
            .args(["-f", "-c"])
            .arg(config)
            .arg("-s")
            .arg(daemon.place.join("bird.ctl")),
    ])
}

fn render(config: &Bgp) -> Result<String> {
    let mut text = format!(
        "log stderr all;\nrouter id {};\nprotocol device {{ scan time 1; }}\n",
        config.router_id
    );
    let paths = config.paths;
    for (family, v4) in [("ipv4", true), ("ipv6", false)] {
        writeln!(
            text,
            "protocol kernel kernel_{family} {{ merge paths yes limit {paths}; {family} {{ import none; \
             export where source = RTS_BGP; }}; }}"
        )?;
        writeln!(text, "protocol static static_{family} {{ {family};")?;
        for prefix in config
            .announce
            .iter()
            .filter(|prefix| prefix.addr().is_ipv4() == v4)
        {
            writeln!(text, "  route {prefix} unreachable;")?;
        }
        writeln!(text, "}}")?;
    }
    tags(&mut text, &config.tags)?;
    text.push_str("protocol bfd { accept direct; }\n");
    for (index, peer) in config.peers.iter().enumerate() {
        bgp(&mut text, index, config, peer)?;
    }
    Ok(text)
}

/// What may be announced, and what is said of it.
fn tags(text: &mut String, tags: &Tags) -> Result<()> {
    writeln!(
        text,
        "filter tags {{\n  if source != RTS_STATIC then reject;"
    )?;
    for (a, b) in &tags.communities {
        writeln!(text, "  bgp_community.add(({a},{b}));")?;
    }
    for (a, b, c) in &tags.large_communities {
        writeln!(text, "  bgp_large_community.add(({a},{b},{c}));")?;
    }
    if let Some(med) = tags.med {
        writeln!(text, "  bgp_med = {med};")?;
    }
    writeln!(text, "  accept;\n}}")?;
    Ok(())
}

fn bgp(text: &mut String, index: usize, config: &Bgp, peer: &Peer) -> Result<()> {
    let port = if config.port == 0 { 179 } else { config.port };
    writeln!(
        text,
        "protocol bgp peer{index} {{\n  local port {port} as {};",
        config.asn
    )?;
    if peer.is_range() {
        writeln!(
            text,
            "  neighbor range {} as {};\n  dynamic name \"from{index}_\";",
            peer.addresses, peer.asn
        )?;
    } else {
        writeln!(
            text,
            "  neighbor {} as {};",
            peer.addresses.addr(),
            peer.asn
        )?;
    }
    writeln!(
        text,
        "  hold time {};\n  keepalive time {};",
        peer.hold,
        peer.keepalive()
    )?;
    writeln!(
        text,
        "  connect delay time 1; connect retry time 1; error wait time 1, 2;"
    )?;
    if peer.passive {
        writeln!(text, "  passive yes;")?;
    }
    match peer.hops {
        Hops::Direct => {}
        Hops::Multihop(ttl) => writeln!(text, "  multihop {ttl};")?,
        Hops::Security(1) => writeln!(text, "  ttl security yes;")?,
        Hops::Security(hops) => writeln!(text, "  multihop {hops}; ttl security yes;")?,
    }
    if let Some(password) = &peer.password {
        writeln!(text, "  password \"{password}\";")?;
    }
    if let Some(interval) = peer.bfd {
        writeln!(
            text,
            "  bfd {{ interval {interval} ms; idle tx interval {interval} ms; multiplier 3; }};"
        )?;
    }
    if peer.bfd.is_some() && peer.graceful_restart {
        // Without it BIRD drops the routes of a restarting peer as soon as BFD misses it.
        writeln!(text, "  bfd graceful;")?;
    }
    writeln!(
        text,
        "  graceful restart {};",
        if peer.graceful_restart { "yes" } else { "no" }
    )?;
    for family in ["ipv4", "ipv6"] {
        writeln!(
            text,
            "  {family} {{ import all; export filter tags; next hop self; }};"
        )?;
    }
    writeln!(text, "}}")?;
    Ok(())
}

pub(super) fn tool(daemon: &Daemon, question: &str) -> Vec<String> {
    let socket = daemon.place.join("bird.ctl").display().to_string();
    let mut words: Vec<String> = ["birdc", "-r", "-s", &socket].map(str::to_owned).to_vec();
    words.extend(question.split_whitespace().map(str::to_owned));
    words
}

pub(super) async fn neighbors(daemon: &Daemon) -> Result<Vec<Neighbor>> {
    Ok(read_neighbors(&daemon.ask("show protocols all").await?))
}

pub(super) async fn routes(daemon: &Daemon, prefix: IpNet) -> Result<Vec<Route>> {
    // An unknown network is an answer too: birdc then says so and ends with an error.
    let text = daemon
        .ask(&format!("show route for {prefix} all"))
        .await
        .unwrap_or_default();
    Ok(read_routes(&text, prefix))
}

pub(super) async fn bfd_peers(daemon: &Daemon) -> Result<Vec<BfdPeer>> {
    let text = daemon.ask("show bfd sessions").await?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            let state = words.nth(1)?.to_owned();
            Some(BfdPeer {
                address,
                up: state == "Up",
                state,
            })
        })
        .collect())
}

/// `BGP state:` comes before `Neighbor address:` in the block of a protocol.
fn read_neighbors(text: &str) -> Vec<Neighbor> {
    let mut state = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(word) = line.strip_prefix("BGP state:") {
            word.trim().clone_into(&mut state);
        } else if let Some(address) = line
            .strip_prefix("Neighbor address:")
            .and_then(|word| word.trim().parse().ok())
        {
            found.push(Neighbor {
                address,
                established: state == "Established",
                state: state.clone(),
            });
        }
    }
    found
}

/// A path begins at a line with the protocol in brackets; its attributes follow, one per line.
fn read_routes(text: &str, prefix: IpNet) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    let mut wanted = false;
    for line in text.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Ok(shown) = first.parse::<IpNet>() {
            wanted = shown == prefix;
        }
        let line = line.trim();
        if !wanted {
            continue;
        }
        if line.contains(" [") && line.contains(']') {
            routes.push(Route {
                prefix,
                next_hop: std::net::Ipv4Addr::UNSPECIFIED.into(),
                origin: String::new(),
                as_path: Vec::new(),
                communities: std::collections::BTreeSet::new(),
                large_communities: std::collections::BTreeSet::new(),
                extended_communities: std::collections::BTreeSet::new(),
                local_preference: None,
                med: None,
            });
        }
        let Some((route, (name, value))) = routes.last_mut().zip(line.split_once(':')) else {
            continue;
        };
        let value = value.trim();
        match name {
            "BGP.origin" => route.origin = value.to_lowercase(),
            "BGP.as_path" => route.as_path = numbers(value),
            // A global and a link-local one may stand here; the first is the global one.
            "BGP.next_hop" => {
                if let Some(hop) = value
                    .split_whitespace()
                    .next()
                    .and_then(|word| word.parse().ok())
                {
                    route.next_hop = hop;
                }
            }
            "BGP.local_pref" => route.local_preference = value.parse().ok(),
            "BGP.med" => route.med = value.parse().ok(),
            "BGP.community" => route.communities = tuples(value),
            "BGP.large_community" => route.large_communities = tuples(value),
            "BGP.ext_community" => route.extended_communities = tuples(value),
            _ => {}
        }
    }
    routes.retain(|route| !route.next_hop.is_unspecified());
    routes
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// `(65000,1) (65000,2)` as `65000:1`, `65000:2`.
fn tuples(text: &str) -> std::collections::BTreeSet<String> {
    text.split(')')
        .filter_map(|part| part.trim().strip_prefix('('))
        .map(|part| part.replace(", ", ":").replace(',', ":"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_with_their_attributes() {
        let text = "BIRD 2.0.12 ready.\nTable master4:\n\
            203.0.113.9/32       unicast [peer0 08:00:00.000] * (100) [AS65001i]\n\tvia 10.0.0.11 on lan0\n\
            \tType: BGP univ\n\tBGP.origin: IGP\n\tBGP.as_path: 65001 65002\n\tBGP.next_hop: 10.0.0.11\n\
            \tBGP.local_pref: 100\n\tBGP.med: 5\n\tBGP.community: (65000,1) (65535,65281)\n\
            \tBGP.large_community: (65000, 1, 2)\n\tBGP.ext_community: (rt, 65000, 7)\n\
            \x20                    unicast [peer1 08:00:00.000] (100) [AS65001i]\n\tvia 10.0.0.12 on lan0\n\
            \tBGP.as_path: 65001\n\tBGP.next_hop: 10.0.0.12\n\
            0.0.0.0/0            unicast [kernel1 08:00:00.000] (10)\n\tBGP.next_hop: 10.0.0.13\n";
        let routes = read_routes(text, "203.0.113.9/32".parse().unwrap());
        assert_eq!(routes.len(), 2, "{routes:?}");
        let first = &routes[0];
        assert_eq!(first.next_hop.to_string(), "10.0.0.11");
        assert_eq!(first.as_path, [65001, 65002]);
        assert_eq!(first.med, Some(5));
        assert!(first.communities.contains("65000:1") && first.communities.len() == 2);
        assert!(first.large_communities.contains("65000:1:2"));
        assert!(first.extended_communities.contains("rt:65000:7"));
        assert_eq!(first.origin, "igp");
        assert_eq!(routes[1].next_hop.to_string(), "10.0.0.12");
    }
}
