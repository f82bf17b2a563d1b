//! What rules know of the cluster besides the object in question.
//!
//! A [`View`] is plain data, made from watched objects by whoever watches them: one task that
//! applies changes and publishes a copy. Its parts are shared, so a copy costs little.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{Span, Spans};
use crate::{
    Invalid, Labels, Pool, RangeSet,
    bgp::{Neighbor, Peer},
    v1alpha2::{AddressHolder, Eip, EipAddress},
};

/// What rules compare with.
#[derive(Clone, Debug, Default)]
pub struct View {
    eips: Arc<BTreeMap<String, Arc<EipFacts>>>,
    spans: Arc<Spans<Arc<EipFacts>>>,
    holdings: Arc<BTreeMap<IpAddr, Arc<Holding>>>,
    nodes: Arc<BTreeMap<String, NodeFacts>>,
    node_addresses: Arc<BTreeMap<IpAddr, String>>,
    peers: Arc<BTreeMap<String, PeerFacts>>,
    /// The local AS of the BgpConf `default`, where there is one and it is every node's.
    pub local_as: Option<u32>,
}

/// An Eip that was understood, with what rules look up often.
#[derive(Clone, Debug, PartialEq)]
pub struct EipFacts {
    /// The Eip as a pool.
    pub pool: Pool,
    /// What `spec.address` says, for messages.
    pub address: String,
    /// The addresses that belong to it: named and not excluded.
    pub kept: RangeSet,
}

impl TryFrom<&Eip> for EipFacts {
    type Error = Invalid;

    fn try_from(eip: &Eip) -> Result<Self, Self::Error> {
        let pool = Pool::try_from(eip)?;
        let kept = pool.addresses.named.without(&pool.addresses.excluded);
        Ok(Self {
            pool,
            address: eip.spec.address.clone(),
            kept,
        })
    }
}

/// Who has an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The Eip it came from.
    pub eip: String,
    /// Whether it is set aside by hand.
    pub is_reserved: bool,
    /// `namespace/name` of Services that may take it although it is set aside.
    pub reserved_for: Vec<String>,
    /// The Services on it.
    pub services: Vec<AddressHolder>,
}

impl From<&EipAddress> for Holding {
    fn from(address: &EipAddress) -> Self {
        Self {
            eip: address.spec.eip.clone(),
            is_reserved: address.spec.reserved,
            reserved_for: address.spec.reserved_for.clone(),
            services: address.spec.services.clone(),
        }
    }
}

impl Holding {
    /// Who has it, as `namespace/name`, several joined by commas.
    #[must_use]
    pub fn holders(&self) -> String {
        let names: Vec<String> = self
            .services
            .iter()
            .map(|service| format!("{}/{}", service.namespace, service.name))
            .collect();
        names.join(", ")
    }
}

/// What rules need of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses, internal and external.
    pub addresses: Vec<IpAddr>,
}

/// What rules need of a BgpPeer.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerFacts {
    /// Where the neighbour is.
    pub neighbor: Neighbor,
    /// The nodes it is for.
    pub nodes: Labels,
}

impl From<&Peer> for PeerFacts {
    fn from(peer: &Peer) -> Self {
        Self {
            neighbor: peer.neighbor.clone(),
            nodes: peer.nodes.clone(),
        }
    }
}

impl View {
    /// Adds or replaces Eips, and removes others, in one go.
    pub fn change_eips(&mut self, change: impl FnOnce(&mut BTreeMap<String, Arc<EipFacts>>)) {
        change(Arc::make_mut(&mut self.eips));
        let spans = self.eips.values().flat_map(|eip| {
            eip.kept.ranges().map(|range| Span {
                first: range.first(),
                last: range.last(),
                owner: Arc::clone(eip),
            })
        });
        self.spans = Arc::new(spans.collect());
    }

    /// Adds, replaces or removes what is known of addresses.
    pub fn change_holdings(&mut self, change: impl FnOnce(&mut BTreeMap<IpAddr, Arc<Holding>>)) {
        change(Arc::make_mut(&mut self.holdings));
    }

    /// Adds, replaces or removes Nodes.
    pub fn change_nodes(&mut self, change: impl FnOnce(&mut BTreeMap<String, NodeFacts>)) {
        change(Arc::make_mut(&mut self.nodes));
        let addresses = self
            .nodes
            .iter()
            .flat_map(|(name, node)| node.addresses.iter().map(|ip| (*ip, name.clone())));
        self.node_addresses = Arc::new(addresses.collect());
    }

    /// Adds, replaces or removes BgpPeers.
    pub fn change_peers(&mut self, change: impl FnOnce(&mut BTreeMap<String, PeerFacts>)) {
        change(Arc::make_mut(&mut self.peers));
    }

    /// The Eip of that name.
    #[must_use]
    pub fn eip(&self, name: &str) -> Option<&EipFacts> {
        self.eips.get(name).map(Arc::as_ref)
    }

    /// All Eips.
    pub fn eips(&self) -> impl Iterator<Item = &EipFacts> {
        self.eips.values().map(Arc::as_ref)
    }

    /// Ranges of Eips that share an address with `first..=last`; found without a scan.
    pub fn overlapping(
        &self,
        first: IpAddr,
        last: IpAddr,
    ) -> impl Iterator<Item = &Span<Arc<EipFacts>>> {
        self.spans.overlapping(first, last)
    }

    /// Who has an address.
    #[must_use]
    pub fn holding(&self, address: IpAddr) -> Option<&Holding> {
        self.holdings.get(&address).map(Arc::as_ref)
    }

    /// Every address that came from an Eip, with who has it. A scan: for rare questions only.
    pub fn holdings_of<'a>(
        &'a self,
        eip: &'a str,
    ) -> impl Iterator<Item = (IpAddr, &'a Holding)> + 'a {
        self.holdings
            .iter()
            .filter(move |(_, holding)| holding.eip == eip)
            .map(|(address, holding)| (*address, holding.as_ref()))
    }

    /// The first Node that has an address in a range.
    #[must_use]
    pub fn node_within(&self, first: IpAddr, last: IpAddr) -> Option<(IpAddr, &str)> {
        self.node_addresses
            .range(first..=last)
            .next()
            .map(|(address, node)| (*address, node.as_str()))
    }

    /// All Nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeFacts)> {
        self.nodes.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// All BgpPeers.
    pub fn peers(&self) -> impl Iterator<Item = (&str, &PeerFacts)> {
        self.peers.iter().map(|(name, peer)| (name.as_str(), peer))
    }

    /// How many objects are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.eips.len() + self.holdings.len() + self.nodes.len() + self.peers.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
