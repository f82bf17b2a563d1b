//! Everything the controller knows, and what follows from it for one Service at a time.
//!
//! [`Index`] is fed by watches ([`apply_service`](Index::apply_service) and its like) and by the
//! answers to our own writes. [`Index::plan`] then says what to do for a Service. A plan's addresses
//! are taken in the index at once, before anything is written, so many plans can be under way side by
//! side; [`Index::conclude`] brings in how each ended. Own writes that come back through a watch
//! change nothing and wake nobody.
//!
//! No operation takes time that grows with the number of Services or with the size of a pool. One task
//! owns the index; nothing in it reads a clock: `now` is milliseconds of any steady clock.

mod address;
mod aside;
mod decide;
mod eip;
mod find;
mod leftovers;
mod pools;
mod rest;
mod select;
mod waiting;
mod wording;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

pub use eip::{EipView, LISTED, Share};
use pools::Pools;
use rest::Resting;
use waiting::Waiting;

use crate::ledger::{Conclusion, Outcome, Plan, Record, Seen, Stored};
use crate::names::{ServiceKey, Uid, Version};
use crate::service::{ServiceFacts, ServiceStatus};
use crate::taken::Taken;

/// Milliseconds of a steady clock.
pub type Millis = u64;

/// What to do for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to carry out.
    pub plan: Plan<ServiceStatus>,
    /// What to tell the user when it is done.
    pub news: Vec<News>,
}

/// Something to say in an event on the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It got this address.
    Assigned(IpAddr),
    /// It gave this address back.
    Released(IpAddr),
    /// It cannot have what it asks for.
    Failed(Arc<str>),
    /// It has what it asks for, but somebody should look at it: the condition's reason, and the words.
    Warning(&'static str, Arc<str>),
}

/// What is known of one address.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// The object as it was last read or written.
    stored: Option<Stored>,
    /// What we are about to make of it.
    pending: Option<Box<Record>>,
}

