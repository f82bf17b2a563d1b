//! `BgpPeer`: a router that speakers exchange routes with.

mod status;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use validator::Validate;

pub use self::status::*;
use super::{GracefulRestart, is_default};

/// A BGP neighbour of the speakers.
#[derive(
    CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Validate,
)]
#[kube(
    group = "network.kubesphere.io",
    version = "v1alpha2",
    kind = "BgpPeer",
    plural = "bgppeers",
    singular = "bgppeer",
    shortname = "bgpp",
    category = "networking",
    derive = "PartialEq",
    derive = "Default",
    status = "BgpPeerStatus",
    printcolumn(
        name = "Peer",
        type_ = "string",
        json_path = ".spec.conf.neighborAddress"
    ),
    printcolumn(name = "AS", type_ = "integer", json_path = ".spec.conf.peerAs"),
    printcolumn(name = "Sessions", type_ = "string", json_path = ".status.summary"),
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
pub struct BgpPeerSpec {
    /// Who the neighbour is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(nested)]
    pub conf: Option<PeerConf>,
    /// Sessions to neighbours that are more than one hop away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(nested)]
    pub ebgp_multihop: Option<EbgpMultihop>,
    /// The session's timers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timers: Option<Timers>,
    /// The TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(nested)]
    pub transport: Option<Transport>,
    /// Graceful restart with this peer; as in the BgpConf when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(nested)]
    pub graceful_restart: Option<GracefulRestart>,
    /// Address families; the one of the neighbour's address when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[validate(nested)]
    pub afi_safis: Vec<AfiSafi>,
    /// Nodes whose speakers peer with the neighbour; all when absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// TCP MD5 password (RFC 2385), from a Secret of type `kubernetes.io/basic-auth` or `Opaque` in our namespace. The
    /// key is `password` when absent. Wins over `conf.authPassword`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<PasswordSecretRef>,
    /// Bidirectional Forwarding Detection (RFC 5880) with this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(nested)]
    pub bfd: Option<Bfd>,
    /// Accepts only packets that came at most this many hops (GTSM, RFC 5082); off when absent or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(min = 0, max = 254, message = "must be between 0 (off) and 254 hops"))]
    pub ttl_security: Option<i64>,
    /// The own address of the session; the kernel's choice when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// Takes the peer's AS number from its OPEN: `internal` (the own one), `external` (any other), in place of
    /// `conf.peerAs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic_asn: Option<DynamicAsn>,
}

/// A key of a Secret in our namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSecretRef {
    /// The Secret's name.
    pub name: String,
    /// The data key; `password` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Which AS numbers a peer without `peerAs` may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DynamicAsn {
    /// Our own.
    Internal,
    /// Any but our own.
    External,
}

/// Who a neighbour is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct PeerConf {
    /// TCP MD5 password in plain sight; prefer `passwordSecretRef`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub auth_password: String,
    /// A text for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub description: String,
    /// The own AS number towards this peer, in place of the BgpConf's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(
        min = 0,
        max = 4_294_967_295_i64,
        message = "must be between 1 and 4294967295"
    ))]
    pub local_as: Option<i64>,
    /// The peer's address, IPv4 or IPv6.
    #[serde(default, skip_serializing_if = "is_default")]
    pub neighbor_address: String,
    /// The peer's AS number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(
        min = 0,
        max = 4_294_967_295_i64,
        message = "must be between 1 and 4294967295"
    ))]
    pub peer_as: Option<i64>,
    /// Accepted, without effect: there are no peer groups.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "is_default"
    )]
    pub peer_group: String,
    /// Accepted, without effect: follows from the AS numbers.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub peer_type: Option<i64>,
    /// `NONE`, `ALL` or `REPLACE`. Accepted: our paths carry no private AS but the own one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub remove_private_as: String,
    /// Accepted, without effect.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "is_default"
    )]
    pub route_flap_damping: bool,
    /// Accepted, without effect: communities are always sent.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub send_community: Option<i64>,
    /// The interface of a peer without an address (unnumbered, by IPv6 link-local addresses).
    #[serde(default, skip_serializing_if = "is_default")]
    pub neighbor_interface: String,
    /// Accepted, without effect: there are no VRFs.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "is_default"
    )]
    pub vrf: String,
    /// Accepted, without effect: concerns received routes, of which none are used.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub allow_own_as: Option<i64>,
    /// Accepted, without effect: our paths carry no AS number but the own one.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "is_default"
    )]
    pub replace_peer_as: bool,
    /// Keeps the session down.
    #[serde(default, skip_serializing_if = "is_default")]
    pub admin_down: bool,
}

