//! Following one kind through lists that begin anew.

use std::collections::BTreeSet;

use kube::Resource;
use kube::runtime::watcher::Event;

use super::touched::Touched;

/// Namespace (empty for cluster-wide objects) and name.
pub(super) type Key = (String, String);

/// Which objects of a kind exist, and how far the list under way has come.
#[derive(Debug, Default)]
pub(super) struct Relist {
    known: BTreeSet<Key>,
    listing: Option<BTreeSet<Key>>,
    loaded: bool,
}

impl Relist {
    /// Whether the kind was listed completely at least once.
    pub(super) fn loaded(&self) -> bool {
        self.loaded
    }

    /// Passes every object on to `apply` as it comes, and as `None` when it goes: by a deletion, or
    /// because a complete list lacks it. Says what all of it concerns; the first complete list everything.
    pub(super) fn follow<K: Resource>(
        &mut self,
        event: Event<K>,
        mut apply: impl FnMut(&Key, Option<K>) -> Touched,
    ) -> Touched {
        match event {
            Event::Apply(object) => {
                let key = key(&object);
                let changed = apply(&key, Some(object));
                self.known.insert(key);
                changed
            }
            Event::Delete(object) => {
                let key = key(&object);
                self.known.remove(&key);
                apply(&key, None)
            }
            Event::Init => {
                self.listing = Some(BTreeSet::new());
                Touched::Nothing
            }
            Event::InitApply(object) => {
                let key = key(&object);
                let changed = apply(&key, Some(object));
                self.known.insert(key.clone());
                self.listing.get_or_insert_default().insert(key);
                changed
            }
            Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                let mut changed = Touched::everything(!self.loaded);
                self.loaded = true;
                for gone in self.known.difference(&listed) {
                    changed |= apply(gone, None);
                }
                self.known = listed;
                changed
            }
        }
    }
}

fn key<K: Resource>(object: &K) -> Key {
    let metadata = object.meta();
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}
