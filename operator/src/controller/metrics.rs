//! What the controller counts.

use std::sync::atomic::AtomicU64;

use openelb_ipam::EipView;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use serde_json::{Value, json};

/// Buckets in seconds: a Service has its address after two small writes, or waits for somebody's API server.
const BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

/// An Eip.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EipLabels {
    pub(crate) eip: String,
}

/// An Eip's addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PoolLabels {
    pub(crate) eip: String,
    /// `ipv4` or `ipv6`.
    pub(crate) family: &'static str,
}

/// Why something did not work.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabels {
    pub(crate) reason: String,
}

/// Handles to the controller's metrics.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) leader: Gauge,
    pub(crate) leader_changes: Counter,
    pub(crate) waiting: Gauge,
    pub(crate) allocated: Gauge,
    pub(crate) addresses: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) plans: Counter,
    pub(crate) failures: Family<ReasonLabels, Counter>,
    pub(crate) refusals: Family<ReasonLabels, Counter>,
    pub(crate) conflicts: Counter,
    /// From the watch event that asks for an address to the status that shows it.
    pub(crate) allocation: Histogram,
    pool: Family<PoolLabels, Gauge<f64, AtomicU64>>,
    in_use: Family<PoolLabels, Gauge>,
    exhausted: Family<EipLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            leader: Gauge::default(),
            leader_changes: Counter::default(),
            waiting: Gauge::default(),
            allocated: Gauge::default(),
            addresses: Gauge::default(),
            queued: Gauge::default(),
            plans: Counter::default(),
            failures: Family::default(),
            refusals: Family::default(),
            conflicts: Counter::default(),
            allocation: Histogram::new(BUCKETS),
            pool: Family::default(),
            in_use: Family::default(),
            exhausted: Family::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn register(metrics: &openelb_process::Metrics) -> Self {
        let own = Self::default();
        metrics.with(|registry| {
            registry.register(
                "eip_addresses",
                "Addresses that the Eip can give, those in use included",
                own.pool.clone(),
            );
            registry.register(
                "eip_addresses_in_use",
                "Addresses of the Eip that Services have",
                own.in_use.clone(),
            );
            registry.register(
                "eip_exhausted",
                "1 where the Eip has no free address",
                own.exhausted.clone(),
            );
            let registry = registry.sub_registry_with_prefix("controller");
            registry.register("leader", "1 where this process leads", own.leader.clone());
            registry.register(
                "leader_changes",
                "Times this process began or ceased to lead",
                own.leader_changes.clone(),
            );
            registry.register(
                "services_waiting",
                "Services that wait for an address",
                own.waiting.clone(),
            );
            registry.register(
                "services_allocated",
                "Services that have an address",
                own.allocated.clone(),
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
            registry.register(
                "allocation_seconds",
                "Time from the event that asks for an address to the Service's status that shows it",
                own.allocation.clone(),
            );
            registry.register(
                "refusals",
                "Times a Service was told that it cannot have what it asks for, by the condition's reason",
                own.refusals.clone(),
            );
            registry.register("plans", "Plans carried out", own.plans.clone());
            registry.register(
                "failures",
                "Plans that a request's failure ended: timeout, api (refused) or unusable (what it found)",
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

    /// Says whether this process leads. Only the leader knows how full pools are.
    pub(crate) fn leads(&self, leads: bool) {
        if self.leader.set(leads.into()) != i64::from(leads) {
            self.leader_changes.inc();
        }
        if !leads {
            self.pool.clear();
            self.in_use.clear();
            self.exhausted.clear();
        }
    }

    /// Counts why Services are told no, or why work failed.
    pub(crate) fn count(family: &Family<ReasonLabels, Counter>, reason: &str) {
        let reason = reason.to_owned();
        family.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Takes in how full an Eip is.
    pub(crate) fn eip(&self, eip: &str, view: &EipView) {
        for (family, share) in &view.families {
            let labels = labels(eip, *family);
            // Lossy beyond 2^53, where nobody counts addresses one by one.
            #[allow(clippy::cast_precision_loss)]
            let size = share.addresses as f64;
            self.pool.get_or_create(&labels).set(size);
            self.in_use.get_or_create(&labels).set(share.in_use);
        }
        for family in openelb_api::Family::ALL {
            if !view.families.contains_key(&family) {
                self.pool.remove(&labels(eip, family));
                self.in_use.remove(&labels(eip, family));
            }
        }
        let eip = eip.to_owned();
        self.exhausted
            .get_or_create(&EipLabels { eip })
            .set(view.occupied.into());
    }

    /// Forgets an Eip.
    pub(crate) fn eip_gone(&self, eip: &str) {
        for family in openelb_api::Family::ALL {
            self.pool.remove(&labels(eip, family));
            self.in_use.remove(&labels(eip, family));
        }
        let eip = eip.to_owned();
        self.exhausted.remove(&EipLabels { eip });
    }

    /// What `/debug/state` tells of the controller.
    pub(crate) fn state(&self) -> Value {
        json!({
            "leader": self.leader.get() == 1,
            "leaderChanges": self.leader_changes.get(),
            "addresses": self.addresses.get(),
            "services": {
                "allocated": self.allocated.get(),
                "waiting": self.waiting.get(),
                "queued": self.queued.get(),
            },
            "plans": {"done": self.plans.get(), "again": self.conflicts.get()},
        })
    }

    /// Has every metric with labels stand once, for the reference.
    pub(crate) fn example(&self) {
        let mut view = EipView::default();
        view.families
            .insert(openelb_api::Family::V4, openelb_ipam::Share::default());
        self.eip("lan", &view);
        Self::count(&self.failures, "timeout");
        Self::count(&self.refusals, "NoFreeAddress");
    }
}

fn labels(eip: &str, family: openelb_api::Family) -> PoolLabels {
    PoolLabels {
        eip: eip.to_owned(),
        family: match family {
            openelb_api::Family::V4 => "ipv4",
            openelb_api::Family::V6 => "ipv6",
        },
    }
}

#[cfg(test)]
mod tests {
    use openelb_api::Family;
    use openelb_ipam::Share;

    use super::*;

    fn view(families: &[(Family, u128, i64)], occupied: bool) -> EipView {
        let share = |(family, addresses, in_use): &(Family, u128, i64)| {
            let share = Share {
                addresses: *addresses,
                in_use: *in_use,
            };
            (*family, share)
        };
        EipView {
            families: families.iter().map(share).collect(),
            occupied,
            ..EipView::default()
        }
    }

    #[test]
    fn pools_are_told_of_by_family_while_they_exist_and_this_process_leads() {
        let all = openelb_process::Metrics::new();
        let own = Metrics::register(&all);
        own.leads(true);
        own.eip(
            "lan",
            &view(&[(Family::V4, 16, 16), (Family::V6, 1 << 64, 3)], true),
        );
        let text = all.text().unwrap();
        for line in [
            "openelb_eip_addresses{eip=\"lan\",family=\"ipv4\"} 16",
            "openelb_eip_addresses_in_use{eip=\"lan\",family=\"ipv4\"} 16",
            "openelb_eip_addresses_in_use{eip=\"lan\",family=\"ipv6\"} 3",
            "openelb_eip_exhausted{eip=\"lan\"} 1",
            "openelb_controller_leader 1",
            "openelb_controller_leader_changes_total 1",
        ] {
            assert!(
                text.lines().any(|found| found.starts_with(line)),
                "{line} in\n{text}"
            );
        }
        own.eip("lan", &view(&[(Family::V4, 16, 2)], false));
        assert!(!all.text().unwrap().contains("ipv6"));
        own.eip_gone("lan");
        assert!(!all.text().unwrap().contains("eip=\"lan\""));
        own.eip("lan", &view(&[(Family::V4, 16, 2)], false));
        own.leads(false);
        let text = all.text().unwrap();
        assert!(!text.contains("eip=\"lan\"") && text.contains("leader_changes_total 2"));
    }
}
