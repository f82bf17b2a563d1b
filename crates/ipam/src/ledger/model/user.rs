//! Users, who may do anything to what is theirs and to what is not.

use super::Writers;
use super::addresses::{Address, Addresses};
use super::world::{Service, State, last, version};
use crate::ledger::record::{Record, Stored};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    OptOut(usize),
    OptIn(usize),
    Delete(usize),
    /// Under the same name; with the old status, as a restore from a backup does.
    Recreate(usize, Addresses),
    Clear(usize),
    Forge(usize, Address),
    Touch(Address),
    Strip(Address),
    Remove(Address),
}

impl Writers {
    pub(super) fn edits(&self) -> Vec<Edit> {
        let mut edits = Vec::new();
        for s in 0..self.services {
            edits.extend([
                Edit::OptOut(s),
                Edit::OptIn(s),
                Edit::Delete(s),
                Edit::Recreate(s, Addresses::NONE),
            ]);
            edits.push(Edit::Clear(s));
            for a in 0..self.addresses {
                edits.extend([Edit::Recreate(s, a.into()), Edit::Forge(s, a)]);
            }
            let families = self.families.of(s, self.addresses);
            if families.len() > 1 {
                let firsts = families.iter().filter_map(|family| family.iter().next());
                edits.push(Edit::Recreate(s, firsts.collect()));
            }
        }
        for a in 0..self.addresses {
            edits.extend([Edit::Touch(a), Edit::Strip(a), Edit::Remove(a)]);
        }
        edits
    }

    pub(super) fn edit(&self, state: &mut State, edit: Edit) -> Option<()> {
        let service = |state: &State, s: usize| last(&state.services[s]).cloned();
        let stored = |state: &State, a: Address| last(&state.records[usize::from(a)]).cloned();
        match edit {
            Edit::OptOut(s) => {
                let now = service(state, s).filter(|now| now.wanted)?;
                state.services[s].push(Some(Service {
                    wanted: false,
                    given: Addresses::NONE,
                    ..now
                }));
            }
            Edit::OptIn(s) => {
                let now = service(state, s).filter(|now| !now.wanted)?;
                state.services[s].push(Some(Service {
                    wanted: true,
                    ..now
                }));
            }
            Edit::Delete(s) => {
                service(state, s)?;
                state.services[s].push(None);
            }
            Edit::Recreate(s, shown) => {
                if service(state, s).is_some() {
                    return None;
                }
                state.services[s].push(Some(Service {
                    uid: state.uids,
                    wanted: true,
                    shown,
                    published: Addresses::NONE,
                    given: Addresses::NONE,
                    remembered: shown,
                    found: false,
                    fence: 0,
                }));
                state.uids += 1;
            }
            Edit::Clear(s) => {
                let now = service(state, s).filter(|now| !now.shown.is_empty())?;
                state.services[s].push(Some(Service {
                    shown: Addresses::NONE,
                    published: Addresses::NONE,
                    ..now
                }));
            }
            Edit::Forge(s, a) => {
                let now = service(state, s).filter(|now| now.shown != a.into())?;
                // Without a record nobody can tell it from what another controller gave.
                let found = now.found || stored(state, a).is_none();
                state.services[s].push(Some(Service {
                    shown: a.into(),
                    published: Addresses::NONE,
                    found,
                    ..now
                }));
            }
            Edit::Touch(a) => {
                let now = stored(state, a)?;
                let history = &mut state.records[usize::from(a)];
                let at = version(history.len());
                history.push(Some(Stored { version: at, ..now }));
            }
            Edit::Strip(a) => {
                let now = stored(state, a).filter(|now| !now.record.entries.is_empty())?;
                self.disown(state, a);
                let history = &mut state.records[usize::from(a)];
                let at = version(history.len());
                let record = Record {
                    entries: vec![],
                    ..now.record
                };
                history.push(Some(Stored {
                    version: at,
                    record,
                    uid: now.uid,
                }));
            }
            Edit::Remove(a) => {
                stored(state, a)?;
                self.disown(state, a);
                state.records[usize::from(a)].push(None);
            }
        }
        Some(())
    }

    /// A user took the record of `a` away: what is shown of it rests on the user's word now. That is
    /// no write to the Service, so its version stays.
    fn disown(&self, state: &mut State, a: Address) {
        let entries =
            last(&state.records[usize::from(a)]).map(|stored| stored.record.entries.clone());
        for entry in entries.unwrap_or_default() {
            if !state.struck.contains(&(entry.uid.clone(), a)) {
                state.struck.push((entry.uid, a));
            }
        }
        for s in 0..self.services {
            if let Some(Some(now)) = state.services[s].last_mut() {
                now.published = now.published.without(a.into());
                now.given = now.given.without(a.into());
            }
        }
    }
}
