//! What one object can be held to by the API server itself, with the words that the user sees.
//!
//! The expressions use only what every supported API server knows (CEL of Kubernetes 1.25). Where a stored object breaks
//! a rule already, API servers from 1.30 on still accept changes elsewhere in it. The webhook says more, and better; these rules hold
//! also while it is away.

use serde_json::{Value, json};

/// A CEL rule and the field that it is about.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The kind.
    pub kind: &'static str,
    /// The field, from the object's root, `[]` for the items of a list; empty for the whole object.
    pub path: &'static str,
    /// The expression that must be true.
    pub rule: &'static str,
    /// What the user reads when it is not.
    pub message: &'static str,
}

impl Rule {
    /// Adds the rule where it belongs.
    pub(super) fn add_to(&self, schema: &mut Value) {
        let place = schema.pointer_mut(&pointer(self.path));
        if let Some(place) = place.and_then(Value::as_object_mut) {
            let rules = place
                .entry("x-kubernetes-validations")
                .or_insert_with(|| json!([]));
            if let Some(rules) = rules.as_array_mut() {
                rules.push(json!({"rule": self.rule, "message": self.message}));
            }
        }
    }
}

/// How much of something a field may hold. The API server counts what a rule may cost at worst, and so refuses rules on
/// fields without a limit; the limits lie far above what anybody needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) kind: &'static str,
    pub(super) path: &'static str,
    /// `maxLength`, `maxItems` or `maxProperties`.
    pub(super) keyword: &'static str,
    pub(super) most: u32,
}

impl Limit {
    /// Adds the limit where it belongs.
    pub(super) fn add_to(&self, schema: &mut Value) {
        let place = schema.pointer_mut(&pointer(self.path));
        if let Some(place) = place.and_then(Value::as_object_mut) {
            place.insert(self.keyword.to_owned(), self.most.into());
        }
    }
}

/// Where in a schema a field is.
pub(super) fn pointer(path: &str) -> String {
    let mut pointer = String::new();
    for field in path.split('.').filter(|field| !field.is_empty()) {
        pointer.push_str("/properties/");
        pointer.push_str(field.trim_end_matches("[]"));
        if field.ends_with("[]") {
            pointer.push_str("/items");
        }
    }
    pointer
}

const fn limit(kind: &'static str, path: &'static str, keyword: &'static str, most: u32) -> Limit {
    Limit {
        kind,
        path,
        keyword,
        most,
    }
}

/// The limits, by kind and field.
pub(super) const LIMITS: &[Limit] = &[
    limit("Eip", "spec.address", "maxLength", 65_536),
    limit("Eip", "spec.exclude", "maxItems", 256),
    limit("Eip", "spec.exclude[]", "maxLength", 1024),
    limit("Eip", "spec.interface", "maxLength", 1024),
    limit("Eip", "spec.bgp.communities", "maxItems", 64),
    limit("Eip", "spec.bgp.communities[]", "maxLength", 64),
    limit("Eip", "spec.bgp.largeCommunities", "maxItems", 64),
    limit("Eip", "spec.bgp.largeCommunities[]", "maxLength", 64),
    limit("Eip", "spec.bgp.extendedCommunities", "maxItems", 64),
    limit("Eip", "spec.bgp.extendedCommunities[]", "maxLength", 64),
    limit("EipAddress", "spec.address", "maxLength", 64),
    limit("EipAddress", "spec.reservedFor", "maxItems", 256),
    limit("EipAddress", "spec.reservedFor[]", "maxLength", 320),
    limit("BgpConf", "spec.routerId", "maxLength", 64),
    limit("BgpConf", "spec.listenAddresses", "maxItems", 64),
    limit("BgpConf", "spec.listenAddresses[]", "maxLength", 64),
    limit("BgpConf", "spec.families", "maxItems", 64),
    limit("BgpConf", "spec.asPerRack", "maxProperties", 4096),
    limit("BgpPeer", "spec.conf.neighborAddress", "maxLength", 64),
    limit("BgpPeer", "spec.conf.neighborInterface", "maxLength", 64),
    limit("BgpPeer", "spec.conf.removePrivateAs", "maxLength", 64),
    limit("BgpPeer", "spec.sourceAddress", "maxLength", 64),
    limit(
        "BgpPeer",
        "spec.timers.config.connectRetry",
        "maxLength",
        64,
    ),
    limit("BgpPeer", "spec.timers.config.holdTime", "maxLength", 64),
    limit(
        "BgpPeer",
        "spec.timers.config.keepaliveInterval",
        "maxLength",
        64,
    ),
    limit("BgpPeer", "spec.afiSafis", "maxItems", 32),
    limit(
        "BgpPeer",
        "spec.afiSafis[].config.family.afi",
        "maxLength",
        64,
    ),
    limit(
        "BgpPeer",
        "spec.afiSafis[].config.family.safi",
        "maxLength",
        64,
    ),
];

