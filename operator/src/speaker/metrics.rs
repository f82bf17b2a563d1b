//! What the speaker counts, for `/metrics`: read from the engine's snapshot when somebody asks.
//!
//! Labels are names of BgpPeers, families and kinds of messages: their number is bounded by the
//! configuration, and a series ends with its peer.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use openelb_api::keys;
use openelb_bgp::{
    BfdSnapshot, BfdState, CounterValues, Family, FamilySnapshot, PeerSnapshot, SessionState,
    Snapshot,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::peering::Plan;

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

/// The sessions of the engine that runs.
#[derive(Debug)]
struct Sessions {
    running: watch::Receiver<Option<watch::Receiver<Snapshot>>>,
}

impl Collector for Sessions {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let running = self.running.borrow().clone();
        // Without an engine the metrics are there, and have no series.
        let snapshot = running.map(|running| running.borrow().clone());
        let snapshot = snapshot.unwrap_or_default();
        for series in SERIES {
            series.encode(&snapshot, &mut encoder)?;
        }
        for (sent, name, help) in [
            (true, "bgp_messages_sent", "BGP messages sent"),
            (false, "bgp_messages_received", "BGP messages received"),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (peer, seen) in &snapshot.peers {
                for (kind, count) in messages(sent, &seen.counters.read()) {
                    metric
                        .encode_family(&[("peer", &**peer), ("type", kind)])?
                        .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        let mut metric = encoder.encode_descriptor(
            "bgp_announced_prefixes",
            "Prefixes that the peer was told and that stand",
            None,
            MetricType::Gauge,
        )?;
        for (peer, seen) in &snapshot.peers {
            for (family, told) in &seen.families {
                let family = family.to_string();
                metric
                    .encode_family(&[("peer", &**peer), ("family", &family)])?
                    .encode_gauge(&told.advertised.count())?;
            }
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

fn messages(sent: bool, counters: &CounterValues) -> [(&'static str, u64); 5] {
    let c = counters;
    if sent {
        [
            ("open", c.open_sent),
            ("update", c.update_sent),
            ("keepalive", c.keepalive_sent),
            ("notification", c.notification_sent),
            ("refresh", c.refresh_sent),
        ]
    } else {
        [
            ("open", c.open_received),
            ("update", c.update_received),
            ("keepalive", c.keepalive_received),
            ("notification", c.notification_received),
            ("refresh", c.refresh_received),
        ]
    }
}

/// One metric with one value for a peer, or none.
struct Series {
    name: &'static str,
    help: &'static str,
    kind: Kind,
}

enum Kind {
    Counter(fn(&CounterValues) -> u64),
    Gauge(fn(&PeerSnapshot) -> Option<f64>),
    /// As `Counter`, where the peer has BFD.
    BfdCounter(fn(&CounterValues) -> u64),
    Flaps,
}

impl Series {
    fn encode(
        &self,
        snapshot: &Snapshot,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        let kind = match self.kind {
            Kind::Gauge(_) => MetricType::Gauge,
            Kind::Counter(_) | Kind::BfdCounter(_) | Kind::Flaps => MetricType::Counter,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (peer, seen) in &snapshot.peers {
            let labels = [("peer", &**peer)];
            match self.kind {
                Kind::Gauge(read) => {
                    if let Some(value) = read(seen) {
                        metric.encode_family(&labels)?.encode_gauge(&value)?;
                    }
                }
                Kind::Counter(read) => put(&mut metric, &labels, read(&seen.counters.read()))?,
                Kind::BfdCounter(read) => {
                    if seen.bfd.is_some() {
                        put(&mut metric, &labels, read(&seen.counters.read()))?;
                    }
                }
                Kind::Flaps => {
                    if let Some(bfd) = &seen.bfd {
                        put(&mut metric, &labels, bfd.flaps)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn put<L: EncodeLabelSet>(
    metric: &mut prometheus_client::encoding::MetricEncoder<'_>,
    labels: &L,
    count: u64,
) -> Result<(), fmt::Error> {
    metric
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, _, u64>(&count, None)
}

fn bfd(peer: &PeerSnapshot, read: impl Fn(&BfdSnapshot) -> f64) -> Option<f64> {
    peer.bfd.as_ref().map(read)
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

const SERIES: &[Series] = &[
    Series {
        name: "bgp_session_up",
        help: "1 where the BGP session is established",
        kind: Kind::Gauge(|peer| Some(flag(peer.state == SessionState::Established))),
    },
    Series {
        name: "bgp_sessions_established",
        help: "Times the BGP session came up",
        kind: Kind::Counter(|counters| counters.established),
    },
    Series {
        name: "bgp_sessions_dropped",
        help: "Times an established BGP session ended",
        kind: Kind::Counter(|counters| counters.dropped),
    },
    Series {
        name: "bgp_received_prefixes_dropped",
        help: "Prefixes that the peer announced; they are counted and dropped",
        kind: Kind::Counter(|counters| counters.prefixes_dropped),
    },
    Series {
        name: "bgp_malformed_updates",
        help: "UPDATE messages with errors that a session survives (RFC 7606)",
        kind: Kind::Counter(|counters| counters.malformed_updates),
    },
    Series {
        name: "bgp_collisions",
        help: "Connections closed because the other side had connected as well",
        kind: Kind::Counter(|counters| counters.collisions),
    },
    Series {
        name: "bgp_connections_refused",
        help: "Inbound connections that were refused",
        kind: Kind::Counter(|counters| counters.refused),
    },
    Series {
        name: "bfd_session_up",
        help: "1 where the BFD session is up",
        kind: Kind::Gauge(|peer| bfd(peer, |bfd| flag(bfd.state == BfdState::Up))),
    },
    Series {
        name: "bfd_session_flaps",
        help: "Times the BFD session went down after having been up",
        kind: Kind::Flaps,
    },
    Series {
        name: "bfd_packets_sent",
        help: "BFD control packets sent",
        kind: Kind::BfdCounter(|counters| counters.bfd_sent),
    },
    Series {
        name: "bfd_packets_received",
        help: "BFD control packets received for the session",
        kind: Kind::BfdCounter(|counters| counters.bfd_received),
    },
    Series {
        name: "bfd_detection_seconds",
        help: "Silence after which BFD calls the peer gone",
        kind: Kind::Gauge(|peer| bfd(peer, |bfd| seconds(bfd.detection))),
    },
    Series {
        name: "bfd_transmit_interval_seconds",
        help: "Agreed interval of the BFD packets that are sent",
        kind: Kind::Gauge(|peer| bfd(peer, |bfd| seconds(bfd.transmit))),
    },
];

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    fn text(running: Option<Snapshot>) -> String {
        let mut registry = Registry::with_prefix("openelb");
        let running = running.map(|snapshot| watch::channel(snapshot).1);
        let (_source, running) = watch::channel(running);
        registry.register_collector(Box::new(Sessions { running }));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    fn peer() -> PeerSnapshot {
        let spine = example().peers.remove("spine").unwrap();
        Arc::into_inner(spine).unwrap()
    }

    #[test]
    fn the_state_tells_of_sessions_and_their_families() {
        let told = state(&example());
        let spine = &told["peers"]["spine"];
        assert_eq!(spine["state"], "Established");
        assert_eq!(spine["families"]["ipv4-unicast"]["announced"], 1);
        assert_eq!(spine["bfd"]["detectionMilliseconds"], 300);
    }

    #[test]
    fn a_session_with_bfd_shows_all_that_is_counted() {
        let mut snapshot = Snapshot::default();
        snapshot.peers.insert("spine".into(), Arc::new(peer()));
        let text = text(Some(snapshot));
        for line in [
            "openelb_bgp_session_up{peer=\"spine\"} 1",
            "openelb_bgp_sessions_established_total{peer=\"spine\"} 0",
            "openelb_bgp_announced_prefixes{peer=\"spine\",family=\"ipv4-unicast\"} 1",
            "openelb_bgp_messages_sent_total{peer=\"spine\",type=\"update\"} 0",
            "openelb_bgp_messages_received_total{peer=\"spine\",type=\"notification\"} 0",
            "openelb_bfd_session_up{peer=\"spine\"} 1",
            "openelb_bfd_session_flaps_total{peer=\"spine\"} 2",
            "openelb_bfd_packets_sent_total{peer=\"spine\"} 0",
            "openelb_bfd_packets_received_total{peer=\"spine\"} 0",
            "openelb_bfd_detection_seconds{peer=\"spine\"} 0.3",
        ] {
            assert!(
                text.lines().any(|seen| seen.starts_with(line)),
                "{line} in\n{text}"
            );
        }
    }

    #[test]
    fn a_peer_without_bfd_has_no_series_of_bfd_and_no_engine_none_at_all() {
        let mut snapshot = Snapshot::default();
        let without = PeerSnapshot {
            bfd: None,
            ..peer()
        };
        snapshot.peers.insert("spine".into(), Arc::new(without));
        let text_without = text(Some(snapshot));
        assert!(
            !text_without.contains("openelb_bfd_session_up{"),
            "{text_without}"
        );
        assert!(!text(None).contains("peer="));
    }
}
