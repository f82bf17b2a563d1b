//! What the speaker counts, for `/metrics`: read from the engine's snapshot when somebody asks.
//!
//! Labels are names of BgpPeers, families and kinds of messages: their number is bounded by the
//! configuration, and a series ends with its peer.

mod sessions;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use openelb_api::keys;
use openelb_bgp::{
    BfdSnapshot, BfdState, Family, FamilySnapshot, PeerSnapshot, SessionState, Snapshot,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::peering::Plan;
use sessions::{Sessions, flag};

/// Where the engine that runs is found, if one runs.
pub(super) type Source = watch::Sender<Option<watch::Receiver<Snapshot>>>;

/// Handles to what the speaker's own task counts.
#[derive(Clone)]
pub(super) struct Metrics {
    /// From a watch event to the wish in the hands of the engines.
    pub(super) reaction: Histogram,
    /// Addresses that wait for kube-proxy.
    pub(super) waiting: Gauge,
    /// The engine.
    pub(super) bgp: Source,
    /// The objects, and whether what they say now is in force.
    accepted: Arc<ArcSwap<Vec<Accepted>>>,
}

/// Whether a BgpConf or BgpPeer says something that this node can use.
#[derive(Debug)]
struct Accepted {
    kind: &'static str,
    name: String,
    usable: bool,
}

impl Metrics {
    /// Registers all of them.
    pub(super) fn register(metrics: &openelb_process::Metrics) -> Self {
        let (bgp, running) = watch::channel(None);
        let reaction = Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5]);
        let waiting = Gauge::default();
        metrics.with(|registry| {
            registry.register(
                "speaker_waiting_for_kube_proxy",
                "Addresses that this node does not announce yet because its kube-proxy does not pass them on",
                waiting.clone(),
            );
            registry.register(
                "speaker_reaction_seconds",
                "Time from a watch event to what follows from it in the hands of the engines",
                reaction.clone(),
            );
            registry.register_collector(Box::new(Sessions { running }));
        });
        let accepted = Arc::default();
        let shown = Configuration(Arc::clone(&accepted));
        metrics.with(|registry| registry.register_collector(Box::new(shown)));
        Self {
            reaction,
            waiting,
            bgp,
            accepted,
        }
    }

    /// Notes which objects this node can use.
    pub(super) fn planned(&self, plan: &Plan) {
        let conf = plan.config.is_some() || plan.conf_fault.is_some();
        let conf = conf.then(|| Accepted {
            kind: "BgpConf",
            name: keys::BGP_CONF.to_owned(),
            usable: plan.conf_fault.is_none(),
        });
        let peers = plan.peers.iter().map(|(name, outcome)| Accepted {
            kind: "BgpPeer",
            name: name.clone(),
            usable: outcome.is_ok(),
        });
        self.accepted
            .store(Arc::new(conf.into_iter().chain(peers).collect()));
    }

    /// Whether BGP can do its work: it can be reached, or it has reached somebody. Without peers there is none.
    pub(super) fn works(&self) -> Result<(), String> {
        let running = self.bgp.borrow().clone();
        running.map_or(Ok(()), |running| works(&running.borrow()))
    }

    /// What `/debug/state` tells of BGP.
    pub(super) fn state(&self) -> Value {
        let running = self.bgp.borrow().clone();
        running.map_or(Value::Null, |running| state(&running.borrow()))
    }
}

/// What keeps all of BGP from working, if something does. A port that is taken does not, as long as our own connections
/// succeed; and a router that is away is its own affair.
fn works(snapshot: &Snapshot) -> Result<(), String> {
    let mut peers = snapshot.peers.values();
    if snapshot.peers.is_empty() || peers.any(|peer| peer.state == SessionState::Established) {
        return Ok(());
    }
    if let Some(error) = &snapshot.error {
        return Err(error.to_string());
    }
    let mut listeners = snapshot.listeners.iter();
    let deaf = listeners.find_map(|(address, bound)| Some((address, bound.as_ref().err()?)));
    match deaf {
        Some((address, error)) => Err(format!(
            "no session is established, and it cannot listen on {address}: {error}"
        )),
        None => Ok(()),
    }
}

/// Which objects are in force, as metrics.
#[derive(Debug)]
struct Configuration(Arc<ArcSwap<Vec<Accepted>>>);

impl Collector for Configuration {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut metric = encoder.encode_descriptor(
            "bgp_config_stale",
            "1 where the object says something that this node cannot use: what it said before goes on, or nothing does",
            None,
            MetricType::Gauge,
        )?;
        for object in self.0.load().iter() {
            metric
                .encode_family(&[("kind", object.kind), ("name", &object.name)])?
                .encode_gauge(&flag(!object.usable))?;
        }
        Ok(())
    }
}

fn state(snapshot: &Snapshot) -> Value {
    let peers = snapshot.peers.iter().map(|(name, peer)| {
        let families = peer.families.iter().map(|(family, told)| {
            let announced = told.advertised.count();
            (family.to_string(), json!({"announced": announced}))
        });
        let bfd = peer.bfd.as_ref().map(|bfd| {
            json!({
                "state": format!("{:?}", bfd.state),
                "detectionMilliseconds": bfd.detection.as_millis(),
                "flaps": bfd.flaps,
            })
        });
        let told = json!({
            "state": format!("{:?}", peer.state),
            "families": families.collect::<Map<_, _>>(),
            "lastError": peer.last_error.as_ref().map(|error| error.message.clone()),
            "bfd": bfd,
        });
        (name.to_string(), told)
    });
    let listeners = snapshot.listeners.iter().map(|(address, bound)| {
        let why = bound.as_ref().err().map(ToString::to_string);
        (
            address.to_string(),
            json!(why.unwrap_or_else(|| "bound".to_owned())),
        )
    });
    json!({
        "peers": peers.collect::<Map<_, _>>(),
        "listeners": listeners.collect::<Map<_, _>>(),
        "error": snapshot.error.as_ref().map(ToString::to_string),
    })
}

/// A peer with everything that there may be, for the reference.
pub(super) fn example() -> Snapshot {
    let family = FamilySnapshot {
        advertised: [IpNet::from(IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)))]
            .into_iter()
            .collect(),
        ..FamilySnapshot::default()
    };
    let peer = PeerSnapshot {
        state: SessionState::Established,
        since: SystemTime::UNIX_EPOCH,
        negotiated: None,
        families: [(Family::Ipv4, family)].into(),
        last_error: None,
        last_notification: None,
        bfd: Some(BfdSnapshot {
            state: BfdState::Up,
            remote_state: BfdState::Up,
            peer: IpAddr::from(Ipv4Addr::new(192, 0, 2, 254)),
            since: SystemTime::UNIX_EPOCH,
            diagnostic: 0,
            remote_diagnostic: 0,
            transmit: Duration::from_millis(100),
            receive: Duration::from_millis(100),
            detection: Duration::from_millis(300),
            flaps: 2,
        }),
        counters: Arc::default(),
        description: String::new(),
    };
    let mut snapshot = Snapshot::default();
    snapshot.peers.insert("spine".into(), Arc::new(peer));
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_tells_of_sessions_and_their_families() {
        let told = state(&example());
        let spine = &told["peers"]["spine"];
        assert_eq!(spine["state"], "Established");
        assert_eq!(spine["families"]["ipv4-unicast"]["announced"], 1);
        assert_eq!(spine["bfd"]["detectionMilliseconds"], 300);
    }
}
