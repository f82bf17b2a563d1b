//! How far kube-proxy is, from its metrics: pure.
//!
//! kube-proxy says when it last heard of something that it has to apply (`…last_queued_timestamp_seconds`), when its last
//! sync ended (`…last_timestamp_seconds`), and how many syncs there were and how long they took together
//! (`…duration_seconds`). A sync that was under way when something was heard of does not apply it; so what counts is when
//! the last sync began. (`…changes_pending` would tell it more plainly, but with two families one overwrites the other.)
//! Newer releases tell it all for each family.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

const PREFIX: &str = "kubeproxy_sync_proxy_rules_";

/// What kube-proxy told at one time. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// How long it has run; very long where it does not say.
    pub(super) age: Duration,
    /// By family; one without a name in releases that do not tell them apart.
    families: BTreeMap<String, Family>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Family {
    /// When it was last asked for a sync.
    queued: f64,
    /// When its last sync ended; 0 before the first one.
    synced: f64,
    /// How many there were.
    syncs: f64,
    /// How long they took together, in seconds.
    took: f64,
}

impl Reading {
    /// Reads the text of `/metrics`; `None` where it is not kube-proxy's.
    pub(super) fn parse(text: &str, now: Timestamp) -> Option<Self> {
        let mut reading = Self {
            age: Duration::MAX,
            ..Self::default()
        };
        let mut is_kube_proxy = false;
        for line in text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            if name == "process_start_time_seconds" {
                reading.age = age(value, now).unwrap_or(Duration::MAX);
                continue;
            }
            let Some(kind) = name.strip_prefix(PREFIX) else {
                continue;
            };
            is_kube_proxy = true;
            let (Some(field), Ok(value)) = (field(kind), value.parse()) else {
                continue;
            };
            let family = labels
                .split_once("ip_family=\"")
                .and_then(|(_, rest)| rest.split('"').next());
            let family = reading
                .families
                .entry(family.unwrap_or_default().to_owned());
            *field(family.or_default()) = value;
        }
        reading.make_alike();
        is_kube_proxy.then_some(reading)
    }

    /// Where only some metrics tell the families apart, nothing does.
    fn make_alike(&mut self) {
        if self.families.len() < 2 || !self.families.contains_key("") {
            return;
        }
        let all = self.families.values();
        let one = all.fold(Family::default(), |one, family| Family {
            queued: one.queued.max(family.queued),
            synced: one.synced.max(family.synced),
            syncs: one.syncs + family.syncs,
            took: one.took + family.took,
        });
        self.families = [(String::new(), one)].into();
    }

    /// Whether it has applied all that there was when it began.
    pub(super) fn synced(&self) -> bool {
        !self.families.is_empty() && self.families.values().all(|family| family.synced > 0.0)
    }
}

fn age(started: &str, now: Timestamp) -> Option<Duration> {
    let started = Duration::try_from_secs_f64(started.parse().ok()?).ok()?;
    let now = Duration::try_from(now.duration_since(Timestamp::UNIX_EPOCH)).ok()?;
    Some(now.saturating_sub(started))
}

/// Where the value of a metric belongs.
fn field(kind: &str) -> Option<fn(&mut Family) -> &mut f64> {
    Some(match kind {
        "last_queued_timestamp_seconds" => |family| &mut family.queued,
        "last_timestamp_seconds" => |family| &mut family.synced,
        "duration_seconds_count" => |family| &mut family.syncs,
        "duration_seconds_sum" => |family| &mut family.took,
        _ => return None,
    })
}

/// By family: when kube-proxy last heard of something.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Queued(BTreeMap<String, f64>);

/// What follows from one reading after the other.
#[derive(Debug, Default)]
pub(super) struct Progress(BTreeMap<String, Seen>);

#[derive(Debug, Default)]
struct Seen {
    last: Family,
    /// When its last sync that has ended began.
    began: f64,
}

impl Progress {
    /// Takes in the next reading.
    pub(super) fn take_in(&mut self, reading: &Reading) {
        self.0.retain(|name, _| reading.families.contains_key(name));
        for (name, now) in &reading.families {
            let seen = self.0.entry(name.clone()).or_default();
            // Another process counts from the beginning.
            let before = if now.syncs < seen.last.syncs {
                Family::default()
            } else {
                seen.last
            };
            let syncs = now.syncs - before.syncs;
            let took = now.took - before.took;
            if syncs > 0.0 {
                // Of several it is not known how long the last one took: rather too long than too short.
                let last = if syncs > 1.5 {
                    2.0 * took / syncs
                } else {
                    took
                };
                seen.began = now.synced - last;
            }
            seen.last = *now;
        }
    }

    /// What it has heard of so far.
    pub(super) fn queued(&self) -> Queued {
        let queued = self.0.iter();
        Queued(
            queued
                .map(|(name, seen)| (name.clone(), seen.last.queued))
                .collect(),
        )
    }

    /// Whether all that it had heard of by then is applied.
    pub(super) fn reached(&self, goal: &Queued) -> bool {
        let mut goals = goal.0.iter();
        goals.all(|(name, queued)| self.0.get(name).is_none_or(|seen| seen.began >= *queued))
    }
}

