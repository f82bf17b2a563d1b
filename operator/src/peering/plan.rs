//! What the speaker of one node runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use openelb_api::bgp::{Neighbor, Password, Peer, Speaker};
use openelb_api::v1alpha2::{BgpConf, BgpConfSpec, BgpPeer, BgpPeerSpec};
use openelb_api::{FieldError, Invalid, Labels, keys};
use openelb_bgp::SpeakerConfig;

use super::conf;
use super::peer::{self, Defaults};
use crate::announce::Node;

/// A BgpPeer without its status.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PeerObject {
    /// The spec as it is written, for the rules.
    pub(crate) spec: Arc<BgpPeerSpec>,
    /// What it means, or what is wrong with it.
    pub(crate) peer: Result<Arc<Peer>, Invalid>,
    /// The nodes that it is for; `None` where its selector cannot be read: no node peers, and each says why.
    nodes: Option<Labels>,
    /// When it was made: the older of two that name one router wins.
    pub(crate) created: Timestamp,
    /// It is labelled as the CNI's: hands off.
    pub(crate) foreign: bool,
    /// Which version of the spec this is.
    pub(crate) generation: Option<i64>,
}

impl PeerObject {
    /// Reads the API's object.
    pub(crate) fn read(object: &BgpPeer) -> Self {
        let metadata = &object.metadata;
        let selector = object.spec.node_selector.as_ref();
        let nodes = selector.map(|labels| Labels::read("spec.nodeSelector", labels));
        Self {
            peer: Peer::try_from(object).map(Arc::new),
            nodes: nodes.unwrap_or_else(|| Ok(Labels::default())).ok(),
            spec: Arc::new(object.spec.clone()),
            created: metadata
                .creation_timestamp
                .as_ref()
                .map_or(Timestamp::MAX, |time| time.0),
            foreign: metadata
                .labels
                .as_ref()
                .is_some_and(|labels| labels.contains_key(keys::CNI)),
            generation: metadata.generation,
        }
    }

    /// Whether the speaker of a node with these labels shall peer.
    pub(crate) fn selects(&self, node: &Node) -> bool {
        let selected = |labels: &Labels| labels.matches(&node.labels);
        !self.foreign && self.nodes.as_ref().is_some_and(selected)
    }

    /// Whether nobody can say which nodes shall peer.
    fn is_adrift(&self) -> bool {
        !self.foreign && self.nodes.is_none()
    }
}

/// The BgpConf without its status.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConfObject {
    /// The spec as it is written, for the rules.
    pub(crate) spec: Arc<BgpConfSpec>,
    /// What it means, or what is wrong with it.
    pub(crate) speaker: Result<Arc<Speaker>, Invalid>,
    /// Which version of the spec this is.
    pub(crate) generation: Option<i64>,
}

impl ConfObject {
    /// Reads the API's object.
    pub(crate) fn read(object: &BgpConf) -> Self {
        Self {
            spec: Arc::new(object.spec.clone()),
            speaker: Speaker::try_from(object).map(Arc::new),
            generation: object.metadata.generation,
        }
    }
}

/// The Secrets of our namespace that may hold passwords, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credentials(pub(crate) BTreeMap<String, Credential>);

/// One Secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    /// Its type.
    pub(crate) kind: String,
    /// Its values, as far as they are text; `None` where one is not.
    pub(crate) values: BTreeMap<String, Option<Arc<str>>>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Why a peer that this node should have cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// The object itself is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It does not go with the BgpConf.
    #[error(transparent)]
    Misfit(#[from] FieldError),
    /// Its password cannot be had.
    #[error("passwordSecretRef: {0}")]
    Password(String),
    /// Another, older BgpPeer has the same address.
    #[error("BgpPeer {0} is older and has the same address; this one is not used")]
    Rival(String),
}

/// What a speaker runs, and what stands in the way of the rest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The configuration; `None` where there is no usable BgpConf.
    pub(crate) config: Option<SpeakerConfig>,
    /// The ConfigMap whose policy applies, by name.
    pub(crate) policy: Option<String>,
    /// What is wrong with the BgpConf.
    pub(crate) conf_fault: Option<Invalid>,
    /// The BgpPeers meant for this node by name, those that cannot be set up with the reason.
    pub(crate) peers: BTreeMap<String, Result<(), Trouble>>,
}

