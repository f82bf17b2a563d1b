//! Addresses in use that no Eip contains any more: somebody shrank the pool that gave them.
//!
//! The Service says so too, but the object of the address is where an administrator looks who tidies up; and of an
//! address that is only kept for a Service that is gone there is no other object to say it.

use std::net::IpAddr;

use jiff::Timestamp;
use openelb_api::keys::{conditions::ORPHANED, reasons};
use openelb_api::v1alpha2::name_for;
use serde_json::Value;

use super::condition::{Said, written};
use crate::announce::Holding;
use crate::picture::Picture;

/// The statuses to write, by name of the EipAddress: where there is something to say, or to take back.
pub(super) fn writes(picture: &Picture, now: Timestamp) -> Vec<(String, Value)> {
    let holdings = picture.world.holdings.iter();
    holdings
        .filter_map(|(address, holding)| {
            let name = name_for(*address);
            // What a person made says by `Invalid` what is wrong with it.
            if holding.holders.is_empty() && picture.unheld.contains_key(&name) {
                return None;
            }
            let is_orphan = !is_kept(*address, holding, picture)?;
            let said = Said {
                type_: ORPHANED,
                holds: is_orphan,
                reason: if is_orphan {
                    reasons::ADDRESS_REMOVED
                } else {
                    reasons::VALID
                },
                message: if is_orphan {
                    words(*address, holding)
                } else {
                    String::new()
                },
                generation: None,
            };
            let version = Some(holding.version.as_str());
            Some((name, written(said, &holding.conditions, version, now)?))
        })
        .collect()
}

/// Whether an Eip contains the address. Nothing where its own is gone, because then it goes or moves at once, or cannot
/// be understood now.
fn is_kept(address: IpAddr, holding: &Holding, picture: &Picture) -> Option<bool> {
    let own = picture.eips.get(&holding.eip)?;
    let mut others = picture.eips.values();
    Some(own.kept.contains(address) || others.any(|eip| eip.kept.contains(address)))
}

fn words(address: IpAddr, holding: &Holding) -> String {
    let eip = &holding.eip;
    if holding.holders.is_empty() {
        return format!(
            "no Eip contains {address} any more, so that nobody can be given it; put it back into Eip {eip}, or delete \
             this EipAddress"
        );
    }
    let holders = holding.holders.iter();
    let holders: Vec<_> = holders.map(|holder| holder.service.to_string()).collect();
    format!(
        "no Eip contains {address} any more; {} has it until another is asked for or, with onAddressRemoved: Reassign, \
         given; put it back into Eip {eip} if it shall stay",
        holders.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
    use openelb_api::v1alpha2::{Eip, EipAddress, EipSpec};
    use openelb_api::validate::EipFacts;
    use serde_json::json;

    use super::*;

    /// A picture of one address, 192.0.2.9 of Eip `lan`, and of what Eips contain.
    fn picture(spec: &Value, conditions: &Value, eips: &[(&str, &str)]) -> Picture {
        let object: EipAddress = serde_json::from_value(json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "EipAddress",
            "metadata": {"name": "192.0.2.9", "resourceVersion": "7"},
            "spec": spec, "status": {"conditions": conditions},
        }))
        .unwrap();
        let mut picture = Picture::default();
        let (address, holding) = Holding::read(&object).unwrap();
        picture.world.holdings.insert(address, holding);
        if object.spec.reserved {
            picture
                .unheld
                .insert("192.0.2.9".to_owned(), Arc::new(object));
        }
        for (name, address) in eips {
            let spec = EipSpec {
                address: (*address).to_owned(),
                ..EipSpec::default()
            };
            let facts = EipFacts::try_from(&Eip::new(name, spec)).unwrap();
            picture.eips.insert((*name).to_owned(), Arc::new(facts));
        }
        picture
    }

    fn held() -> Value {
        json!({
            "address": "192.0.2.9", "eip": "lan",
            "services": [{"namespace": "default", "name": "web", "uid": "u"}],
        })
    }

    fn kept() -> Value {
        let of = json!({"namespace": "default", "name": "web"});
        json!({"address": "192.0.2.9", "eip": "lan", "remembered": of})
    }

    fn conditions(spec: &Value, before: &Value, eips: &[(&str, &str)]) -> Option<Vec<Condition>> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let (name, body) = writes(&picture(spec, before, eips), now).pop()?;
        assert_eq!(
            (&*name, &body["metadata"]["resourceVersion"]),
            ("192.0.2.9", &json!("7"))
        );
        Some(serde_json::from_value(body["status"]["conditions"].clone()).unwrap())
    }

    #[test]
    fn an_address_that_left_its_pool_says_so_once_and_who_has_it() {
        let left = [("lan", "192.0.2.0/29")];
        let conflict = json!({
            "type": "Conflict", "status": "False", "reason": "NoConflict", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let said = conditions(&held(), &json!([conflict]), &left).unwrap();
        let [other, ours] = &said[..] else {
            panic!("{said:?}");
        };
        assert_eq!(
            (&*other.type_, &*ours.type_, &*ours.status),
            ("Conflict", ORPHANED, "True")
        );
        assert!(
            ours.message.contains("default/web has it"),
            "{}",
            ours.message
        );
        assert_eq!(conditions(&held(), &json!(said), &left), None);

        let said = conditions(&kept(), &json!([]), &left).unwrap();
        assert!(
            said[0].message.contains("delete this EipAddress"),
            "{}",
            said[0].message
        );
    }

    #[test]
    fn an_address_in_any_pool_is_no_orphan_and_one_that_was_is_told_so() {
        let other = [("lan", "192.0.2.0/29"), ("dmz", "192.0.2.8/29")];
        assert_eq!(conditions(&held(), &json!([]), &other), None);
        let was = conditions(&held(), &json!([]), &other[..1]).unwrap();
        let is = conditions(&held(), &json!(was), &other).unwrap();
        assert_eq!(
            (is.len(), &*is[0].status, &*is[0].message),
            (1, "False", "")
        );
    }

    #[test]
    fn nothing_is_said_of_a_reservation_nor_while_the_eip_is_unknown() {
        let reserved = json!({"address": "192.0.2.9", "eip": "lan", "reserved": true});
        assert_eq!(
            conditions(&reserved, &json!([]), &[("lan", "192.0.2.0/29")]),
            None
        );
        for spec in [held(), kept()] {
            assert_eq!(
                conditions(&spec, &json!([]), &[("dmz", "198.51.100.0/24")]),
                None
            );
        }
    }
}
