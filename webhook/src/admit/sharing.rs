//! Whether a Service may stand on the addresses that it names: the rules are the allocator's own.

use k8s_openapi::api::core::v1::Service;
use openelb_api::{
    v1alpha2::{AddressHolder, Sharing},
    validate::{Verdict, View},
};
use openelb_ipam::{
    ServiceFacts, ServiceKey,
    sharing::{Port, Terms, agree},
};

/// Refuses a named address that another Service has and does not share with this one.
pub(super) fn check(service: &Service, view: &View, verdict: &mut Verdict) {
    let path = openelb_api::validate::requested(service).path;
    let Some(facts) = facts(service) else { return };
    let Some(request) = &facts.request else {
        return;
    };
    for address in &request.addresses {
        let Some(holding) = view.holding(*address) else {
            continue;
        };
        if holding.is_reserved && !is_for(&holding.reserved_for, &facts.key) {
            verdict.warn(
                path,
                format!("{address} is reserved and not for this Service; it waits until reservedFor of the EipAddress lists it"),
            );
        }
        let sharing = view
            .eip(&holding.eip)
            .map(|eip| eip.pool.sharing)
            .unwrap_or_default();
        let terms = request.terms_for(*address);
        let others = holding
            .services
            .iter()
            .map(|holder| (key(holder), terms_of(holder)));
        for (holder, held) in others.filter(|(holder, _)| *holder != facts.key) {
            if sharing == Sharing::Never {
                let eip = &holding.eip;
                verdict.deny_in_use(format!(
                    "{path}: {address} is held by {holder}, and Eip {eip} lets nobody share an address (spec.sharing)"
                ));
                break;
            }
            let any = sharing == Sharing::AnyNamespace;
            if let Err(refusal) = agree((&facts.key, &terms), (&holder, &held), any) {
                verdict.deny_in_use(format!("{path}: {address} cannot be shared: {refusal}"));
                break;
            }
        }
    }
}

/// What the allocator reads of a Service. One that is being made has no uid or version yet, and
/// neither matters here.
fn facts(service: &Service) -> Option<ServiceFacts> {
    let mut service = service.clone();
    service.metadata.uid.get_or_insert_default();
    service.metadata.resource_version.get_or_insert_default();
    ServiceFacts::read(&service)
}

fn key(holder: &AddressHolder) -> ServiceKey {
    ServiceKey::new(holder.namespace.as_str(), holder.name.as_str())
}

fn terms_of(holder: &AddressHolder) -> Terms {
    let ports = holder.ports.iter().filter_map(|port| {
        let number = u16::try_from(port.port).ok()?;
        Some(Port {
            protocol: port.protocol.as_str().into(),
            number,
        })
    });
    Terms {
        ports: ports.collect(),
        local: holder.local,
        selector: holder.selector.iter().collect(),
        by_name: holder.requested,
    }
}

/// Whether `namespace/name` or `namespace/*` is in the list.
fn is_for(list: &[String], service: &ServiceKey) -> bool {
    list.iter().any(|entry| {
        entry.split_once('/').is_some_and(|(namespace, name)| {
            *namespace == *service.namespace && (name == "*" || *name == *service.name)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openelb_api::{
        v1alpha2::{Eip, EipSpec, HolderPort},
        validate::{EipFacts, Holding},
    };
    use serde_json::{Value, json};

    use super::*;

    fn view(sharing: Sharing, requested: bool) -> View {
        let mut view = View::default();
        view.change_eips(|eips| {
            let spec = EipSpec {
                address: "192.0.2.0/28".into(),
                sharing: Some(sharing),
                ..EipSpec::default()
            };
            eips.insert(
                "lan".into(),
                Arc::new(EipFacts::try_from(&Eip::new("lan", spec)).unwrap()),
            );
        });
        view.change_holdings(|holdings| {
            let mail = AddressHolder {
                namespace: "shop".into(),
                name: "mail".into(),
                ports: vec![HolderPort {
                    protocol: "TCP".into(),
                    port: 25,
                }],
                requested,
                ..AddressHolder::default()
            };
            let held = Holding {
                eip: "lan".into(),
                services: vec![mail],
                ..Holding::default()
            };
            holdings.insert("192.0.2.1".parse().unwrap(), Arc::new(held));
            let reserved = Holding {
                eip: "lan".into(),
                is_reserved: true,
                reserved_for: vec!["shop/*".into()],
                ..Holding::default()
            };
            holdings.insert("192.0.2.2".parse().unwrap(), Arc::new(reserved));
        });
        view
    }

    fn asked(name: (&str, &str), address: &str, port: u16, view: &View) -> Verdict {
        let service: Value = json!({
            "metadata": {
                "namespace": name.0, "name": name.1,
                "annotations": { "lb.kubesphere.io/v1alpha1": "openelb" },
            },
            "spec": { "type": "LoadBalancer", "loadBalancerIP": address, "ports": [{ "port": port }] },
        });
        let mut verdict = Verdict::default();
        check(
            &serde_json::from_value(service).unwrap(),
            view,
            &mut verdict,
        );
        verdict
    }

    #[test]
    fn other_ports_in_the_same_namespace_share() {
        let view = view(Sharing::SameNamespace, true);
        assert_eq!(
            asked(("shop", "web"), "192.0.2.1", 80, &view),
            Verdict::default()
        );
        assert_eq!(
            asked(("shop", "web"), "192.0.2.9", 25, &view),
            Verdict::default()
        );
        // It does not collide with itself.
        assert_eq!(
            asked(("shop", "mail"), "192.0.2.1", 25, &view),
            Verdict::default()
        );
    }

    #[test]
    fn a_refusal_names_the_holder_and_the_reason() {
        for (view, service, port, reason) in [
            (
                view(Sharing::SameNamespace, true),
                ("shop", "web"),
                25,
                "exposes port 25/TCP too",
            ),
            (
                view(Sharing::SameNamespace, true),
                ("other", "web"),
                80,
                "other namespaces",
            ),
            (
                view(Sharing::AnyNamespace, true),
                ("other", "web"),
                25,
                "exposes port 25/TCP too",
            ),
            (
                view(Sharing::SameNamespace, false),
                ("shop", "web"),
                80,
                "without having asked for it by name",
            ),
            (
                view(Sharing::Never, true),
                ("shop", "web"),
                80,
                "lets nobody share an address",
            ),
        ] {
            let verdict = asked(service, "192.0.2.1", port, &view);
            assert!(
                verdict.in_use
                    && verdict.denials.len() == 1
                    && verdict.denials[0].starts_with("spec.loadBalancerIP: 192.0.2.1 ")
                    && verdict.denials[0].contains("shop/mail")
                    && verdict.denials[0].contains(reason),
                "{reason}: {verdict:?}"
            );
        }
        let any = view(Sharing::AnyNamespace, true);
        assert_eq!(
            asked(("other", "web"), "192.0.2.1", 80, &any),
            Verdict::default()
        );
    }

    #[test]
    fn a_reserved_address_is_for_those_it_is_reserved_for() {
        let view = view(Sharing::SameNamespace, true);
        assert_eq!(
            asked(("shop", "web"), "192.0.2.2", 80, &view),
            Verdict::default()
        );
        let verdict = asked(("other", "web"), "192.0.2.2", 80, &view);
        assert!(verdict.is_accepted() && verdict.warnings[0].contains("192.0.2.2 is reserved"));
    }
}
