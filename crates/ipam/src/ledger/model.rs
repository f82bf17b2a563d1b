//! The protocol checked as a model: an exhaustive search of what several writers can do.
//!
//! Writers run the product's own [`Transaction`], one API call per step, between any two of which
//! they may be paused for ever (killed) or while others act. A writer plans on what it saw at any
//! earlier time, for each object on its own. Users delete, re-create and restore Services, opt out,
//! clear or forge statuses, and touch, strip or delete records. Services may ask for one address by name and
//! agree on sharing it or not, may be found with an address that another controller gave, and may leave
//! theirs behind for a Service of their name.
//!
//! Wrong is: two Services that show one address and do not agree, both because a writer published it (but
//! for those that were found together); a published
//! address whose record does not name the Service; a Service that a writer moved from the address it
//! held; and a state that one undisturbed writer does not bring to rest with everybody served. What a user forged is not counted until a writer
//! publishes over it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::record::{Entry, Record, Stored};
use super::transaction::{
    Answer, Call, Conclusion, Outcome, Plan, Reservation, Rule, Rules, Step, Subject, Transaction,
};
use crate::names::{ServiceKey, Uid, Version};
use crate::sharing::{self, Port, Terms};

type Address = u8;

/// A Service as the API server stores it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Service {
    uid: u8,
    wanted: bool,
    shown: Option<Address>,
    /// Whether a writer published what is shown.
    published: bool,
    /// The address a writer last published; forgotten when the user lets go of it.
    given: Option<Address>,
    /// The hint in the Service's metadata.
    remembered: Option<Address>,
    /// It shows an address that no writer gave: it was found so, with others perhaps.
    found: bool,
    fence: u8,
}

/// The status a writer writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Status {
    shown: Option<Address>,
    fence: u8,
}

/// Every version of an object there has been; `None` where it did not exist.
type History<T> = Vec<Option<T>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    services: Vec<History<Service>>,
    records: Vec<History<Stored>>,
    running: Vec<Option<(usize, Transaction<Status>)>>,
    operations: u8,
    edits: u8,
    uids: u8,
    /// Who a user struck off which record; until a writer puts him there again, what he publishes
    /// rests on the user's word.
    struck: Vec<(Uid, Address)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Start(usize, usize, Plan<Status>),
    Step(usize),
    /// A writer deletes a record that names nobody, at the version it saw.
    Discard(Stored),
    Kill(usize),
    User(Edit),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit {
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

struct Writers {
    parallel: usize,
    services: usize,
    addresses: u8,
    operations: u8,
    edits: u8,
    rules: Rules,
    begin: Begin,
    /// All Services ask for the first address by name: those with even numbers expose one port, the others
    /// another.
    sharing: bool,
    /// Addresses of Services that are gone are kept for Services of their name.
    sticky: bool,
}

/// How the search begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// Nobody has anything.
    Empty,
    /// The first Service shows the first address, and holds it.
    Served,
    /// The first Service shows the second address, and holds the first one too.
    Leftover,
    /// The same, and a user took away the annotation that says which one was published.
    Unremembered,
    /// The first Service shows the first address by somebody else's word.
    Found,
    /// The first and the third Service do, which do not agree.
    FoundTogether,
}

fn number(n: usize) -> Arc<str> {
    static NAMES: OnceLock<Vec<Arc<str>>> = OnceLock::new();
    NAMES.get_or_init(|| (0..64).map(|n: usize| Arc::from(n.to_string())).collect())[n].clone()
}

fn key(service: usize) -> ServiceKey {
    ServiceKey {
        namespace: number(0),
        name: number(service),
    }
}

fn uid(n: u8) -> Uid {
    Uid(number(usize::from(n)))
}

fn version(n: usize) -> Version {
    Version(number(n))
}

fn address(a: Address) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, a).into()
}

fn index(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => usize::from(address.octets()[3]),
        IpAddr::V6(_) => unreachable!("the model has IPv4 only"),
    }
}

/// What a Service asks for: without sharing any address, with it the first one by name.
fn terms(service: usize, sharing: bool) -> Arc<Terms> {
    static TERMS: OnceLock<[Arc<Terms>; 3]> = OnceLock::new();
    let all = TERMS.get_or_init(|| {
        let port = |number| Terms {
            ports: vec![Port {
                protocol: "TCP".into(),
                number,
            }],
            by_name: true,
            ..Terms::default()
        };
        [Arc::default(), Arc::new(port(80)), Arc::new(port(81))]
    });
    all[if sharing { 1 + service % 2 } else { 0 }].clone()
}

