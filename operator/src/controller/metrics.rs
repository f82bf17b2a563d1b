//! What the controller counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Handles to the controller's metrics.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    pub(crate) leader: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) addresses: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) plans: Counter,
    pub(crate) failures: Counter,
    pub(crate) conflicts: Counter,
}

impl Metrics {
    pub(crate) fn register(metrics: &crate::process::Metrics) -> Self {
        let own = Self::default();
        metrics.with(|registry| {
            let registry = registry.sub_registry_with_prefix("controller");
            registry.register("leader", "1 where this process leads", own.leader.clone());
            registry.register(
                "services_waiting",
                "Services that wait for an address",
                own.waiting.clone(),
            );
            registry.register(
                "addresses",
                "Addresses in the ledger",
                own.addresses.clone(),
            );
            registry.register(
                "services_queued",
                "Services whose turn comes",
                own.queued.clone(),
            );
            registry.register("plans", "Plans carried out", own.plans.clone());
            registry.register(
                "failures",
                "Plans that a request's failure ended",
                own.failures.clone(),
            );
            registry.register(
                "conflicts",
                "Plans made again because something changed",
                own.conflicts.clone(),
            );
        });
        own
    }
}
