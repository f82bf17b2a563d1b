//! What is counted of each BGP session: a series per peer, for as long as there is one.

use std::fmt;
use std::time::Duration;

use openelb_bgp::{
    BfdSnapshot, BfdState, CounterValues, PeerError, PeerSnapshot, SessionState, Snapshot,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tokio::sync::watch;

/// The sessions of the engine that runs.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) running: watch::Receiver<Option<watch::Receiver<Snapshot>>>,
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

fn up(peer: &PeerSnapshot) -> bool {
    peer.state == SessionState::Established
}

/// Whether a session is wanted: nobody shall be alarmed by one that is down on purpose.
fn wanted(peer: &PeerSnapshot) -> bool {
    let error = peer.last_error.as_ref();
    up(peer) || error.is_none_or(|error| error.label != PeerError::ADMIN_DOWN)
}

/// 1 or 0.
pub(super) fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

const SERIES: &[Series] = &[
    Series {
        name: "bgp_session_up",
        help: "1 where the BGP session is established; none where it is administratively down",
        kind: Kind::Gauge(|peer| wanted(peer).then(|| flag(up(peer)))),
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
    use std::sync::Arc;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::super::example;
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
    fn a_session_that_is_not_wanted_is_not_said_to_be_down() {
        let shown = |label| {
            let mut down = peer();
            down.state = SessionState::Idle;
            down.last_error = Some(PeerError {
                at: std::time::SystemTime::UNIX_EPOCH,
                label,
                message: String::new(),
            });
            let peers = [("spine".into(), Arc::new(down))].into();
            let text = text(Some(Snapshot {
                peers,
                ..Snapshot::default()
            }));
            text.contains("openelb_bgp_session_up{peer=\"spine\"} 0")
        };
        assert!(shown("connect"));
        assert!(!shown(PeerError::ADMIN_DOWN));
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
