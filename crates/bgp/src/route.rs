//! What is to be announced: the complete desired set of routes.
//!
//! A [`RouteSet`] that was sent through the watch channel is never edited: the
//! caller edits a clone, which shares with it all that stays, or computes a new
//! one; the speaker announces the difference to what each peer has. A clone
//! costs nothing, and finding the difference between relatives no more than
//! there is. Attributes are shared by `Arc`, so a set of many routes with few
//! kinds of attributes is small.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ipnet::IpNet;

use crate::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::config::PeerName;
use crate::digest::Digest;
use crate::family::Family;

/// The ORIGIN attribute (RFC 4271 §5.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Interior to the originating AS.
    #[default]
    Igp,
    /// Learned by EGP.
    Egp,
    /// By other means.
    Incomplete,
}

/// Where traffic for the prefix is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// The local address of the session; for the other family, an address of
    /// the same interface, or RFC 8950 where negotiated.
    #[default]
    Local,
    /// This address, of the prefix's family (or IPv6 for an IPv4 prefix where
    /// RFC 8950 is negotiated).
    Address(IpAddr),
}

/// Path attributes of routes, shared between the routes that carry them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes {
    /// NEXT_HOP.
    pub next_hop: NextHop,
    /// ORIGIN.
    pub origin: Origin,
    /// LOCAL_PREF, sent to internal peers only; 100 where `None`.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// How often the local AS stands in AS_PATH beyond what the protocol asks
    /// for.
    pub prepend: u8,
    /// Communities (RFC 1997).
    pub communities: BTreeSet<Community>,
    /// Large communities (RFC 8092).
    pub large_communities: BTreeSet<LargeCommunity>,
    /// Extended communities (RFC 4360).
    pub extended_communities: BTreeSet<ExtendedCommunity>,
}

/// Which peers get a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PeerSelection {
    /// Every peer.
    #[default]
    All,
    /// Those named.
    Only(Arc<BTreeSet<PeerName>>),
}

impl PeerSelection {
    /// Whether the named peer is selected.
    #[must_use]
    pub fn contains(&self, peer: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(peers) => peers.contains(peer),
        }
    }
}

/// One way to announce a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The attributes.
    pub attributes: Arc<Attributes>,
    /// Who gets it.
    pub peers: PeerSelection,
}

/// The complete set of routes to announce.
///
/// A prefix may have several paths. A peer gets the first of those that
/// select it and have a next hop that can be sent; with
/// [`crate::PeerConfig::add_path_send`] negotiated, the first per next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSet {
    paths: OrdMap<IpNet, Arc<[Path]>>,
    complete: bool,
}

impl Default for RouteSet {
    fn default() -> Self {
        Self {
            paths: OrdMap::new(),
            complete: true,
        }
    }
}

impl RouteSet {
    /// An empty set that is complete: everything is to be withdrawn.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A set that the caller has not finished to compute. Its routes are
    /// announced, but no End-of-RIB follows, so that a peer which kept our
    /// routes over a restart keeps them until the set is complete.
    #[must_use]
    pub fn incomplete() -> Self {
        Self {
            complete: false,
            ..Self::default()
        }
    }

    /// Adds a path for a prefix (host bits are cleared), after those it has.
    pub fn insert(&mut self, prefix: IpNet, attributes: Arc<Attributes>, peers: PeerSelection) {
        let prefix = prefix.trunc();
        let path = Path { attributes, peers };
        let paths = self.paths(&prefix).iter().cloned().chain([path]).collect();
        self.set(prefix, paths);
    }

    /// Gives a prefix (host bits are cleared) these paths in place of those it has.
    /// Without any it is no longer announced.
    pub fn set(&mut self, prefix: IpNet, paths: Vec<Path>) {
        let prefix = prefix.trunc();
        if paths.is_empty() {
            self.paths.remove(&prefix);
        } else if self.paths(&prefix) != paths {
            self.paths.insert(prefix, paths.into());
        }
    }

    /// Whether the set is complete; see [`Self::incomplete`].
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Number of prefixes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether nothing is to be announced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The prefixes with their paths, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &[Path])> {
        self.paths.iter().map(|(prefix, paths)| (prefix, &**paths))
    }

    /// The paths of a prefix; none where it is not in the set.
    #[must_use]
    pub fn paths(&self, prefix: &IpNet) -> &[Path] {
        self.paths.get(prefix).map_or(&[], |paths| paths)
    }

    /// The prefixes whose paths differ from those in `older`, in order, with
    /// the paths there and here.
    pub(crate) fn since<'a>(
        &'a self,
        older: &'a Self,
    ) -> impl Iterator<Item = (IpNet, &'a [Path], &'a [Path])> {
        older.paths.diff(&self.paths).map(|item| match item {
            DiffItem::Add(prefix, new) => (*prefix, &[][..], &**new),
            DiffItem::Update {
                old: (_, old),
                new: (prefix, new),
            } => (*prefix, &**old, &**new),
            DiffItem::Remove(prefix, old) => (*prefix, &**old, &[][..]),
        })
    }

    /// What the named peer should hold of one family once everything is
    /// announced: to be compared with [`crate::FamilySnapshot::advertised`].
    #[must_use]
    pub fn expected(&self, peer: &str, family: Family) -> Digest {
        self.iter()
            .filter(|(prefix, paths)| {
                Family::of(prefix) == family && paths.iter().any(|path| path.peers.contains(peer))
            })
            .map(|(prefix, _)| *prefix)
            .collect()
    }
}

/// Prefix with attributes, for every peer.
impl FromIterator<(IpNet, Arc<Attributes>)> for RouteSet {
    fn from_iter<I: IntoIterator<Item = (IpNet, Arc<Attributes>)>>(routes: I) -> Self {
        let mut set = Self::new();
        for (prefix, attributes) in routes {
            set.insert(prefix, attributes, PeerSelection::All);
        }
        set
    }
}
