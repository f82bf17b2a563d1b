//! What the watches say goes into the index, and what a complete list lacks is gone.

use std::collections::HashSet;
use std::sync::Arc;

use openelb_ipam::{Millis, ServiceKey};
use tokio::time::Instant;

use super::Engine;
use crate::controller::feed::{Change, Kind};
use crate::controller::queue::Rank;

/// What was told of a kind since its list began.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) complete: bool,
    services: Option<HashSet<ServiceKey>>,
    names: Option<HashSet<String>>,
}

impl Engine {
    /// Takes in what a watch said.
    pub(super) fn take_in(&mut self, change: Change) {
        let now = self.now();
        match change {
            Change::Begin(kind) => self.begin(kind),
            Change::End(kind) => self.end(kind, now),
            Change::Service(facts) => {
                let key = facts.key.clone();
                if let Some(Listing {
                    services: Some(seen),
                    ..
                }) = self.listings.get_mut(&Kind::Service)
                {
                    seen.insert(key.clone());
                }
                if self.index.apply_service(*facts, now) {
                    self.backoff.changed(&key, now);
                    if self.works() {
                        self.arrived.entry(key.clone()).or_insert_with(Instant::now);
                    }
                    self.enqueue(key, Rank::User);
                }
            }
            Change::ServiceGone(key, uid) => {
                self.arrived.remove(&key);
                if self.index.remove_service(&key, Some(&uid), now) {
                    self.enqueue(key, Rank::User);
                }
            }
            Change::Record(stored, aside) => {
                let address = stored.record.address;
                self.saw(Kind::Record, || address.to_string());
                self.index.apply_record(*stored, now);
                self.index.set_aside(address, aside, now);
            }
            Change::RecordGone(address, uid) => self.index.remove_record(address, &uid, now),
            Change::BadRecord(name, why) => {
                tracing::warn!(
                    eipaddress = name,
                    why,
                    "an EipAddress says nothing usable; it is left alone"
                );
            }
            Change::Eip(object) => {
                let name = object.metadata.name.clone().unwrap_or_default();
                self.saw(Kind::Eip, || name.clone());
                match &object.parsed {
                    Ok(eip) => self.index.apply_eip(eip),
                    Err(why) => self.index.reject_eip(&name, why.clone()),
                }
                self.statuses.seen(&object);
            }
            Change::EipGone(name) => {
                self.index.remove_eip(&name);
                self.statuses.gone(&name);
            }
            Change::Namespace(name, labels) => {
                self.saw(Kind::Namespace, || name.clone());
                self.index.apply_namespace(&name, labels);
                self.namespaces.insert(name);
            }
            Change::NamespaceGone(name) => {
                self.index.remove_namespace(&name);
                self.namespaces.remove(&name);
            }
        }
    }

    fn saw(&mut self, kind: Kind, name: impl FnOnce() -> String) {
        if let Some(Listing {
            names: Some(seen), ..
        }) = self.listings.get_mut(&kind)
        {
            seen.insert(name());
        }
    }

    fn begin(&mut self, kind: Kind) {
        let listing = self.listings.entry(kind).or_default();
        // The first list finds nothing to compare with.
        let compare = listing.complete;
        listing.services = (compare && kind == Kind::Service).then(HashSet::new);
        listing.names = (compare && kind != Kind::Service).then(HashSet::new);
    }

    /// A list is complete: what was known and is not in it is gone.
    fn end(&mut self, kind: Kind, now: Millis) {
        let listing = self.listings.entry(kind).or_default();
        listing.complete = true;
        if let Some(seen) = listing.services.take() {
            for key in self
                .index
                .keys()
                .into_iter()
                .filter(|key| !seen.contains(key))
            {
                if self.index.remove_service(&key, None, now) {
                    self.enqueue(key, Rank::User);
                }
            }
        }
        let Some(seen) = self.listings.entry(kind).or_default().names.take() else {
            return;
        };
        match kind {
            Kind::Service => {}
            Kind::Record => {
                let gone: Vec<_> = self
                    .index
                    .addresses()
                    .filter(|address| !seen.contains(&address.to_string()))
                    .collect();
                for address in gone {
                    if let Some(uid) = self.index.record_uid(address).cloned() {
                        self.index.remove_record(address, &uid, now);
                    }
                }
            }
            Kind::Eip => {
                let gone: Vec<Arc<str>> = self
                    .index
                    .eips()
                    .into_iter()
                    .filter(|name| !seen.contains(&**name))
                    .collect();
                for name in gone {
                    self.index.remove_eip(&name);
                    self.statuses.gone(&name);
                }
            }
            Kind::Namespace => {
                let gone: Vec<_> = self
                    .namespaces
                    .iter()
                    .filter(|name| !seen.contains(*name))
                    .cloned()
                    .collect();
                for name in gone {
                    self.index.remove_namespace(&name);
                    self.namespaces.remove(&name);
                }
            }
        }
    }
}
