//! EipAddresses that nobody holds: people make them, and those that got past the webhook are told what it would have said.

use jiff::Timestamp;
use openelb_api::keys::{conditions::INVALID, reasons};
use openelb_api::v1alpha2::EipAddress;
use openelb_api::validate::{self, View};
use serde_json::Value;

use super::condition::{Said, written};
use crate::picture::Picture;

/// The statuses to write, by name of the EipAddress: where there is something to say, or to take back.
pub(super) fn writes(picture: &Picture, now: Timestamp) -> Vec<(String, Value)> {
    if picture.unheld.is_empty() {
        return Vec::new();
    }
    let mut view = View::default();
    view.change_eips(|eips| eips.clone_from(&picture.eips));
    let unheld = picture.unheld.iter();
    unheld
        .filter_map(|(name, object)| Some((name.clone(), write(object, &view, now)?)))
        .collect()
}

fn write(object: &EipAddress, view: &View, now: Timestamp) -> Option<Value> {
    let nobodys = object.spec.services.is_empty() && object.spec.remembered.is_none();
    let denials = if nobodys {
        validate::address(object, None, view).denials
    } else {
        Vec::new()
    };
    let is_wrong = !denials.is_empty();
    let said = Said {
        type_: INVALID,
        holds: is_wrong,
        reason: if is_wrong {
            reasons::INVALID
        } else {
            reasons::VALID
        },
        message: denials.join("; "),
        generation: object.metadata.generation,
    };
    let status = object.status.as_ref();
    let conditions = status.map(|status| &status.conditions[..]);
    let version = object.metadata.resource_version.as_deref();
    written(said, conditions.unwrap_or_default(), version, now)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::ResourceExt as _;
    use openelb_api::v1alpha2::{Eip, EipSpec};
    use openelb_api::validate::EipFacts;
    use serde_json::json;

    use super::*;

    fn picture(object: EipAddress) -> Picture {
        let mut picture = Picture::default();
        let spec = EipSpec {
            address: "192.0.2.0/28".to_owned(),
            ..EipSpec::default()
        };
        let facts = EipFacts::try_from(&Eip::new("lan", spec)).unwrap();
        picture.eips.insert("lan".to_owned(), Arc::new(facts));
        picture.unheld.insert(object.name_any(), Arc::new(object));
        picture
    }

    #[allow(clippy::needless_pass_by_value, reason = "reads better at the calls")]
    fn address(spec: Value, conditions: Value) -> EipAddress {
        serde_json::from_value(json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "EipAddress",
            "metadata": { "name": spec["address"], "resourceVersion": "7" },
            "spec": spec, "status": { "conditions": conditions },
        }))
        .unwrap()
    }

    #[allow(clippy::needless_pass_by_value, reason = "reads better at the calls")]
    fn written(spec: Value, conditions: Value) -> Option<Value> {
        let picture = picture(address(spec, conditions));
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut all = writes(&picture, now);
        all.pop().map(|(_, body)| body)
    }

    #[test]
    fn what_the_webhook_would_refuse_is_said_once_in_its_words() {
        let wrong = json!({ "address": "198.51.100.1", "eip": "lan", "reserved": true });
        let conflict = json!({
            "type": "Conflict", "status": "False", "reason": "None", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let body = written(wrong.clone(), json!([conflict])).unwrap();
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        let all = body["status"]["conditions"].clone();
        assert_eq!(all[0], conflict);
        assert_eq!(
            (&all[1]["type"], &all[1]["status"], &all[1]["message"]),
            (
                &json!("Invalid"),
                &json!("True"),
                &json!("spec.eip: 198.51.100.1 is not in Eip lan (192.0.2.0/28)")
            )
        );
        assert_eq!(written(wrong, all), None);
    }

    #[test]
    fn what_is_right_or_the_controllers_own_is_left_alone() {
        for spec in [
            json!({ "address": "192.0.2.1", "eip": "lan", "reserved": true }),
            json!({
                "address": "198.51.100.1", "eip": "lan",
                "services": [{ "namespace": "n", "name": "s", "uid": "u" }],
            }),
            json!({
                "address": "198.51.100.1", "eip": "lan", "remembered": { "namespace": "n", "name": "s" },
            }),
        ] {
            assert_eq!(written(spec, json!([])), None);
        }
    }

    #[test]
    fn what_is_put_right_is_said_too() {
        let said = json!([{
            "type": "Invalid", "status": "True", "reason": "Invalid", "message": "spec.eip: x",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]);
        let right = json!({ "address": "192.0.2.1", "eip": "lan", "reserved": true });
        let held = json!({
            "address": "192.0.2.1", "eip": "lan",
            "services": [{ "namespace": "n", "name": "s", "uid": "u" }],
        });
        for spec in [right, held] {
            let body = written(spec, said.clone()).unwrap();
            assert_eq!(body["status"]["conditions"][0]["status"], "False");
        }
    }
}
