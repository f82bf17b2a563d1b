//! How plans end: what their transactions learnt on the way, taken in before the watches say so.

use std::net::IpAddr;

use super::slots::Slot;
use super::{Index, Millis};
use crate::ledger::{Conclusion, Outcome, Plan, Record, Seen};
use crate::names::{ServiceKey, Uid, Version};
use crate::service::ServiceStatus;

impl Index {
    /// Takes in how a plan ended. `None` for a plan whose end is not known, because a request failed:
    /// its addresses stay taken until the next plan for the same Service, or the API server, says what is there.
    pub fn conclude(&mut self, plan: &Plan<ServiceStatus>, end: Option<&Conclusion>, now: Millis) {
        let Some(end) = end else {
            let reserved = plan.reserve.iter();
            self.unsure
                .extend(reserved.map(|reservation| reservation.record.address));
            return;
        };
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
                self.forget_pending(reservation.record.address, now);
            }
        }
        if let (Some(version), Some(status)) = (&end.published, &plan.publish) {
            self.published(&plan.subject.key, &plan.subject.uid, version, status, now);
        }
    }

    /// Nobody makes of an address what was to be made of it.
    pub(super) fn forget_pending(&mut self, address: IpAddr, now: Millis) {
        let slot = self.slots.get(&address);
        let Some(slot) = slot.filter(|slot| slot.pending.is_some()) else {
            return;
        };
        let stored = slot.stored.clone();
        let slot = stored.map(|stored| Slot {
            stored: Some(stored),
            pending: None,
        });
        self.set_slot(address, slot, now);
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
}
