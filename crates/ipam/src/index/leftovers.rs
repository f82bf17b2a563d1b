//! Records that name nobody: kept for a Service of the same name, or left over by somebody's edit.

use std::net::IpAddr;

use super::{Index, Slot};
use crate::ledger::Stored;

impl Index {
    /// Records that nothing needs, among what changed since the last call: they name nobody, are not
    /// reserved, and no Eip keeps them for a Service of the same name. They may be deleted, at exactly
    /// these versions.
    pub fn take_leftovers(&mut self) -> Vec<Stored> {
        let doubtful = std::mem::take(&mut self.doubtful);
        let records = doubtful
            .into_iter()
            .filter(|address| self.is_leftover(*address))
            .filter_map(|address| self.slots.get(&address)?.stored.clone());
        records.collect()
    }

    /// A record that [`take_leftovers`](Self::take_leftovers) told of could not be deleted.
    pub fn doubt(&mut self, address: IpAddr) {
        if self.vacant.contains(&address) {
            self.doubtful.insert(address);
        }
    }

    fn is_leftover(&self, address: IpAddr) -> bool {
        let Some(record) = self.slots.get(&address).and_then(Slot::record) else {
            return false;
        };
        let keeps = self
            .pools
            .get(&record.eip)
            .is_some_and(|entry| entry.pool.sticky)
            || self.pools.invalid.contains_key(&record.eip);
        self.vacant.contains(&address) && !(keeps && record.kept_for.is_some())
    }
}
