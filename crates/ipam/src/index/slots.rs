//! What is known of each address: who holds it, who shows it, and who is to be told when that changes.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Index, Millis};
use crate::ledger::{Record, Stored};
use crate::names::{ServiceKey, Uid};

/// What is known of one address.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// The object as it was last read or written.
    pub(super) stored: Option<Stored>,
    /// What we are about to make of it.
    pub(super) pending: Option<Box<Record>>,
}

impl Slot {
    pub(super) fn record(&self) -> Option<&Record> {
        self.pending
            .as_deref()
            .or(self.stored.as_ref().map(|stored| &stored.record))
    }
}

impl Index {
    /// A record mostly says of its Services what they say themselves: that is kept in memory once.
    pub(super) fn store_once(&mut self, address: IpAddr) {
        let Some(stored) = self
            .slots
            .get_mut(&address)
            .and_then(|slot| slot.stored.as_mut())
        else {
            return;
        };
        if let Some((name, _)) = self.pools.get_name(&stored.record.eip) {
            stored.record.eip = name.clone();
        }
        for entry in &mut stored.record.entries {
            let Some(facts) = self.services.get(&entry.service) else {
                continue;
            };
            entry.service = facts.key.clone();
            if entry.uid == facts.uid {
                entry.uid = facts.uid.clone();
            }
            if let Some(request) = &facts.request
                && request.terms == entry.terms
            {
                entry.terms = request.terms.clone();
            }
        }
    }

    pub(super) fn show(
        &mut self,
        key: &ServiceKey,
        before: &[IpAddr],
        after: &[IpAddr],
        now: Millis,
    ) {
        for address in before.iter().filter(|address| !after.contains(address)) {
            if let Some(keys) = self.shown.get_mut(address) {
                keys.retain(|shown| shown != key);
                if keys.is_empty() {
                    self.shown.remove(address);
                }
            }
            self.freed(*address, now);
        }
        for address in after {
            let shown = self.shown.entry(*address);
            let keys = shown.or_insert_with(|| Vec::with_capacity(1));
            if !keys.contains(key) {
                keys.push(key.clone());
            }
            self.refresh_taken(*address);
        }
    }

    pub(super) fn set_slot(&mut self, address: IpAddr, slot: Option<Slot>, now: Millis) {
        let before = self.slots.get(&address).and_then(Slot::record).cloned();
        let after = slot.as_ref().and_then(Slot::record).cloned();
        if slot.as_ref().is_none_or(|slot| slot.pending.is_none()) {
            self.unsure.remove(&address);
        }
        match slot {
            Some(slot) => self.slots.insert(address, slot),
            None => self.slots.remove(&address),
        };
        if before == after {
            return;
        }
        // Who waits for it says who has it.
        self.waiting.wake_address(address, &mut self.woken);
        if let Some(record) = &before {
            for entry in &record.entries {
                forget(&mut self.held, &entry.service, |(uid, held)| {
                    *uid == entry.uid && *held == address
                });
            }
            if let Some(key) = &record.kept_for {
                forget(&mut self.kept, key, |kept| *kept == address);
            }
            if let Some(addresses) = self.of_eip.get_mut(&record.eip) {
                addresses.remove(&address);
            }
            self.changed_eips.insert(record.eip.clone());
        }
        if let Some(record) = &after {
            for entry in &record.entries {
                // Most hold one: a vector that grows would begin with room for four.
                self.held
                    .entry(entry.service.clone())
                    .or_insert_with(|| Vec::with_capacity(1))
                    .push((entry.uid.clone(), address));
            }
            if let Some(key) = &record.kept_for {
                self.kept.entry(key.clone()).or_default().push(address);
            }
            self.of_eip
                .entry(record.eip.clone())
                .or_default()
                .insert(address);
            self.changed_eips.insert(record.eip.clone());
            self.refresh_taken(address);
        } else {
            self.resting.begin(address, now);
            self.leave_aside(address, now);
        }
        let is_vacant = after
            .as_ref()
            .is_some_and(|record| record.entries.is_empty() && !record.reserved);
        if is_vacant {
            self.vacant.insert(address);
            self.doubtful.insert(address);
        } else {
            self.vacant.remove(&address);
        }
        if is_vacant || after.is_none() {
            self.freed(address, now);
        }
        // What is said of a Service that shares an address rests on what the others expose there.
        let records = [before, after].into_iter().flatten();
        for record in records.filter(|record| record.entries.len() > 1) {
            let sharing = record.entries.into_iter().map(|entry| entry.service);
            self.woken.extend(sharing);
        }
    }

    /// Somebody let go of an address: whoever waits for it, or for its pool, may go on.
    pub(super) fn freed(&mut self, address: IpAddr, now: Millis) {
        // Also where somebody else is on it still: a Service that wants to share it may agree with him.
        self.waiting.wake_address(address, &mut self.woken);
        if self.shown.contains_key(&address) {
            return;
        }
        if !self.slots.contains_key(&address) {
            self.resting.begin(address, now);
            self.refresh_taken(address);
        } else if !self.vacant.contains(&address) {
            return;
        }
        for eip in self.pools.giving(address) {
            self.waiting.wake_oldest(&eip, &mut self.woken);
        }
    }

    pub(super) fn refresh_taken(&mut self, address: IpAddr) {
        let changed = if self.slots.contains_key(&address)
            || self.shown.contains_key(&address)
            || self.resting.contains(address)
            || self.is_aside(address)
        {
            self.taken.insert(address)
        } else {
            self.taken.remove(address)
        };
        // Whether they have room may have changed.
        if changed {
            self.changed_eips.extend(self.pools.giving(address));
        }
    }

    /// A record was written that names Services which went meanwhile: they have something to give back.
    pub(super) fn wake_gone_holders(&mut self, address: IpAddr, subject: &Uid) {
        let record = self.slots.get(&address).and_then(Slot::record);
        for entry in record.into_iter().flat_map(|record| &record.entries) {
            let known = self.services.get(&entry.service);
            if entry.uid != *subject && known.is_none_or(|known| known.uid != entry.uid) {
                self.woken.insert(entry.service.clone());
            }
        }
    }

    pub(super) fn wake_holders(&mut self, record: Option<&Record>) {
        for entry in record.iter().flat_map(|record| &record.entries) {
            self.woken.insert(entry.service.clone());
        }
    }
}

fn forget<T>(map: &mut HashMap<ServiceKey, Vec<T>>, key: &ServiceKey, gone: impl Fn(&T) -> bool) {
    if let Some(values) = map.get_mut(key) {
        values.retain(|value| !gone(value));
        if values.is_empty() {
            map.remove(key);
        }
    }
}
