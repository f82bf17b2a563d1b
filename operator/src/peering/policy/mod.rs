//! BGP policy: what a ConfigMap in GoBGP's form (`BgpConf.spec.policy`) does to the routes that are announced.
//!
//! Only export matters here: every route is our own, and none is taken from peers. [`read`] makes a [`Policy`] of the
//! text and names what it leaves out; [`Policy::apply`] gives each peer its routes. Pure, and shared by speaker and
//! controller, who must come to the same result.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use openelb_bgp::{
    Attributes, Community, ExtendedCommunity, Family, LargeCommunity, NextHop, Path, PeerName,
    PeerSelection, RouteSet,
};

/// The key of the ConfigMap.
pub(crate) const KEY: &str = "gobgp.conf";

/// A policy, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    statements: Vec<Statement>,
    /// What no statement decides is not announced.
    reject: bool,
    /// What was written and has no effect, in words.
    pub(crate) left_out: Vec<String>,
}

/// One statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Statement {
    prefixes: Option<Prefixes>,
    neighbors: Option<Neighbors>,
    families: Vec<Family>,
    actions: Vec<Action>,
    /// `true` announces, `false` does not, and `None` goes on to the next statement.
    accept: Option<bool>,
}

/// Prefixes of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Prefixes {
    entries: Vec<(IpNet, std::ops::RangeInclusive<u8>)>,
    invert: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Neighbors {
    addresses: Vec<IpNet>,
    invert: bool,
}

/// How a set is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
    Replace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Communities(Change, BTreeSet<Community>),
    Large(Change, BTreeSet<LargeCommunity>),
    Extended(Change, BTreeSet<ExtendedCommunity>),
    Med(u32),
    MedBy(i64),
    LocalPref(u32),
    /// So often, where the AS number is our own.
    Prepend(u32, u8),
    NextHop(NextHop),
}

impl Prefixes {
    fn matches(&self, prefix: &IpNet) -> bool {
        // As in GoBGP, a set says nothing of the other family, not even inverted.
        let family = self.entries.first().map(|(net, _)| Family::of(net));
        if family != Some(Family::of(prefix)) {
            return false;
        }
        let within = |(net, lengths): &(IpNet, std::ops::RangeInclusive<u8>)| {
            net.contains(&prefix.network()) && lengths.contains(&prefix.prefix_len())
        };
        self.entries.iter().any(within) != self.invert
    }
}

impl Neighbors {
    fn matches(&self, peer: Option<IpAddr>) -> bool {
        if self.addresses.is_empty() {
            return true;
        }
        peer.is_some_and(|peer| self.addresses.iter().any(|net| net.contains(&peer)) != self.invert)
    }
}

impl Statement {
    fn matches(&self, prefix: &IpNet, peer: Option<IpAddr>) -> bool {
        self.prefixes.as_ref().is_none_or(|set| set.matches(prefix))
            && self.neighbors.as_ref().is_none_or(|set| set.matches(peer))
            && (self.families.is_empty() || self.families.contains(&Family::of(prefix)))
    }
}

impl Action {
    fn apply(&self, attributes: &mut Attributes, own_as: u32) {
        match self {
            Self::Communities(change, set) => change.apply(&mut attributes.communities, set),
            Self::Large(change, set) => change.apply(&mut attributes.large_communities, set),
            Self::Extended(change, set) => change.apply(&mut attributes.extended_communities, set),
            Self::Med(med) => attributes.med = Some(*med),
            Self::MedBy(by) => {
                let sum = i64::from(attributes.med.unwrap_or(0)).saturating_add(*by);
                // What cannot be is not done, as in GoBGP.
                if let Ok(sum) = u32::try_from(sum) {
                    attributes.med = Some(sum);
                }
            }
            Self::LocalPref(preference) => attributes.local_pref = Some(*preference),
            Self::Prepend(number, times) if *number == own_as => {
                attributes.prepend = attributes.prepend.saturating_add(*times);
            }
            Self::Prepend(..) => {}
            Self::NextHop(next_hop) => attributes.next_hop = *next_hop,
        }
    }
}

impl Change {
    fn apply<T: Ord + Copy>(self, set: &mut BTreeSet<T>, by: &BTreeSet<T>) {
        match self {
            Self::Add => set.extend(by),
            Self::Remove => set.retain(|one| !by.contains(one)),
            Self::Replace => set.clone_from(by),
        }
    }
}

impl Policy {
    /// What becomes of one route towards one peer; `None` where it is not announced.
    fn route(
        &self,
        prefix: &IpNet,
        peer: Option<IpAddr>,
        attributes: &Attributes,
        own_as: u32,
    ) -> Option<Attributes> {
        let mut attributes = attributes.clone();
        for statement in &self.statements {
            if !statement.matches(prefix, peer) {
                continue;
            }
            if statement.accept == Some(false) {
                return None;
            }
            for action in &statement.actions {
                action.apply(&mut attributes, own_as);
            }
            if statement.accept == Some(true) {
                return Some(attributes);
            }
        }
        (!self.reject).then_some(attributes)
    }

    /// The routes as each of these peers is to have them. A peer whose address is found only later has none here.
    pub(crate) fn apply(
        &self,
        routes: &RouteSet,
        peers: &BTreeMap<PeerName, Option<IpAddr>>,
        own_as: u32,
    ) -> RouteSet {
        let mut set = RouteSet::new();
        // Equal attributes and equal sets of peers are kept once.
        let mut kinds: BTreeSet<Arc<Attributes>> = BTreeSet::new();
        let mut groups: BTreeSet<Arc<BTreeSet<PeerName>>> = BTreeSet::new();
        for (prefix, paths) in routes.iter() {
            for Path {
                attributes,
                peers: selection,
            } in paths
            {
                let mut told: BTreeMap<Attributes, BTreeSet<PeerName>> = BTreeMap::new();
                for (name, address) in peers {
                    if !selection.contains(name) {
                        continue;
                    }
                    if let Some(new) = self.route(prefix, *address, attributes, own_as) {
                        told.entry(new).or_default().insert(name.clone());
                    }
                }
                for (attributes, names) in told {
                    let selection = PeerSelection::Only(shared(&mut groups, names));
                    set.insert(*prefix, shared(&mut kinds, attributes), selection);
                }
            }
        }
        set
    }
}

fn shared<T: Ord>(known: &mut BTreeSet<Arc<T>>, value: T) -> Arc<T> {
    if let Some(shared) = known.get(&value) {
        return shared.clone();
    }
    let shared = Arc::new(value);
    known.insert(shared.clone());
    shared
}

#[cfg(test)]
mod tests;