fn agree(one: &Entry, other: &Entry) -> bool {
    sharing::agree(
        (&one.service, &one.terms),
        (&other.service, &other.terms),
        false,
    )
    .is_ok()
}

fn entry(service: usize, owner: u8, sharing: bool) -> Entry {
    Entry {
        service: key(service),
        uid: uid(owner),
        terms: terms(service, sharing),
    }
}

fn record(a: Address, entries: Vec<Entry>) -> Record {
    Record {
        address: address(a),
        eip: number(0),
        protocol: number(0),
        entries,
        reserved: false,
        reserved_for: vec![],
        kept_for: None,
        revision: 1,
    }
}

fn restore(struck: &mut Vec<(Uid, Address)>, record: &Record) {
    struck.retain(|(uid, a)| address(*a) != record.address || !record.names(uid));
}

fn last<T>(history: &History<T>) -> Option<&T> {
    history.last().and_then(Option::as_ref)
}

impl Writers {
    /// What a writer decides for one Service on a view of any age: the controller's rules in short. `beside`
    /// are the other Services, as it sees them.
    fn plans(
        &self,
        s: usize,
        seen: (usize, Option<&Service>),
        beside: &[(usize, Option<&Service>)],
        past: &[u8],
        records: &[Option<&Stored>],
    ) -> Vec<Plan<Status>> {
        let named = |uid: &Uid| -> Vec<Address> {
            (0..self.addresses)
                .filter(|a| records[usize::from(*a)].is_some_and(|stored| stored.record.names(uid)))
                .collect()
        };
        let mut plans = Vec::new();
        for owner in past {
            // Records of a Service of that name which is not there any more.
            if seen.1.is_some_and(|service| service.uid == *owner) {
                continue;
            }
            let release: Vec<_> = named(&uid(*owner))
                .into_iter()
                .filter(|a| {
                    seen.1
                        .is_none_or(|service| !(service.wanted && service.shown == Some(*a)))
                })
                .map(address)
                .collect();
            if !release.is_empty() {
                let subject = Subject {
                    key: key(s),
                    uid: uid(*owner),
                    version: None,
                };
                plans.push(Plan {
                    subject,
                    reserve: vec![],
                    publish: None,
                    keep: if self.sticky { release.clone() } else { vec![] },
                    release,
                });
            }
        }
        let (at, Some(service)) = seen else {
            return plans;
        };
        let subject = Subject {
            key: key(s),
            uid: uid(service.uid),
            version: Some(version(at)),
        };
        let held = named(&subject.uid);
        let target = if service.wanted {
            self.choose(service, &held, records, beside, s)
        } else {
            None
        };
        let release: Vec<_> = held
            .iter()
            .copied()
            .filter(|a| Some(*a) != target)
            .map(address)
            .collect();
        let reserve: Vec<_> = target
            .map(|a| Reservation {
                record: record(a, self.entries(s, service, a, beside, records)),
                known: records[usize::from(a)].cloned(),
                other_namespaces: false,
                adopted: false,
            })
            .into_iter()
            .collect();
        let held_already = target.is_some_and(|a| held.contains(&a));
        if service.shown == target && release.is_empty() && (target.is_none() || held_already) {
            return plans;
        }
        let fence =
            service.fence + u8::from(self.rules.have(Rule::Fence) && service.shown == target);
        let publish = Some(Status {
            shown: target,
            fence,
        });
        plans.push(Plan {
            subject,
            reserve,
            publish,
            release,
            keep: vec![],
        });
        plans
    }

    /// The subject's entry, and those of Services that are adopted together with it.
    fn entries(
        &self,
        s: usize,
        service: &Service,
        a: Address,
        beside: &[(usize, Option<&Service>)],
        records: &[Option<&Stored>],
    ) -> Vec<Entry> {
        let mut entries = vec![entry(s, service.uid, self.sharing)];
        if service.shown == Some(a) && records[usize::from(a)].is_none() {
            entries.extend(beside.iter().filter_map(|(other, seen)| {
                let seen = seen.filter(|seen| seen.wanted && seen.shown == Some(a))?;
                // Of two that show it, one by our word written with it, the other one is wrong.
                if (seen.remembered == Some(a)) != (service.remembered == Some(a)) {
                    return None;
                }
                let mut records = records.iter().flatten();
                let holds = records.any(|stored| stored.record.names(&uid(seen.uid)));
                (!holds).then(|| entry(*other, seen.uid, self.sharing))
            }));
        }
        entries
    }

