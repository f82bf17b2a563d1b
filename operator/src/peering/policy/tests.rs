//! Policies by what becomes of routes.

use super::*;

const PREFIX: &str = "203.0.113.5/32";

fn policy(text: &str) -> Policy {
    text.parse()
        .unwrap_or_else(|fault| panic!("{fault}\n{text}"))
}

/// A policy of statements that are assigned to export.
fn of(statements: &str) -> Policy {
    policy(&format!(
        r#"
        [global.apply-policy.config]
        export-policy-list = ["out"]
        [[defined-sets.prefix-sets]]
        prefix-set-name = "pool"
        prefix-list = [{{ip-prefix = "203.0.113.0/24", masklength-range = "24..32"}}]
        [[defined-sets.neighbor-sets]]
        neighbor-set-name = "spines"
        neighbor-info-list = ["10.0.0.1", "10.1.0.0/16"]
        [[policy-definitions]]
        name = "out"
        {statements}
        "#
    ))
}

fn statement(text: &str) -> Policy {
    of(&format!("[[policy-definitions.statements]]\n{text}"))
}

/// What becomes of a plain route of ours towards a peer.
fn told(policy: &Policy, prefix: &str, peer: &str) -> Option<Attributes> {
    let plain = Attributes {
        med: Some(100),
        communities: ["65000:1".parse().unwrap()].into(),
        ..Attributes::default()
    };
    let peer = Some(peer.parse().unwrap());
    policy.route(&prefix.parse().unwrap(), peer, &plain, 65000)
}

#[test]
fn the_example_of_gobgps_documentation_does_what_it_says() {
    let policy = statement(
        r#"
        name = "statement1"
        [policy-definitions.statements.conditions.match-prefix-set]
          prefix-set = "pool"
          match-set-options = "any"
        [policy-definitions.statements.conditions.match-neighbor-set]
          neighbor-set = "spines"
          match-set-options = "invert"
        [policy-definitions.statements.actions]
          route-disposition = "accept-route"
        [policy-definitions.statements.actions.bgp-actions]
          set-med = "-20"
          set-local-pref = 110
          set-next-hop = "10.0.0.99"
        [policy-definitions.statements.actions.bgp-actions.set-as-path-prepend]
          as = "65000"
          repeat-n = 2
        [policy-definitions.statements.actions.bgp-actions.set-community]
          options = "add"
        [policy-definitions.statements.actions.bgp-actions.set-community.set-community-method]
          communities-list = ["65100:20", "no-export"]
        [policy-definitions.statements.actions.bgp-actions.set-large-community]
          options = "REPLACE"
        [policy-definitions.statements.actions.bgp-actions.set-large-community.set-large-community-method]
          communities-list = ["65000:1:2"]
        [policy-definitions.statements.actions.bgp-actions.set-ext-community]
          options = "add"
        [policy-definitions.statements.actions.bgp-actions.set-ext-community.set-ext-community-method]
          communities-list = ["rt:65000:7"]
        "#,
    );
    assert!(policy.left_out.is_empty(), "{:?}", policy.left_out);
    let other = told(&policy, PREFIX, "10.0.0.2").unwrap();
    let texts: Vec<String> = other.communities.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["65000:1", "65100:20", "65535:65281"]);
    assert_eq!(
        (other.med, other.local_pref, other.prepend),
        (Some(80), Some(110), 2)
    );
    assert_eq!(other.large_communities.len(), 1);
    assert_eq!(other.extended_communities.len(), 1);
    assert_eq!(
        other.next_hop,
        NextHop::Address("10.0.0.99".parse().unwrap())
    );
    let spine = told(&policy, PREFIX, "10.0.0.1").unwrap();
    assert_eq!((spine.med, spine.prepend), (Some(100), 0));
    let outside = told(&policy, "198.51.100.1/32", "10.0.0.2").unwrap();
    assert_eq!(outside.med, Some(100));
}

#[test]
fn a_route_that_is_rejected_is_not_announced() {
    let policy = statement(
        r#"
        conditions.match-neighbor-set.neighbor-set = "spines"
        actions.route-disposition = "reject-route"
        "#,
    );
    assert!(told(&policy, PREFIX, "10.1.2.3").is_none());
    assert!(told(&policy, PREFIX, "10.2.2.3").is_some());
}

#[test]
fn what_no_statement_decides_goes_the_default_way() {
    let accept = r#"
        [[policy-definitions.statements]]
        conditions.match-prefix-set.prefix-set = "pool"
        actions.route-disposition = "accept-route"
        "#;
    let open = of(accept);
    assert!(told(&open, "198.51.100.1/32", "10.0.0.2").is_some());
    let closed = of(accept);
    let closed = Policy {
        reject: true,
        ..closed
    };
    assert!(told(&closed, "198.51.100.1/32", "10.0.0.2").is_none());
    assert!(told(&closed, PREFIX, "10.0.0.2").is_some());
    let text = r#"global.apply-policy.config.default-export-policy = "reject-route""#;
    assert!(told(&policy(text), PREFIX, "10.0.0.2").is_none());
    assert!(told(&policy(""), PREFIX, "10.0.0.2").is_some());
}

