//! What speakers report of a `BgpPeer`, in the form of GoBGP's neighbour state.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha2::is_default;

/// The sessions with this peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerStatus {
    /// Node → its session. Each speaker writes its own entry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes_peer_status: BTreeMap<String, NodePeerStatus>,
    /// How many sessions are up, such as `3/3 Established`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub summary: String,
    /// `Accepted`, with the fields that have no effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A node's session with the peer, in the form of GoBGP's neighbour state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePeerStatus {
    /// The session.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peer_state: PeerState,
    /// Its timers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timers_state: TimersState,
    /// What the node really announces to the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<AnnouncedDigest>,
    /// Why there is no session, in words.
    #[serde(default, skip_serializing_if = "is_default")]
    pub message: String,
}

/// What a node holds in its Adj-RIB-Out for a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncedDigest {
    /// How many prefixes.
    pub prefixes: i64,
    /// A digest over the set of prefixes, equal where the sets are.
    pub digest: String,
}

/// A session as GoBGP reports it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerState {
    /// Never filled: it would show a secret.
    #[serde(default, skip_serializing_if = "is_default")]
    pub auth_password: String,
    /// The peer's description.
    #[serde(default, skip_serializing_if = "is_default")]
    pub description: String,
    /// The own AS number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local_as: i64,
    /// Message counters. OpenELB's; counters live in metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Messages>,
    /// The peer's address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub neighbor_address: String,
    /// The peer's AS number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peer_as: i64,
    /// Never filled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peer_group: String,
    /// 0 for iBGP, 1 for eBGP.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peer_type: i64,
    /// Never filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Queues>,
    /// Never filled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub remove_private_as: i64,
    /// Never filled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub route_flap_damping: bool,
    /// Never filled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub send_community: i64,
    /// `IDLE`, `CONNECT`, `ACTIVE`, `OPENSENT`, `OPENCONFIRM` or `ESTABLISHED`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub session_state: String,
    /// `DOWN` where the session is kept down; absent where it is not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub admin_state: String,
    /// Never filled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub out_q: i64,
    /// How often the session went down.
    #[serde(default, skip_serializing_if = "is_default")]
    pub flops: i64,
    /// The peer's BGP identifier.
    #[serde(default, skip_serializing_if = "is_default")]
    pub router_id: String,
}

/// Message counters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Messages {
    /// From the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<MessageCounters>,
    /// To the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<MessageCounters>,
}

/// Counters of one direction, decimal numbers as strings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageCounters {
    /// NOTIFICATIONs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub notification: String,
    /// UPDATEs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub update: String,
    /// OPENs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub open: String,
    /// KEEPALIVEs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keepalive: String,
    /// ROUTE-REFRESHes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refresh: String,
    /// Messages thrown away.
    #[serde(default, skip_serializing_if = "is_default")]
    pub discarded: String,
    /// All messages.
    #[serde(default, skip_serializing_if = "is_default")]
    pub total: String,
    /// UPDATEs that withdraw.
    #[serde(default, skip_serializing_if = "is_default")]
    pub withdraw_update: String,
    /// Prefixes withdrawn.
    #[serde(default, skip_serializing_if = "is_default")]
    pub withdraw_prefix: String,
}

/// Queue lengths.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Queues {
    /// Towards us.
    #[serde(default, skip_serializing_if = "is_default")]
    pub input: i64,
    /// Towards the peer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub output: i64,
}

/// A session's timers: seconds as strings, times in RFC 3339.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimersState {
    /// Seconds between attempts to connect.
    #[serde(default, skip_serializing_if = "is_default")]
    pub connect_retry: String,
    /// Hold time asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hold_time: String,
    /// Seconds between KEEPALIVEs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keepalive_interval: String,
    /// Never filled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub minimum_advertisement_interval: String,
    /// Hold time agreed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub negotiated_hold_time: String,
    /// Since when the session is up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub uptime: String,
    /// Since when the session is down.
    #[serde(default, skip_serializing_if = "is_default")]
    pub downtime: String,
}