    fn choose(
        &self,
        service: &Service,
        held: &[Address],
        records: &[Option<&Stored>],
        beside: &[(usize, Option<&Service>)],
        s: usize,
    ) -> Option<Address> {
        let ours = entry(s, service.uid, self.sharing);
        // Free, held by an older Service of this name, or by those who agree.
        let open = |a: Address| {
            records[usize::from(a)].is_none_or(|stored| {
                let record = &stored.record;
                let kept = record.kept_for.as_ref().is_some_and(|kept| *kept != key(s));
                let mut entries = record.entries.iter();
                !kept && entries.all(|entry| entry.service == key(s) || agree(&ours, entry))
            })
        };
        // Kept for somebody else: the last resort.
        let vacant = |a: Address| {
            records[usize::from(a)].is_some_and(|stored| stored.record.entries.is_empty())
        };
        // What we published by our own word, also where its record is only not seen yet.
        let ours = service.remembered.filter(|a| held.contains(a) || open(*a));
        if ours.is_some() {
            return ours;
        }
        if let Some(held) = held
            .iter()
            .find(|a| service.shown == Some(**a))
            .or(held.first())
        {
            return Some(*held);
        }
        let contested = |a: Address| {
            let given = |other: &Service| other.shown == Some(a) && other.remembered == Some(a);
            let mut others = beside.iter().filter_map(|(_, seen)| *seen);
            service.remembered != Some(a) && others.any(given)
        };
        let preferred = service
            .shown
            .filter(|a| !contested(*a))
            .into_iter()
            .chain(service.remembered)
            .find(|a| open(*a));
        let kept = |a: &Address| {
            let stored = records[usize::from(*a)];
            stored.is_some_and(|stored| stored.record.kept_for == Some(key(s)))
        };
        preferred
            .or_else(|| (0..self.addresses).find(|a| kept(a) && open(*a)))
            .or_else(|| (0..self.addresses).find(|a| open(*a)))
            .or_else(|| (0..self.addresses).find(|a| vacant(*a)))
    }

    fn call(&self, state: &mut State, call: Call<Status>) -> Answer {
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
        let ours = now.published || now.shown.is_none();
        if now.shown == status.shown && now.fence == status.fence && ours {
            return Answer::Published(version(history.len() - 1));
        }
        let struck = status
            .shown
            .is_some_and(|a| state.struck.contains(&(subject.uid.clone(), a)));
        history.push(Some(Service {
            shown: status.shown,
            published: status.shown.is_some() && !struck,
            found: now.found && status.shown.is_some(),
            given: if now.wanted {
                status.shown.or(now.given)
            } else {
                None
            },
            remembered: status.shown,
            fence: status.fence,
            ..now
        }));
        Answer::Published(version(history.len() - 1))
    }

