//! `Eip`: a pool of addresses.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use validator::Validate;

use super::is_default;

/// A pool of external addresses for Services of type LoadBalancer.
#[derive(
    CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Validate,
)]
#[kube(
    group = "network.kubesphere.io",
    version = "v1alpha2",
    kind = "Eip",
    plural = "eips",
    singular = "eip",
    category = "networking",
    derive = "PartialEq",
    derive = "Default",
    status = "EipStatus",
    printcolumn(name = "cidr", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "usage", type_ = "integer", json_path = ".status.usage"),
    printcolumn(name = "total", type_ = "integer", json_path = ".status.poolSize"),
    printcolumn(name = "protocol", type_ = "string", json_path = ".spec.protocol"),
    printcolumn(
        name = "ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EipSpec {
    /// The addresses: an IP, a CIDR, or a range `first-last`; or several of these, separated by commas. IPv4 and IPv6
    /// may stand side by side.
    #[validate(length(min = 1, message = "must name at least one address, CIDR or range"))]
    pub address: String,
    /// How the network learns where the addresses live: `bgp` (routes; when absent), or `layer2` (ARP and NDP). `vip`
    /// is accepted and its addresses are given, but not announced yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Where Layer 2 answers: an interface name, several separated by commas, a glob such as `eth*`, or
    /// `can_reach:<ip>`. When absent, the interface whose subnet holds the address, else the default route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Gives no new addresses. Addresses given before stay.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disable: bool,
    /// Accepted for OpenELB's sake; has no effect.
    #[serde(
        deserialize_with = "super::lenient::ignored",
        default,
        skip_serializing_if = "is_default",
        rename = "usingKnownIPs"
    )]
    pub using_known_ips: bool,
    /// Smaller is preferred where several Eips suit a Service that names none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i64,
    /// Namespaces whose Services take addresses from here without naming the Eip.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Labels of namespaces whose Services take addresses from here without naming the Eip. All must match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_selector: BTreeMap<String, String>,
    /// Services that take addresses from here without naming the Eip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,
    /// Nodes that may announce the addresses. All nodes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Addresses of the pool that are never given, in the forms of `address`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Never gives IPv4 addresses that end in `.0` or `.255`, nor the first and the last address of a network written as
    /// a CIDR: some devices refuse them. For at most 16,777,216 IPv4 addresses.
    #[serde(default, skip_serializing_if = "is_default", rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
    /// Whether a Service that names no Eip may get an address from here when no default Eip exists and no Eip is bound
    /// to it. True when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_assign: Option<bool>,
    /// Makes `namespaces`, `namespaceSelector` and `serviceSelector` binding: no other Service gets an address, even
    /// when it names the Eip.
    #[serde(default, skip_serializing_if = "is_default")]
    pub strict_binding: bool,
    /// Which Services may share one address when each asks for it by name: `Never` any, those of the
    /// `SameNamespace` (when absent), or those of `AnyNamespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
    /// Keeps the address of a deleted Service for one of the same namespace and name, as long as the pool has other
    /// room.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sticky: bool,
    /// What happens to an address in use that leaves the pool: `Keep` (when absent) leaves it where it is, with a
    /// warning; `Reassign` gives its Services another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_address_removed: Option<OnAddressRemoved>,
    /// Layer 2: what to do about another host that already has an address: `Report` it and use the address all the
    /// same (when absent), `Avoid` the address and give another, or `Off` to not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Layer 2: seconds between gratuitous announcements of an address that does not move; 60 when absent, 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(
        min = 0,
        max = 86400,
        message = "must be between 0 (off) and 86400 seconds"
    ))]
    pub announce_interval: Option<i64>,
    /// Goes on announcing an address whose Services have no ready endpoint anywhere.
    #[serde(default, skip_serializing_if = "is_default")]
    pub announce_without_endpoints: bool,
    /// How the addresses are announced by BGP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(nested)]
    pub bgp: Option<EipBgp>,
}

