//! Nodes whose speaker is gone: what it last reported is no longer a fact.
//!
//! A speaker that is killed, or whose pod cannot start again, leaves its entries behind, and the Node may be
//! Ready all the same. Kubelet knows: a node counts as silent where it has no ready speaker pod for a while.
//! Where no speaker was ever seen as a pod (one process for all, or no kubelet) nobody can say, and reports
//! are taken as they are.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::picture::Picture;

/// How long a node may be without a ready speaker before its reports stop to count: as long as a pod takes
/// that is replaced, so that an upgrade changes nothing where routers keep the routes.
const GRACE: SignedDuration = SignedDuration::from_secs(10);

/// What is remembered of the nodes.
#[derive(Default)]
pub(super) struct Watchman {
    /// Speakers run as pods here.
    pods_seen: bool,
    /// Since when a node has no ready speaker.
    missing: BTreeMap<String, Timestamp>,
}

/// Which nodes are silent now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Silent {
    pub(super) nodes: BTreeSet<String>,
    /// When the next one will be.
    pub(super) recheck_at: Option<Timestamp>,
}

impl Watchman {
    /// Looks at the pods.
    pub(super) fn look(&mut self, picture: &Picture, now: Timestamp) -> Silent {
        self.pods_seen |= !picture.pods.is_empty();
        if !self.pods_seen {
            return Silent::default();
        }
        let ready = picture.pods.values().filter(|pod| pod.ready);
        let ready: BTreeSet<&str> = ready.map(|pod| pod.node.as_str()).collect();
        let nodes = picture.world.nodes.keys();
        let missing = nodes.filter(|node| !ready.contains(node.as_str()));
        self.missing = missing
            .map(|node| (node.clone(), self.missing.get(node).copied().unwrap_or(now)))
            .collect();
        let mut silent = Silent::default();
        for (node, since) in &self.missing {
            let due = since.saturating_add(GRACE).unwrap_or(Timestamp::MAX);
            if due <= now {
                silent.nodes.insert(node.clone());
            } else {
                let next = silent.recheck_at.get_or_insert(due);
                *next = due.min(*next);
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::testing::{TestWorld, at, node};
    use crate::picture::SpeakerPod;

    fn picture(pods: &[(&str, bool)]) -> Picture {
        let mut picture = Picture::of(TestWorld::default().node(node("a")).node(node("b")).build());
        for (node, ready) in pods {
            let (node, ready) = ((*node).to_owned(), *ready);
            let name = format!("speaker-{node}");
            picture.pods.insert(name, SpeakerPod { node, ready });
        }
        picture
    }

    fn look(watchman: &mut Watchman, pods: &[(&str, bool)], second: i64) -> Vec<String> {
        let silent = watchman.look(&picture(pods), at(second));
        silent.nodes.into_iter().collect()
    }

    #[test]
    fn without_any_pod_nobody_is_called_silent() {
        let mut watchman = Watchman::default();
        assert!(look(&mut watchman, &[], 0).is_empty());
        assert!(look(&mut watchman, &[], 99).is_empty());
    }

    #[test]
    fn a_node_without_a_ready_speaker_is_silent_after_the_grace() {
        let mut watchman = Watchman::default();
        let silent = watchman.look(&picture(&[("a", true), ("b", false)]), at(0));
        assert_eq!((silent.nodes.len(), silent.recheck_at), (0, Some(at(10))));
        assert!(look(&mut watchman, &[("a", true), ("b", false)], 9).is_empty());
        assert_eq!(look(&mut watchman, &[("a", true)], 10), ["b"]);
        assert!(look(&mut watchman, &[("a", true), ("b", true)], 11).is_empty());
        assert!(look(&mut watchman, &[("a", true)], 12).is_empty(), "anew");
    }

    #[test]
    fn when_the_last_pod_goes_every_node_falls_silent() {
        let mut watchman = Watchman::default();
        assert!(look(&mut watchman, &[("a", true), ("b", true)], 0).is_empty());
        assert!(look(&mut watchman, &[], 5).is_empty());
        assert_eq!(look(&mut watchman, &[], 15), ["a", "b"]);
    }
}
