use openelb_api::v1alpha2::{
    AnnouncedDigest, Announcer, BgpConf, BgpConfSpec, BgpPeer, BgpPeerStatus, NodePeerStatus,
};

use super::*;
use crate::announce::testing::{TestWorld, at, node, service};
use crate::peering::{ConfObject, digest};
use crate::picture::PolicyObject;

fn peer(name: &str, address: &str) -> PeerObject {
    let peer: BgpPeer = serde_json::from_value(json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": name},
        "spec": {"conf": {"neighborAddress": address, "peerAs": 1}}
    }))
    .unwrap();
    PeerObject::read(&peer)
}

fn picture(world: &TestWorld) -> Picture {
    let mut picture = Picture::of(world.build());
    let spec = BgpConfSpec {
        as_number: Some(1),
        ..BgpConfSpec::default()
    };
    picture.conf = Some(ConfObject::read(&BgpConf::new("default", spec)));
    picture
        .peers
        .insert("r".to_owned(), peer("r", "10.0.0.254"));
    picture
}

/// Nodes report to have sent these prefixes to `r`.
fn report(picture: &mut Picture, nodes: &[&str], prefixes: &[&str]) {
    report_to(picture, "r", nodes, prefixes);
}

fn report_to(picture: &mut Picture, peer: &str, nodes: &[&str], prefixes: &[&str]) {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap());
    let (four, six): (Vec<IpNet>, Vec<IpNet>) =
        prefixes.partition(|prefix| Family::of(prefix) == Family::Ipv4);
    let sent = [
        (Family::Ipv4, four.into_iter().collect()),
        (Family::Ipv6, six.into_iter().collect()),
    ];
    let digest: AnnouncedDigest = digest(sent.into_iter());
    let entry = NodePeerStatus {
        announced: Some(digest),
        ..NodePeerStatus::default()
    };
    let entries = nodes.iter().map(|node| ((*node).to_owned(), entry.clone()));
    let status = BgpPeerStatus {
        nodes_peer_status: entries.collect(),
        ..BgpPeerStatus::default()
    };
    picture
        .peer_statuses
        .insert(peer.to_owned(), Arc::new(status));
}

fn of(picture: &Picture, agreed: &mut Agreed) -> (String, String) {
    of_service(picture, agreed, "web", 0)
}

fn of_service(
    picture: &Picture,
    agreed: &mut Agreed,
    service: &str,
    second: i64,
) -> (String, String) {
    let verdict = verdicts(picture, &Silent::default(), agreed, at(second))
        .services
        .remove(&ServiceKey::new("default", service))
        .unwrap();
    (
        format!("{} {}", verdict.status, verdict.reason),
        verdict.message,
    )
}

fn two_nodes() -> TestWorld {
    TestWorld::default()
        .node(node("a"))
        .node(node("b"))
        .service(service("web").ready_on("a"))
}

#[test]
fn nodes_count_where_their_report_agrees() {
    let mut picture = picture(&two_nodes());
    let mut agreed = Agreed::default();
    let (status, text) = of(&picture, &mut agreed);
    assert_eq!(status, "Unknown Unconfirmed");
    assert!(text.contains("0/2 nodes, 0/1 peers, unconfirmed"), "{text}");
    report(&mut picture, &["a"], &["203.0.113.1/32"]);
    assert_eq!(
        of(&picture, &mut agreed).1,
        "203.0.113.1: 1/2 nodes, 1/1 peers"
    );
    report(&mut picture, &["a", "b"], &["203.0.113.1/32"]);
    let expected = (
        "True Announced".to_owned(),
        "203.0.113.1: 2/2 nodes, 1/1 peers".to_owned(),
    );
    assert_eq!(of(&picture, &mut agreed), expected);
}

#[test]
fn a_change_to_another_service_does_not_cast_doubt() {
    let mut picture = picture(&two_nodes());
    let mut agreed = Agreed::default();
    report(&mut picture, &["a", "b"], &["203.0.113.1/32"]);
    of(&picture, &mut agreed);
    picture.world = two_nodes()
        .service(service("dns").addresses(&["203.0.113.2"]).ready_on("a"))
        .build();
    assert_eq!(of(&picture, &mut agreed).0, "True Announced");
    let dns = of_service(&picture, &mut agreed, "dns", 0);
    assert_eq!(dns.0, "Unknown Unconfirmed");
    report(&mut picture, &[], &[]);
    assert_eq!(
        of(&picture, &mut agreed).0,
        "Unknown Unconfirmed",
        "the sessions are down"
    );
}

