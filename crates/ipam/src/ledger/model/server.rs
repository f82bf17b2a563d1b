//! The API server: what it makes of a call, unless a rule of it is taken out.

use super::Writers;
use super::addresses::{Address, Addresses};
use super::world::{
    Service, State, Status, address, index, last, number, service_index, uid, version,
};
use crate::ledger::record::{Record, Stored};
use crate::ledger::transaction::{Answer, Call, Rule, Subject};
use crate::names::Uid;

impl Writers {
    pub(super) fn call(&self, state: &mut State, call: Call<Status>) -> Answer {
        match call {
            Call::ReadService(service) => {
                let history = &state.services[service_index(&service)];
                Answer::Service(
                    last(history).map(|found| (uid(found.uid), version(history.len() - 1))),
                )
            }
            Call::ReadRecord(a) => Answer::Record(last(&state.records[index(a)]).cloned()),
            Call::Create(record) => {
                let history = &mut state.records[index(record.address)];
                if last(history).is_some() {
                    return Answer::Exists;
                }
                let at = history.len();
                restore(&mut state.struck, &record);
                let stored = Stored {
                    record,
                    uid: Uid(number(at)),
                    version: version(at),
                };
                history.push(Some(stored.clone()));
                Answer::Written(stored)
            }
            Call::Update(written) => {
                let history = &mut state.records[index(written.record.address)];
                match last(history) {
                    None => return Answer::NotFound,
                    Some(now) if now.version != written.version || now.uid != written.uid => {
                        return Answer::Conflict;
                    }
                    // The API server does not store a write that says nothing new.
                    Some(now) if now.record == written.record => {
                        return Answer::Written(now.clone());
                    }
                    Some(_) => {}
                }
                restore(&mut state.struck, &written.record);
                let stored = Stored {
                    version: version(history.len()),
                    ..written
                };
                history.push(Some(stored.clone()));
                Answer::Written(stored)
            }
            Call::Delete(read) => {
                let history = &mut state.records[index(read.record.address)];
                match last(history) {
                    None => return Answer::NotFound,
                    Some(now)
                        if self.rules.have(Rule::DeleteAtVersion)
                            && now.version != read.version =>
                    {
                        return Answer::Conflict;
                    }
                    Some(_) => {}
                }
                history.push(None);
                Answer::Deleted
            }
            Call::Publish(subject, status) => self.publish(state, &subject, &status),
        }
    }

    fn publish(&self, state: &mut State, subject: &Subject, status: &Status) -> Answer {
        let history = &mut state.services[service_index(&subject.key)];
        let Some(now) = last(history).cloned() else {
            return Answer::NotFound;
        };
        let current = subject.uid == uid(now.uid)
            && subject.version.as_ref() == Some(&version(history.len() - 1));
        if self.rules.have(Rule::PublishAtVersion) && !current || subject.uid != uid(now.uid) {
            return Answer::Conflict;
        }
        // Of what others wrote, the label and the condition at least are new.
        let ours = now.published == now.shown;
        if now.shown == status.shown && now.fence == status.fence && ours {
            return Answer::Published(version(history.len() - 1));
        }
        let struck = status
            .shown
            .iter()
            .filter(|a| state.struck.contains(&(subject.uid.clone(), *a)))
            .collect();
        // Of a family that it shows nothing of, what it was given last.
        let families = self
            .families
            .of(service_index(&subject.key), self.addresses);
        let shows = |family: &Addresses| !family.among(status.shown).is_empty();
        let replaced = families
            .into_iter()
            .filter(shows)
            .fold(Addresses::NONE, Addresses::with);
        history.push(Some(Service {
            shown: status.shown,
            published: status.shown.without(struck),
            found: now.found && !status.shown.is_empty(),
            given: if now.wanted {
                now.given.without(replaced).with(status.shown)
            } else {
                Addresses::NONE
            },
            remembered: status.shown,
            fence: status.fence,
            ..now
        }));
        Answer::Published(version(history.len() - 1))
    }
}

fn restore(struck: &mut Vec<(Uid, Address)>, record: &Record) {
    struck.retain(|(uid, a)| address(*a) != record.address || !record.names(uid));
}
