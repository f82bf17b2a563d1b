//! Rules for BgpConfs, and those that BgpConf and BgpPeer have in common.

use std::net::Ipv4Addr;

use kube::ResourceExt;

use super::{Change, Verdict, eip::is_dns_label, fields, spelling};
use crate::{
    bgp::{Speaker, ignored},
    keys,
    v1alpha2::{BgpConf, BgpConfSpec},
};

/// The largest AS number (RFC 6793).
const LARGEST_AS: i64 = 4_294_967_295;
/// AS_TRANS (RFC 6793): stands for large numbers on the way, nobody's own.
const AS_TRANS: i64 = 23456;

/// Checks a BgpConf that shall be stored. Finalizers and metadata can always be written.
#[must_use]
pub fn bgp_conf(new: &BgpConf, old: Option<&BgpConf>) -> Verdict {
    let mut verdict = Verdict::default();
    let is_same = old.is_some_and(|old| old.spec == new.spec);
    if new.metadata.deletion_timestamp.is_some() || is_same {
        return verdict;
    }
    if new.name_any() != keys::BGP_CONF {
        let message = "must be default: there is one BGP configuration for all speakers; what differs by rack goes \
                       into spec.asPerRack, what differs by peer into the BgpPeer";
        if old.is_none() {
            verdict.deny("metadata.name", message);
        } else {
            verdict.warn("metadata.name", message);
        }
    }
    if let Err(invalid) = Speaker::try_from(new) {
        verdict.deny_all(&invalid);
    }
    fields::check(&new.spec, &mut verdict);
    own_numbers(&new.spec, &mut verdict);
    let port = new.spec.listen_port;
    if port == Some(-1) && !new.spec.listen_addresses.is_empty() {
        let message = "has no effect while spec.listenPort is -1";
        verdict.warn("spec.listenAddresses", message);
    }
    let policy = &new.spec.policy;
    if !policy.is_empty() && !policy.split('.').all(is_dns_label) {
        verdict.deny(
            "spec.policy",
            format!("{policy:?} is no name of a ConfigMap"),
        );
    }
    verdict.warn_without_effect(&ignored::of_conf(&new.spec));
    verdict
}

/// Completes a BgpConf: addresses in their canonical spelling.
#[must_use]
pub fn complete_bgp_conf(new: &BgpConf, old: Option<&BgpConf>) -> Vec<Change> {
    let mut changes = Vec::new();
    if new.metadata.deletion_timestamp.is_some() || old.is_some_and(|old| old.spec == new.spec) {
        return changes;
    }
    if let Some(canonical) = spelling::address(&new.spec.router_id) {
        changes.push(Change::new(&["spec", "routerId"], canonical));
    }
    let respelled = |text: &String| spelling::address(text).unwrap_or_else(|| text.clone());
    let addresses: Vec<String> = new.spec.listen_addresses.iter().map(respelled).collect();
    if addresses != new.spec.listen_addresses {
        changes.push(Change::new(&["spec", "listenAddresses"], addresses));
    }
    changes
}

/// What is to be said of a number that somebody has as his own, beyond its range.
pub(super) fn as_number(path: &str, number: i64, verdict: &mut Verdict) {
    if number == AS_TRANS {
        verdict.deny(
            path,
            format!("{number} is AS_TRANS (RFC 6793) and nobody's own"),
        );
    } else if number == 65535 || number == LARGEST_AS {
        verdict.warn(
            path,
            format!("{number} is reserved (RFC 7300); some routers refuse it"),
        );
    }
}