/// Puts together what the speaker on a node runs. Without a BgpConf, or with a broken one, nothing.
pub(crate) fn plan(
    conf: Option<&ConfObject>,
    peers: &BTreeMap<String, PeerObject>,
    secrets: &Credentials,
    (name, node): (&str, &Node),
) -> Plan {
    let mut plan = Plan::default();
    let Some(conf) = conf else { return plan };
    let read = conf.speaker.as_deref().map_err(Invalid::clone);
    let found = read.and_then(|speaker| Ok((speaker, conf::identity(speaker, name, node)?)));
    let (speaker, identity) = match found {
        Ok(found) => found,
        Err(fault) => {
            plan.conf_fault = Some(fault);
            return plan;
        }
    };
    let mut config = SpeakerConfig::new(identity.asn, identity.router_id);
    config.listen = identity.listen;
    let defaults = Defaults {
        families: &identity.families,
        graceful_restart: speaker.graceful_restart,
    };
    let rivals = rivals(peers, node);
    for (name, object) in peers {
        if !object.selects(node) && !object.is_adrift() {
            continue;
        }
        let outcome = match (&object.peer, rivals.get(name.as_str())) {
            (Err(invalid), _) => Err(invalid.clone().into()),
            (Ok(_), Some(older)) => Err(Trouble::Rival((*older).to_owned())),
            (Ok(peer), None) => password(peer, secrets)
                .and_then(|password| Ok(peer::config(peer, &defaults, password.as_deref())?)),
        };
        let outcome = outcome.map(|peer| {
            config.peers.insert(name.as_str().into(), Arc::new(peer));
        });
        plan.peers.insert(name.clone(), outcome);
    }
    plan.policy.clone_from(&speaker.policy);
    plan.config = Some(config);
    plan
}

/// The BgpPeers whose address an older one has on the same node, with the name of the older.
pub(crate) fn rivals<'a>(
    peers: &'a BTreeMap<String, PeerObject>,
    node: &Node,
) -> BTreeMap<&'a str, &'a str> {
    let mut by_age: Vec<(&String, &PeerObject)> = peers
        .iter()
        .filter(|(_, object)| object.selects(node))
        .collect();
    by_age.sort_by_key(|(name, object)| (object.created, *name));
    let mut owners: BTreeMap<&Neighbor, &str> = BTreeMap::new();
    let mut rivals = BTreeMap::new();
    for (name, object) in by_age {
        let Ok(peer) = &object.peer else {
            continue;
        };
        match owners.get(&peer.neighbor) {
            Some(older) => {
                rivals.insert(name.as_str(), *older);
            }
            None => {
                owners.insert(&peer.neighbor, name);
            }
        }
    }
    rivals
}

