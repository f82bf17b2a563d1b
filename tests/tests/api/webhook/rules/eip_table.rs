//! What is asked about one Eip that is new, where an Eip `lan` has 192.168.0.100-192.168.0.200.

use serde_json::{Value, json};

use super::Expect::{Early, Limited, Refused, Taken, Warned};
use super::{Expect, eip};

/// The Eip that is there.
pub(super) fn lan() -> Value {
    let spec = json!({ "address": "192.168.0.100-192.168.0.200", "protocol": "layer2" });
    eip("lan", spec)
}

pub(super) const OVERLAP: &str = "spec.address: eip address overlap with lan: both have";
/// What the schema says of addresses.
const RANGES: &str = "must be an address, a CIDR or a range first-last";

pub(super) fn address(text: &str) -> Value {
    eip("new", json!({ "address": text }))
}

fn with(field: &str, value: Value) -> Value {
    eip("new", json!({ "address": "10.0.0.1", field: value }))
}

fn both(one: (&str, Value), two: (&str, Value)) -> Value {
    eip(
        "new",
        json!({ "address": "10.0.0.1", one.0: one.1, two.0: two.1 }),
    )
}

fn near() -> Value {
    json!({ "matchExpressions": [{ "key": "a", "operator": "Near" }] })
}

pub(super) fn cases() -> Vec<(Value, Expect)> {
    [addresses(), layer2(), bgp(), bindings(), fields()].concat()
}

fn addresses() -> Vec<(Value, Expect)> {
    let excluding = |address: &str, exclude: &[&str]| {
        eip("new", json!({ "address": address, "exclude": exclude }))
    };
    vec![
        (address("192.168.0.1"), Taken),
        (address("192.168.1.0/24"), Taken),
        (address("192.168.0.1-192.168.0.99, 2001:db8::/64"), Taken),
        (address("192.168.0.201-192.168.0.250"), Taken),
        (
            address("192.168.0.200-192.168.0.250"),
            Refused("spec.address: eip address overlap with lan: both have 192.168.0.200;"),
        ),
        (
            excluding(
                "192.168.0.90-192.168.0.210",
                &["192.168.0.100-192.168.0.200"],
            ),
            Taken,
        ),
        (
            address("192.168.1.100-192.168.1.1"),
            Refused("ends below its start: write 192.168.1.1-192.168.1.100"),
        ),
        (
            address("192.168.1.1-192.168.1.2-192.168.1.3"),
            Refused("contains \"192.168.1.2-192.168.1.3\", which is no IP address"),
        ),
        (
            address("192.168.1.1-2001:db8::1"),
            Refused("of different families: write two ranges, separated by a comma"),
        ),
        (
            address("192.168.0.0/33"),
            Refused("has the prefix length \"33\", allowed is 0 to 32"),
        ),
        (
            address("192.168.1.1,"),
            Refused("is empty where an address, a CIDR or a range first-last is expected"),
        ),
        (
            address("xxxx"),
            Early(RANGES, "contains \"xxxx\", which is no IP address"),
        ),
        (
            address(""),
            Early(
                "spec.address",
                "must name at least one address, CIDR or range",
            ),
        ),
        (
            eip("new", json!({ "address": 5 })),
            Early("spec.address", "spec.address: invalid type: integer `5`"),
        ),
        (
            address("192.168.1.1/24"),
            Warned("the range that results is 192.168.1.0-192.168.1.255"),
        ),
        (
            address("10.0.0.0/24, 10.0.0.128/25"),
            Warned("spec.address: names some addresses twice; they count once"),
        ),
        (
            excluding("10.0.0.1", &["10.0.0.x"]),
            Early(RANGES, "contains \"10.0.0.x\", which is no IP address"),
        ),
        (
            excluding("10.0.0.1", &["10.0.0.9-10.0.0.2"]),
            Refused("ends below its start: write 10.0.0.2-10.0.0.9"),
        ),
        (
            excluding("10.0.0.1", &["10.9.9.9"]),
            Warned("spec.exclude: 10.9.9.9 is not in spec.address, so it has no effect"),
        ),
        (
            excluding("10.0.0.1", &["10.0.0.0/24"]),
            Warned("spec.exclude: leaves no address of spec.address that could be given"),
        ),
        (
            eip(
                "new",
                json!({ "address": "10.0.0.0/24", "exclude": vec!["10.0.0.1"; 257] }),
            ),
            Limited("Too many: 257: must have at most 256 items"),
        ),
        (
            excluding("10.0.0.0/24", &["10.0.0.1,".repeat(200).as_str()]),
            Limited("Too long: may not be more than 1024"),
        ),
        (
            eip(
                "new",
                json!({ "address": "10.0.0.0/7", "avoidBuggyIPs": true }),
            ),
            Refused("works for at most 16777216 IPv4 addresses (a /8)"),
        ),
        (
            eip(
                "new",
                json!({ "address": "10.0.0.0/8", "avoidBuggyIPs": true }),
            ),
            Taken,
        ),
    ]
}