fn own_numbers(spec: &BgpConfSpec, verdict: &mut Verdict) {
    if let Some(number) = spec.as_number {
        as_number("spec.as", number, verdict);
    }
    for (rack, number) in spec.as_per_rack.iter().flatten() {
        as_number(&format!("spec.asPerRack.{rack}"), *number, verdict);
    }
    let router_id = spec.router_id.as_str();
    let is_usable = |id: Ipv4Addr| !id.is_broadcast() && !id.is_multicast();
    if router_id.parse().is_ok_and(|id| !is_usable(id)) {
        verdict.deny(
            "spec.routerId",
            format!("{router_id:?} must be an IPv4 address that is a host's"),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn conf(name: &str, spec: Value) -> BgpConf {
        BgpConf::new(name, serde_json::from_value(spec).unwrap())
    }

    fn created(spec: Value) -> Verdict {
        bgp_conf(&conf("default", spec), None)
    }

    #[test]
    fn usual_configurations_are_accepted() {
        for spec in [
            json!({ "as": 50001, "listenPort": 17900, "routerId": "10.0.255.254" }),
            json!({ "as": 4_200_000_000_i64, "families": [0, 1], "listenAddresses": ["0.0.0.0", "::"] }),
            json!({ "asPerRack": { "a": 65001, "b": 65002 } }),
            json!({ "as": 65000, "gracefulRestart": { "enabled": true, "restartTime": 60 } }),
        ] {
            assert_eq!(created(spec.clone()), Verdict::default(), "{spec}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (spec, message) in [
            (json!({}), "spec.as: must be the own AS number"),
            (
                json!({ "as": 0 }),
                "spec.as: 0 must be the own AS number, between 1 and 4294967295",
            ),
            (
                json!({ "as": 4_294_967_296_i64 }),
                "spec.as: 4294967296 must be",
            ),
            (json!({ "as": -5 }), "spec.as: -5 must be"),
            (json!({ "as": 23456 }), "spec.as: 23456 is AS_TRANS"),
            (
                json!({ "as": 1, "asPerRack": { "a": -1 } }),
                "spec.asPerRack.a: -1 must be",
            ),
            (
                json!({ "as": 1, "routerId": "2001:db8::1" }),
                "spec.routerId: \"2001:db8::1\" must be an IPv4",
            ),
            (json!({ "as": 1, "routerId": "0.0.0.0" }), "spec.routerId: "),
            (
                json!({ "as": 1, "listenPort": 65536 }),
                "spec.listenPort: 65536 must be",
            ),
            (
                json!({ "as": 1, "listenAddresses": ["x"] }),
                "spec.listenAddresses[0]: \"x\" must be an IPv4",
            ),
            (
                json!({ "as": 1, "families": [99] }),
                "spec.families[0]: 99 must be GoBGP's index",
            ),
            (json!({ "as": 1, "policy": "Bad_Name" }), "spec.policy: "),
            (
                json!({ "as": 1, "gracefulRestart": { "restartTime": 4096 } }),
                "spec.gracefulRestart.restartTime: 4096 must be",
            ),
        ] {
            let verdict = created(spec);
            assert!(
                verdict.denials.len() == 1 && verdict.denials[0].starts_with(message),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn another_name_than_default_is_refused_unless_it_is_there_already() {
        let other = conf("other", json!({ "as": 1 }));
        assert!(bgp_conf(&other, None).denials[0].starts_with("metadata.name: must be default"));
        let edited = conf("other", json!({ "as": 2 }));
        let verdict = bgp_conf(&edited, Some(&other));
        assert!(verdict.is_accepted() && !verdict.warnings.is_empty());
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let verdict = created(json!({
            "as": 1, "families": [0, 2], "useMultiplePaths": true,
            "gracefulRestart": { "enabled": true, "mode": "x", "staleRoutesTime": 5 },
        }));
        assert!(verdict.is_accepted());
        assert_eq!(
            verdict.warnings,
            [
                "spec: without effect: useMultiplePaths, families above 1, gracefulRestart.staleRoutesTime, gracefulRestart.mode",
            ]
        );
    }

    #[test]
    fn metadata_can_always_be_written() {
        let old = conf("other", json!({ "as": -1 }));
        assert_eq!(bgp_conf(&old, Some(&old)), Verdict::default());
    }

    #[test]
    fn addresses_become_canonical_once() {
        let raw = conf(
            "default",
            json!({ "as": 1, "listenAddresses": ["2001:DB8::0:1", "x"] }),
        );
        assert_eq!(
            complete_bgp_conf(&raw, None),
            [Change::new(
                &["spec", "listenAddresses"],
                vec!["2001:db8::1".to_owned(), "x".to_owned()]
            )]
        );
    }
}
