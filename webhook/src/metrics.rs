//! What the webhook counts, served in Prometheus' text format on a port of its own.

use std::sync::atomic::AtomicU64;

use openelb_process::Watches;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Unit,
};

/// Buckets in seconds: a review takes tens of microseconds, a bad day milliseconds.
const BUCKETS: [f64; 10] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.1, 1.0,
];

fn buckets() -> Histogram {
    Histogram::new(BUCKETS)
}

/// What tells one kind of review from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReviewLabels {
    /// `validate` or `mutate`.
    pub phase: &'static str,
    /// The kind that was reviewed; `other` for those that we have no rules for.
    pub kind: &'static str,
    /// `allowed`, `denied` or `patched`.
    pub outcome: &'static str,
}

/// Why a connection or a request got no review.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusalLabels {
    /// `tls`, `idle`, `too_large`, `too_slow`, `busy`, `not_ready` or `no_review`.
    pub reason: &'static str,
}

/// All metrics; clones share the numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Where they are registered.
    pub process: openelb_process::Metrics,
    /// How old what is known of the cluster may be.
    pub watches: Watches,
    /// Reviews answered.
    pub reviews: Family<ReviewLabels, Counter>,
    /// Time from a complete request to its answer.
    pub review_seconds: Family<ReviewLabels, Histogram>,
    /// Connections and requests that were refused.
    pub refusals: Family<RefusalLabels, Counter>,
    /// Open connections.
    pub connections: Gauge,
    /// When the serving certificate expires, in seconds since 1970.
    pub certificate_expiry: Gauge,
    /// Writes to the Secret.
    pub certificate_changes: Counter,
    /// Corrections of a `caBundle`.
    pub ca_bundle_patches: Counter,
    /// Failed attempts to look after the certificates.
    pub certificate_errors: Counter,
    /// Objects known, for the rules that compare.
    pub view_objects: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Zeroes, registered under the product's prefix.
    #[must_use]
    pub fn new() -> Self {
        let reviews = Family::default();
        let review_seconds = Family::new_with_constructor(buckets as fn() -> Histogram);
        let refusals = Family::default();
        let connections = Gauge::default();
        let certificate_expiry = Gauge::default();
        let certificate_changes = Counter::default();
        let ca_bundle_patches = Counter::default();
        let certificate_errors = Counter::default();
        let view_objects = Gauge::default();
        let process = openelb_process::Metrics::new();
        let watches = Watches::register(&process);
        process.with(|registry| {
            let registry = registry.sub_registry_with_prefix("webhook");
            registry.register("reviews", "Reviews answered", Clone::clone(&reviews));
            registry.register_with_unit(
                "review_duration",
                "Time from a complete request to its answer",
                Unit::Seconds,
                Clone::clone(&review_seconds),
            );
            registry.register(
                "refusals",
                "Connections and requests refused",
                Clone::clone(&refusals),
            );
            registry.register("connections", "Open connections", connections.clone());
            registry.register_with_unit(
                "certificate_expiry",
                "When the serving certificate expires, since 1970",
                Unit::Seconds,
                certificate_expiry.clone(),
            );
            registry.register(
                "certificate_changes",
                "Writes to the certificate Secret",
                certificate_changes.clone(),
            );
            registry.register(
                "ca_bundle_patches",
                "Corrections of the CA bundle in webhook configurations",
                ca_bundle_patches.clone(),
            );
            registry.register(
                "certificate_errors",
                "Failed attempts to look after the certificates",
                certificate_errors.clone(),
            );
            registry.register(
                "view_objects",
                "Objects known to the rules that compare",
                view_objects.clone(),
            );
        });
        Self {
            process,
            watches,
            reviews,
            review_seconds,
            refusals,
            connections,
            certificate_expiry,
            certificate_changes,
            ca_bundle_patches,
            certificate_errors,
            view_objects,
        }
    }

    /// Every metric with a value, for the reference.
    #[must_use]
    pub fn example() -> Self {
        let all = Self::new();
        let labels = ReviewLabels {
            phase: "validate",
            kind: "Eip",
            outcome: "allowed",
        };
        all.reviewed(&labels, 0.001);
        all.refuse("busy");
        all.watches.begin("Eip");
        all
    }

    /// Counts a review and the seconds that it took.
    pub fn reviewed(&self, labels: &ReviewLabels, seconds: f64) {
        self.reviews.get_or_create(labels).inc();
        self.review_seconds.get_or_create(labels).observe(seconds);
    }

    /// Counts something refused.
    pub fn refuse(&self, reason: &'static str) {
        self.refusals.get_or_create(&RefusalLabels { reason }).inc();
    }

    /// The text that Prometheus reads.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        self.process.text()
    }
}