#[test]
fn statements_follow_one_another_until_one_decides() {
    let policy = of(r#"
        [[policy-definitions.statements]]
        actions.bgp-actions.set-med = "5"
        [[policy-definitions.statements]]
        actions.bgp-actions.set-med = "+2"
        actions.route-disposition = "accept-route"
        [[policy-definitions.statements]]
        actions.bgp-actions.set-med = "9"
        "#);
    assert_eq!(told(&policy, PREFIX, "10.0.0.2").unwrap().med, Some(7));
}

#[test]
fn a_prefix_set_without_lengths_means_the_prefix_itself_and_one_family() {
    let text = |range: &str, option: &str| {
        policy(&format!(
            r#"
            [global.apply-policy.config]
            export-policy-list = ["out"]
            [[defined-sets.prefix-sets]]
            prefix-set-name = "p"
            prefix-list = [{{ip-prefix = "203.0.113.0/24"{range}}}]
            [[policy-definitions]]
            name = "out"
            [[policy-definitions.statements]]
            conditions.match-prefix-set = {{prefix-set = "p", match-set-options = "{option}"}}
            actions.route-disposition = "reject-route"
            "#
        ))
    };
    let hidden = |policy: &Policy, prefix| told(policy, prefix, "10.0.0.2").is_none();
    let itself = text("", "any");
    assert!(hidden(&itself, "203.0.113.0/24") && !hidden(&itself, PREFIX));
    let hosts = text(", masklength-range = \"32..32\"", "any");
    assert!(hidden(&hosts, PREFIX) && !hidden(&hosts, "203.0.113.0/24"));
    let others = text("", "invert");
    assert!(hidden(&others, "198.51.100.1/32") && !hidden(&others, "2001:db8::1/128"));
}

#[test]
fn what_is_not_understood_is_left_out_and_named() {
    let policy = of(r#"
        [[policy-definitions.statements]]
        name = "odd"
        conditions.bgp-conditions.match-community-set = {community-set = "x"}
        actions.route-disposition = "reject-route"
        [[policy-definitions.statements]]
        name = "half"
        actions.bgp-actions.set-route-origin = "egp"
        actions.bgp-actions.set-next-hop = "unchanged"
        actions.bgp-actions.set-community = {options = "remove", set-community-method.communities-list = ["^65000:.*$", "65000:1"]}
        actions.bgp-actions.set-as-path-prepend = {as = "last-as", repeat-n = 3}
        "#);
    assert_eq!(
        policy.left_out,
        [
            "out, statement odd, because of match-community-set",
            "out, statement half, set-community ^65000:.*$",
            "out, statement half, set-next-hop unchanged",
            "out, statement half, set-as-path-prepend of \"last-as\"",
            "out, statement half, set-route-origin",
        ]
    );
    let attributes = told(&policy, PREFIX, "10.0.0.2").unwrap();
    assert!(attributes.communities.is_empty());
}

#[test]
fn a_text_that_is_no_policy_says_where() {
    let fault = |text: &str| text.parse::<Policy>().unwrap_err();
    let broken = fault("a = 1\nb\n");
    assert!(broken.starts_with("line 2: "), "{broken}");
    let undefined = "global.apply-policy.config.export-policy-list = [\"nowhere\"]";
    assert!(fault(undefined).contains("no policy \"nowhere\" is defined"));
    let wrong = "global.apply-policy.config.default-export-policy = \"maybe\"";
    assert!(fault(wrong).contains("accept-route"));
}

#[test]
fn peers_with_equal_routes_share_them() {
    let policy = statement(
        r#"
        conditions.match-neighbor-set.neighbor-set = "spines"
        actions.bgp-actions.set-med = 7
        "#,
    );
    let mut routes = RouteSet::new();
    let only = PeerSelection::Only(Arc::new(["a".into(), "b".into(), "c".into()].into()));
    for prefix in [PREFIX, "203.0.113.6/32"] {
        routes.insert(prefix.parse().unwrap(), Arc::default(), only.clone());
    }
    let peers = [
        ("a".into(), Some("10.0.0.1".parse().unwrap())),
        ("b".into(), Some("10.1.0.1".parse().unwrap())),
        ("c".into(), Some("10.2.0.1".parse().unwrap())),
        ("d".into(), Some("10.3.0.1".parse().unwrap())),
    ];
    let set = policy.apply(&routes, &peers.into(), 65000);
    assert_eq!(set.len(), 2);
    let med = |prefix: &str, peer| {
        let prefix = prefix.parse().unwrap();
        let mut paths = set.paths(&prefix).iter();
        let path = paths.find(|path| path.peers.contains(peer));
        path.map(|path| path.attributes.med)
    };
    assert_eq!(med(PREFIX, "a"), Some(Some(7)));
    assert_eq!(med(PREFIX, "b"), Some(Some(7)));
    assert_eq!(med(PREFIX, "c"), Some(None));
    assert_eq!(med(PREFIX, "d"), None, "not meant for it");
    let [first, second] = [PREFIX, "203.0.113.6/32"].map(|prefix| prefix.parse().unwrap());
    assert!(Arc::ptr_eq(
        &set.paths(&first)[0].attributes,
        &set.paths(&second)[0].attributes
    ));
}
