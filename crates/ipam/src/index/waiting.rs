//! Services that wait, and what each waits for: a change wakes only those it may help, oldest first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::names::ServiceKey;

/// Age and name: the older Service is served first.
type Place = (i64, ServiceKey);

/// What would help a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Room in one of these Eips.
    pub(super) eips: Vec<Arc<str>>,
    /// Other holders of one of these addresses, or none.
    pub(super) addresses: Vec<IpAddr>,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    places: BTreeMap<Place, Needs>,
    by_eip: HashMap<Arc<str>, BTreeSet<Place>>,
    by_address: HashMap<IpAddr, BTreeSet<Place>>,
    /// Those who were woken for the room that there is, and have not had their turn.
    called: BTreeSet<Place>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn contains(&self, created: i64, key: &ServiceKey) -> bool {
        self.places.contains_key(&(created, key.clone()))
    }

    /// Puts a Service in the queue, or changes what it waits for.
    pub(super) fn insert(&mut self, created: i64, key: &ServiceKey, needs: Needs) {
        let place = (created, key.clone());
        if self.places.get(&place) == Some(&needs) {
            return;
        }
        self.remove(created, key);
        for eip in &needs.eips {
            self.by_eip
                .entry(eip.clone())
                .or_default()
                .insert(place.clone());
        }
        for address in &needs.addresses {
            self.by_address
                .entry(*address)
                .or_default()
                .insert(place.clone());
        }
        self.places.insert(place, needs);
    }

    /// Takes a Service out; returns what it waited for.
    pub(super) fn remove(&mut self, created: i64, key: &ServiceKey) -> Option<Needs> {
        let place = (created, key.clone());
        self.called.remove(&place);
        let needs = self.places.remove(&place)?;
        for eip in &needs.eips {
            if let Some(places) = self.by_eip.get_mut(eip) {
                places.remove(&place);
                if places.is_empty() {
                    self.by_eip.remove(eip);
                }
            }
        }
        for address in &needs.addresses {
            if let Some(places) = self.by_address.get_mut(address) {
                places.remove(&place);
                if places.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
        Some(needs)
    }

    /// Takes a Service out that is gone. Where it was its turn, that of the next has come.
    pub(super) fn leave(
        &mut self,
        created: i64,
        key: &ServiceKey,
        woken: &mut BTreeSet<ServiceKey>,
    ) {
        let place = (created, key.clone());
        let called = self.called.contains(&place);
        let needs = self.remove(created, key);
        for eip in needs.into_iter().flat_map(|needs| needs.eips) {
            if called {
                self.wake_next(&eip, &place, woken);
            }
        }
    }

    /// What a Service waits for whose turn it was; it has to be called again.
    pub(super) fn uncall(&mut self, created: i64, key: &ServiceKey) -> Vec<Arc<str>> {
        let place = (created, key.clone());
        if !self.called.remove(&place) {
            return Vec::new();
        }
        let needs = self.places.get(&place);
        needs.map_or_else(Vec::new, |needs| needs.eips.clone())
    }

    /// Wakes everybody: something changed that may help anybody.
    pub(super) fn wake_all(&self, woken: &mut BTreeSet<ServiceKey>) {
        woken.extend(self.places.keys().map(|(_, key)| key.clone()));
    }

    /// Wakes those who wait for this address.
    pub(super) fn wake_address(&self, address: IpAddr, woken: &mut BTreeSet<ServiceKey>) {
        woken.extend(
            self.by_address
                .get(&address)
                .into_iter()
                .flatten()
                .map(|(_, key)| key.clone()),
        );
    }

    /// Wakes the oldest who waits for this Eip.
    pub(super) fn wake_oldest(&mut self, eip: &str, woken: &mut BTreeSet<ServiceKey>) {
        let first = self.by_eip.get(eip).and_then(BTreeSet::first).cloned();
        self.call(first, woken);
    }

    /// Wakes the next who waits for this Eip, after one who had his turn.
    pub(super) fn wake_next(&mut self, eip: &str, after: &Place, woken: &mut BTreeSet<ServiceKey>) {
        use std::ops::Bound::{Excluded, Unbounded};
        let next = self
            .by_eip
            .get(eip)
            .and_then(|places| places.range((Excluded(after), Unbounded)).next());
        self.call(next.cloned(), woken);
    }

    fn call(&mut self, place: Option<Place>, woken: &mut BTreeSet<ServiceKey>) {
        if let Some(place) = place {
            woken.insert(place.1.clone());
            self.called.insert(place);
        }
    }
}