    fn edit(&self, state: &mut State, edit: Edit) -> Option<()> {
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

    fn past(state: &State, s: usize) -> Vec<u8> {
        let mut uids: Vec<u8> = state.services[s]
            .iter()
            .flatten()
            .map(|service| service.uid)
            .collect();
        uids.dedup();
        uids
    }

    fn edits(&self) -> Vec<Edit> {
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

    /// What one undisturbed writer with fresh caches makes of a state; `None` if it never ends.
    fn settle(&self, state: &State) -> Option<State> {
        let mut state = state.clone();
        for _ in 0..32 {
            let mut idle = true;
            for stored in state.records.clone().iter().filter_map(last) {
                if self.is_left_over(stored) {
                    idle = false;
                    self.call(&mut state, Call::Delete(stored.clone()));
                }
            }
            for s in 0..self.services {
                let at = state.services[s].len() - 1;
                let plans = {
                    let records: Vec<_> = state.records.iter().map(last).collect();
                    let others = (0..self.services).filter(|other| *other != s);
                    let beside: Vec<_> = others
                        .map(|other| (other, last(&state.services[other])))
                        .collect();
                    self.plans(
                        s,
                        (at, last(&state.services[s])),
                        &beside,
                        &Self::past(&state, s),
                        &records,
                    )
                };
                for plan in plans {
                    idle = false;
                    let mut transaction = Transaction::with_rules(plan, self.rules);
                    while let Step::Call(call) = transaction.step() {
                        let answer = self.call(&mut state, call);
                        transaction.answer(answer);
                    }
                }
            }
            if idle {
                return Some(state);
            }
        }
        None
    }

    /// Nobody needs the record: it names nobody, and nobody of its name can come for it.
    fn is_left_over(&self, stored: &Stored) -> bool {
        let record = &stored.record;
        record.entries.is_empty() && !(self.sticky && record.kept_for.is_some())
    }

    /// Whether any two of the Services may stand on one address: they agree, or were found so.
    fn may_share(&self, one: (usize, &Service), other: (usize, &Service)) -> bool {
        let entry = |of: (usize, &Service)| entry(of.0, of.1.uid, self.sharing);
        one.1.found && other.1.found || agree(&entry(one), &entry(other))
    }

    /// Each Service that can be served is, and each record belongs to a Service that shows it.
    fn is_settled(&self, state: &State) -> bool {
        let Some(end) = self.settle(state) else {
            return false;
        };
        let shown = |s: usize| last(&end.services[s]).and_then(|service| service.shown);
        let accounted = end.records.iter().enumerate().all(|(a, history)| {
            last(history).is_none_or(|stored| {
                !self.is_left_over(stored)
                    && stored.record.entries.iter().all(|entry| {
                        shown(service_index(&entry.service))
                            .is_some_and(|shown| usize::from(shown) == a)
                    })
            })
        });
        let wanting: Vec<_> = (0..self.services)
            .filter_map(|s| Some((s, last(&end.services[s])?)))
            .filter(|(_, service)| service.wanted)
            .collect();
        // Whoever is not served disagrees with somebody on each address.
        let able = |(s, service): (usize, &Service)| {
            let ours = entry(s, service.uid, self.sharing);
            end.records.iter().map(last).any(|record| {
                record.is_none_or(|stored| {
                    stored
                        .record
                        .entries
                        .iter()
                        .all(|entry| agree(&ours, entry))
                })
            })
        };
        let served = wanting
            .iter()
            .all(|(s, service)| service.shown.is_some() || !able((*s, service)));
        accounted && served && self.is_given_once(&end)
    }

    fn is_given_once(&self, state: &State) -> bool {
        let given: Vec<_> = (0..self.services)
            .filter_map(|s| Some((s, last(&state.services[s])?)))
            .filter(|(_, service)| service.published && service.shown.is_some())
            .collect();
        given.iter().enumerate().all(|(at, one)| {
            given
                .iter()
                .skip(at + 1)
                .all(|other| one.1.shown != other.1.shown || self.may_share(*one, *other))
        })
    }
}

fn service_index(key: &ServiceKey) -> usize {
    key.name.parse().unwrap()
}

impl Model for Writers {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let service = |s: usize| Service {
            uid: u8::try_from(s).unwrap(),
            wanted: true,
            shown: None,
            published: false,
            given: None,
            remembered: None,
            found: false,
            fence: 0,
        };
        let mut state = State {
            services: (0..self.services).map(|s| vec![Some(service(s))]).collect(),
            records: (0..self.addresses).map(|_| vec![None]).collect(),
            running: vec![None; self.parallel],
            operations: self.operations,
            edits: self.edits,
            uids: u8::try_from(self.services).unwrap(),
            struck: vec![],
        };
        let held: &[Address] = match self.begin {
            Begin::Empty | Begin::Found | Begin::FoundTogether => &[],
            Begin::Served => &[0],
            Begin::Leftover | Begin::Unremembered => &[0, 1],
        };
        for a in held {
            let at = number(1);
            state.records[usize::from(*a)].push(Some(Stored {
                record: record(*a, vec![entry(0, 0, self.sharing)]),
                uid: Uid(at.clone()),
                version: Version(at),
            }));
        }
        if let Some(shown) = held.last().copied() {
            state.services[0].push(Some(Service {
                shown: Some(shown),
                published: true,
                given: Some(shown),
                remembered: Some(shown).filter(|_| self.begin != Begin::Unremembered),
                ..service(0)
            }));
        }
        let found: &[usize] = match self.begin {
            Begin::Found => &[0],
            Begin::FoundTogether => &[0, 2],
            _ => &[],
        };
        for s in found {
            state.services[*s].push(Some(Service {
                shown: Some(0),
                found: true,
                ..service(*s)
            }));
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut started = false;
        for (writer, running) in state.running.iter().enumerate() {
            if running.is_some() {
                actions.push(Action::Step(writer));
                actions.push(Action::Kill(writer));
            } else if state.operations > 0 && !started {
                // Idle writers are alike: one of them is enough.
                started = true;
                self.starts(state, writer, actions);
            }
        }
        if state.edits > 0 {
            actions.extend(self.edits().into_iter().map(Action::User));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Start(writer, s, plan) => {
                next.operations -= 1;
                next.running[writer] = Some((s, Transaction::with_rules(plan, self.rules)));
            }
            Action::Discard(stored) => {
                next.operations -= 1;
                self.call(&mut next, Call::Delete(stored));
            }
            Action::Kill(writer) => next.running[writer] = None,
            Action::Step(writer) => {
                let (s, mut transaction) = next.running[writer].take()?;
                if let Step::Call(call) = transaction.step() {
                    let answer = self.call(&mut next, call);
                    transaction.answer(answer);
                }
                let over = matches!(
                    transaction.step(),
                    Step::End(Conclusion {
                        outcome: Outcome::Done | Outcome::Again | Outcome::Taken(_),
                        ..
                    })
                );
                next.running[writer] = (!over).then_some((s, transaction));
            }
            Action::User(edit) => {
                next.edits -= 1;
                self.edit(&mut next, edit)?;
            }
        }
        // Writers are alike: their order says nothing.
        next.running.sort_by_cached_key(fingerprint);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(
                "no address is given twice",
                |model: &Self, state: &State| model.is_given_once(state),
            ),
            Property::always(
                "what a writer published is held",
                |model: &Self, state: &State| {
                    (0..model.services)
                        .filter_map(|s| last(&state.services[s]))
                        .all(|service| {
                            let held = |a: Address| {
                                last(&state.records[usize::from(a)])
                                    .is_some_and(|stored| stored.record.names(&uid(service.uid)))
                            };
                            !service.published || service.shown.is_none_or(held)
                        })
                },
            ),
            Property::always("no address moves", |_: &Self, state: &State| {
                state.services.iter().all(|history| {
                    history.windows(2).all(|pair| match pair {
                        [Some(before), Some(after)]
                            if before.uid == after.uid && after.published =>
                        {
                            before.given.is_none_or(|given| after.shown == Some(given))
                        }
                        _ => true,
                    })
                })
            }),
            Property::always(
                "what goes quiet is served and accounted for",
                |model: &Self, state: &State| {
                    state.running.iter().any(Option::is_some)
                        || state.operations > 0 && state.edits > 0
                        || model.is_settled(state)
                },
            ),
        ];
        if self.begin == Begin::Unremembered {
            // Which of the two is the right one, nobody can know there.
            properties.truncate(2);
        }
        properties
    }
}

impl Writers {
    fn starts(&self, state: &State, writer: usize, actions: &mut Vec<Action>) {
        for s in 0..self.services {
            let past = Self::past(state, s);
            let others: Vec<_> = (0..self.services).filter(|other| *other != s).collect();
            for seen in 0..state.services[s].len() {
                let service = state.services[s][seen].as_ref();
                // How old the word about others is matters only to what is adopted together.
                let found = service.is_some_and(|service| service.shown.is_some());
                let histories: Vec<_> = others
                    .iter()
                    .map(|other| &state.services[*other][..])
                    .map(|history| if found { history } else { &history[..1] })
                    .collect();
                for beside in views(&histories) {
                    let beside: Vec<_> = others.iter().copied().zip(beside).collect();
                    for records in views(&state.records) {
                        for plan in self.plans(s, (seen, service), &beside, &past, &records) {
                            let action = Action::Start(writer, s, plan);
                            if !actions.contains(&action) {
                                actions.push(action);
                            }
                        }
                    }
                }
            }
        }
        for stored in state.records.iter().flatten().flatten() {
            if self.is_left_over(stored) {
                actions.push(Action::Discard(stored.clone()));
            }
        }
    }
}

fn fingerprint(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    std::hash::Hasher::finish(&hasher)
}

/// Every combination of a version of each object.
fn views<T>(histories: &[impl AsRef<[Option<T>]>]) -> Vec<Vec<Option<&T>>> {
    let mut views = vec![Vec::new()];
    for history in histories {
        views = views
            .into_iter()
            .flat_map(|view| {
                history.as_ref().iter().map(move |version| {
                    let mut longer = view.clone();
                    longer.push(version.as_ref());
                    longer
                })
            })
            .collect();
    }
    views
}

/// Returns the first violated property, if any.
fn violation(model: Writers) -> Option<&'static str> {
    let checker = model
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::Any)
        .spawn_bfs()
        .join();
    println!("{} states", checker.unique_state_count());
    checker
        .discoveries()
        .into_iter()
        .next()
        .map(|(name, path)| {
            println!("{name}: {:#?}", path.into_actions());
            name
        })
}