#[test]
fn peers_of_one_family_count_for_the_addresses_of_that_family() {
    let world = two_nodes().service(
        service("six")
            .addresses(&["2001:db8::1"])
            .ready_on("a")
            .ready_on("b"),
    );
    let mut picture = picture(&world);
    picture
        .peers
        .insert("r6".to_owned(), peer("r6", "2001:db8:ffff::1"));
    report(&mut picture, &["a", "b"], &["203.0.113.1/32"]);
    report_to(&mut picture, "r6", &["a", "b"], &["2001:db8::1/128"]);
    let mut agreed = Agreed::default();
    assert_eq!(
        of(&picture, &mut agreed).1,
        "203.0.113.1: 2/2 nodes, 1/1 peers"
    );
    assert_eq!(
        of_service(&picture, &mut agreed, "six", 0).1,
        "2001:db8::1: 2/2 nodes, 1/1 peers"
    );
    picture.peers.remove("r6");
    let (status, text) = of_service(&picture, &mut agreed, "six", 0);
    assert_eq!(status, "False NoPeer");
    assert!(text.contains("carries IPv6"), "{text}");
}

#[test]
fn a_family_that_the_router_refuses_casts_no_doubt_on_the_other() {
    let world = two_nodes().service(service("six").addresses(&["2001:db8::1"]).ready_on("a"));
    let mut picture = picture(&world);
    let both = json!([
        {"config": {"family": {"afi": "AFI_IP", "safi": "SAFI_UNICAST"}}},
        {"config": {"family": {"afi": "AFI_IP6", "safi": "SAFI_UNICAST"}}}
    ]);
    let dual: BgpPeer = serde_json::from_value(json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": "r"},
        "spec": {"conf": {"neighborAddress": "10.0.0.254", "peerAs": 1}, "afiSafis": both}
    }))
    .unwrap();
    picture
        .peers
        .insert("r".to_owned(), PeerObject::read(&dual));
    report(&mut picture, &["a", "b"], &["203.0.113.1/32"]);
    let mut agreed = Agreed::default();
    assert_eq!(of(&picture, &mut agreed).0, "True Announced");
    let (status, text) = of_service(&picture, &mut agreed, "six", 0);
    assert_eq!(status, "Unknown Unconfirmed");
    assert!(text.contains("0/2 nodes, 0/1 peers"), "{text}");
}

#[test]
fn what_a_policy_holds_back_from_a_peer_is_no_lack_there() {
    let mut picture = picture(&two_nodes());
    picture
        .peers
        .insert("other".to_owned(), peer("other", "10.0.0.253"));
    let spec = BgpConfSpec {
        as_number: Some(1),
        policy: "p".to_owned(),
        ..BgpConfSpec::default()
    };
    picture.conf = Some(ConfObject::read(&BgpConf::new("default", spec)));
    let policy = |held_back: &str| PolicyObject {
        policy: Some(Arc::new(
            format!(
                r#"
                [global.apply-policy.config]
                export-policy-list = ["p"]
                [[defined-sets.neighbor-sets]]
                neighbor-set-name = "n"
                neighbor-info-list = ["{held_back}"]
                [[policy-definitions]]
                name = "p"
                [[policy-definitions.statements]]
                conditions.match-neighbor-set.neighbor-set = "n"
                actions.route-disposition = "reject-route"
                "#
            )
            .parse()
            .unwrap(),
        )),
        fault: None,
    };
    picture
        .policies
        .insert("p".to_owned(), policy("10.0.0.253"));
    report(&mut picture, &["a", "b"], &["203.0.113.1/32"]);
    report_to(&mut picture, "other", &["a", "b"], &[]);
    let mut agreed = Agreed::default();
    assert_eq!(
        of(&picture, &mut agreed).1,
        "203.0.113.1: 2/2 nodes, 1/1 peers"
    );
    picture
        .policies
        .insert("p".to_owned(), policy("10.0.0.0/24"));
    report(&mut picture, &["a", "b"], &[]);
    let (status, text) = of(&picture, &mut agreed);
    assert_eq!(status, "False NoPeer");
    assert!(text.contains("policy"), "{text}");
}