fn layer2() -> Vec<(Value, Expect)> {
    let interface = |text: &str| both(("protocol", json!("layer2")), ("interface", json!(text)));
    vec![
        (with("protocol", json!("layer2")), Taken),
        (interface("eth0, bond*"), Taken),
        (interface("can_reach:192.0.2.1"), Taken),
        (
            interface("haha:hahah"),
            Early(
                "must be an interface name, several separated by commas",
                "invalid interface string \"haha:hahah\", now only support can_reach:<ip>",
            ),
        ),
        (
            interface("can_reach:hahah"),
            Early(
                "must be an interface name, several separated by commas",
                "invalid can_reach address \"hahah\", give an IP address",
            ),
        ),
        (
            interface("can_reach:127.0.0.1"),
            Refused("spec.interface: invalid interface lo: nobody can reach it"),
        ),
        (
            interface("lo"),
            Early(
                "invalid interface lo",
                "spec.interface: invalid interface lo",
            ),
        ),
        (
            interface("averyveryverylongname"),
            Refused("is no interface name: it has a slash, a space or more than 15 letters"),
        ),
        (
            interface(&"eth0,".repeat(300)),
            Limited("Too long: may not be more than 1024"),
        ),
        (
            with("interface", json!("eth0")),
            Warned("spec.interface: has no effect with protocol bgp"),
        ),
        (with("announceInterval", json!(60)), Taken),
        (
            with("announceInterval", json!(-1)),
            Early(
                "spec.announceInterval",
                "spec.announceInterval: -1 must be between 0 (off) and 86400 seconds",
            ),
        ),
        (
            with("announceInterval", json!(86_401)),
            Early(
                "spec.announceInterval",
                "spec.announceInterval: 86401 must be between 0 (off) and 86400 seconds",
            ),
        ),
    ]
}

