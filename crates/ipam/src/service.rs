//! What the address management needs to know of a Service, and what it says on it.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use openelb_api::v1alpha2::Protocol;
use openelb_api::{Family, keys, validate};

use crate::names::{ServiceKey, Uid, Version, word};
use crate::pairs::Pairs;
use crate::sharing::{Port, Terms};

/// Annotation written beside the status: the addresses that a Service has.
pub const HELD_ANNOTATION: &str = keys::HELD;

/// A Service as the address management sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Namespace and name.
    pub key: ServiceKey,
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.resourceVersion`.
    pub version: Version,
    /// `metadata.generation`, for conditions.
    pub generation: Option<i64>,
    /// Creation, in seconds since 1970: the older Service is served first.
    pub created: i64,
    /// Labels, for Eips that select Services; the one that we write is not among them.
    pub labels: Pairs,
    /// Whether it is being deleted, and only finalizers hold it back.
    pub deleting: bool,
    /// What it asks for, where it is for us to serve and not being deleted.
    pub request: Option<Request>,
    /// What its status says.
    pub status: ServiceStatus,
    /// Whether it is of type LoadBalancer, whoever serves it.
    pub load_balancer: bool,
    /// Whether OpenELB left a finalizer on it.
    pub openelb_finalizer: bool,
}

/// What a Service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The Eip named by annotation.
    pub eip: Option<Arc<str>>,
    /// The addresses named, at most one for each family is honoured.
    pub addresses: Vec<IpAddr>,
    /// The rule that it breaks, of those that the webhook checks, in its words.
    pub refused: Option<Arc<str>>,
    /// The families, primary first; never empty.
    pub families: Vec<Family>,
    /// Whether all families are needed (`RequireDualStack`).
    pub all_families: bool,
    /// The protocol asked for by OpenELB 0.5's annotation: narrows the automatic choice.
    pub protocol: Option<Protocol>,
    /// What sharing is decided on; `by_name` is set for each address on its own.
    pub terms: Arc<Terms>,
}

/// The part of a Service that is written: one patch of its status sub-resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceStatus {
    /// `status.loadBalancer.ingress`, primary family first.
    pub addresses: Vec<IpAddr>,
    /// Whether it says more than addresses: a host name, or another `ipMode` than `VIP`. We never write that.
    pub more: bool,
    /// The label that names the Eip.
    pub eip: Option<Arc<str>>,
    /// The annotation [`HELD_ANNOTATION`].
    pub held: Vec<IpAddr>,
    /// The condition `openelb.kubesphere.io/Allocated`.
    pub allocated: Option<Said>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Said {
    /// Whether it holds.
    pub holds: bool,
    /// A CamelCase word.
    pub reason: Arc<str>,
    /// What a person should know, and do.
    pub message: Arc<str>,
}

impl ServiceFacts {
    /// Reads a Service. `None` for objects without a name or uid, which the API server never sends.
    #[must_use]
    pub fn read(service: &Service) -> Option<Self> {
        let meta = &service.metadata;
        let (namespace, name) = (meta.namespace.as_deref()?, meta.name.as_deref()?);
        let deleting = meta.deletion_timestamp.is_some();
        let ours = !deleting && validate::is_ours(service);
        let spec = service.spec.as_ref();
        Some(Self {
            key: ServiceKey::new(word(namespace), name),
            uid: meta.uid.as_deref()?.into(),
            version: meta.resource_version.as_deref()?.into(),
            generation: meta.generation,
            created: meta
                .creation_timestamp
                .as_ref()
                .map_or(0, |time| time.0.as_second()),
            labels: meta
                .labels
                .iter()
                .flatten()
                .filter(|(key, _)| *key != keys::EIP)
                .collect(),
            deleting,
            request: spec
                .filter(|_| ours)
                .map(|spec| Request::read(service, spec)),
            status: ServiceStatus::read(service),
            load_balancer: spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer")),
            openelb_finalizer: meta
                .finalizers
                .iter()
                .flatten()
                .any(|finalizer| keys::OPENELB_SERVICE_FINALIZERS.contains(&finalizer.as_str())),
        })
    }
}

impl Request {
    fn read(service: &Service, spec: &ServiceSpec) -> Self {
        let wish = validate::requested(service);
        let annotation = |key| {
            service
                .metadata
                .annotations
                .as_ref()?
                .get(key)
                .map(String::as_str)
        };
        let families: Vec<_> = spec
            .ip_families
            .iter()
            .flatten()
            .filter_map(|text| family(text))
            .collect();
        let families = if families.is_empty() {
            let cluster_ip = spec
                .cluster_ip
                .as_deref()
                .and_then(|text| text.parse().ok());
            vec![cluster_ip.map_or(Family::V4, Family::of)]
        } else {
            families
        };
        let mut ports: Vec<_> = spec.ports.iter().flatten().filter_map(port).collect();
        ports.sort_unstable();
        ports.shrink_to_fit();
        Self {
            eip: annotation(keys::EIP)
                .filter(|name| !name.is_empty())
                .map(Into::into),
            addresses: wish.addresses.iter().map(IpAddr::to_canonical).collect(),
            refused: validate::service(service, None, &validate::View::default())
                .denials
                .first()
                .map(|denial| denial.as_str().into()),
            families,
            all_families: spec.ip_family_policy.as_deref() == Some("RequireDualStack"),
            protocol: annotation(keys::PROTOCOL).and_then(protocol),
            terms: Arc::new(Terms {
                ports,
                local: spec.external_traffic_policy.as_deref() == Some("Local"),
                selector: spec.selector.iter().flatten().collect(),
                by_name: false,
            }),
        }
    }

    /// The address it names of a family.
    #[must_use]
    pub fn named(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family)
    }

    /// What sharing an address is decided on.
    #[must_use]
    pub fn terms_for(&self, address: IpAddr) -> Arc<Terms> {
        if self.addresses.contains(&address) {
            Arc::new(Terms {
                by_name: true,
                ..(*self.terms).clone()
            })
        } else {
            self.terms.clone()
        }
    }
}

impl ServiceStatus {
    fn read(service: &Service) -> Self {
        let status = service.status.as_ref();
        let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let label = service
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(keys::EIP));
        let held = service
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(HELD_ANNOTATION));
        // Kept in ten thousands: no room that is not used.
        let list = |addresses: &mut dyn Iterator<Item = IpAddr>| {
            let mut addresses: Vec<_> = addresses.collect();
            addresses.shrink_to_fit();
            addresses
        };
        Self {
            addresses: list(
                &mut ingress
                    .into_iter()
                    .flatten()
                    .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok()),
            ),
            more: ingress.into_iter().flatten().any(|ingress| {
                let mode = ingress.ip_mode.as_deref();
                ingress.hostname.is_some() || mode.is_some_and(|mode| mode != "VIP")
            }),
            eip: label.map(|name| name.as_str().into()),
            held: list(
                &mut held
                    .into_iter()
                    .flat_map(|text| text.split(','))
                    .filter_map(|text| text.parse().ok()),
            ),
            allocated: conditions
                .into_iter()
                .flatten()
                .find(|condition| condition.type_ == keys::conditions::ALLOCATED)
                .map(|condition| Said {
                    holds: condition.status == "True",
                    reason: word(&condition.reason),
                    message: condition.message.as_str().into(),
                }),
        }
    }
}

fn family(text: &str) -> Option<Family> {
    Family::ALL
        .into_iter()
        .find(|family| family.as_str() == text)
}

fn protocol(text: &str) -> Option<Protocol> {
    [Protocol::Bgp, Protocol::Layer2, Protocol::Vip]
        .into_iter()
        .find(|known| known.as_str() == text)
}

fn port(port: &ServicePort) -> Option<Port> {
    Some(Port {
        protocol: word(port.protocol.as_deref().unwrap_or("TCP")),
        number: u16::try_from(port.port).ok()?,
    })
}