#[test]
fn a_lasting_disagreement_ends_the_confirmation() {
    let mut picture = picture(&two_nodes());
    let mut agreed = Agreed::default();
    report(&mut picture, &["a", "b"], &["203.0.113.1/32"]);
    assert_eq!(of(&picture, &mut agreed).0, "True Announced");
    report(&mut picture, &["a", "b"], &[]);
    let verdicts = verdicts(&picture, &Silent::default(), &mut agreed, at(2));
    assert_eq!(verdicts.recheck_at, Some(at(5)));
    let mut at_second = |second| of_service(&picture, &mut agreed, "web", second).0;
    assert_eq!(at_second(4), "True Announced");
    assert_eq!(at_second(5), "Unknown Unconfirmed");
    assert_eq!(at_second(60), "Unknown Unconfirmed");
}

#[test]
fn while_both_sides_move_on_a_lag_is_no_doubt() {
    let mut picture = picture(&two_nodes());
    let mut agreed = Agreed::default();
    report(&mut picture, &["a", "b"], &["203.0.113.1/32"]);
    assert_eq!(of(&picture, &mut agreed).0, "True Announced");
    let name = |n: i64| format!("203.0.113.{n}");
    for second in 2..40 {
        let new = [name(second)];
        let new: Vec<&str> = new.iter().map(String::as_str).collect();
        picture.world = two_nodes()
            .service(service("dns").addresses(&new).ready_on("a"))
            .build();
        let behind = format!("{}/32", name(second + 100));
        report(&mut picture, &["a", "b"], &["203.0.113.1/32", &behind]);
        let web = of_service(&picture, &mut agreed, "web", second);
        assert_eq!(web.0, "True Announced", "in second {second}");
    }
}

#[test]
fn what_a_node_without_a_speaker_reported_last_does_not_count() {
    let mut picture = picture(&two_nodes());
    report(&mut picture, &["a", "b"], &["203.0.113.1/32"]);
    let silent = Silent {
        nodes: ["b".to_owned()].into(),
        recheck_at: None,
    };
    let mut agreed = Agreed::default();
    let verdicts = verdicts(&picture, &silent, &mut agreed, at(0));
    let web = &verdicts.services[&ServiceKey::new("default", "web")];
    assert_eq!(web.message, "203.0.113.1: 1/2 nodes, 1/1 peers");
}

#[test]
fn an_address_of_a_vip_eip_says_that_it_is_not_announced_yet() {
    let world = two_nodes().pool(|pool| pool.protocol = Protocol::Vip);
    let (status, text) = of(&picture(&world), &mut Agreed::default());
    assert_eq!(status, "False NotSupportedYet");
    assert_eq!(
        text,
        "203.0.113.1: addresses of vip Eips are not announced; use protocol layer2 or bgp"
    );
}

#[test]
fn what_is_missing_is_named() {
    let mut agreed = Agreed::default();
    let idle = TestWorld::default().node(node("a")).service(service("web"));
    assert_eq!(of(&picture(&idle), &mut agreed).0, "False NoEndpoints");
    let excluded = TestWorld::default()
        .node(node("a").excluded())
        .service(service("web").ready_on("a"));
    assert_eq!(of(&picture(&excluded), &mut agreed).0, "False NoNode");
    let mut without = picture(&two_nodes());
    without.peers.clear();
    assert_eq!(of(&without, &mut agreed).0, "False NoPeer");
    without.conf = None;
    assert_eq!(of(&without, &mut agreed).0, "False NoBgpConf");
}

#[test]
fn layer_2_is_told_by_the_announcer() {
    let world = two_nodes().pool(|pool| pool.protocol = Protocol::Layer2);
    let mut picture = picture(&world);
    let mut agreed = Agreed::default();
    assert_eq!(of(&picture, &mut agreed).0, "Unknown Unconfirmed");
    for holding in picture.world.holdings.values_mut() {
        holding.announcers = vec![Announcer {
            node: "b".to_owned(),
            interfaces: vec!["eth0".to_owned()],
            since: None,
        }];
    }
    let expected = (
        "True Announced".to_owned(),
        "203.0.113.1: b on eth0".to_owned(),
    );
    assert_eq!(of(&picture, &mut agreed), expected);
}
