//! A Node as far as it decides who announces.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node as ApiNode;
use openelb_api::keys;

/// How long a Node may be NotReady before its announcements go elsewhere. A kubelet that restarts
/// is NotReady for a moment while its pods serve on.
pub(crate) const NOT_READY_GRACE: SignedDuration = SignedDuration::from_secs(10);

/// What decides whether a node may announce. Cordon (`spec.unschedulable`) is no part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// The labels, for node selectors and racks.
    pub(crate) labels: BTreeMap<String, String>,
    /// `NetworkUnavailable` is `True`: pods cannot be reached through this node.
    pub(crate) network_unavailable: bool,
    /// Since when `Ready` is not `True`.
    pub(crate) not_ready_since: Option<Timestamp>,
    /// `InternalIP`s in the order of the API.
    pub(crate) internal_ips: Vec<IpAddr>,
    /// The object is being deleted, or tainted as shutting down.
    pub(crate) leaving: bool,
}

impl Node {
    /// Reads the API's object.
    ///
    /// Clocks of two machines differ, so a change to NotReady counts from when it was seen here:
    /// `previous` is the same node as last known. A node that is NotReady when first seen counts
    /// from the time on its condition, but never from the future.
    pub(crate) fn read(api: &ApiNode, previous: Option<&Self>, now: Timestamp) -> Self {
        let spec = api.spec.as_ref();
        let status = api.status.as_ref();
        let condition = |kind: &str| {
            status
                .and_then(|status| status.conditions.as_ref())
                .and_then(|conditions| conditions.iter().find(|c| c.type_ == kind))
        };
        let ready = condition("Ready");
        let not_ready_since = match ready {
            Some(ready) if ready.status == "True" => None,
            _ => Some(match previous {
                Some(previous) => previous.not_ready_since.unwrap_or(now),
                None => ready
                    .and_then(|ready| ready.last_transition_time.as_ref())
                    .map_or(now, |time| time.0.min(now)),
            }),
        };
        let addresses = status.and_then(|status| status.addresses.as_deref());
        Self {
            labels: api.metadata.labels.clone().unwrap_or_default(),
            network_unavailable: condition("NetworkUnavailable")
                .is_some_and(|condition| condition.status == "True"),
            not_ready_since,
            internal_ips: addresses
                .unwrap_or_default()
                .iter()
                .filter(|address| address.type_ == "InternalIP")
                .filter_map(|address| address.address.parse().ok())
                .collect(),
            leaving: api.metadata.deletion_timestamp.is_some()
                || spec
                    .and_then(|spec| spec.taints.as_deref())
                    .unwrap_or_default()
                    .iter()
                    .any(|taint| taint.key == "node.cloudprovider.kubernetes.io/shutdown"),
        }
    }

    /// Whether the node is labelled to get no traffic from load balancers (any value).
    pub(crate) fn excluded(&self) -> bool {
        self.labels.contains_key(keys::EXCLUDE_NODE)
    }

    /// Whether anything at all could be announced from here.
    pub(crate) fn usable(&self) -> bool {
        !self.excluded() && !self.network_unavailable
    }

    /// When the node stops to count as ready: `None` while it is.
    pub(crate) fn unready_at(&self) -> Option<Timestamp> {
        self.not_ready_since.map(|since| {
            since
                .saturating_add(NOT_READY_GRACE)
                .unwrap_or(Timestamp::MAX)
        })
    }

    /// Whether the node counts as ready at this time.
    pub(crate) fn ready(&self, now: Timestamp) -> bool {
        self.unready_at().is_none_or(|at| now < at)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::announce::testing::at;

    fn api(value: Value) -> ApiNode {
        serde_json::from_value(value).unwrap()
    }

    fn with_ready(status: &str, since: &str) -> ApiNode {
        api(json!({
            "metadata": {"name": "a"},
            "status": {"conditions": [
                {"type": "Ready", "status": status, "lastTransitionTime": since}
            ]}
        }))
    }

    #[test]
    fn a_change_to_not_ready_counts_from_when_it_was_seen_here() {
        let ready = Node::read(&with_ready("True", "1970-01-01T00:00:00Z"), None, at(100));
        assert!(ready.ready(at(1_000_000)));
        // The other machine's clock is an hour behind.
        let unknown = with_ready("Unknown", "1970-01-01T00:00:00Z");
        let node = Node::read(&unknown, Some(&ready), at(4000));
        assert!(node.ready(at(4009)));
        assert!(!node.ready(at(4010)));
        let again = Node::read(&unknown, Some(&node), at(4008));
        assert!(
            !again.ready(at(4010)),
            "another event does not start the wait anew"
        );
    }

    #[test]
    fn a_node_first_seen_not_ready_counts_from_its_condition() {
        let node = Node::read(&with_ready("False", "1970-01-01T00:01:00Z"), None, at(1000));
        assert!(!node.ready(at(1000)));
        let future = Node::read(&with_ready("False", "2070-01-01T00:00:00Z"), None, at(1000));
        assert!(future.ready(at(1009)) && !future.ready(at(1010)));
    }

    #[test]
    fn reads_addresses_network_and_leaving() {
        let node = Node::read(
            &api(json!({
                "metadata": {"name": "a", "labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}},
                "spec": {"unschedulable": true},
                "status": {
                    "addresses": [
                        {"type": "Hostname", "address": "a"},
                        {"type": "InternalIP", "address": "fd00::1"},
                        {"type": "InternalIP", "address": "10.0.0.1"}
                    ],
                    "conditions": [
                        {"type": "Ready", "status": "True"},
                        {"type": "NetworkUnavailable", "status": "True"}
                    ]
                }
            })),
            None,
            at(0),
        );
        assert!(node.excluded() && node.network_unavailable && !node.usable());
        assert!(!node.leaving, "cordon changes nothing");
        let ips: Vec<String> = node.internal_ips.iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["fd00::1", "10.0.0.1"]);
    }
}