fn writers(begin: Begin, addresses: u8, parallel: usize, operations: u8, edits: u8) -> Writers {
    Writers {
        parallel,
        services: 2,
        addresses,
        operations,
        edits,
        rules: Rules::ALL,
        begin,
        sharing: false,
        sticky: false,
    }
}

/// Three Services that ask for one address by name, two of which do not agree.
fn sharers(begin: Begin, parallel: usize, operations: u8, edits: u8) -> Writers {
    Writers {
        services: 3,
        sharing: true,
        ..writers(begin, 1, parallel, operations, edits)
    }
}

#[test]
fn three_writers_and_a_user_never_give_one_address_twice() {
    assert_eq!(violation(writers(Begin::Empty, 1, 3, 3, 1)), None);
}

#[test]
fn two_writers_and_two_edits_never_give_one_address_twice() {
    assert_eq!(violation(writers(Begin::Empty, 1, 2, 2, 2)), None);
}

#[test]
fn what_is_served_stays_with_one_whatever_two_edits_do() {
    assert_eq!(violation(writers(Begin::Served, 1, 2, 2, 2)), None);
}

#[test]
fn with_room_to_move_nothing_moves() {
    assert_eq!(violation(writers(Begin::Empty, 2, 2, 2, 1)), None);
    assert_eq!(violation(writers(Begin::Leftover, 2, 2, 2, 1)), None);
    assert_eq!(violation(writers(Begin::Unremembered, 2, 2, 2, 0)), None);
}

