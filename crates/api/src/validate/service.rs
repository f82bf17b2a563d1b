//! Rules for Services that are ours.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::{Verdict, View};
use crate::{Closed, keys};

const ADDRESS_PATH: &str = "metadata.annotations[eip.openelb.kubesphere.io/v1alpha1]";
const EIP_PATH: &str = "metadata.annotations[eip.openelb.kubesphere.io/v1alpha2]";
const FIELD_PATH: &str = "spec.loadBalancerIP";

/// Checks a Service that shall be stored.
///
/// Nothing is checked while what the rules look at stays as it was, so that no rule stands in the
/// way of other changes. Whether an address may be shared is decided elsewhere, on
/// [`requested`] and [`View::holding`].
#[must_use]
pub fn service(new: &Service, old: Option<&Service>, view: &View) -> Verdict {
    let mut verdict = Verdict::default();
    if !asks_anew(new, old) {
        return verdict;
    }
    let request = requested(new);
    for text in &request.unreadable {
        verdict.deny(
            request.path,
            format!(
                "{text:?} is no IP address; give one address, or one per IP family separated by \
                 a comma"
            ),
        );
    }
    families(new, &request, &mut verdict);
    match annotation(new, keys::EIP) {
        Some(name) => named_eip(name, &request, view, &mut verdict),
        None => {
            for address in &request.addresses {
                if view.overlapping(*address, *address).next().is_none() {
                    verdict.warn(
                        request.path,
                        format!("{address} is in no Eip yet; the Service waits for one"),
                    );
                }
            }
        }
    }
    remarks(new, &mut verdict);
    verdict
}

/// Whether a Service of type LoadBalancer is for us to serve: it has the opt-in annotation or our
/// class, and no other class. NodeProxy Services get no address and no rules.
#[must_use]
pub fn is_ours(service: &Service) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    let chosen = match spec.load_balancer_class.as_deref() {
        Some(class) => class == keys::LOAD_BALANCER_CLASS,
        None => annotation(service, keys::OPT_IN) == Some(keys::OPT_IN_VALUE),
    };
    is_load_balancer(spec) && chosen && annotation(service, keys::NODE_PROXY).is_none()
}

/// Whether a Service is ours and asks for something that it did not ask for before: only then is
/// it checked.
#[must_use]
pub fn asks_anew(new: &Service, old: Option<&Service>) -> bool {
    is_ours(new) && !old.is_some_and(|old| is_ours(old) && asks_the_same(new, old))
}

/// What addresses a Service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// Where it says so.
    pub path: &'static str,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// Parts of the text that are none.
    pub unreadable: Vec<String>,
}

/// The addresses that a Service names: by annotation, whose presence wins even when it is empty,
/// else by `spec.loadBalancerIP`. Several are separated by commas.
#[must_use]
pub fn requested(service: &Service) -> Requested {
    let field = service
        .spec
        .as_ref()
        .and_then(|spec| spec.load_balancer_ip.as_deref());
    let (path, text) = match annotation(service, keys::ADDRESS) {
        Some(text) => (ADDRESS_PATH, text),
        None => (FIELD_PATH, field.unwrap_or_default()),
    };
    let mut request = Requested {
        path,
        ..Requested::default()
    };
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        match part.parse::<IpAddr>() {
            Ok(address) => request.addresses.push(address.to_canonical()),
            Err(_) => request.unreadable.push(part.to_owned()),
        }
    }
    request
}

fn is_load_balancer(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer")
}

fn annotation<'a>(service: &'a Service, key: &str) -> Option<&'a str> {
    service
        .metadata
        .annotations
        .as_ref()?
        .get(key)
        .map(String::as_str)
}

/// Whether nothing changed that these rules (and those of sharing) look at.
fn asks_the_same(new: &Service, old: &Service) -> bool {
    let annotations = [keys::ADDRESS, keys::EIP, keys::PROTOCOL];
    new.spec == old.spec
        && annotations
            .iter()
            .all(|key| annotation(new, key) == annotation(old, key))
}