fn password(peer: &Peer, secrets: &Credentials) -> Result<Option<Arc<str>>, Trouble> {
    let (name, key) = match &peer.password {
        None => return Ok(None),
        Some(Password::Plain(text)) => return Ok(Some(text.as_str().into())),
        Some(Password::Secret { name, key }) => (name, key),
    };
    let trouble = |text: String| Err(Trouble::Password(text));
    let Some(secret) = secrets.0.get(name) else {
        return trouble(format!(
            "there is no Secret {name} in the namespace of openelb"
        ));
    };
    if !matches!(secret.kind.as_str(), "kubernetes.io/basic-auth" | "Opaque") {
        let kind = &secret.kind;
        return trouble(format!(
            "Secret {name} is of type {kind}; kubernetes.io/basic-auth or Opaque is needed"
        ));
    }
    match secret.values.get(key) {
        Some(Some(value)) => Ok(Some(value.clone())),
        Some(None) => trouble(format!(
            "the value of key {key} in Secret {name} is no text"
        )),
        None => trouble(format!("Secret {name} has no key {key}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::announce::testing::at;

    fn peers(objects: &[(&str, i64, Value)]) -> BTreeMap<String, PeerObject> {
        let read = |(name, created, value): &(&str, i64, Value)| {
            let mut value = value.clone();
            let labels = value
                .as_object_mut()
                .unwrap()
                .remove("labels")
                .unwrap_or_default();
            let object: BgpPeer = serde_json::from_value(json!({
                "apiVersion": "network.kubesphere.io/v1alpha2",
                "kind": "BgpPeer",
                "metadata": {"name": name, "labels": labels, "creationTimestamp": at(*created).to_string()},
                "spec": value
            }))
            .unwrap();
            ((*name).to_owned(), PeerObject::read(&object))
        };
        objects.iter().map(read).collect()
    }

    fn to(address: &str) -> Value {
        json!({"conf": {"neighborAddress": address, "peerAs": 65001}})
    }

    fn with(mut spec: Value, key: &str, value: Value) -> Value {
        spec[key] = value;
        spec
    }

    fn planned(objects: &[(&str, i64, Value)], secrets: &Credentials, node: &Node) -> Plan {
        let spec = serde_json::from_value(json!({"as": 65000})).unwrap();
        let conf = ConfObject::read(&BgpConf::new("default", spec));
        plan(Some(&conf), &peers(objects), secrets, ("worker", node))
    }

    fn running(plan: &Plan) -> Vec<&str> {
        plan.config
            .iter()
            .flat_map(|config| config.peers.keys().map(|name| &**name))
            .collect()
    }

    fn node() -> Node {
        Node {
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            internal_ips: vec!["10.0.0.1".parse().unwrap()],
            ..Node::default()
        }
    }

    #[test]
    fn without_a_bgpconf_nothing_runs() {
        let plan = plan(
            None,
            &peers(&[("r", 1, to("10.0.0.254"))]),
            &Credentials::default(),
            ("w", &node()),
        );
        assert!(plan.config.is_none() && plan.peers.is_empty() && plan.conf_fault.is_none());
    }

    #[test]
    fn a_peer_runs_on_the_nodes_that_it_selects() {
        let selecting = |zone| {
            with(
                to("10.0.0.254"),
                "nodeSelector",
                json!({"matchLabels": {"zone": zone}}),
            )
        };
        let objects = [
            ("here", 1, selecting("a")),
            (
                "there",
                1,
                with(selecting("b"), "conf", to("10.0.0.253")["conf"].clone()),
            ),
            ("all", 1, with(to("10.0.0.252"), "nodeSelector", json!({}))),
            (
                "cni",
                1,
                with(
                    to("10.0.0.251"),
                    "labels",
                    json!({"openelb.kubesphere.io/cni": "calico"}),
                ),
            ),
        ];
        let plan = planned(&objects, &Credentials::default(), &node());
        assert_eq!(running(&plan), ["all", "here"]);
        assert_eq!(plan.peers.len(), 2);
    }

    #[test]
    fn a_broken_peer_harms_only_itself() {
        let objects = [
            ("good", 1, to("10.0.0.254")),
            ("empty", 1, json!({})),
            (
                "odd",
                1,
                with(
                    to("10.0.0.9"),
                    "nodeSelector",
                    json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}),
                ),
            ),
        ];
        let plan = planned(&objects, &Credentials::default(), &node());
        assert_eq!(running(&plan), ["good"]);
        assert!(matches!(plan.peers["empty"], Err(Trouble::Invalid(_))));
        assert!(matches!(plan.peers["odd"], Err(Trouble::Invalid(_))));
    }

    #[test]
    fn of_two_peers_with_one_address_the_older_runs() {
        let objects = [("a", 9, to("10.0.0.254")), ("b", 3, to("10.0.0.254"))];
        let plan = planned(&objects, &Credentials::default(), &node());
        assert_eq!(running(&plan), ["b"]);
        assert_eq!(plan.peers["a"], Err(Trouble::Rival("b".to_owned())));
    }

    #[test]
    fn a_password_comes_from_the_secret_and_its_lack_harms_only_that_peer() {
        let secret = |kind: &str, key: &str| Credential {
            kind: kind.to_owned(),
            values: [(key.to_owned(), Some("hidden".into()))].into(),
        };
        let secrets = Credentials(
            [
                (
                    "good".to_owned(),
                    secret("kubernetes.io/basic-auth", "password"),
                ),
                ("tls".to_owned(), secret("kubernetes.io/tls", "password")),
                ("other-key".to_owned(), secret("Opaque", "md5")),
            ]
            .into(),
        );
        let by = |ip: &str, reference| with(to(ip), "passwordSecretRef", reference);
        let objects = [
            ("good", 1, by("10.0.0.1", json!({"name": "good"}))),
            (
                "key",
                1,
                by("10.0.0.2", json!({"name": "other-key", "key": "md5"})),
            ),
            ("missing", 1, by("10.0.0.3", json!({"name": "nowhere"}))),
            ("tls", 1, by("10.0.0.4", json!({"name": "tls"}))),
            ("no-key", 1, by("10.0.0.5", json!({"name": "other-key"}))),
            (
                "plain",
                1,
                json!({"conf": {"neighborAddress": "10.0.0.6", "peerAs": 1, "authPassword": "open"}}),
            ),
        ];
        let plan = planned(&objects, &secrets, &node());
        assert_eq!(running(&plan), ["good", "key", "plain"]);
        for (name, words) in [
            ("missing", "no Secret nowhere"),
            ("tls", "type kubernetes.io/tls"),
            ("no-key", "no key password"),
        ] {
            let text = plan.peers[name].as_ref().unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        }
        let config = plan.config.unwrap();
        assert!(config.peers.values().all(|peer| peer.password.is_some()));
        assert!(!format!("{secrets:?}").contains("hidden"));
    }
}