fn bgp() -> Vec<(Value, Expect)> {
    let bgp = |field: &str, value: Value| with("bgp", json!({ field: value }));
    let number = |field: &str, value: i64, webhook: &'static str| {
        (bgp(field, json!(value)), Early("spec.bgp.", webhook))
    };
    vec![
        (
            with(
                "bgp",
                json!({
                    "aggregationLength": 24, "aggregationLengthV6": 64, "localPref": 200, "med": 10, "asPathPrepend": 3,
                    "communities": ["65000:1", "no-export"], "largeCommunities": ["65000:1:2"],
                    "extendedCommunities": ["rt:65000:100"],
                }),
            ),
            Taken,
        ),
        number(
            "aggregationLength",
            33,
            "spec.bgp.aggregationLength: 33 must be between 1 and 32",
        ),
        number(
            "aggregationLengthV6",
            129,
            "spec.bgp.aggregationLengthV6: 129 must be between 1 and 128",
        ),
        number(
            "asPathPrepend",
            17,
            "spec.bgp.asPathPrepend: 17 must be between 0 and 16",
        ),
        number(
            "localPref",
            -1,
            "spec.bgp.localPref: -1 must be between 0 and 4294967295",
        ),
        number(
            "med",
            4_294_967_296,
            "spec.bgp.med: 4294967296 must be between 0 and 4294967295",
        ),
        (
            bgp("communities", json!(["65000:70000"])),
            Refused("spec.bgp.communities[0]: \"65000:70000\" must be two numbers up to 65535"),
        ),
        (
            bgp("communities", json!(["no-exports"])),
            Refused("spec.bgp.communities[0]: \"no-exports\" must be two numbers up to 65535"),
        ),
        (
            bgp("largeCommunities", json!(["65000:1:4294967296"])),
            Refused("must be three numbers up to 4294967295, such as 65000:1:2"),
        ),
        (
            bgp("largeCommunities", json!(["65000:1"])),
            Early(
                "must be three numbers up to 4294967295",
                "spec.bgp.largeCommunities[0]: \"65000:1\" must be three numbers",
            ),
        ),
        (
            bgp("extendedCommunities", json!(["rt:65000:4294967296"])),
            Refused(
                "spec.bgp.extendedCommunities[0]: \"rt:65000:4294967296\" must be rt:ADMIN:NUMBER",
            ),
        ),
        (
            bgp("communities", json!(vec!["65000:1"; 65])),
            Limited("Too many: 65: must have at most 64 items"),
        ),
        (
            both(
                ("protocol", json!("layer2")),
                ("bgp", json!({ "localPref": 1 })),
            ),
            Warned("spec.bgp: has no effect with protocol layer2"),
        ),
    ]
}

fn bindings() -> Vec<(Value, Expect)> {
    let five = ("priority", json!(5));
    vec![
        (with("namespaces", json!(["shop"])), Taken),
        (
            with("namespaces", json!(["Shop"])),
            Refused("spec.namespaces[0]: \"Shop\" is no namespace name"),
        ),
        (both(five.clone(), ("namespaces", json!(["shop"]))), Taken),
        (
            with("priority", json!(5)),
            Warned("so it counts only where there is no default Eip"),
        ),
        (
            both(five, ("autoAssign", json!(false))),
            Warned("spec.priority: has no effect: the Eip is bound to no namespace"),
        ),
        (
            with("strictBinding", json!(true)),
            Warned("so no Service gets an address from it"),
        ),
        (
            with("nodeSelector", near()),
            Refused(
                "spec.nodeSelector.matchExpressions[0].operator: \"Near\" must be In, NotIn, Exists",
            ),
        ),
        (
            with("serviceSelector", near()),
            Refused(
                "spec.serviceSelector.matchExpressions[0].operator: \"Near\" must be In, NotIn, Exists",
            ),
        ),
        (
            with(
                "serviceSelector",
                json!({ "matchExpressions": [{ "key": "a", "operator": "In" }] }),
            ),
            Refused(
                "spec.serviceSelector.matchExpressions[0].values: must list at least one value for In",
            ),
        ),
        (
            with(
                "serviceSelector",
                json!({ "matchLabels": { "tier": "web" } }),
            ),
            Taken,
        ),
    ]
}

fn fields() -> Vec<(Value, Expect)> {
    vec![
        (
            with("protocol", json!("vip")),
            Warned(
                "spec.protocol: vip is accepted and its addresses are given, but they are not announced yet",
            ),
        ),
        (
            with("protocol", json!("ospf")),
            Early(
                "spec.protocol: Unsupported value",
                "spec.protocol: unknown variant `ospf`",
            ),
        ),
        (
            with("usingKnownIPs", json!(true)),
            Warned("spec: without effect: usingKnownIPs"),
        ),
        // A wrong type is refused in words; it never counts as a broken webhook.
        (
            with("disable", json!("yes")),
            Early("spec.disable", "spec.disable: invalid type: string \"yes\""),
        ),
    ]
}
