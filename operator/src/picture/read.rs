//! What of an object goes into the picture.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service as ApiService};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use openelb_api::keys;
use openelb_api::v1alpha2::{BgpConf, BgpConfStatus, BgpPeer, BgpPeerStatus, Eip, EipAddress};

use super::touched::Touched;
use crate::announce::Pool;
use crate::peering::{Credential, Policy, policy};

pub(super) fn announced_condition(service: &ApiService) -> Option<Condition> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    let mut ours = conditions
        .iter()
        .filter(|condition| condition.type_ == keys::conditions::ANNOUNCED);
    ours.next().cloned()
}

pub(super) fn read_pool(name: &str, eip: &Eip) -> Arc<Pool> {
    let (pool, faults) = Pool::read(eip);
    for fault in faults {
        tracing::warn!(eip = name, %fault, "left out");
    }
    Arc::new(pool)
}

pub(super) fn broken(kind: &str, name: &str, error: &str) -> Touched {
    tracing::warn!(
        kind,
        name,
        error,
        "cannot be read; what was known of it stays in force"
    );
    Touched::Nothing
}

pub(super) fn is_foreign(metadata: &kube::api::ObjectMeta) -> bool {
    metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(keys::CNI))
}

pub(super) fn conf_entries(object: &BgpConf, only: Option<&str>) -> BgpConfStatus {
    let mut status = object.status.clone().unwrap_or_default();
    if let Some(node) = only {
        status.nodes_conf_status.retain(|name, _| name == node);
        status.conditions.clear();
    }
    status
}

pub(super) fn peer_entries(object: &BgpPeer, only: Option<&str>) -> BgpPeerStatus {
    let mut status = object.status.clone().unwrap_or_default();
    if let Some(node) = only {
        status.nodes_peer_status.retain(|name, _| name == node);
        status.conditions.clear();
        status.summary.clear();
    }
    status
}

/// A ConfigMap with a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicyObject {
    /// What applies: where it cannot be read now, what it said before.
    pub(crate) policy: Option<Arc<Policy>>,
    /// What is wrong with it.
    pub(crate) fault: Option<String>,
}

impl PolicyObject {
    /// Reads the API's object; nothing where it holds no policy.
    pub(super) fn read(map: &ConfigMap, before: Option<&Self>) -> Option<Self> {
        let text = map.data.as_ref()?.get(policy::KEY)?;
        Some(match text.parse() {
            Ok(policy) => Self {
                policy: Some(Arc::new(policy)),
                fault: None,
            },
            Err(fault) => Self {
                policy: before.and_then(|before| before.policy.clone()),
                fault: Some(fault),
            },
        })
    }
}

/// A speaker's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpeakerPod {
    /// The node that it runs on.
    pub(crate) node: String,
    /// Kubelet calls it ready.
    pub(crate) ready: bool,
}

impl SpeakerPod {
    /// Reads the API's object; nothing where it has no node yet.
    pub(super) fn read(pod: &Pod) -> Option<Self> {
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
        let ready = conditions.into_iter().flatten();
        Some(Self {
            node: pod.spec.as_ref()?.node_name.clone()?,
            ready: ready
                .filter(|one| one.type_ == "Ready")
                .any(|one| one.status == "True"),
        })
    }
}

/// The longest value of a Secret that can be a password; longer ones are not kept.
const LONGEST_VALUE: usize = 1024;

pub(super) fn credential(secret: Secret) -> Credential {
    let values = secret
        .data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| {
            let text = String::from_utf8(value.0)
                .ok()
                .filter(|text| text.len() <= LONGEST_VALUE);
            (key, text.map(Arc::from))
        });
    Credential {
        kind: secret.type_.unwrap_or_else(|| "Opaque".to_owned()),
        values: values.collect(),
    }
}

/// Whether nobody holds an EipAddress, so that a person may have made it; or whether it is said to be invalid.
pub(super) fn is_nobodys(object: &EipAddress) -> bool {
    let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
    let is_unheld = object.spec.services.is_empty() && object.spec.remembered.is_none();
    is_unheld || conditions.any(|condition| condition.type_ == keys::conditions::INVALID)
}