/// Requested addresses against the Service's IP families.
fn families(service: &Service, request: &Requested, verdict: &mut Verdict) {
    let spec = service.spec.as_ref();
    let families = spec
        .and_then(|spec| spec.ip_families.as_deref())
        .unwrap_or_default();
    let policy = spec
        .and_then(|spec| spec.ip_family_policy.as_deref())
        .unwrap_or("SingleStack");
    for address in &request.addresses {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        if !families.is_empty() && !families.iter().any(|known| known == family) {
            verdict.deny(
                request.path,
                format!(
                    "{address} is {family}, but spec.ipFamilies is [{}]; add {family} there or \
                     ask for another address",
                    families.join(", ")
                ),
            );
        }
    }
    let v4 = request
        .addresses
        .iter()
        .filter(|address| address.is_ipv4())
        .count();
    let v6 = request.addresses.len() - v4;
    if v4 > 1 || v6 > 1 {
        verdict.deny(
            request.path,
            "a Service gets one address per IP family; name no more",
        );
    } else if v4 > 0 && v6 > 0 && policy == "SingleStack" {
        verdict.deny(
            request.path,
            "addresses of both families need spec.ipFamilyPolicy PreferDualStack or \
             RequireDualStack",
        );
    }
}

/// Requested addresses against the Eip that is named too.
fn named_eip(name: &str, request: &Requested, view: &View, verdict: &mut Verdict) {
    let Some(eip) = view.eip(name) else {
        verdict.warn(
            EIP_PATH,
            format!("there is no Eip {name:?} yet; the Service waits for it"),
        );
        return;
    };
    for address in &request.addresses {
        if !eip.pool.keeps(*address) {
            verdict.deny(
                request.path,
                format!(
                    "the specified ip:<{address}> is beyond the range of eip[{name}:{}]; ask for \
                     an address inside or name another Eip",
                    eip.address
                ),
            );
        }
    }
    let state = match eip.pool.closed {
        Some(Closed::Deleting) => "being deleted",
        Some(Closed::Disabled) => "disabled",
        None => return,
    };
    verdict.warn(
        EIP_PATH,
        format!("Eip {name} is {state} and gives no new address"),
    );
}

