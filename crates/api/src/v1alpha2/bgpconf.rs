//! `BgpConf`: the speakers' own side of BGP. Only the object named `default` counts.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use validator::Validate;

use super::is_default;

/// The global BGP configuration of all speakers. Only the object named `default` counts.
#[derive(
    CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Validate,
)]
#[kube(
    group = "network.kubesphere.io",
    version = "v1alpha2",
    kind = "BgpConf",
    plural = "bgpconfs",
    singular = "bgpconf",
    shortname = "bgpc",
    category = "networking",
    derive = "PartialEq",
    derive = "Default",
    status = "BgpConfStatus",
    printcolumn(name = "AS", type_ = "integer", json_path = ".spec.as"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.listenPort"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BgpConfSpec {
    /// The own AS number, up to 4294967295 (RFC 6793).
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "as")]
    #[validate(range(
        min = 1,
        max = 4_294_967_295_i64,
        message = "must be between 1 and 4294967295"
    ))]
    pub as_number: Option<i64>,
    /// Rack (the value of the Node label `openelb.kubesphere.io/rack`) → AS number of the nodes in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_per_rack: Option<BTreeMap<String, i64>>,
    /// The BGP identifier, an IPv4 address. When absent, each node's first IPv4 address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub router_id: String,
    /// The port that speakers listen on; 179 when absent or 0, -1 to listen on none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(min = -1, max = 65535, message = "must be -1 (no listener), 0 (179) or a port up to 65535"))]
    pub listen_port: Option<i64>,
    /// The addresses that speakers listen on; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listen_addresses: Vec<String>,
    /// Address families, by GoBGP's index: 0 is IPv4 unicast, 1 is IPv6 unicast. Both when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<i64>,
    /// Accepted for OpenELB's sake: concerns received routes, of which none are used.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "is_default"
    )]
    pub use_multiple_paths: bool,
    /// Graceful restart (RFC 4724) for all peers that do not say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(nested)]
    pub graceful_restart: Option<GracefulRestart>,
    /// Name of a ConfigMap in our namespace with a BGP policy in GoBGP's form under `gobgp.conf`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub policy: String,
}

/// Graceful restart (RFC 4724, RFC 8538) and its long-lived form (RFC 9494).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct GracefulRestart {
    /// Peers keep our routes while a speaker restarts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub enabled: bool,
    /// Seconds that peers wait for a restarting speaker; the hold time when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(
        min = 0,
        max = 4095,
        message = "must be between 0 and 4095 seconds (RFC 4724)"
    ))]
    pub restart_time: Option<i64>,
    /// Helps peers that restart, but is not helped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub helper_only: bool,
    /// Accepted, without effect: End-of-RIB is sent as soon as the routes are.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub deferral_time: Option<i64>,
    /// A session that ends by NOTIFICATION or hold time counts as a restart too (RFC 8538).
    #[serde(default, skip_serializing_if = "is_default")]
    pub notification_enabled: bool,
    /// Offers long-lived graceful restart (RFC 9494).
    #[serde(default, skip_serializing_if = "is_default")]
    pub longlived_enabled: bool,
    /// Accepted, without effect.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub stale_routes_time: Option<i64>,
    /// Accepted, without effect.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub peer_restart_time: Option<i64>,
    /// Accepted, without effect.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "is_default"
    )]
    pub peer_restarting: bool,
    /// Accepted, without effect.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "is_default"
    )]
    pub local_restarting: bool,
    /// Accepted, without effect.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "is_default"
    )]
    pub mode: String,
}

/// What the speakers run with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpConfStatus {
    /// Node → what its speaker runs with. Each speaker writes its own entry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes_conf_status: BTreeMap<String, NodeConfStatus>,
    /// `Accepted`, with the fields that have no effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The identity that a node's speaker runs with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfStatus {
    /// The BGP identifier.
    #[serde(default, skip_serializing_if = "is_default")]
    pub router_id: String,
    /// The AS number.
    #[serde(default, skip_serializing_if = "is_default", rename = "as")]
    pub as_number: i64,
    /// What keeps the speaker from running all of it, in words.
    #[serde(default, skip_serializing_if = "is_default")]
    pub message: String,
}
