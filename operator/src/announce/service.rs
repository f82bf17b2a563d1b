//! A Service as far as it decides what is announced.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service as ApiService;
use openelb_api::keys;

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServiceKey {
    /// The namespace.
    pub(crate) namespace: Arc<str>,
    /// The name.
    pub(crate) name: Arc<str>,
}

impl ServiceKey {
    /// Makes a key.
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TrafficPolicy {
    /// Any node passes traffic on to any endpoint.
    #[default]
    Cluster,
    /// A node serves its own endpoints only.
    Local,
}

/// A Service of type LoadBalancer that shows addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    /// The addresses in its status.
    pub(crate) addresses: Vec<IpAddr>,
    /// Which nodes' endpoints take its traffic.
    pub(crate) policy: TrafficPolicy,
    /// The Eip that its label names.
    pub(crate) eip_label: Option<String>,
    /// Layer 2: the node that should announce while it is able.
    pub(crate) preferred_node: Option<String>,
}

impl Service {
    /// Reads the API's object; `None` for a Service that shows no address a load balancer gave.
    pub(crate) fn read(api: &ApiService) -> Option<Self> {
        let spec = api.spec.as_ref()?;
        if spec.type_.as_deref() != Some("LoadBalancer") {
            return None;
        }
        let ingress = api
            .status
            .as_ref()?
            .load_balancer
            .as_ref()?
            .ingress
            .as_deref()?;
        let addresses: Vec<IpAddr> = ingress
            .iter()
            .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
            .collect();
        if addresses.is_empty() {
            return None;
        }
        let value = |map: &Option<BTreeMap<String, String>>, key| {
            map.as_ref().and_then(|map| map.get(key)).cloned()
        };
        Some(Self {
            addresses,
            policy: match spec.external_traffic_policy.as_deref() {
                Some("Local") => TrafficPolicy::Local,
                _ => TrafficPolicy::Cluster,
            },
            eip_label: value(&api.metadata.labels, keys::EIP),
            preferred_node: value(&api.metadata.annotations, keys::LAYER2_NODE),
        })
    }
}
