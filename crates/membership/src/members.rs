//! Who is alive, as every part of the speaker sees it.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::Bytes;

/// What a node tells all others about itself besides being alive.
///
/// It travels as an own message beside the gossip: on every change to all members, to each member
/// that appears, and to all again every few seconds, so a lost packet is made good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The node has been a member for long enough to be given an address that another leads now.
    pub steady: bool,
    /// The node is about to leave (shutdown or drain): alive and still answering, but it must not
    /// be elected any more.
    pub leaving: bool,
    /// What the speaker attached, at most [`Facts::MAX_ATTACHMENT`] bytes; for layer 2 the node's
    /// usable interfaces (`openelb_layer2::Ability`), from which every node works out for which
    /// addresses this one is able.
    pub attachment: Bytes,
}

impl Facts {
    /// Bound of the attachment in bytes, so that a message fits one unfragmented packet.
    pub const MAX_ATTACHMENT: usize = 1024;
}

/// A live speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where its membership messages come from and go to.
    pub address: SocketAddr,
    /// What it said about itself; `None` until heard, and then it cannot be elected.
    pub facts: Option<Facts>,
}

/// A complete view of the membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// This node's name.
    pub me: String,
    /// Whether this view may be acted on: at least one other member was met, or there is nobody to
    /// be met, or meeting them took too long. While `false` (the first second after a start, or
    /// after the process was paused) nobody takes an address.
    pub settled: bool,
    /// Whether steady members go before others: not while a company that started together forms,
    /// whose members become steady one after the other.
    pub formed: bool,
    /// Live members by node name, this node included.
    pub alive: BTreeMap<String, Member>,
    /// The last facts of members that died or left, by node name, at most
    /// [`Members::MAX_DEPARTED`]: a frame on the LAN may still come from one of them.
    pub departed: BTreeMap<String, Facts>,
}

impl Members {
    /// Bound of [`Members::departed`].
    pub const MAX_DEPARTED: usize = 256;

    /// Live members that may be elected as far as membership goes: not leaving, facts known, and
    /// `able` says yes to their facts. Of a company that has formed steady ones only, unless none of
    /// them is steady.
    ///
    /// The result is in name order and feeds [`crate::leader`].
    pub fn electable(&self, able: impl Fn(&str, &Facts) -> bool) -> Vec<&str> {
        let able: Vec<(&str, bool)> = self
            .alive
            .iter()
            .filter_map(|(node, member)| {
                let facts = member.facts.as_ref()?;
                (!facts.leaving && able(node, facts)).then_some((node.as_str(), facts.steady))
            })
            .collect();
        let steady_first = self.formed && able.iter().any(|(_, steady)| *steady);
        able.into_iter()
            .filter(|(_, steady)| *steady || !steady_first)
            .map(|(node, _)| node)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(all: &[(&str, bool, bool)]) -> Members {
        let alive = all
            .iter()
            .map(|(name, steady, leaving)| {
                let facts = Facts {
                    steady: *steady,
                    leaving: *leaving,
                    attachment: Bytes::new(),
                };
                let address = SocketAddr::from(([192, 0, 2, 1], 7946));
                (
                    (*name).to_owned(),
                    Member {
                        address,
                        facts: Some(facts),
                    },
                )
            })
            .collect();
        Members {
            alive,
            settled: true,
            formed: true,
            ..Members::default()
        }
    }

    #[test]
    fn a_returning_node_is_not_elected_before_it_is_steady() {
        let mut members = members(&[("a", true, false), ("b", false, false), ("c", true, false)]);
        assert_eq!(members.electable(|_, _| true), ["a", "c"]);
        assert_eq!(
            members.electable(|node, _| node == "b"),
            ["b"],
            "better than nobody"
        );
        members.formed = false;
        assert_eq!(
            members.electable(|_, _| true),
            ["a", "b", "c"],
            "all started together"
        );
    }

    #[test]
    fn a_leaving_node_and_one_without_facts_are_never_elected() {
        let mut members = members(&[("a", true, true), ("b", false, false)]);
        members.alive.get_mut("b").unwrap().facts = None;
        assert!(members.electable(|_, _| true).is_empty());
    }
}
