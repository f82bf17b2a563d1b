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
mod conclude;
mod decide;
mod eip;
mod find;
mod leftovers;
mod pools;
mod rest;
mod select;
mod slots;
mod waiting;
mod wording;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

pub use eip::{EipView, LISTED, Share};
use pools::Pools;
use rest::Resting;
use slots::Slot;
use waiting::Waiting;

use crate::ledger::{Plan, Stored};
use crate::names::{ServiceKey, Uid};
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
    /// Addresses that a plan was to take whose end is not known, until somebody says what became of them.
    unsure: BTreeSet<IpAddr>,
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
        // What another plan is about to make of the address stays: this may be an old word about it. Where nobody
        // knows what became of that plan, the API server's word counts.
        let unsure = self.unsure.contains(&address);
        let pending = self
            .slots
            .get(&address)
            .and_then(|slot| slot.pending.clone())
            .filter(|_| !unsure)
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

    /// Forgets what plans of unknown end were to take: for one that begins to decide anew, after others may have.
    pub fn forget_unsure(&mut self, now: Millis) {
        for address in std::mem::take(&mut self.unsure) {
            self.forget_pending(address, now);
        }
    }

    /// The Service, whose turn it is, cannot take it now: that of the next has come.
    pub fn pass_on(&mut self, key: &ServiceKey) {
        let Some(created) = self.services.get(key).map(|service| service.created) else {
            return;
        };
        let eips = self.waiting.uncall(created, key);
        self.wake_next(eips, created, key);
    }

    /// Ends the rest of addresses whose time is over.
    pub fn tick(&mut self, now: Millis) {
        for address in self.resting.expired(now) {
            self.refresh_taken(address);
        }
        self.end_aside(now);
    }
}
