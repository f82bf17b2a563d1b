//! A speaker without Kubernetes: every node is allowed to lead every address.
//!
//! One line of JSON per change on standard output. SIGTERM hands over and leaves; SIGUSR1 toggles whether this node
//! wants to be elected; SIGUSR2 writes how many frames came past the kernel's filter.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use ipnet::IpNet;
use openelb_api::Interface;
use openelb_layer2::{
    Ability, Desired, InterfaceChoice, ProbePolicy, Responder, ResponderConfig, Role, Snapshot, Vip,
};
use openelb_membership::{
    Facts, Key, Members, Membership, MembershipConfig, Profile, leader, outranks,
};
use openelb_net::{Links, LinksWatch};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(clap::Args)]
pub(crate) struct Args {
    node: String,
    /// Where membership listens, and how others reach it.
    address: SocketAddr,
    /// Addresses to serve: single ones or prefixes.
    #[arg(long, value_delimiter = ',')]
    vips: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    seeds: Vec<SocketAddr>,
    #[arg(long, default_value = "auto")]
    interface: String,
    #[arg(long, default_value = "a key of thirty-two bytes, tests")]
    key: String,
    #[arg(long, default_value = "default")]
    profile: String,
    /// `report`, `avoid` or `off`.
    #[arg(long, default_value = "off")]
    probe: String,
    /// Seconds between two refreshes; 0 turns them off.
    #[arg(long, default_value_t = 60)]
    refresh: u64,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let links = LinksWatch::spawn().await?;
    let mut links = links.subscribe();
    let (_seeds, seeds) = watch::channel(Arc::new(
        args.seeds.iter().copied().collect::<BTreeSet<_>>(),
    ));
    let membership = Membership::spawn(
        MembershipConfig {
            node: args.node.clone(),
            bind: args.address,
            advertise: args.address,
            key: Key::new(args.key.as_bytes())?,
            profile: args.profile.parse::<Profile>()?,
        },
        seeds,
    )?;
    let mut members = membership.members();
    let (desired, desired_receiver) = watch::channel(Arc::new(Desired::default()));
    let mut responder = Responder::spawn(
        ResponderConfig::new(&args.node, outranks),
        desired_receiver,
        links.clone(),
    )?;
    let mut snapshots = responder.snapshot();

