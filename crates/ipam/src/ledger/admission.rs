//! Whether a record that exists may become, or stay, a Service's: its own word, reservations, agreement of all who share
//! it, and for whom it is kept.

use super::record::{Entry, Record};
use super::transaction::{Reservation, Subject};
use crate::sharing;

/// Whether a record that exists may become, or stay, ours.
pub(super) enum Admission {
    Ours(Record),
    /// Ours, in place of an older Service of the same name.
    Succeeds(Record),
    Refused,
}

impl Reservation {
    /// What a plan for `subject` may make of the record as it is; `asked` is whether all on it have to agree.
    pub(super) fn admit(&self, record: &Record, subject: &Subject, asked: bool) -> Admission {
        let Some(ours) = self.record.entries.first() else {
            return Admission::Refused;
        };
        let mut taken = record.with(ours);
        // The Eip of a record changes where the address went over to another pool.
        taken.eip.clone_from(&self.record.eip);
        taken.protocol.clone_from(&self.record.protocol);
        taken.kept_for.clone_from(&self.record.kept_for);
        let others = || {
            record
                .entries
                .iter()
                .filter(|entry| entry.uid != subject.uid)
        };
        if let Some(recorded) = record.entry(&subject.uid) {
            // What was found or agreed on stays; after an edit it is asked again, of the record as it is: another
            // on it may have been edited too.
            let edited = recorded.terms != ours.terms;
            return if edited && asked && !others().all(|entry| self.agrees(ours, entry)) {
                Admission::Refused
            } else {
                Admission::Ours(taken)
            };
        }
        if record.reserved && !(ours.terms.by_name && record.is_reserved_for(&subject.key)) {
            return Admission::Refused;
        }
        if record
            .entries
            .iter()
            .any(|entry| entry.service == subject.key)
        {
            let disagrees = |entry: &Entry| asked && !self.agrees(ours, entry);
            if others().any(|entry| entry.service != subject.key && disagrees(entry)) {
                return Admission::Refused;
            }
            taken
                .entries
                .retain(|entry| entry.service != subject.key || entry.uid == subject.uid);
            return Admission::Succeeds(taken);
        }
        if record.entries.is_empty() {
            // What is kept for another is taken only by a plan that knew so: its pool has no other room.
            let known = self.known.as_ref();
            let knew = known.is_some_and(|known| known.record.kept_for == record.kept_for);
            let kept_for_other = record
                .kept_for
                .as_ref()
                .is_some_and(|kept| *kept != subject.key);
            return if kept_for_other && !knew {
                Admission::Refused
            } else {
                Admission::Ours(taken)
            };
        }
        if others().all(|entry| !asked || self.agrees(ours, entry)) {
            Admission::Ours(taken)
        } else {
            Admission::Refused
        }
    }

    fn agrees(&self, ours: &Entry, other: &Entry) -> bool {
        sharing::agree(
            (&ours.service, &ours.terms),
            (&other.service, &other.terms),
            self.other_namespaces,
        )
        .is_ok()
    }
}
