//! What is filled in and rewritten before an object is stored.
//!
//! Nothing that a user wrote changes its meaning; what is absent gets a default only where the
//! default is what absence means anyway; and a second pass changes nothing.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Map, Value};

use super::{View, service::requested};
use crate::{Closed, keys};

/// A value to put at a place in the object.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Member names from the top; members on the way are made where they are absent.
    pub path: Vec<&'static str>,
    /// What to put there.
    pub value: Value,
}

impl Change {
    pub(super) fn new(path: &[&'static str], value: impl Into<Value>) -> Self {
        Self {
            path: path.to_vec(),
            value: value.into(),
        }
    }

    /// Puts the value into an object. Does nothing where the way is blocked by something that is
    /// no object.
    pub fn apply(&self, object: &mut Value) {
        let Some((last, way)) = self.path.split_last() else {
            return;
        };
        let mut place = object;
        for step in way {
            let Some(members) = place.as_object_mut() else {
                return;
            };
            let next = members.entry(*step).or_insert(Value::Null);
            if next.is_null() {
                *next = Value::Object(Map::new());
            }
            place = next;
        }
        if let Some(members) = place.as_object_mut() {
            members.insert((*last).to_owned(), self.value.clone());
        }
    }
}

/// Annotations by which a Service says which load balancer it is for: these keys, or any key of
/// these domains.
const OTHERS: [&str; 11] = [
    "metallb.io/",
    "metallb.universe.tf/",
    "kube-vip.io/",
    "lbipam.cilium.io/",
    "io.cilium/",
    "purelb.io/",
    "loxilb.io/",
    "svccontroller.k3s.cattle.io/",
    "service.beta.kubernetes.io/",
    "cloud.google.com/",
    "networking.gke.io/",
];

/// Completes a Service: the opt-in annotation, where `inject` and a default Eip exists and the
/// Service is new (or becomes a LoadBalancer), of no class, and says nothing of a load balancer;
/// requested addresses in their canonical spelling.
#[must_use]
pub fn complete_service(
    new: &Service,
    old: Option<&Service>,
    view: &View,
    inject: bool,
) -> Vec<Change> {
    let mut changes = Vec::new();
    if !is_load_balancer(new) {
        return changes;
    }
    let has_default = || {
        view.eips()
            .any(|eip| eip.pool.default && eip.pool.closed != Some(Closed::Deleting))
    };
    let is_new = !old.is_some_and(is_load_balancer);
    let injected = inject && is_new && is_undecided(new) && has_default();
    if injected {
        let path = ["metadata", "annotations", keys::OPT_IN];
        changes.push(Change::new(&path, keys::OPT_IN_VALUE));
    }
    if injected || super::is_ours(new) {
        changes.extend(canonical_request(new, old));
    }
    changes
}

/// Whether nobody said yet who shall serve a Service of type LoadBalancer.
fn is_undecided(service: &Service) -> bool {
    let class = service
        .spec
        .as_ref()
        .and_then(|spec| spec.load_balancer_class.as_ref());
    let decided = |key: &String| {
        key == keys::OPT_IN
            || key == keys::NODE_PROXY
            || OTHERS.iter().any(|other| key.starts_with(other))
            || key.contains("load-balancer")
            || key.contains("loadbalancer")
    };
    class.is_none()
        && !service
            .metadata
            .annotations
            .iter()
            .flatten()
            .any(|(key, _)| decided(key))
}

/// The requested addresses in canonical spelling, if they are readable, new, and spelled
/// otherwise.
fn canonical_request(new: &Service, old: Option<&Service>) -> Option<Change> {
    let written = |service: &Service| {
        let annotation = service
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(keys::ADDRESS))
            .cloned();
        let field = service
            .spec
            .as_ref()
            .and_then(|spec| spec.load_balancer_ip.clone());
        (annotation, field)
    };
    if old.is_some_and(|old| written(old) == written(new)) {
        return None;
    }
    let request = requested(new);
    if !request.unreadable.is_empty() || request.addresses.is_empty() {
        return None;
    }
    let canonical = join(&request.addresses);
    match written(new) {
        (Some(text), _) if text != canonical => Some(Change::new(
            &["metadata", "annotations", keys::ADDRESS],
            canonical,
        )),
        (None, Some(text)) if text != canonical => {
            Some(Change::new(&["spec", "loadBalancerIP"], canonical))
        }
        _ => None,
    }
}