    let plan = Plan::new(&args)?;
    let mut leaving = false;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut toggle = signal(SignalKind::user_defined1())?;
    let mut count = signal(SignalKind::user_defined2())?;
    let mut stale = true;
    let mut shown = None;
    loop {
        if std::mem::take(&mut stale) {
            let now_links = Arc::clone(&links.borrow_and_update());
            membership.attach(plan.ability(&now_links).encode())?;
            let now_members = Arc::clone(&members.borrow_and_update());
            if shown.as_ref() != Some(&now_members) {
                say(&standing(&now_members));
                shown = Some(Arc::clone(&now_members));
            }
            desired.send_if_modified(|old| {
                let new = plan.desired(&now_members);
                let changed = **old != new;
                *old = Arc::new(new);
                changed
            });
        }
        tokio::select! {
            changed = links.changed() => {
                changed?;
                stale = true;
            }
            changed = members.changed() => {
                changed?;
                stale = true;
            }
            changed = snapshots.changed() => {
                changed?;
                say(&show(&snapshots.borrow_and_update()));
            }
            event = responder.event() => say(&serde_json::json!({"event": format!("{event:?}")})),
            _ = toggle.recv() => {
                leaving = !leaving;
                membership.set_leaving(leaving);
            }
            _ = count.recv() => say(&serde_json::json!({"frames": responder.counters().frames()})),
            _ = terminate.recv() => break,
        }
    }
    membership.set_leaving(true);
    let handed_over = async {
        loop {
            let now_members = Arc::clone(&members.borrow_and_update());
            desired.send_replace(Arc::new(plan.desired(&now_members)));
            let wish_seen = members
                .borrow()
                .alive
                .get(&args.node)
                .and_then(|m| m.facts.as_ref())
                .is_some_and(|f| f.leaving);
            if wish_seen && !snapshots.borrow_and_update().answers_any() {
                return anyhow::Ok(());
            }
            tokio::select! {
                changed = members.changed() => changed?,
                changed = snapshots.changed() => changed?,
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(6), handed_over).await;
    membership.leave().await;
    Ok(())
}

/// Who is alive, and what this node thinks of itself.
fn standing(members: &Members) -> serde_json::Value {
    let alive: Vec<&String> = members.alive.keys().collect();
    let own = members.alive.get(&members.me);
    let own = own.and_then(|member| member.facts.as_ref());
    serde_json::json!({
        "alive": alive,
        "settled": members.settled,
        "steady": own.is_some_and(|facts| facts.steady),
    })
}

struct Plan {
    choice: Arc<InterfaceChoice>,
    vips: Vec<IpAddr>,
    ranges: Vec<IpNet>,
    probe: ProbePolicy,
    refresh: Option<Duration>,
}

impl Plan {
    fn new(args: &Args) -> Result<Self> {
        let mut ranges = Vec::new();
        let mut vips = Vec::new();
        for text in &args.vips {
            let net = match text.parse::<IpNet>() {
                Ok(net) => net,
                Err(_) => text
                    .parse::<IpAddr>()
                    .with_context(|| format!("{text} is no address"))?
                    .into(),
            };
            ranges.push(net);
            match net {
                IpNet::V4(net) if net.prefix_len() < 32 => vips.extend(net.hosts().map(IpAddr::V4)),
                IpNet::V6(net) if net.prefix_len() < 128 => {
                    vips.extend(net.hosts().take(1000).map(IpAddr::V6));
                }
                net => vips.push(net.addr()),
            }
        }
        Ok(Self {
            choice: Arc::new(match args.interface.parse()? {
                Interface::Auto => InterfaceChoice::Auto,
                Interface::Names(names) => InterfaceChoice::Names(names),
                Interface::CanReach(ip) => InterfaceChoice::CanReach(ip),
            }),
            vips,
            ranges,
            probe: match args.probe.as_str() {
                "avoid" => ProbePolicy::Avoid,
                "report" => ProbePolicy::Report,
                _ => ProbePolicy::Off,
            },
            refresh: (args.refresh > 0).then(|| Duration::from_secs(args.refresh)),
        })
    }

    fn ability(&self, links: &Links) -> Ability {
        Ability::of(links, [&*self.choice], &self.ranges)
    }

    fn desired(&self, members: &Members) -> Desired {
        let abilities: BTreeMap<&str, Ability> = members
            .alive
            .iter()
            .filter_map(|(node, member)| Some((node.as_str(), ability(member.facts.as_ref()?))))
            .collect();
        let mut peers = BTreeMap::new();
        for (node, facts) in members
            .departed
            .iter()
            .map(|(node, facts)| (node, Some(facts)))
            .chain(
                members
                    .alive
                    .iter()
                    .map(|(node, member)| (node, member.facts.as_ref())),
            )
        {
            if *node != members.me
                && let Some(facts) = facts
            {
                let name: Arc<str> = node.as_str().into();
                peers.extend(ability(facts).macs().map(|mac| (mac, Arc::clone(&name))));
            }
        }
        let mut addresses = HashMap::new();
        for vip in &self.vips {
            let candidates = members.electable(|node, _| {
                abilities
                    .get(node)
                    .is_some_and(|able| able.usable(&self.choice, *vip).is_some())
            });
            let role = match leader(*vip, candidates) {
                Some(node) if node == members.me => Role::Lead,
                Some(_) => Role::Follow,
                None => Role::Silent,
            };
            addresses.insert(
                *vip,
                Vip {
                    choice: Arc::clone(&self.choice),
                    role,
                    probe: self.probe,
                    preferred: None,
                    proven: false,
                    refresh: self.refresh,
                },
            );
        }
        Desired {
            addresses,
            ranges: self.ranges.clone(),
            peers,
            hold: !members.settled,
        }
    }
}

fn ability(facts: &Facts) -> Ability {
    Ability::decode(&facts.attachment).unwrap_or_default()
}

fn show(snapshot: &Snapshot) -> serde_json::Value {
    let answering = snapshot
        .addresses
        .values()
        .filter(|state| state.activity.answers())
        .count();
    let mut value = serde_json::json!({ "answering": answering });
    if snapshot.addresses.len() <= 4 {
        for (ip, state) in &snapshot.addresses {
            let text = format!(
                "{:?} on {:?} probe {:?} conflict {:?}",
                state.activity, state.interface, state.probe, state.conflict
            );
            if let Some(map) = value.as_object_mut() {
                map.insert(ip.to_string(), text.into());
            }
        }
    }
    value
}

fn say(value: &serde_json::Value) {
    let micros = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros();
    println!("{micros} {value}");
}