#[test]
fn an_address_that_another_controller_gave_is_adopted_unless_it_was_given_away() {
    assert_eq!(violation(writers(Begin::Found, 1, 2, 2, 1)), None);
    assert_eq!(violation(writers(Begin::Found, 2, 2, 3, 0)), None);
}

#[test]
fn an_address_is_shared_by_those_who_agree_and_by_nobody_else() {
    assert_eq!(violation(sharers(Begin::Empty, 3, 3, 0)), None);
    assert_eq!(violation(sharers(Begin::Empty, 2, 2, 1)), None);
}

#[test]
fn what_was_found_shared_stays_so_and_nobody_joins_who_does_not_agree() {
    assert_eq!(violation(sharers(Begin::FoundTogether, 2, 3, 0)), None);
    assert_eq!(violation(sharers(Begin::FoundTogether, 2, 2, 1)), None);
}

#[test]
fn what_is_kept_for_one_that_is_gone_is_given_once_too() {
    let mut model = writers(Begin::Served, 1, 2, 2, 2);
    model.sticky = true;
    assert_eq!(violation(model), None);
}

/// Without the rule, the same search finds a state that must not be.
fn is_needed(rule: Rule, mut model: Writers) {
    model.rules.without = Some(rule);
    assert!(violation(model).is_some());
}

#[test]
fn a_writer_must_raise_a_record_that_is_his() {
    is_needed(Rule::Raise, writers(Begin::Served, 1, 2, 2, 2));
}

#[test]
fn what_is_given_back_must_be_fenced() {
    is_needed(Rule::Fence, writers(Begin::Unremembered, 2, 2, 2, 0));
}

#[test]
fn a_record_must_be_deleted_at_the_version_read() {
    is_needed(Rule::DeleteAtVersion, writers(Begin::Served, 1, 2, 2, 2));
}

#[test]
fn a_status_must_be_written_at_the_version_read() {
    is_needed(Rule::PublishAtVersion, writers(Begin::Empty, 1, 2, 2, 1));
}

#[test]
fn what_is_given_back_must_be_read_before_the_fence() {
    is_needed(Rule::ReadBeforeFence, writers(Begin::Served, 1, 2, 2, 2));
}

#[test]
fn a_service_believed_gone_must_be_looked_for() {
    is_needed(Rule::ConfirmGone, writers(Begin::Empty, 1, 1, 2, 2));
}

#[test]
fn a_service_that_takes_a_record_over_must_be_looked_for() {
    is_needed(Rule::ConfirmCurrent, writers(Begin::Empty, 1, 1, 3, 2));
}

#[test]
fn who_joins_must_agree() {
    is_needed(Rule::Agree, sharers(Begin::Empty, 2, 2, 0));
    is_needed(Rule::Agree, writers(Begin::Found, 1, 2, 2, 0));
}
