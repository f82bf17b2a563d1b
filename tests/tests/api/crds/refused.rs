//! What the API server refuses by our schemas, and what the user reads then.

use anyhow::{Result, bail};
use openelb_tests::{ControlPlane, story};
use serde_json::{Value, json};

use super::{control_plane, object};

/// What the user reads when an object is refused.
async fn refused(control: &ControlPlane, object: &Value) -> Result<String> {
    match control.apply(object).await {
        Ok(()) => bail!("{object} was taken"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// An object with the fields of another put into it, at every depth.
fn merged(mut object: Value, more: Value) -> Value {
    match (&mut object, more) {
        (Value::Object(fields), Value::Object(more)) => {
            for (key, value) in more {
                let field = fields.entry(key).or_insert(Value::Null);
                *field = merged(field.take(), value);
            }
            object
        }
        (_, more) => more,
    }
}

/// Kind, name, spec, and what the user must read.
#[allow(clippy::too_many_lines, reason = "a table of cases is long")]
fn malformed() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let peer = |more: Value| {
        let spec = json!({"conf": {"neighborAddress": "192.0.2.1", "peerAs": 64512}});
        merged(spec, more)
    };
    let eip = |more: Value| merged(json!({"address": "192.0.2.1"}), more);
    vec![
        ("Eip", "e", json!({}), "spec.address: Required value"),
        (
            "Eip",
            "e",
            json!({"address": ""}),
            "must be an address, a CIDR or a range first-last",
        ),
        (
            "Eip",
            "e",
            json!({"address": "my addresses"}),
            "must be an address, a CIDR or a range first-last",
        ),
        (
            "Eip",
            "e",
            eip(json!({"protocol": "ospf"})),
            r#"supported values: "bgp", "layer2", "vip""#,
        ),
        (
            "Eip",
            "e",
            eip(json!({"exclude": ["192.0.2.1", "none"]})),
            "spec.exclude[1]: Invalid value",
        ),
        (
            "Eip",
            "e",
            eip(json!({"interface": "can_reach:router"})),
            "must be an interface name, several separated by commas",
        ),
        (
            "Eip",
            "e",
            eip(json!({"sharing": "Always"})),
            r#"supported values: "Never", "SameNamespace", "AnyNamespace""#,
        ),
        (
            "Eip",
            "e",
            eip(json!({"onAddressRemoved": "Drop"})),
            r#"supported values: "Keep", "Reassign""#,
        ),
        (
            "Eip",
            "e",
            eip(json!({"announceInterval": -5})),
            "should be greater than or equal to 0",
        ),
        (
            "Eip",
            "e",
            eip(json!({"bgp": {"aggregationLength": 33}})),
            "should be less than or equal to 32",
        ),
        (
            "Eip",
            "e",
            eip(json!({"bgp": {"communities": ["65000"]}})),
            "must be two numbers up to 65535, such as 65000:100",
        ),
        (
            "Eip",
            "e",
            eip(json!({"bgp": {"largeCommunities": ["65000:1"]}})),
            "must be three numbers up to 4294967295",
        ),
        (
            "Eip",
            "e",
            eip(json!({"bgp": {"extendedCommunities": ["red:1:2"]}})),
            "must be rt:ADMIN:NUMBER, soo:ADMIN:NUMBER",
        ),
        (
            "EipAddress",
            "web",
            json!({"address": "192.0.2.7"}),
            "the name must be the address",
        ),
        (
            "EipAddress",
            "2001-db8-1",
            json!({"address": "2001:db8::1"}),
            "all eight groups of four digits joined by -",
        ),
        (
            "EipAddress",
            "192.0.2.7",
            json!({"address": "192.0.2.7", "reserved": true, "reservedFor": ["web"]}),
            "must be namespace/name",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 0}),
            "should be greater than or equal to 1",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 4_294_967_296_i64}),
            "should be less than or equal to 4294967295",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 1, "routerId": "2001:db8::1"}),
            "must be an IPv4 address (BGP identifiers are 32 bits",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 1, "listenPort": 70000}),
            "should be less than or equal to 65535",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 1, "listenAddresses": ["all"]}),
            "must be an IPv4 or IPv6 address",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 1, "families": [42]}),
            "must be GoBGP's index of a family",
        ),
        (
            "BgpConf",
            "default",
            json!({"as": 1, "asPerRack": {"a": -1}}),
            "must have an AS number between 1 and 4294967295 for each rack",
        ),
        (
            "BgpPeer",
            "p",
            json!({}),
            "conf.neighborAddress must be the peer's address",
        ),
        (
            "BgpPeer",
            "p",
            json!({"conf": {"neighborAddress": "192.0.2.1"}}),
            "conf.peerAs must be the peer's AS number",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"conf": {"neighborAddress": "router"}})),
            "must be an IPv4 or IPv6 address",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"timers": {"config": {"holdTime": "2"}}})),
            r#"must be "0" (never) or between "3" and "65535" seconds"#,
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"timers": {"config": {"connectRetry": "10s"}}})),
            "must be a whole number of seconds",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"ttlSecurity": 1, "ebgpMultihop": {"enabled": true}})),
            "ttlSecurity and ebgpMultihop cannot be used together",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"bfd": {"detectMultiplier": 1}})),
            "should be greater than or equal to 2",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"conf": {"removePrivateAs": "SOME"}})),
            "must be NONE, ALL or REPLACE",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"afiSafis": [{"config": {"family": {"afi": "ipv4"}}}]})),
            "afi must be AFI_IP or AFI_IP6",
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"dynamicAsn": "any"})),
            r#"supported values: "internal", "external""#,
        ),
        (
            "BgpPeer",
            "p",
            peer(json!({"transport": {"remotePort": 65536}})),
            "should be less than or equal to 65535",
        ),
    ]
}

#[test]
fn malformed_objects_are_refused_in_words_that_help() {
    story(async || -> Result<()> {
        let control = control_plane().await?;
        let cases = malformed();
        assert!(cases.len() >= 25);
        let mut wrong = Vec::new();
        for (kind, name, spec, message) in cases {
            match refused(&control, &object(kind, name, spec.clone())).await {
                Ok(said) if said.contains(message) => {}
                Ok(said) => wrong.push(format!("{kind} {spec}: expected {message:?} in {said}")),
                Err(taken) => wrong.push(taken.to_string()),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
        Ok(())
    });
}

#[test]
fn a_typing_error_is_named() {
    story(async || -> Result<()> {
        let control = control_plane().await?;
        let typo = object(
            "Eip",
            "lan",
            json!({"address": "192.0.2.1", "protocoll": "bgp"}),
        );
        let error = refused(&control, &typo).await?;
        assert!(
            error.contains(r#"unknown field "spec.protocoll""#),
            "{error}"
        );
        Ok(())
    });
}

#[test]
fn an_address_never_changes_its_own() {
    story(async || -> Result<()> {
        let control = control_plane().await?;
        let with = |address: &str| object("EipAddress", "192.0.2.7", json!({"address": address}));
        control.apply(&with("192.0.2.7")).await?;
        let error = refused(&control, &with("192.0.2.8")).await?;
        assert!(
            error.contains("the address cannot change: make another EipAddress"),
            "{error}"
        );
        Ok(())
    });
}