const RANGES: &str = r"self.matches('^[0-9a-fA-F:./, -]+$')";
const RANGES_MESSAGE: &str =
    "must be an address, a CIDR or a range first-last, or several of these separated by commas";
const IP: &str = r"self.matches('^[0-9a-fA-F:.]+$') && (self.contains(':') || self.contains('.'))";
const IP_MESSAGE: &str = "must be an IPv4 or IPv6 address";

/// The forms of [`crate::Interface`]; how long a name may be is left to it.
const INTERFACE: &str =
    r"self.matches('^ *(can_reach: *[0-9a-fA-F:.]+|[^/:, ]+( *, *[^/:, ]+)*)? *$')";

/// The rules, by kind and field.
pub const RULES: &[Rule] = &[
    Rule {
        kind: "Eip",
        path: "spec.address",
        rule: RANGES,
        message: RANGES_MESSAGE,
    },
    Rule {
        kind: "Eip",
        path: "spec.exclude[]",
        rule: RANGES,
        message: RANGES_MESSAGE,
    },
    Rule {
        kind: "Eip",
        path: "spec.interface",
        rule: INTERFACE,
        message: "must be an interface name, several separated by commas, a glob such as eth*, or can_reach:<ip>",
    },
    Rule {
        kind: "Eip",
        path: "spec.interface",
        rule: "!self.matches('(^|,) *lo *(,|$)')",
        message: "invalid interface lo: nobody can reach it",
    },
    Rule {
        kind: "Eip",
        path: "spec.bgp.communities[]",
        rule: r"self.matches('^([0-9]{1,5}:[0-9]{1,5}|[a-zA-Z][a-zA-Z-]+)$')",
        message: "must be two numbers up to 65535, such as 65000:100, or a well-known name such as no-export",
    },
    Rule {
        kind: "Eip",
        path: "spec.bgp.largeCommunities[]",
        rule: r"self.matches('^[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$')",
        message: "must be three numbers up to 4294967295, such as 65000:1:2",
    },
    Rule {
        kind: "Eip",
        path: "spec.bgp.extendedCommunities[]",
        rule: r"self.matches('^((rt|soo):[0-9.]+:[0-9]+|0x[0-9a-fA-F]{16})$')",
        message: "must be rt:ADMIN:NUMBER, soo:ADMIN:NUMBER or 0x with 16 hexadecimal digits",
    },
    Rule {
        kind: "EipAddress",
        path: "",
        rule: r"self.spec.address.contains(':') ? self.metadata.name.matches('^([0-9a-f]{4}-){7}[0-9a-f]{4}$') : self.metadata.name == self.spec.address",
        message: "the name must be the address: 192.0.2.7, or for IPv6 all eight groups of four digits joined by -, as in 2001-0db8-0000-0000-0000-0000-0000-0001",
    },
    Rule {
        kind: "EipAddress",
        path: "spec.address",
        rule: IP,
        message: IP_MESSAGE,
    },
    Rule {
        kind: "EipAddress",
        path: "spec.address",
        rule: "self == oldSelf",
        message: "the address cannot change: make another EipAddress",
    },
    Rule {
        kind: "EipAddress",
        path: "spec.reservedFor[]",
        rule: r"self.matches('^[a-z0-9-]+/([a-z0-9.-]+|[*])$')",
        message: "must be namespace/name, or namespace/* for all Services of a namespace",
    },
    Rule {
        kind: "BgpConf",
        path: "spec.routerId",
        rule: r"self == '' || self.matches('^((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])[.]){3}(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])$')",
        message: "must be an IPv4 address (BGP identifiers are 32 bits, also where routes are IPv6)",
    },
    Rule {
        kind: "BgpConf",
        path: "spec.listenAddresses[]",
        rule: IP,
        message: IP_MESSAGE,
    },
    Rule {
        kind: "BgpConf",
        path: "spec.families[]",
        rule: "self >= 0 && self <= 23",
        message: "must be GoBGP's index of a family: 0 for IPv4 unicast, 1 for IPv6 unicast",
    },
    Rule {
        kind: "BgpConf",
        path: "spec.asPerRack",
        rule: "self.all(rack, self[rack] >= 0 && self[rack] <= 4294967295)",
        message: "must have an AS number between 1 and 4294967295 for each rack",
    },
    Rule {
        kind: "BgpPeer",
        path: "spec",
        rule: "has(self.conf) && ((has(self.conf.neighborAddress) && self.conf.neighborAddress != '') || (has(self.conf.neighborInterface) && self.conf.neighborInterface != ''))",
        message: "conf.neighborAddress must be the peer's address (or conf.neighborInterface the interface of a peer without one)",
    },
    Rule {
        kind: "BgpPeer",
        path: "spec",
        rule: "has(self.dynamicAsn) || (has(self.conf) && has(self.conf.peerAs) && self.conf.peerAs > 0)",
        message: "conf.peerAs must be the peer's AS number (or dynamicAsn say internal or external)",
    },
    Rule {
        kind: "BgpPeer",
        path: "spec",
        rule: "!(has(self.ttlSecurity) && self.ttlSecurity > 0 && has(self.ebgpMultihop) && has(self.ebgpMultihop.enabled) && self.ebgpMultihop.enabled)",
        message: "ttlSecurity and ebgpMultihop cannot be used together: ttlSecurity says how many hops away the peer may be",
    },
    Rule {
        kind: "BgpPeer",
        path: "spec.conf.neighborAddress",
        rule: r"self == '' || (self.matches('^[0-9a-fA-F:.]+(%[a-zA-Z0-9_.-]+)?$') && (self.contains(':') || self.contains('.')))",
        message: IP_MESSAGE,
    },
    Rule {
        kind: "BgpPeer",
        path: "spec.conf.removePrivateAs",
        rule: "self in ['', 'NONE', 'ALL', 'REPLACE']",
        message: "must be NONE, ALL or REPLACE",
    },
    Rule {
        kind: "BgpPeer",
        path: "spec.sourceAddress",
        rule: IP,
        message: IP_MESSAGE,
    },
    Rule {
        kind: "BgpPeer",
        path: "spec.timers.config.connectRetry",
        rule: "self == '' || self.matches('^[0-9]{1,5}$')",
        message: "must be a whole number of seconds, written as a string, such as \"10\"",
    },
    Rule {
        kind: "BgpPeer",
        path: "spec.timers.config.holdTime",
        rule: "self == '' || (self.matches('^[0-9]{1,5}$') && (int(self) == 0 || (int(self) >= 3 && int(self) <= 65535)))",
        message: "must be \"0\" (never) or between \"3\" and \"65535\" seconds, written as a string",
    },
    Rule {
        kind: "BgpPeer",
        path: "spec.timers.config.keepaliveInterval",
        rule: "self == '' || (self.matches('^[0-9]{1,5}$') && int(self) <= 21845)",
        message: "must be a whole number of seconds up to a third of the hold time, written as a string, such as \"30\"",
    },
    Rule {
        kind: "BgpPeer",
        path: "spec.afiSafis[].config.family",
        rule: "!has(self.afi) || self.afi == '' || self.afi.startsWith('AFI_')",
        message: "afi must be AFI_IP or AFI_IP6",
    },
    Rule {
        kind: "BgpPeer",
        path: "spec.afiSafis[].config.family",
        rule: "!has(self.safi) || self.safi == '' || self.safi.startsWith('SAFI_')",
        message: "safi must be SAFI_UNICAST",
    },
];