impl Slot {
    fn record(&self) -> Option<&Record> {
        self.pending
            .as_deref()
            .or(self.stored.as_ref().map(|stored| &stored.record))
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Index {
    pools: Pools,
    namespaces: HashMap<Arc<str>, BTreeMap<String, String>>,
    services: HashMap<ServiceKey, ServiceFacts>,
    slots: HashMap<IpAddr, Slot>,
    /// Which uids of a Service's name hold which addresses.
    held: HashMap<ServiceKey, Vec<(Uid, IpAddr)>>,
    /// Which addresses are kept for a Service's name.
    kept: HashMap<ServiceKey, Vec<IpAddr>>,
    /// Addresses whose record names nobody and is not reserved: kept for a Service that is gone, or left over.
    vacant: BTreeSet<IpAddr>,
    /// Those of them that have to be looked at: perhaps nothing keeps them any more.
    doubtful: BTreeSet<IpAddr>,
    /// Which addresses came from an Eip.
    of_eip: HashMap<Arc<str>, BTreeSet<IpAddr>>,
    /// Who shows an address in its status.
    shown: HashMap<IpAddr, Vec<ServiceKey>>,
    taken: Taken,
    resting: Resting,
    /// Addresses that a foreign host has, and until when they are given to nobody.
    aside: BTreeMap<IpAddr, Millis>,
    waiting: Waiting,
    woken: BTreeSet<ServiceKey>,
    changed_eips: BTreeSet<Arc<str>>,
}

impl Index {
    /// Takes in a Service. True when something about it is new, so that a plan should be made.
    pub fn apply_service(&mut self, mut facts: ServiceFacts, now: Millis) -> bool {
        if let Some(eip) = &mut facts.status.eip
            && let Some((name, _)) = self.pools.get_name(eip)
        {
            *eip = name.clone();
        }
        let known = self.services.get(&facts.key);
        if known.is_some_and(|known| {
            known.uid == facts.uid
                && (known.version == facts.version || facts.version.is_older_than(&known.version))
        }) {
            return false;
        }
        let same = known.is_some_and(|known| {
            ServiceFacts {
                version: facts.version.clone(),
                ..known.clone()
            } == facts
        });
        let matters = facts.load_balancer
            || facts.openelb_finalizer
            || facts.status.eip.is_some()
            || !facts.status.addresses.is_empty()
            || self.held.contains_key(&facts.key);
        if !matters {
            return self.remove_service(&facts.key, None, now);
        }
        let key = facts.key.clone();
        let before = known
            .map(|known| known.status.addresses.clone())
            .unwrap_or_default();
        let after = facts.status.addresses.clone();
        if let Some(earlier) = known.filter(|known| known.uid != facts.uid) {
            // Its place in the queue was the earlier Service's.
            let created = earlier.created;
            self.waiting.leave(created, &key, &mut self.woken);
        }
        self.services.insert(key.clone(), facts);
        let held = self.held.get(&key).into_iter().flatten();
        let held: Vec<_> = held.map(|(_, address)| *address).collect();
        for address in held {
            self.store_once(address);
        }
        self.show(&key, &before, &after, now);
        !same
    }

    /// Takes in that a Service is gone; of `uid`, where that is known. True when it held something.
    pub fn remove_service(&mut self, key: &ServiceKey, uid: Option<&Uid>, now: Millis) -> bool {
        if uid.is_some_and(|uid| {
            self.services
                .get(key)
                .is_some_and(|known| known.uid != *uid)
        }) {
            return false;
        }
        if let Some(gone) = self.services.remove(key) {
            self.waiting.leave(gone.created, key, &mut self.woken);
            self.show(key, &gone.status.addresses, &[], now);
        }
        self.held.contains_key(key)
    }

    /// Takes in a record. True when it says something new; its Services should then be planned for,
    /// see [`take_woken`](Self::take_woken).
    pub fn apply_record(&mut self, stored: Stored, now: Millis) -> bool {
        let address = stored.record.address;
        if let Some(known) = self
            .slots
            .get(&address)
            .and_then(|slot| slot.stored.as_ref())
        {
            let known_better =
                known.version == stored.version || stored.version.is_older_than(&known.version);
            if known_better {
                return false;
            }
        }
        let before = self.slots.get(&address).and_then(Slot::record).cloned();
        let news = before.as_ref() != Some(&stored.record);
        // What another plan is about to make of the address stays: this may be an old word about it.
        let pending = self
            .slots
            .get_mut(&address)
            .and_then(|slot| slot.pending.take())
            .filter(|pending| {
                let mut entries = pending.entries.iter();
                !entries.all(|entry| stored.record.names(&entry.uid))
            });
        let slot = Slot {
            stored: Some(stored),
            pending,
        };
        if news {
            self.wake_holders(before.as_ref());
            self.wake_holders(slot.record());
            self.waiting.wake_address(address, &mut self.woken);
        }
        self.set_slot(address, Some(slot), now);
        self.store_once(address);
        news
    }

    /// A record mostly says of its Services what they say themselves: that is kept in memory once.
    fn store_once(&mut self, address: IpAddr) {
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

    /// Takes in that the object with this uid is gone.
    pub fn remove_record(&mut self, address: IpAddr, uid: &Uid, now: Millis) {
        let Some(slot) = self.slots.get(&address) else {
            return;
        };
        if slot
            .stored
            .as_ref()
            .is_some_and(|stored| stored.uid == *uid)
        {
            let (before, pending) = (slot.record().cloned(), slot.pending.clone());
            self.wake_holders(before.as_ref());
            self.set_slot(
                address,
                pending.map(|record| Slot {
                    stored: None,
                    pending: Some(record),
                }),
                now,
            );
        }
    }

    /// Takes in a Namespace's labels.
    pub fn apply_namespace(&mut self, name: &str, labels: BTreeMap<String, String>) {
        if self.namespaces.get(name) != Some(&labels) {
            self.namespaces.insert(name.into(), labels);
            self.waiting.wake_all(&mut self.woken);
        }
    }

    /// Takes in that a Namespace is gone.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Services to plan for because of what was taken in, oldest name first; the caller owns them now.
    pub fn take_woken(&mut self) -> BTreeSet<ServiceKey> {
        std::mem::take(&mut self.woken)
    }

    /// Eips whose view may have changed since the last call.
    pub fn take_changed_eips(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.changed_eips)
    }

    /// The Service, as it is known.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&ServiceFacts> {
        self.services.get(key)
    }

    /// Whether a plan for this name would find something to do: what is left over after one that was
    /// about an earlier Service of the name, for example.
    #[must_use]
    pub fn has_leftovers(&self, key: &ServiceKey) -> bool {
        self.decide(key).0.is_some()
    }

    /// Whether the Service waits for something.
    #[must_use]
    pub fn waits(&self, key: &ServiceKey) -> bool {
        self.services
            .get(key)
            .is_some_and(|service| self.waiting.contains(service.created, key))
    }

    /// Names of all Services that are known, of those that only hold something too.
    #[must_use]
    pub fn keys(&self) -> Vec<ServiceKey> {
        let holders = self
            .held
            .keys()
            .filter(|key| !self.services.contains_key(*key));
        self.services.keys().chain(holders).cloned().collect()
    }

    /// Addresses whose object is known to exist.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.slots
            .iter()
            .filter(|(_, slot)| slot.stored.is_some())
            .map(|(address, _)| *address)
    }

    /// The uid of the object of an address.
    #[must_use]
    pub fn record_uid(&self, address: IpAddr) -> Option<&Uid> {
        Some(&self.slots.get(&address)?.stored.as_ref()?.uid)
    }

