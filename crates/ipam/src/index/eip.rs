//! What an Eip's status shows: a view made from the index, never the truth.

use std::collections::BTreeMap;
use std::net::IpAddr;

use openelb_api::keys::{conditions, reasons};
use openelb_api::{Closed, Family, validate};

use super::pools::Entry;
use super::{Index, Slot};
use crate::service::Said;

/// How many addresses `used` lists.
pub const LISTED: usize = 1024;

/// An Eip's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EipView {
    /// The lowest and the highest address.
    pub ends: Option<(IpAddr, IpAddr)>,
    /// How many addresses it has.
    pub pool_size: i64,
    /// How many are in use.
    pub usage: i64,
    /// The first of them, each with its Services in OpenELB's form.
    pub used: BTreeMap<String, String>,
    /// How many addresses of each family it can give, and how many of them are in use.
    pub families: BTreeMap<Family, Share>,
    /// No address is free.
    pub occupied: bool,
    /// The Eip can be used.
    pub ready: bool,
    /// Conditions by type.
    pub conditions: BTreeMap<&'static str, Said>,
}

/// An Eip's addresses of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many it can give, those in use included.
    pub addresses: u128,
    /// How many of its addresses Services have.
    pub in_use: i64,
}

fn said(holds: bool, reason: &str, message: impl Into<String>) -> Said {
    Said {
        holds,
        reason: reason.into(),
        message: message.into().into(),
    }
}

impl Index {
    /// The status of an Eip; `None` when it is not known.
    #[must_use]
    pub fn eip_view(&self, name: &str) -> Option<EipView> {
        if let Some(why) = self.pools.invalid.get(name) {
            let mut view = EipView::default();
            self.list_used(name, &mut view);
            view.conditions
                .insert(conditions::READY, said(false, reasons::INVALID, why));
            view.conditions
                .insert(conditions::INVALID, said(true, reasons::INVALID, why));
            return Some(view);
        }
        let entry = self.pools.get(name)?;
        let pool = &entry.pool;
        let named = &pool.addresses.named;
        let exhausted = !self.any_free(entry);
        let mut view = EipView {
            ends: named.first().zip(named.last()),
            pool_size: pool.size(),
            occupied: exhausted,
            ready: true,
            ..EipView::default()
        };
        let assignable = &pool.addresses.assignable;
        for family in Family::ALL {
            let addresses = assignable.size_of(family);
            if addresses > 0 {
                let in_use = 0;
                view.families.insert(family, Share { addresses, in_use });
            }
        }
        self.list_used(name, &mut view);
        let ready = match pool.closed {
            Some(Closed::Disabled) => {
                said(true, "Disabled", "Gives no new addresses (spec.disable).")
            }
            Some(Closed::Deleting) => said(false, "Deleting", "Is being deleted."),
            None if pool.addresses.warnings.is_empty() => said(true, "Ready", ""),
            None => said(true, "Ready", pool.addresses.warnings.join("; ")),
        };
        view.ready = ready.holds;
        view.conditions.insert(conditions::READY, ready);
        let first = self.pools.default_eip();
        let second = first.filter(|first| pool.default && ***first != *name);
        let refused: Vec<String> = Some(entry.refused.clone())
            .filter(|refused| !refused.is_empty())
            .into_iter()
            .chain(second.map(|first| validate::second_default(first)))
            .collect();
        let invalid = if refused.is_empty() {
            said(false, reasons::VALID, "")
        } else {
            said(true, reasons::PARTLY_USED, refused.join("; "))
        };
        view.conditions.insert(conditions::INVALID, invalid);
        view.conditions.insert(
            conditions::OVERLAPPING,
            match &entry.overlaps {
                Some(other) => said(
                    true,
                    "Overlapping",
                    format!(
                        "Eip {other} is older and has some of these addresses; they are given by {other} only. \
                         Take them out of one of the two."
                    ),
                ),
                None => said(false, "NoOverlap", ""),
            },
        );
        view.conditions.insert(
            conditions::EXHAUSTED,
            if exhausted {
                said(
                    true,
                    "NoFreeAddress",
                    "Every address is in use; add addresses or another Eip.",
                )
            } else {
                said(false, "FreeAddresses", "")
            },
        );
        Some(view)
    }