fn is_load_balancer(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

fn join(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::v1alpha2::{Eip, EipSpec};

    fn view(is_default: bool) -> View {
        let mut lan = Eip::new(
            "lan",
            EipSpec {
                address: "192.0.2.0/28".into(),
                ..EipSpec::default()
            },
        );
        lan.metadata.annotations =
            is_default.then(|| [(keys::DEFAULT_EIP.to_owned(), "true".to_owned())].into());
        let mut view = View::default();
        view.change_eips(|eips| {
            eips.insert("lan".into(), Arc::new((&lan).try_into().unwrap()));
        });
        view
    }

    fn service(annotations: &Value, spec: &Value) -> Service {
        let mut value = json!({ "metadata": { "annotations": annotations }, "spec": spec });
        value["spec"]["type"] = json!("LoadBalancer");
        serde_json::from_value(value).unwrap()
    }

    fn injected(service: &Service, view: &View) -> bool {
        complete_service(service, None, view, true)
            .iter()
            .any(|change| change.path.last() == Some(&keys::OPT_IN))
    }

    #[test]
    fn a_new_service_that_says_nothing_is_opted_in_where_there_is_a_default_eip() {
        let plain = service(&Value::Null, &json!({}));
        assert!(injected(&plain, &view(true)));
        assert!(!injected(&plain, &view(false)));
        assert!(complete_service(&plain, None, &view(true), false).is_empty());
        assert!(complete_service(&plain, Some(&plain), &view(true), true).is_empty());
        // One that becomes a LoadBalancer is as new as one that is made so.
        let mut before = plain.clone();
        before.spec.as_mut().unwrap().type_ = Some("ClusterIP".into());
        assert!(!complete_service(&plain, Some(&before), &view(true), true).is_empty());
        let named = service(
            &json!({ keys::EIP: "lan", "example.com/team": "a" }),
            &json!({}),
        );
        assert!(injected(&named, &view(true)));
    }

    #[test]
    fn a_service_that_is_somebody_elses_is_left_alone() {
        for key in [
            "metallb.io/loadBalancerIPs",
            "service.beta.kubernetes.io/aws-load-balancer-type",
            "example.com/load-balancer-kind",
            keys::OPT_IN,
            keys::NODE_PROXY,
        ] {
            assert!(
                !injected(&service(&json!({ key: "x" }), &json!({})), &view(true)),
                "{key}"
            );
        }
        let classed = service(
            &json!({}),
            &json!({ "loadBalancerClass": "example.com/lb" }),
        );
        assert!(!injected(&classed, &view(true)));
        let mut cluster_ip = service(&json!({}), &json!({}));
        cluster_ip.spec.as_mut().unwrap().type_ = Some("ClusterIP".into());
        assert!(complete_service(&cluster_ip, None, &view(true), true).is_empty());
    }

    #[test]
    fn requested_addresses_become_canonical_once() {
        let ours = json!({ keys::OPT_IN: "openelb", keys::ADDRESS: " 192.0.2.1 , 2001:DB8::0:1" });
        let mut object = serde_json::to_value(service(&ours, &json!({}))).unwrap();
        let complete = |object: &Value| {
            let service = serde_json::from_value(object.clone()).unwrap();
            complete_service(&service, None, &view(true), true)
        };
        for change in complete(&object) {
            change.apply(&mut object);
        }
        assert_eq!(
            object["metadata"]["annotations"][keys::ADDRESS],
            "192.0.2.1,2001:db8::1"
        );
        assert_eq!(complete(&object), []);
    }

    #[test]
    fn what_cannot_be_read_is_left_for_the_rules_to_refuse() {
        let ours = json!({ keys::OPT_IN: "openelb" });
        let service = service(&ours, &json!({ "loadBalancerIP": "010.0.0.1" }));
        assert_eq!(complete_service(&service, None, &view(true), true), []);
    }

    #[test]
    fn a_change_makes_the_members_on_its_way() {
        let change = Change::new(&["metadata", "annotations", "a/b"], "c");
        let mut object = json!({ "metadata": { "annotations": null } });
        change.apply(&mut object);
        assert_eq!(
            object,
            json!({ "metadata": { "annotations": { "a/b": "c" } } })
        );
        let mut blocked = json!({ "metadata": 5 });
        change.apply(&mut blocked);
        assert_eq!(blocked, json!({ "metadata": 5 }));
    }
}