    /// How many Services wait, and how many addresses are held.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.waiting.len(), self.slots.len())
    }

    /// How many Services have an address.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.held.len()
    }

    /// Ends the rest of addresses whose time is over.
    pub fn tick(&mut self, now: Millis) {
        for address in self.resting.expired(now) {
            self.refresh_taken(address);
        }
        self.end_aside(now);
    }

    /// Takes in how a plan ended. `None` for a plan whose end is not known, because a request failed:
    /// its addresses stay taken until the next plan for the same Service says what is there.
    pub fn conclude(&mut self, plan: &Plan<ServiceStatus>, end: Option<&Conclusion>, now: Millis) {
        let Some(end) = end else { return };
        for (address, seen) in &end.records {
            if let Seen::Stored(stored) = seen {
                let known = self
                    .slots
                    .get(address)
                    .and_then(|slot| slot.stored.as_ref());
                if known.is_none_or(|known| !stored.version.is_older_than(&known.version)) {
                    let slot = Slot {
                        stored: Some(stored.clone()),
                        pending: self.pending_of_others(*address, &plan.subject.uid),
                    };
                    self.set_slot(*address, Some(slot), now);
                    self.wake_gone_holders(*address, &plan.subject.uid);
                }
                continue;
            }
            // A reservation's last word is never "none": this one was given back. Where a watch was faster to
            // say so, the address may be somebody else's already, or be the same Service's again by another
            // writer's word, in an object of its own.
            let subject = &plan.subject.uid;
            let Some(slot) = self.slots.get(address) else {
                continue;
            };
            let stored = slot.stored.clone().filter(|stored| match seen {
                Seen::Deleted(uid) => stored.uid != *uid,
                Seen::Stored(_) | Seen::Absent => !stored.record.names(subject),
            });
            let pending = self.pending_of_others(*address, subject);
            let left = stored.is_some() || pending.is_some();
            self.set_slot(*address, left.then_some(Slot { stored, pending }), now);
        }
        if end.outcome != Outcome::Done {
            for reservation in &plan.reserve {
                let address = reservation.record.address;
                if let Some(slot) = self
                    .slots
                    .get(&address)
                    .filter(|slot| slot.pending.is_some())
                {
                    let stored = slot.stored.clone();
                    let slot = stored.map(|stored| Slot {
                        stored: Some(stored),
                        pending: None,
                    });
                    self.set_slot(address, slot, now);
                }
            }
        }
        if let (Some(version), Some(status)) = (&end.published, &plan.publish) {
            self.published(&plan.subject.key, &plan.subject.uid, version, status, now);
        }
    }

    /// What a plan for another Service is about to make of an address.
    fn pending_of_others(&self, address: IpAddr, subject: &Uid) -> Option<Box<Record>> {
        let pending = self.slots.get(&address)?.pending.as_ref()?;
        (!pending.names(subject)).then(|| pending.clone())
    }

    fn published(
        &mut self,
        key: &ServiceKey,
        uid: &Uid,
        version: &Version,
        status: &ServiceStatus,
        now: Millis,
    ) {
        let Some(facts) = self.services.get_mut(key).filter(|facts| facts.uid == *uid) else {
            return;
        };
        if version.is_older_than(&facts.version) {
            return;
        }
        facts.version = version.clone();
        let before = std::mem::replace(&mut facts.status, status.clone()).addresses;
        self.show(key, &before, &status.addresses, now);
    }

    fn show(&mut self, key: &ServiceKey, before: &[IpAddr], after: &[IpAddr], now: Millis) {
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

    fn set_slot(&mut self, address: IpAddr, slot: Option<Slot>, now: Millis) {
        let before = self.slots.get(&address).and_then(Slot::record).cloned();
        let after = slot.as_ref().and_then(Slot::record).cloned();
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
    }

    /// Somebody let go of an address: whoever waits for it, or for its pool, may go on.
    fn freed(&mut self, address: IpAddr, now: Millis) {
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

    fn refresh_taken(&mut self, address: IpAddr) {
        if self.slots.contains_key(&address)
            || self.shown.contains_key(&address)
            || self.resting.contains(address)
            || self.is_aside(address)
        {
            self.taken.insert(address);
        } else {
            self.taken.remove(address);
        }
    }

    /// A record was written that names Services which went meanwhile: they have something to give back.
    fn wake_gone_holders(&mut self, address: IpAddr, subject: &Uid) {
        let record = self.slots.get(&address).and_then(Slot::record);
        for entry in record.into_iter().flat_map(|record| &record.entries) {
            let known = self.services.get(&entry.service);
            if entry.uid != *subject && known.is_none_or(|known| known.uid != entry.uid) {
                self.woken.insert(entry.service.clone());
            }
        }
    }

    fn wake_holders(&mut self, record: Option<&Record>) {
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