    fn list_used(&self, name: &str, view: &mut EipView) {
        let records = self
            .of_eip
            .get(name)
            .into_iter()
            .flatten()
            .filter_map(|address| {
                let record = self.slots.get(address).and_then(Slot::record)?;
                (!record.entries.is_empty()).then_some((address, record))
            });
        let mut usage = 0_i64;
        for (address, record) in records {
            usage = usage.saturating_add(1);
            let share = view.families.entry(Family::of(*address)).or_default();
            share.in_use = share.in_use.saturating_add(1);
            if view.used.len() < LISTED {
                let services: Vec<_> = record
                    .entries
                    .iter()
                    .map(|entry| entry.service.to_string())
                    .collect();
                view.used.insert(address.to_string(), services.join(";"));
            }
        }
        view.usage = usage;
        let truncated = usize::try_from(usage).is_ok_and(|usage| usage > LISTED);
        view.conditions.insert(
            conditions::USED_TRUNCATED,
            if truncated {
                said(
                    true,
                    "TooMany",
                    format!(
                        "status.used lists the first {LISTED} addresses; see EipAddresses for all."
                    ),
                )
            } else {
                said(false, "Complete", "")
            },
        );
    }

    fn any_free(&self, entry: &Entry) -> bool {
        Family::ALL.into_iter().any(|family| {
            let ranges = entry.gives.family(family);
            self.taken.lowest_free(ranges).is_some()
        }) || self.resting.oldest_first().any(|address| {
            entry.gives.contains(address)
                && !self.slots.contains_key(&address)
                && !self.shown.contains_key(&address)
        }) || self.vacant.iter().any(|address| {
            entry.gives.contains(*address)
                && !self.shown.contains_key(address)
                && !self.is_aside(*address)
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use openelb_api::keys;
    use openelb_api::v1alpha2::{Eip, EipBgp, EipSpec};
    use openelb_api::validate::{EipFacts, View};

    use super::*;

    #[test]
    fn of_two_default_eips_the_older_counts_and_the_other_says_so() {
        let default = |name: &str, address: &str, created: i64| {
            let spec = EipSpec {
                address: address.to_owned(),
                ..EipSpec::default()
            };
            let mut eip = Eip::new(name, spec);
            let annotation = (keys::DEFAULT_EIP.to_owned(), "true".to_owned());
            eip.metadata.annotations = Some([annotation].into());
            let created = format!("2026-01-0{created}T00:00:00Z");
            eip.metadata.creation_timestamp = Some(Time(created.parse().unwrap()));
            eip
        };
        let (young, old) = (default("a", "10.0.0.1", 2), default("b", "10.0.0.2", 1));
        let mut index = Index::default();
        index.apply_eip(&young);
        let invalid = |index: &Index, name: &str| {
            let view = index.eip_view(name).unwrap();
            view.conditions[conditions::INVALID].clone()
        };
        let fine = said(false, reasons::VALID, "");
        assert_eq!(invalid(&index, "a"), fine);
        index.apply_eip(&old);
        assert_eq!(invalid(&index, "b"), fine);
        let mut view = View::default();
        view.change_eips(|eips| {
            eips.insert("b".into(), EipFacts::try_from(&old).unwrap().into());
        });
        let refused = validate::eip(&young, None, &view).denials;
        assert_eq!(
            invalid(&index, "a"),
            said(true, reasons::PARTLY_USED, refused.join("; "))
        );
        index.remove_eip("b");
        assert_eq!(invalid(&index, "a"), fine);
    }

    #[test]
    fn what_got_past_the_webhook_is_refused_in_the_webhooks_words() {
        let unreadable = EipSpec {
            address: "192.0.2.1-x".to_owned(),
            ..EipSpec::default()
        };
        let odd = EipSpec {
            address: "192.0.2.1".to_owned(),
            interface: Some("lo".to_owned()),
            bgp: Some(EipBgp {
                med: Some(-1),
                communities: vec!["x".to_owned()],
                ..EipBgp::default()
            }),
            ..EipSpec::default()
        };
        for (spec, reason, ready) in [
            (unreadable, reasons::INVALID, false),
            (odd, reasons::PARTLY_USED, true),
        ] {
            let eip = Eip::new("lan", spec);
            let mut index = Index::default();
            index.apply_eip(&eip);
            let view = index.eip_view("lan").unwrap();
            let refused = validate::eip(&eip, None, &View::default()).denials;
            assert!(!refused.is_empty());
            let condition = said(true, reason, refused.join("; "));
            assert_eq!(view.conditions[conditions::INVALID], condition);
            assert_eq!(view.ready, ready);
        }
    }
}
