//! Users, who may do anything to what is theirs and to what is not.

use super::Writers;
use super::world::{Address, Service, State, last, version};
use crate::ledger::record::{Record, Stored};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    OptOut(usize),
    OptIn(usize),
    Delete(usize),
    /// Under the same name; with the old status, as a restore from a backup does.
    Recreate(usize, Option<Address>),
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
                Edit::Recreate(s, None),
            ]);
            edits.push(Edit::Clear(s));
            for a in 0..self.addresses {
                edits.extend([Edit::Recreate(s, Some(a)), Edit::Forge(s, a)]);
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
                    given: None,
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
                    published: false,
                    given: None,
                    remembered: shown,
                    found: false,
                    fence: 0,
                }));
                state.uids += 1;
            }
            Edit::Clear(s) => {
                let now = service(state, s).filter(|now| now.shown.is_some())?;
                state.services[s].push(Some(Service {
                    shown: None,
                    published: false,
                    ..now
                }));
            }
            Edit::Forge(s, a) => {
                let now = service(state, s).filter(|now| now.shown != Some(a))?;
                // Without a record nobody can tell it from what another controller gave.
                let found = now.found || stored(state, a).is_none();
                state.services[s].push(Some(Service {
                    shown: Some(a),
                    published: false,
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
                now.published &= now.shown != Some(a);
                now.given = now.given.filter(|given| *given != a);
            }
        }
    }
}
