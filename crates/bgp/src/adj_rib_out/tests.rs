//! What a peer would hold after our messages, against what is desired.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::community::Community;
use crate::export::LocalAddresses;
use crate::message::read_update;
use crate::route::{NextHop, PeerSelection};

fn style(add_path: bool) -> Style {
    Style {
        local_as: 65001,
        internal: false,
        four_octet_as: true,
        add_path: if add_path {
            Family::ALL.to_vec()
        } else {
            Vec::new()
        },
        limit: 4096,
    }
}

fn towards(add_path: bool) -> Exporter {
    Exporter {
        peer: "p".into(),
        add_path: style(add_path).add_path,
        addresses: LocalAddresses {
            v4: Some("192.0.2.1".parse().unwrap()),
            v6: Some("2001:db8::1".parse().unwrap()),
            link_local: None,
        },
        extended_next_hop: false,
        over_v6: false,
        shutting_down: false,
    }
}

/// The other side: what it was told, read from the octets alone.
#[derive(Debug, Default)]
struct Receiver {
    holds: BTreeMap<Nlri, (Option<IpAddr>, Vec<u32>)>,
    messages: usize,
    ends: usize,
    markers: Vec<u8>,
}

impl Receiver {
    fn take(&mut self, octets: &[u8], style: &Style) {
        self.messages += 1;
        assert!(octets.len() <= style.limit);
        if octets[18] == 5 {
            self.markers.push(octets[21]);
            return;
        }
        let read = read_update(octets, style);
        if read.announced.is_empty() && read.withdrawn.is_empty() {
            self.ends += 1;
        }
        for nlri in &read.withdrawn {
            assert!(self.holds.remove(nlri).is_some(), "{nlri:?} was not held");
        }
        for nlri in read.announced {
            let entry = (read.next_hop, read.communities.clone());
            self.holds.insert(nlri, entry);
        }
    }

    fn drain(&mut self, rib: &mut AdjRibOut, style: &Style, at_most: usize) {
        for _ in 0..at_most {
            let mut out = BytesMut::new();
            if !rib.next_message(&mut out) {
                assert!(rib.is_idle());
                return;
            }
            self.take(&out, style);
        }
    }

    fn digest(&self, family: Family) -> Digest {
        let prefixes: BTreeSet<IpNet> = self
            .holds
            .keys()
            .map(|nlri| nlri.prefix)
            .filter(|prefix| Family::of(prefix) == family)
            .collect();
        prefixes.into_iter().collect()
    }
}

fn many(count: u32, attributes: &Arc<Attributes>) -> RouteSet {
    (0..count)
        .map(|i| {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 + i);
            (IpNet::new(ip.into(), 32).unwrap(), Arc::clone(attributes))
        })
        .collect()
}

#[test]
fn ten_thousand_routes_leave_in_tens_of_messages() {
    let (style, towards) = (style(false), towards(false));
    let mut rib = AdjRibOut::new(style.clone(), &Family::ALL, false);
    let mut peer = Receiver::default();
    let routes = many(10_000, &Arc::default());
    rib.plan(&routes, &towards);
    peer.drain(&mut rib, &style, usize::MAX);
    assert_eq!(peer.holds.len(), 10_000);
    assert!(peer.messages < 20, "{}", peer.messages);
    let state = rib.families()[&Family::Ipv4];
    assert_eq!(state.advertised, routes.expected("p", Family::Ipv4));
    // And away again.
    peer.messages = 0;
    rib.plan(&RouteSet::new(), &towards);
    peer.drain(&mut rib, &style, usize::MAX);
    assert!(peer.holds.is_empty() && peer.messages < 20);
}

#[test]
fn an_equal_set_says_nothing_even_if_attributes_are_not_shared() {
    let (style, towards) = (style(false), towards(false));
    let mut rib = AdjRibOut::new(style.clone(), &Family::ALL, false);
    let mut peer = Receiver::default();
    rib.plan(&many(100, &Arc::default()), &towards);
    peer.drain(&mut rib, &style, usize::MAX);
    peer.messages = 0;
    let unshared: RouteSet = many(100, &Arc::default())
        .iter()
        .map(|(prefix, _)| (*prefix, Arc::new(Attributes::default())))
        .collect();
    rib.plan(&unshared, &towards);
    peer.drain(&mut rib, &style, usize::MAX);
    assert_eq!(peer.messages, 0);
}

