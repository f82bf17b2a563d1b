//! The Eips: what each may give, and which of them stand in each other's way.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use openelb_api::bgp::ignored;
use openelb_api::v1alpha2::Eip;
use openelb_api::validate::{self, View};
use openelb_api::{Pool, RangeSet};

use super::Index;

/// An Eip that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) pool: Pool,
    /// What the rules refuse of it although it can be used: it got past the webhook. Empty where all is well.
    pub(super) refused: String,
    /// Creation, in seconds since 1970; of two Eips that overlap the older works on.
    created: i64,
    /// What it may give: its addresses without those of older Eips.
    pub(super) gives: RangeSet,
    /// The older Eip that has some of its addresses.
    pub(super) overlaps: Option<Arc<str>>,
}

/// All Eips.
#[derive(Debug, Default)]
pub(super) struct Pools {
    entries: BTreeMap<Arc<str>, Entry>,
    /// Eips that cannot be used, and why.
    pub(super) invalid: BTreeMap<Arc<str>, String>,
}

impl Pools {
    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// An Eip with its name as it is kept.
    pub(super) fn get_name(&self, name: &str) -> Option<(&Arc<str>, &Entry)> {
        self.entries.get_key_value(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.entries.iter()
    }

    /// The default Eip: of several, all but one of which got past the webhook, the oldest that gives addresses.
    pub(super) fn default_eip(&self) -> Option<&Arc<str>> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.pool.default && entry.pool.closed.is_none())
            .min_by_key(|(name, entry)| (entry.created, (*name).clone()))
            .map(|(name, _)| name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Eips that may give the address.
    pub(super) fn giving(&self, address: IpAddr) -> Vec<Arc<str>> {
        let gives = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.gives.contains(address));
        gives.map(|(name, _)| name.clone()).collect()
    }

    /// The Eip that an address in use belongs to: the named one if it has it, else any other that has.
    pub(super) fn keeping(
        &self,
        address: IpAddr,
        named: Option<&str>,
    ) -> Option<(&Arc<str>, &Entry)> {
        let named = named.and_then(|name| self.entries.get_key_value(name));
        let keeps = |entry: &Entry| entry.pool.keeps(address) && !is_deleting(&entry.pool);
        named
            .filter(|(_, entry)| keeps(entry))
            .or_else(|| {
                self.entries
                    .iter()
                    .find(|(_, entry)| keeps(entry) && entry.gives.contains(address))
            })
            .or_else(|| self.entries.iter().find(|(_, entry)| keeps(entry)))
    }

    fn refresh_overlaps(&mut self) {
        let mut order: Vec<_> = self
            .entries
            .iter()
            .map(|(name, entry)| (entry.created, name.clone()))
            .collect();
        order.sort();
        let mut before: Vec<(Arc<str>, RangeSet)> = Vec::new();
        for (_, name) in order {
            let Some(entry) = self.entries.get_mut(&name) else {
                continue;
            };
            entry.gives = entry.pool.addresses.assignable.clone();
            entry.overlaps = None;
            // What an Eip excludes is another's to give, as the webhook has it.
            let addresses = &entry.pool.addresses;
            let kept = addresses.named.without(&addresses.excluded);
            for (other, theirs) in &before {
                if theirs.ranges().any(|range| kept.overlaps(range)) {
                    entry.gives = entry.gives.without(theirs);
                    entry.overlaps.get_or_insert_with(|| other.clone());
                }
            }
            before.push((name, kept));
        }
    }
}

pub(super) fn is_deleting(pool: &Pool) -> bool {
    pool.closed == Some(openelb_api::Closed::Deleting)
}

impl Index {
    /// Takes in an Eip. One that cannot be used keeps what its Services have, and gives nothing new.
    pub fn apply_eip(&mut self, eip: &Eip) {
        let Some(name) = eip.metadata.name.as_deref() else {
            return;
        };
        let created = eip
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second());
        match Pool::try_from(eip) {
            Ok(mut pool) => {
                let without = ignored::of_eip(&eip.spec);
                if !without.is_empty() {
                    let warning = format!("without effect: {}", without.join(", "));
                    pool.addresses.warnings.push(warning);
                }
                // Of the object alone: what others have is told by conditions of its own.
                let refused = validate::eip(eip, None, &View::default()).denials;
                self.apply_pool(name, pool, refused.join("; "), created);
            }
            Err(invalid) => self.reject_eip(name, invalid.to_string()),
        }
    }

    /// Takes in that an Eip cannot be read or used.
    pub fn reject_eip(&mut self, name: &str, why: String) {
        if self.pools.invalid.get(name) == Some(&why) {
            return;
        }
        let name: Arc<str> = name.into();
        self.pools.invalid.insert(name.clone(), why);
        if self.pools.entries.remove(&name).is_some() {
            self.pools.refresh_overlaps();
        }
        self.pool_changed(&name);
    }

    /// Takes in that an Eip is gone.
    pub fn remove_eip(&mut self, name: &str) {
        let name: Arc<str> = name.into();
        self.pools.invalid.remove(&name);
        if self.pools.entries.remove(&name).is_some() {
            self.pools.refresh_overlaps();
        }
        self.pool_changed(&name);
    }

    /// Names of all Eips that are known.
    #[must_use]
    pub fn eips(&self) -> Vec<Arc<str>> {
        self.pools
            .entries
            .keys()
            .chain(self.pools.invalid.keys())
            .cloned()
            .collect()
    }

    fn apply_pool(&mut self, name: &str, pool: Pool, refused: String, created: i64) {
        let was_invalid = self.pools.invalid.remove(name).is_some();
        if !was_invalid
            && self.pools.get(name).is_some_and(|entry| {
                entry.pool == pool && entry.refused == refused && entry.created == created
            })
        {
            return;
        }
        let name: Arc<str> = name.into();
        let entry = Entry {
            pool,
            refused,
            created,
            gives: RangeSet::new(),
            overlaps: None,
        };
        self.pools.entries.insert(name.clone(), entry);
        self.pools.refresh_overlaps();
        self.pool_changed(&name);
    }

    /// Who has an address of this Eip that its own Eip has no more is told that it belongs here now.
    fn wake_orphans_of(&mut self, name: &str) {
        let Some(entry) = self.pools.get(name) else {
            return;
        };
        let orphans = self.slots.iter().filter_map(|(address, slot)| {
            let record = slot.record()?;
            let keeps = |entry: &Entry| entry.pool.keeps(*address);
            let own = (*record.eip != *name).then(|| self.pools.get(&record.eip))?;
            (keeps(entry) && !own.is_some_and(keeps)).then_some(record)
        });
        for record in orphans {
            let holders = record.entries.iter();
            self.woken
                .extend(holders.map(|entry| entry.service.clone()));
        }
    }

    fn pool_changed(&mut self, name: &Arc<str>) {
        self.waiting.wake_all(&mut self.woken);
        self.wake_orphans_of(name);
        for address in self.of_eip.get(name).into_iter().flatten() {
            let record = self.slots.get(address).and_then(super::Slot::record);
            self.woken.extend(
                record
                    .iter()
                    .flat_map(|record| &record.entries)
                    .map(|entry| entry.service.clone()),
            );
            if self.vacant.contains(address) {
                self.doubtful.insert(*address);
            }
        }
        self.changed_eips.extend(self.pools.entries.keys().cloned());
        self.changed_eips.insert(name.clone());
    }
}
