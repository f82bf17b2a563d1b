//! Which Services may stand on one address.
//!
//! Only when every Service on the address asked for that address by name and agrees on it: ports
//! disjoint, one namespace unless the Eip allows others, and with `externalTrafficPolicy: Local` the
//! same selector (else a node would attract traffic that it cannot deliver).

use std::fmt;
use std::sync::Arc;

use crate::names::ServiceKey;
use crate::pairs::Pairs;

/// A transport port as a Service exposes it: protocol (`TCP`, `UDP`, `SCTP`) and number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Arc<str>,
    /// 1 to 65535.
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// What sharing is decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// The Service's ports, sorted.
    pub ports: Vec<Port>,
    /// Whether `externalTrafficPolicy` is `Local`.
    pub local: bool,
    /// The Service's pod selector.
    pub selector: Pairs,
    /// Whether the Service asked for this address by name.
    pub by_name: bool,
}

/// Why two Services cannot share an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The holder got the address without asking for it.
    #[error(
        "{0} holds it without having asked for it by name (set spec.loadBalancerIP there too to share it)"
    )]
    NotByName(ServiceKey),
    /// The asking Service did not name the address.
    #[error("it is held by {0}, and only Services that ask for it by name may share it")]
    NotAsked(ServiceKey),
    /// Another namespace, and the Eip does not allow that.
    #[error(
        "{0} holds it, and Services of other namespaces may share it only where the Eip allows that"
    )]
    Namespace(ServiceKey),
    /// Both expose this port.
    #[error("{0} holds it and exposes port {1} too")]
    Port(ServiceKey, Port),
    /// A Local policy needs the same pods behind both.
    #[error("{0} holds it, and with externalTrafficPolicy Local both must have the same selector")]
    Selector(ServiceKey),
}

/// Whether a Service may stand beside another on one address.
pub fn agree(
    asking: (&ServiceKey, &Terms),
    holder: (&ServiceKey, &Terms),
    other_namespaces: bool,
) -> Result<(), Refusal> {
    let ((service, terms), (held_by, held)) = (asking, holder);
    if !terms.by_name {
        return Err(Refusal::NotAsked(held_by.clone()));
    }
    if !held.by_name {
        return Err(Refusal::NotByName(held_by.clone()));
    }
    if service.namespace != held_by.namespace && !other_namespaces {
        return Err(Refusal::Namespace(held_by.clone()));
    }
    if let Some(port) = terms.ports.iter().find(|port| held.ports.contains(port)) {
        return Err(Refusal::Port(held_by.clone(), port.clone()));
    }
    if (terms.local || held.local) && terms.selector != held.selector {
        return Err(Refusal::Selector(held_by.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Port, Refusal, Terms, agree};
    use crate::names::ServiceKey;

    fn terms(port: u16) -> Terms {
        Terms {
            ports: vec![Port {
                protocol: "TCP".into(),
                number: port,
            }],
            by_name: true,
            ..Terms::default()
        }
    }

    fn key(namespace: &str) -> ServiceKey {
        ServiceKey::new(namespace, "web")
    }

    #[test]
    fn disjoint_ports_in_one_namespace_share() {
        assert_eq!(
            agree((&key("a"), &terms(80)), (&key("a"), &terms(443)), false),
            Ok(())
        );
    }

    #[test]
    fn the_same_port_over_another_protocol_is_another_port() {
        let mut udp = terms(80);
        udp.ports[0].protocol = "UDP".into();
        assert_eq!(
            agree((&key("a"), &terms(80)), (&key("a"), &udp), false),
            Ok(())
        );
    }

    #[test]
    fn each_disagreement_is_named() {
        let holder = key("a");
        let refusal = |terms: &Terms, namespace: &str, held: &Terms| {
            agree((&key(namespace), terms), (&holder, held), false).unwrap_err()
        };
        assert!(
            matches!(refusal(&terms(80), "a", &terms(80)), Refusal::Port(_, port) if port.number == 80)
        );
        assert!(matches!(
            refusal(&terms(80), "b", &terms(81)),
            Refusal::Namespace(_)
        ));
        let local = Terms {
            local: true,
            selector: [("app", "x")].into_iter().collect(),
            ..terms(81)
        };
        assert!(matches!(
            refusal(&terms(80), "a", &local),
            Refusal::Selector(_)
        ));
        let silent = Terms {
            by_name: false,
            ..terms(81)
        };
        assert!(matches!(
            refusal(&terms(80), "a", &silent),
            Refusal::NotByName(_)
        ));
        assert!(matches!(
            refusal(&silent, "a", &terms(80)),
            Refusal::NotAsked(_)
        ));
    }

    #[test]
    fn an_eip_may_allow_other_namespaces() {
        assert_eq!(
            agree((&key("a"), &terms(80)), (&key("b"), &terms(81)), true),
            Ok(())
        );
    }
}