#[test]
fn end_of_rib_waits_for_a_complete_set_and_comes_once() {
    let (style, towards) = (style(false), towards(false));
    let mut rib = AdjRibOut::new(style.clone(), &Family::ALL, false);
    let mut peer = Receiver::default();
    let mut partial = RouteSet::incomplete();
    let prefix = "10.0.0.0/8".parse().unwrap();
    partial.insert(prefix, Arc::default(), PeerSelection::All);
    rib.plan(&partial, &towards);
    peer.drain(&mut rib, &style, usize::MAX);
    assert_eq!((peer.holds.len(), peer.ends), (1, 0));
    for _ in 0..2 {
        rib.plan(&many(3, &Arc::default()), &towards);
        peer.drain(&mut rib, &style, usize::MAX);
        assert_eq!((peer.holds.len(), peer.ends), (3, 2));
    }
}

#[test]
fn a_refresh_repeats_one_family_between_markers() {
    let (style, towards) = (style(false), towards(false));
    let mut rib = AdjRibOut::new(style.clone(), &Family::ALL, true);
    let mut peer = Receiver::default();
    let routes = many(5, &Arc::default());
    rib.plan(&routes, &towards);
    peer.drain(&mut rib, &style, usize::MAX);
    peer.holds.clear();
    rib.refresh(Family::Ipv4);
    rib.plan(&routes, &towards);
    peer.drain(&mut rib, &style, usize::MAX);
    assert_eq!(peer.holds.len(), 5);
    assert_eq!(peer.markers, [1, 2]);
    rib.refresh(Family::Ipv6);
    rib.plan(&routes, &towards);
    peer.holds.clear();
    peer.drain(&mut rib, &style, usize::MAX);
    assert!(peer.holds.is_empty());
}

#[test]
fn a_route_that_cannot_be_sent_is_counted_and_no_longer_held() {
    let (style, towards) = (style(false), towards(false));
    let mut rib = AdjRibOut::new(style.clone(), &Family::ALL, false);
    let mut peer = Receiver::default();
    rib.plan(&many(1, &Arc::default()), &towards);
    peer.drain(&mut rib, &style, usize::MAX);
    let huge = Arc::new(Attributes {
        communities: (0..2000).map(Community).collect(),
        ..Attributes::default()
    });
    rib.plan(&many(1, &huge), &towards);
    peer.drain(&mut rib, &style, usize::MAX);
    assert!(peer.holds.is_empty());
    let state = rib.families()[&Family::Ipv4];
    assert_eq!((state.unsendable, state.advertised.count()), (1, 0));
}

#[test]
fn add_path_identifiers_stay_while_their_next_hop_does() {
    let (style, towards) = (style(true), towards(true));
    let mut rib = AdjRibOut::new(style.clone(), &Family::ALL, false);
    let mut peer = Receiver::default();
    let via = |ip: &str| {
        Arc::new(Attributes {
            next_hop: NextHop::Address(ip.parse().unwrap()),
            ..Attributes::default()
        })
    };
    let prefix: IpNet = "10.0.0.0/8".parse().unwrap();
    let set = |ips: &[&str]| {
        let mut set = RouteSet::new();
        for ip in ips {
            set.insert(prefix, via(ip), PeerSelection::All);
        }
        set
    };
    rib.plan(&set(&["192.0.2.7", "192.0.2.8"]), &towards);
    peer.drain(&mut rib, &style, usize::MAX);
    assert_eq!(peer.holds.len(), 2);
    let before = peer.holds.clone();
    rib.plan(&set(&["192.0.2.8"]), &towards);
    peer.drain(&mut rib, &style, usize::MAX);
    assert_eq!(peer.holds.len(), 1);
    let (kept, _) = peer.holds.iter().next().unwrap();
    assert_eq!(before[kept].0, Some("192.0.2.8".parse().unwrap()));
    assert_eq!(rib.families()[&Family::Ipv4].advertised.count(), 1);
}