fn remarks(service: &Service, verdict: &mut Verdict) {
    let field = service
        .spec
        .as_ref()
        .and_then(|spec| spec.load_balancer_ip.as_deref());
    if let Some(field) = field
        && annotation(service, keys::ADDRESS).is_some_and(|text| text.trim() != field.trim())
    {
        verdict.warn(
            FIELD_PATH,
            "ignored, because the annotation eip.openelb.kubesphere.io/v1alpha1 is set",
        );
    }
    if let Some(protocol) = annotation(service, keys::PROTOCOL)
        && !["bgp", "layer2", "vip"].contains(&protocol)
    {
        verdict.warn(
            "metadata.annotations[protocol.openelb.kubesphere.io/v1alpha1]",
            format!("{protocol:?} is ignored; known are bgp, layer2 and vip"),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::v1alpha2::{Eip, EipSpec};

    fn service(annotations: &Value, spec: &Value) -> Service {
        let mut value = json!({
            "metadata": { "name": "web", "namespace": "shop", "annotations": annotations },
            "spec": spec,
        });
        value["metadata"]["annotations"][keys::OPT_IN] = json!("openelb");
        value["spec"]["type"] = json!("LoadBalancer");
        serde_json::from_value(value).unwrap()
    }

    fn view() -> View {
        let lan = Eip::new(
            "lan",
            EipSpec {
                address: "192.0.2.0/28".into(),
                ..EipSpec::default()
            },
        );
        let mut view = View::default();
        view.change_eips(|eips| {
            eips.insert("lan".into(), Arc::new((&lan).try_into().unwrap()));
        });
        view
    }

    fn check(annotations: &Value, spec: &Value) -> Verdict {
        super::service(&service(annotations, spec), None, &view())
    }

    #[test]
    fn a_service_that_asks_for_nothing_is_accepted() {
        assert_eq!(check(&json!({}), &json!({})), Verdict::default());
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        let verdict = check(&json!({}), &json!({ "loadBalancerIP": "192.0.2.300" }));
        assert_eq!(
            verdict.denials,
            [
                "spec.loadBalancerIP: \"192.0.2.300\" is no IP address; give one address, or one \
              per IP family separated by a comma"
            ]
        );
    }

    #[test]
    fn the_annotation_wins_over_the_field_even_when_empty() {
        let request = requested(&service(
            &json!({ keys::ADDRESS: "" }),
            &json!({ "loadBalancerIP": "192.0.2.1" }),
        ));
        assert_eq!(request.addresses, [] as [IpAddr; 0]);
        let verdict = check(
            &json!({ keys::ADDRESS: "192.0.2.2" }),
            &json!({ "loadBalancerIP": "192.0.2.1" }),
        );
        assert!(verdict.warnings[0].starts_with("spec.loadBalancerIP: ignored"));
    }

    #[test]
    fn an_address_must_be_of_a_family_of_the_service() {
        let verdict = check(
            &json!({}),
            &json!({ "loadBalancerIP": "192.0.2.1", "ipFamilies": ["IPv6"] }),
        );
        assert!(verdict.denials[0].contains("is IPv4, but spec.ipFamilies is [IPv6]"));
    }

    #[test]
    fn two_families_need_a_dual_stack_policy_and_two_of_one_family_are_refused() {
        let both = json!({ keys::ADDRESS: "192.0.2.1, 2001:db8::1" });
        assert!(check(&both, &json!({})).denials[0].contains("ipFamilyPolicy"));
        assert!(check(&both, &json!({ "ipFamilyPolicy": "RequireDualStack" })).is_accepted());
        let twice = json!({ keys::ADDRESS: "192.0.2.1,192.0.2.2" });
        assert!(check(&twice, &json!({})).denials[0].contains("one address per IP family"));
    }

    #[test]
    fn an_address_must_lie_in_the_eip_that_is_named() {
        let annotations = json!({ keys::EIP: "lan", keys::ADDRESS: "192.0.2.16" });
        assert_eq!(
            check(&annotations, &json!({})).denials,
            [format!(
                "{ADDRESS_PATH}: the specified ip:<192.0.2.16> is beyond the range of \
                 eip[lan:192.0.2.0/28]; ask for an address inside or name another Eip"
            )]
        );
        let annotations = json!({ keys::EIP: "lan", keys::ADDRESS: "192.0.2.15" });
        assert_eq!(check(&annotations, &json!({})), Verdict::default());
    }

    #[test]
    fn an_eip_that_does_not_exist_yet_is_a_warning() {
        let verdict = check(&json!({ keys::EIP: "later" }), &json!({}));
        assert!(verdict.is_accepted());
        assert!(verdict.warnings[0].contains("there is no Eip \"later\" yet"));
        let verdict = check(&json!({}), &json!({ "loadBalancerIP": "198.51.100.1" }));
        assert!(verdict.is_accepted());
        assert!(verdict.warnings[0].contains("198.51.100.1 is in no Eip yet"));
    }

    #[test]
    fn services_of_others_are_not_looked_at() {
        let bad = json!({ "loadBalancerIP": "x" });
        let mut other = service(&json!({}), &bad);
        other.metadata.annotations = None;
        assert_eq!(super::service(&other, None, &view()), Verdict::default());
        let foreign = json!({ "loadBalancerIP": "x", "loadBalancerClass": "example.com/lb" });
        assert_eq!(check(&json!({}), &foreign), Verdict::default());
        assert_eq!(
            check(&json!({ keys::NODE_PROXY: "daemonset" }), &bad),
            Verdict::default()
        );
    }

    #[test]
    fn our_class_opts_in_without_the_annotation() {
        let mut classed = service(
            &json!({}),
            &json!({ "loadBalancerClass": keys::LOAD_BALANCER_CLASS, "loadBalancerIP": "x" }),
        );
        classed.metadata.annotations = None;
        assert!(!super::service(&classed, None, &view()).is_accepted());
    }

    #[test]
    fn a_change_of_metadata_is_never_blocked() {
        let old = service(&json!({}), &json!({ "loadBalancerIP": "x" }));
        let mut new = old.clone();
        new.metadata.finalizers = Some(vec!["example.com/f".into()]);
        assert_eq!(
            super::service(&new, Some(&old), &view()),
            Verdict::default()
        );
    }
}