/// Sessions over more than one hop.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct EbgpMultihop {
    /// The peer may be more than one hop away.
    #[serde(default, skip_serializing_if = "is_default")]
    pub enabled: bool,
    /// The TTL of our packets; 255 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(min = 0, max = 255, message = "must be between 1 and 255"))]
    pub multihop_ttl: Option<i64>,
}

/// The session's timers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timers {
    /// The timers to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<TimersConfig>,
}

/// Timers in seconds, written as strings, as protobuf's JSON has 64-bit integers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimersConfig {
    /// Seconds between attempts to connect; 120 when absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub connect_retry: String,
    /// Hold time in seconds: 0 (off) or at least 3; 90 when absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hold_time: String,
    /// Seconds between KEEPALIVEs; a third of the hold time when absent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keepalive_interval: String,
    /// Accepted, without effect.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "is_default"
    )]
    pub minimum_advertisement_interval: String,
}

/// The TCP connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct Transport {
    /// Accepted, without effect.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "is_default"
    )]
    pub mtu_discovery: bool,
    /// Waits for the peer to connect.
    #[serde(default, skip_serializing_if = "is_default")]
    pub passive_mode: bool,
    /// Accepted, without effect.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "is_default"
    )]
    pub remote_address: String,
    /// The peer's port; 179 when absent or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(
        min = 0,
        max = 65535,
        message = "must be a port up to 65535 (0 for 179)"
    ))]
    pub remote_port: Option<i64>,
    /// Accepted, without effect.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub tcp_mss: Option<i64>,
}

/// An address family of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct AfiSafi {
    /// Graceful restart of the family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mp_graceful_restart: Option<MpGracefulRestart>,
    /// Which family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<AfiSafiConfig>,
    /// More than one path for a prefix (RFC 7911).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(nested)]
    pub add_paths: Option<AddPaths>,
}

/// Graceful restart of a family.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MpGracefulRestart {
    /// What to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<MpGracefulRestartConfig>,
}

/// Graceful restart of a family.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MpGracefulRestartConfig {
    /// Whether the family takes part.
    #[serde(default, skip_serializing_if = "is_default")]
    pub enabled: bool,
}

/// Which family.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AfiSafiConfig {
    /// The family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Accepted; a family that is listed is always enabled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub enabled: bool,
}

/// An address family by GoBGP's protobuf names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Family {
    /// `AFI_IP` or `AFI_IP6`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub afi: String,
    /// `SAFI_UNICAST`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub safi: String,
}

/// More than one path for a prefix.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
pub struct AddPaths {
    /// What to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(nested)]
    pub config: Option<AddPathsConfig>,
}

/// More than one path for a prefix.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct AddPathsConfig {
    /// Takes more than one path. Concerns received routes, of which none are used.
    #[serde(default, skip_serializing_if = "is_default")]
    pub receive: bool,
    /// How many paths are sent at the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(min = 0, max = 255, message = "must be between 0 and 255"))]
    pub send_max: Option<i64>,
}

/// Bidirectional Forwarding Detection (RFC 5880).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct Bfd {
    /// Watches the path to the peer and ends the session as soon as it fails.
    #[serde(default, skip_serializing_if = "is_default")]
    pub enabled: bool,
    /// Milliseconds between packets that we send; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(
        min = 10,
        max = 60000,
        message = "must be between 10 and 60000 milliseconds"
    ))]
    pub transmit_interval: Option<i64>,
    /// Milliseconds between packets that we can take; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(
        min = 10,
        max = 60000,
        message = "must be between 10 and 60000 milliseconds"
    ))]
    pub receive_interval: Option<i64>,
    /// How many packets may be missing; 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(min = 2, max = 255, message = "must be between 2 and 255"))]
    pub detect_multiplier: Option<i64>,
    /// Sends nothing until the peer does.
    #[serde(default, skip_serializing_if = "is_default")]
    pub passive_mode: bool,
    /// Multihop: packets with a smaller TTL are ignored; 254 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(min = 1, max = 254, message = "must be between 1 and 254"))]
    pub minimum_ttl: Option<i64>,
}