/// A small world, so that sets overlap: 12 prefixes, 4 attributes, 2 peers.
fn sets() -> impl Strategy<Value = RouteSet> {
    let path = (0_usize..12, 0_usize..4, 0_u8..4);
    (prop::collection::vec(path, 0..20), any::<bool>()).prop_map(|(paths, complete)| {
        let kinds: Vec<Arc<Attributes>> = (0..4_u32)
            .map(|kind| {
                Arc::new(Attributes {
                    communities: (0..kind).map(Community).collect(),
                    next_hop: match kind {
                        0 | 1 => NextHop::Local,
                        2 => NextHop::Address("192.0.2.77".parse().unwrap()),
                        _ => NextHop::Address("2001:db8::77".parse().unwrap()),
                    },
                    ..Attributes::default()
                })
            })
            .collect();
        let mut set = if complete {
            RouteSet::new()
        } else {
            RouteSet::incomplete()
        };
        for (prefix, kind, who) in paths {
            let prefix = if prefix < 6 {
                format!("10.0.{prefix}.0/24")
            } else {
                format!("2001:db8:{prefix}::/48")
            };
            let who = match who {
                0 => PeerSelection::Only(Arc::new(["other".into()].into())),
                1 => PeerSelection::Only(Arc::new(["p".into()].into())),
                _ => PeerSelection::All,
            };
            set.insert(prefix.parse().unwrap(), Arc::clone(&kinds[kind]), who);
        }
        set
    })
}

/// Next hop and communities of the paths held, by prefix.
type Held = BTreeMap<IpNet, BTreeSet<(Option<IpAddr>, Vec<u32>)>>;

/// What the peer should hold, made out the slow way.
fn model(desired: &RouteSet, towards: &Exporter) -> Held {
    let mut model = BTreeMap::new();
    for (prefix, paths) in desired.iter() {
        let family = Family::of(prefix);
        let mut held: BTreeSet<(Option<IpAddr>, Vec<u32>)> = BTreeSet::new();
        for path in paths.iter().filter(|path| path.peers.contains("p")) {
            if let Some(exported) = towards.export(family, &path.attributes) {
                let seen = held
                    .iter()
                    .any(|(next_hop, _)| *next_hop == Some(exported.next_hop));
                if !seen {
                    let communities = path.attributes.communities.iter().map(|c| c.0).collect();
                    held.insert((Some(exported.next_hop), communities));
                }
                if towards.add_path.is_empty() {
                    break;
                }
            }
        }
        if !held.is_empty() {
            model.insert(*prefix, held);
        }
    }
    model
}

/// Prefixes of a family that are meant for the peer and cannot be sent to it, counted the slow way.
fn unsendable(desired: &RouteSet, family: Family, towards: &Exporter) -> u64 {
    let stuck = desired.iter().filter(|(prefix, paths)| {
        let mut meant = paths
            .iter()
            .filter(|path| path.peers.contains("p"))
            .map(|path| towards.export(family, &path.attributes))
            .peekable();
        Family::of(prefix) == family && meant.peek().is_some() && meant.all(|path| path.is_none())
    });
    u64::try_from(stuck.count()).unwrap()
}

proptest! {
    #[test]
    fn whatever_changes_the_peer_ends_up_with_what_is_desired(
        steps in prop::collection::vec((sets(), 0_usize..6, prop::bool::weighted(0.2)), 1..12),
        add_path: bool,
    ) {
        let (style, towards) = (style(add_path), towards(add_path));
        let mut rib = AdjRibOut::new(style.clone(), &Family::ALL, true);
        let mut peer = Receiver::default();
        let mut last = RouteSet::new();
        for (desired, messages, refresh) in steps {
            if refresh {
                rib.refresh(Family::Ipv4);
            }
            rib.plan(&desired, &towards);
            // The connection may take only some before the next change.
            peer.drain(&mut rib, &style, messages);
            last = desired;
        }
        rib.plan(&last, &towards);
        peer.drain(&mut rib, &style, usize::MAX);
        let mut held: Held = BTreeMap::new();
        for (nlri, entry) in &peer.holds {
            held.entry(nlri.prefix).or_default().insert(entry.clone());
        }
        prop_assert_eq!(held, model(&last, &towards));
        for family in Family::ALL {
            let state = rib.families()[&family];
            prop_assert_eq!(state.advertised, peer.digest(family));
            prop_assert_eq!(state.unsendable, unsendable(&last, family, &towards));
        }
        // Nothing is left to say, and saying it again changes nothing.
        let before = peer.messages;
        rib.plan(&last, &towards);
        peer.drain(&mut rib, &style, usize::MAX);
        prop_assert_eq!(peer.messages, before);
    }
}
