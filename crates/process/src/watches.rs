//! How old what the process knows of the cluster may be: which watches are interrupted, and since when.
//!
//! A watch that begins again after an interruption says nothing until something changes. So one that neither
//! said anything nor failed again for [`SILENCE`], which is longer than any attempt and the wait before it, works.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::ExponentialBuilder;
use kube::runtime::watcher::ExponentialBackoff;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::Metrics;

/// Longer than an attempt may take (5 s) after the longest wait (30 s).
const SILENCE: Duration = Duration::from_secs(45);

/// How long to wait before a watch is begun again: short and bounded, so that an API server that is back is met
/// at once. For processes of which there are few.
#[must_use]
pub fn patience() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_millis(250))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .into()
}

/// The watches of the process, by kind. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Watches(Arc<Mutex<BTreeMap<String, Watch>>>);

#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    errors: u64,
    /// The first and the last failure of those that came without a word in between.
    interrupted: Option<(Instant, Instant)>,
}

impl Watch {
    fn failed(&mut self, now: Instant) {
        self.errors = self.errors.saturating_add(1);
        let first = if self.stale(now).is_zero() {
            now
        } else {
            self.interrupted.map_or(now, |(first, _)| first)
        };
        self.interrupted = Some((first, now));
    }

    /// How long it has been interrupted; nothing where it works.
    fn stale(&self, now: Instant) -> Duration {
        match self.interrupted {
            Some((first, last)) if now.saturating_duration_since(last) < SILENCE => {
                // A moment at least, so that an interruption differs from none.
                now.saturating_duration_since(first)
                    .max(Duration::from_millis(1))
            }
            _ => Duration::ZERO,
        }
    }
}

impl Watches {
    /// Shows them in the metrics.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let own = Self::default();
        let shown = Shown(own.clone());
        metrics.with(|registry| registry.register_collector(Box::new(shown)));
        own
    }

    /// This kind is watched.
    pub fn begin(&self, kind: &str) {
        self.change(kind, |_| {});
    }

    /// The watch said something.
    pub fn heard(&self, kind: &str) {
        self.change(kind, |watch| watch.interrupted = None);
    }

    /// The watch failed, or could not begin.
    pub fn failed(&self, kind: &str) {
        self.change(kind, |watch| watch.failed(Instant::now()));
    }

    /// The kind whose watch has been interrupted for the longest time, where one is.
    #[must_use]
    pub fn stalest(&self) -> Option<(String, Duration)> {
        let now = Instant::now();
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = watches.iter().map(|(kind, watch)| (kind, watch.stale(now)));
        stale
            .filter(|(_, stale)| !stale.is_zero())
            .max_by_key(|(_, stale)| *stale)
            .map(|(kind, stale)| (kind.clone(), stale))
    }

    fn change(&self, kind: &str, change: impl FnOnce(&mut Watch)) {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match watches.get_mut(kind) {
            Some(watch) => change(watch),
            None => change(watches.entry(kind.to_owned()).or_default()),
        }
    }
}

/// The watches as metrics.
#[derive(Debug)]
struct Shown(Watches);

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = Instant::now();
        let watches = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut metric = encoder.encode_descriptor(
            "watch_stale_seconds",
            "How long the watch of this kind has been interrupted, so that what is known of it may be old; 0 where it works",
            None,
            MetricType::Gauge,
        )?;
        for (kind, watch) in watches.iter() {
            metric
                .encode_family(&[("kind", &**kind)])?
                .encode_gauge(&watch.stale(now).as_secs_f64())?;
        }
        let mut metric = encoder.encode_descriptor(
            "watch_errors",
            "Times the watch of this kind was interrupted or could not begin",
            None,
            MetricType::Counter,
        )?;
        for (kind, watch) in watches.iter() {
            metric
                .encode_family(&[("kind", &**kind)])?
                .encode_counter::<NoLabelSet, _, u64>(&watch.errors, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_interruption_lasts_from_the_first_failure_until_something_is_heard() {
        let began = Instant::now();
        let mut watch = Watch::default();
        assert_eq!(watch.stale(began), Duration::ZERO);
        watch.failed(began);
        watch.failed(began + 30 * SECOND);
        watch.failed(began + 60 * SECOND);
        assert_eq!(watch.stale(began + 61 * SECOND), 61 * SECOND);
        watch.interrupted = None;
        assert_eq!(watch.stale(began + 62 * SECOND), Duration::ZERO);
        assert_eq!(watch.errors, 3);
    }

    #[test]
    fn a_watch_that_does_not_fail_again_works_although_nothing_changes() {
        let began = Instant::now();
        let mut watch = Watch::default();
        watch.failed(began);
        assert_eq!(watch.stale(began + SILENCE), Duration::ZERO);
        // What comes later is another interruption.
        watch.failed(began + 600 * SECOND);
        assert_eq!(watch.stale(began + 601 * SECOND), SECOND);
    }

    #[test]
    fn metrics_name_each_kind() {
        let metrics = Metrics::new();
        let watches = Watches::register(&metrics);
        watches.begin("Eip");
        watches.failed("Node");
        let text = metrics.text().unwrap();
        assert!(
            text.contains("openelb_watch_stale_seconds{kind=\"Eip\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("openelb_watch_errors_total{kind=\"Node\"} 1"),
            "{text}"
        );
        assert_eq!(watches.stalest().unwrap().0, "Node");
        watches.heard("Node");
        assert_eq!(watches.stalest(), None);
    }
}
