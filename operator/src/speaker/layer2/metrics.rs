//! What layer 2 counts, under `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use openelb_layer2::Counters;
use openelb_membership::{Counts, Detection};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Handles to the metrics of layer 2, read at each scrape.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The responder's, once it runs.
    responder: ArcSwapOption<Counters>,
    /// That of gossip; nothing of it happens with Leases.
    membership: ArcSwapOption<watch::Receiver<Counts>>,
    members: AtomicU64,
    answering: AtomicU64,
}

impl Metrics {
    /// Registers them.
    pub(super) fn register(metrics: &openelb_process::Metrics) -> Self {
        let own = Self::default();
        metrics.with(|registry| {
            let registry = registry.sub_registry_with_prefix("layer2");
            registry.register_collector(Box::new(own.clone()));
        });
        own
    }

    /// What `/debug/state` tells of layer 2.
    pub(super) fn state(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "members": read(&self.0.members),
            "addresses": read(&self.0.answering),
            "responds": self.0.responder.load().is_some(),
        })
    }

    /// The responder runs and counts here.
    pub(super) fn responder(&self, counters: Arc<Counters>) {
        self.0.responder.store(Some(counters));
    }

    /// Gossip runs and counts here.
    pub(super) fn gossip(&self, counts: watch::Receiver<Counts>) {
        self.0.membership.store(Some(Arc::new(counts)));
    }

    /// So many speakers are alive, this one included.
    pub(super) fn members(&self, members: usize) {
        let members = members.try_into().unwrap_or(u64::MAX);
        self.0.members.store(members, Ordering::Relaxed);
    }

    /// So many addresses are answered now.
    pub(super) fn answering(&self, addresses: usize) {
        let addresses = addresses.try_into().unwrap_or(u64::MAX);
        self.0.answering.store(addresses, Ordering::Relaxed);
    }
}

/// Name, help and values by ARP and by NDP of what both count.
fn by_protocol(responder: &Counters) -> [(&'static str, &'static str, [u64; 2]); 4] {
    [
        (
            "requests",
            "ARP requests and neighbour solicitations for our addresses",
            [responder.arp_requests(), responder.ndp_requests()],
        ),
        (
            "responses",
            "ARP replies and neighbour advertisements that answered one",
            [responder.arp_responses(), responder.ndp_responses()],
        ),
        (
            "gratuitous",
            "ARP and neighbour advertisements sent unasked",
            [responder.arp_gratuitous(), responder.ndp_gratuitous()],
        ),
        (
            "conflicts",
            "Claims on our addresses by somebody else",
            [responder.arp_conflicts(), responder.ndp_conflicts()],
        ),
    ]
}

/// Name, help and value of all else that only grows.
fn counters(responder: &Counters, counts: &Counts) -> [(&'static str, &'static str, u64); 11] {
    [
        (
            "frames",
            "Frames that passed the kernel's filter",
            responder.frames(),
        ),
        (
            "malformed",
            "Frames that could not be understood",
            responder.malformed(),
        ),
        (
            "send_errors",
            "Frames that could not be sent",
            responder.send_errors(),
        ),
        (
            "events_dropped",
            "Happenings that were not told as events because too many came at once",
            responder.events_dropped(),
        ),
        (
            "addresses_taken",
            "How often this node became the leader of an address",
            responder.taken(),
        ),
        (
            "addresses_given_up",
            "How often this node ceased to be the leader of an address",
            responder.given_up(),
        ),
        (
            "members_lost",
            "Members that left or were declared dead",
            counts.deaths,
        ),
        (
            "resurrections",
            "How often the others took this node for dead while it lived",
            counts.resurrections,
        ),
        (
            "pauses",
            "How often the process was found to have been paused",
            counts.pauses,
        ),
        (
            "messages_refused",
            "Membership messages without our key, or damaged",
            counts.refused,
        ),
        (
            "messages_replayed",
            "Membership messages seen before",
            counts.replayed,
        ),
    ]
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let responder = self.0.responder.load_full().unwrap_or_default();
        let membership = self.0.membership.load();
        let counts = membership.as_ref().map(|counts| *counts.borrow());
        let counts = counts.unwrap_or_default();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, values) in by_protocol(&responder) {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (protocol, value) in ["arp", "ndp"].into_iter().zip(values) {
                metric
                    .encode_family(&[("protocol", protocol)])?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        for (name, help, value) in counters(&responder, &counts) {
            let metric = ConstCounter::new(value);
            let kind = metric.metric_type();
            metric.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        for (name, help, value) in [
            (
                "members",
                "Live speakers, this one included",
                read(&self.0.members),
            ),
            (
                "addresses",
                "Addresses that this node answers for",
                read(&self.0.answering),
            ),
        ] {
            let metric = ConstGauge::new(value);
            let kind = metric.metric_type();
            metric.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        let (sum, count, buckets) = histogram(&counts.detection);
        encoder
            .encode_descriptor(
                "detection_seconds",
                "Time from the last word of a member to its being declared dead",
                None,
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

/// As OpenMetrics has it: the sum, the count, and each bucket's own count under its bound.
fn histogram(detection: &Detection) -> (f64, u64, Vec<(f64, u64)>) {
    let bounds = Detection::BOUNDS
        .iter()
        .map(std::time::Duration::as_secs_f64);
    let bounds = bounds.chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(detection.counts).collect();
    let count = detection.counts.iter().sum();
    (detection.sum.as_secs_f64(), count, buckets)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn all_is_shown_and_the_buckets_add_up() {
        let metrics = Metrics::default();
        let mut counts = Counts::default();
        counts.detection.counts[3] = 2;
        counts.detection.counts[5] = 1;
        counts.detection.sum = Duration::from_millis(1_300);
        metrics.members(3);
        let (_sender, counts) = watch::channel(counts);
        metrics.gossip(counts);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(metrics));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "members 3",
            "addresses_taken_total 0",
            "events_dropped_total 0",
            "addresses_given_up_total 0",
            "requests_total{protocol=\"arp\"} 0",
            "conflicts_total{protocol=\"ndp\"} 0",
            "detection_seconds_bucket{le=\"0.4\"} 2",
            "detection_seconds_bucket{le=\"0.7\"} 3",
            "detection_seconds_bucket{le=\"+Inf\"} 3",
            "detection_seconds_count 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