impl EipSpec {
    /// The protocol in force: `bgp` unless the Eip says otherwise.
    #[must_use]
    pub fn effective_protocol(&self) -> Protocol {
        self.protocol.unwrap_or_default()
    }

    /// Whether Services that name no Eip may get an address from here without being bound to it.
    #[must_use]
    pub fn auto_assigns(&self) -> bool {
        self.auto_assign.unwrap_or(true)
    }
}

/// How the network learns where an address lives.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Routes, by BGP.
    #[default]
    Bgp,
    /// ARP and NDP.
    Layer2,
    /// VRRP, as OpenELB's keepalived mode. Not announced yet.
    Vip,
}

impl Protocol {
    /// The name as it is written in objects.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bgp => "bgp",
            Self::Layer2 => "layer2",
            Self::Vip => "vip",
        }
    }
}

/// Which Services may share an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Sharing {
    /// None.
    Never,
    /// Those of one namespace.
    #[default]
    SameNamespace,
    /// Any.
    AnyNamespace,
}

/// What happens to an address in use that left its pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnAddressRemoved {
    /// It stays where it is, with a warning.
    #[default]
    Keep,
    /// Its Services get another.
    Reassign,
}

/// What is done about another host that already has an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Probe {
    /// It is reported, and the address is used.
    #[default]
    Report,
    /// The address is set aside and another is given.
    Avoid,
    /// Nobody looks.
    Off,
}

/// How an Eip's addresses are announced by BGP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct EipBgp {
    /// Length of the IPv4 prefix that is announced in place of each address; 32 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(min = 1, max = 32, message = "must be between 1 and 32"))]
    pub aggregation_length: Option<i64>,
    /// Length of the IPv6 prefix that is announced in place of each address; 128 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(min = 1, max = 128, message = "must be between 1 and 128"))]
    pub aggregation_length_v6: Option<i64>,
    /// Communities (RFC 1997): `65000:100`, or a well-known name such as `no-export`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// Large communities (RFC 8092): `65000:1:2`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub large_communities: Vec<String>,
    /// Extended communities (RFC 4360): `rt:65000:100`, `soo:65000:100`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extended_communities: Vec<String>,
    /// LOCAL_PREF on sessions within one AS; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(
        min = 0,
        max = 4_294_967_295_i64,
        message = "must be between 0 and 4294967295"
    ))]
    pub local_pref: Option<i64>,
    /// MULTI_EXIT_DISC; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(
        min = 0,
        max = 4_294_967_295_i64,
        message = "must be between 0 and 4294967295"
    ))]
    pub med: Option<i64>,
    /// How many more times the own AS number is put before the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(min = 0, max = 16, message = "must be between 0 and 16"))]
    pub as_path_prepend: Option<i64>,
    /// Names of the BgpPeers that hear of the addresses; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
}

/// A view of the pool made by the controller; the EipAddresses are the truth.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EipStatus {
    /// No address is free.
    #[serde(default, skip_serializing_if = "is_default")]
    pub occupied: bool,
    /// How many addresses are in use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub usage: i64,
    /// How many addresses the pool has; the largest 64-bit integer where there are more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pool_size: i64,
    /// Address in use → `namespace/name` of its Services, joined by `;`. The first 1,024 addresses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub used: BTreeMap<String, String>,
    /// The lowest address.
    #[serde(default, skip_serializing_if = "is_default", rename = "firstIP")]
    pub first_ip: String,
    /// The highest address.
    #[serde(default, skip_serializing_if = "is_default", rename = "lastIP")]
    pub last_ip: String,
    /// The pool is usable.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ready: bool,
    /// The first address is IPv4.
    #[serde(default, skip_serializing_if = "is_default")]
    pub v4: bool,
    /// `Ready`, and what stands in the way: `Overlapping`, `Exhausted`, `Invalid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