#[cfg(test)]
impl Reading {
    /// Of one whose only sync ended then.
    pub(super) fn synced_at(synced: f64, age: Duration) -> Self {
        Self {
            age,
            ..Self::after(1, 0.1, synced, synced - 0.5)
        }
    }

    /// Of one without families, after so many syncs of the same length in seconds.
    pub(super) fn after(syncs: u32, each: f64, synced: f64, queued: f64) -> Self {
        let family = Family {
            queued,
            synced,
            syncs: syncs.into(),
            took: f64::from(syncs) * each,
        };
        Self {
            age: Duration::from_hours(1),
            families: [(String::new(), family)].into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    const NEWER: &str = r#"# HELP kubeproxy_sync_proxy_rules_last_timestamp_seconds [ALPHA] The last time proxy rules were successfully synced
# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.001"} 0
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="+Inf"} 3
kubeproxy_sync_proxy_rules_duration_seconds_sum{ip_family="IPv4"} 0.3
kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 3
kubeproxy_sync_proxy_rules_duration_seconds_sum{ip_family="IPv6"} 0.1
kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv6"} 1
kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"} 1.7e+09
kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"} 1.6e+09
kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 1.7000000005e+09
kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"} 1.6000000005e+09
process_start_time_seconds 1.69999999e+09
"#;

    #[test]
    fn each_family_is_read_for_itself() {
        let reading = Reading::parse(NEWER, at(1_700_000_000)).unwrap();
        assert_eq!(reading.age, Duration::from_secs(10));
        assert!(reading.synced());
        let mut progress = Progress::default();
        progress.take_in(&reading);
        assert!(progress.reached(&progress.queued()));
        let busy = NEWER.replace(
            r#"{ip_family="IPv6"} 1.6e+09"#,
            r#"{ip_family="IPv6"} 1.7e+09"#,
        );
        progress.take_in(&Reading::parse(&busy, at(1_700_000_000)).unwrap());
        assert!(!progress.reached(&progress.queued()), "one of them is busy");
    }

    #[test]
    fn releases_that_do_not_tell_families_apart_are_understood() {
        let older = NEWER
            .lines()
            .filter(|line| !line.contains("IPv6"))
            .map(|line| line.replace(r#"{ip_family="IPv4"}"#, "") + "\n")
            .collect::<String>();
        let reading = Reading::parse(&older, at(1_700_000_000)).unwrap();
        let expected = [(String::new(), 1.7e9)].into();
        let mut progress = Progress::default();
        progress.take_in(&reading);
        assert_eq!(progress.queued(), Queued(expected));
        assert!(reading.synced());
    }

    #[test]
    fn where_only_some_metrics_tell_families_apart_nothing_does() {
        let mixed = NEWER
            .lines()
            .filter(|line| !line.contains("timestamp_seconds{ip_family=\"IPv6\"}"))
            .map(|line| {
                line.replace(
                    r#"timestamp_seconds{ip_family="IPv4"}"#,
                    "timestamp_seconds",
                ) + "\n"
            })
            .collect::<String>();
        let reading = Reading::parse(&mixed, at(1_700_000_000)).unwrap();
        assert!(reading.synced());
        let mut progress = Progress::default();
        progress.take_in(&reading);
        assert_eq!(progress.queued(), Queued([(String::new(), 1.7e9)].into()));
        assert!(progress.reached(&progress.queued()));
    }

    #[test]
    fn one_that_has_never_synced_says_so() {
        for text in [
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds 0",
            "kubeproxy_sync_proxy_rules_service_changes_total 3",
            r#"kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"} 1.7e+09"#,
        ] {
            let reading = Reading::parse(text, at(0)).unwrap();
            assert!(!reading.synced(), "{text}");
        }
    }

    #[test]
    fn what_is_not_kube_proxys_is_refused() {
        assert_eq!(Reading::parse("", at(0)), None);
        assert_eq!(Reading::parse("<html>\nnot found 404\n", at(0)), None);
        let other = "process_start_time_seconds 1e9\nup 1\n";
        assert_eq!(Reading::parse(other, at(0)), None);
    }

    #[test]
    fn a_sync_that_was_under_way_does_not_count() {
        let mut progress = Progress::default();
        progress.take_in(&Reading::after(5, 0.2, 100.0, 99.0));
        assert!(progress.reached(&progress.queued()));
        // It ended at 110.1 and took 0.2 s, so it began before 110.
        progress.take_in(&Reading::after(6, 0.2, 110.1, 110.0));
        assert!(!progress.reached(&progress.queued()));
        progress.take_in(&Reading::after(7, 0.2, 111.0, 110.0));
        assert!(progress.reached(&progress.queued()));
    }

    #[test]
    fn another_process_counts_from_the_beginning() {
        let mut progress = Progress::default();
        progress.take_in(&Reading::after(500, 0.2, 100.0, 99.0));
        progress.take_in(&Reading::after(1, 0.2, 200.0, 199.9));
        assert!(!progress.reached(&progress.queued()));
        progress.take_in(&Reading::after(2, 0.2, 201.0, 199.9));
        assert!(progress.reached(&progress.queued()));
    }
}
