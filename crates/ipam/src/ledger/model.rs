//! The protocol checked as a model: an exhaustive search of what several writers can do.
//!
//! Writers run the product's own [`Transaction`], one API call per step, between any two of which
//! they may be paused for ever (killed) or while others act. A writer plans on what it saw at any
//! earlier time, for each object on its own. Users delete, re-create and restore Services, opt out,
//! clear or forge statuses, and touch, strip or delete records.
//!
//! Wrong is: two Services that show one address, both because a writer published it; a published
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
use crate::sharing::Terms;

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

fn record(service: usize, owner: u8, a: Address) -> Record {
    static TERMS: OnceLock<Arc<Terms>> = OnceLock::new();
    Record {
        address: address(a),
        eip: number(0),
        protocol: number(0),
        entries: vec![Entry {
            service: key(service),
            uid: uid(owner),
            terms: TERMS.get_or_init(Arc::default).clone(),
        }],
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
    /// What a writer decides for one Service on a view of any age: the controller's rules in short.
    fn plans(
        &self,
        s: usize,
        seen: (usize, Option<&Service>),
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
                    release,
                    keep_records: false,
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
            self.choose(service, &held, records, s)
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
                record: record(s, service.uid, a),
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
            keep_records: false,
        });
        plans
    }

    fn choose(
        &self,
        service: &Service,
        held: &[Address],
        records: &[Option<&Stored>],
        s: usize,
    ) -> Option<Address> {
        // Free, or held by an older Service of this name.
        let open = |a: Address| {
            records[usize::from(a)].is_none_or(|stored| {
                stored
                    .record
                    .entries
                    .iter()
                    .all(|entry| entry.service == key(s))
            })
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
        let preferred = service
            .shown
            .into_iter()
            .chain(service.remembered)
            .find(|a| open(*a));
        preferred.or_else(|| (0..self.addresses).find(|a| open(*a)))
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
        if now.shown == status.shown && now.fence == status.fence {
            return Answer::Published(version(history.len() - 1));
        }
        let struck = status
            .shown
            .is_some_and(|a| state.struck.contains(&(subject.uid.clone(), a)));
        let same = now.shown == status.shown && status.shown.is_some() && !now.published;
        history.push(Some(Service {
            shown: status.shown,
            published: status.shown.is_some() && !same && !struck,
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
                state.services[s].push(Some(Service {
                    shown: Some(a),
                    published: false,
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
            for s in 0..self.services {
                let at = state.services[s].len() - 1;
                let records: Vec<_> = state.records.iter().map(last).collect();
                let plans = self.plans(
                    s,
                    (at, last(&state.services[s])),
                    &Self::past(&state, s),
                    &records,
                );
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

    /// Each Service that can be served is, and each record belongs to a Service that shows it.
    fn is_settled(&self, state: &State) -> bool {
        let Some(end) = self.settle(state) else {
            return false;
        };
        let shown = |s: usize| last(&end.services[s]).and_then(|service| service.shown);
        let accounted = end.records.iter().enumerate().all(|(a, history)| {
            last(history).is_none_or(|stored| {
                stored.record.entries.iter().all(|entry| {
                    shown(service_index(&entry.service))
                        .is_some_and(|shown| usize::from(shown) == a)
                })
            })
        });
        let wanting = (0..self.services)
            .filter(|s| last(&end.services[*s]).is_some_and(|service| service.wanted))
            .count();
        let served: Vec<_> = (0..self.services)
            .filter(|s| last(&end.services[*s]).is_some_and(|service| service.wanted))
            .filter_map(shown)
            .collect();
        let mut distinct = served.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let able = wanting.min(usize::from(self.addresses));
        accounted && served.len() == distinct.len() && served.len() == able
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
            Begin::Empty => &[],
            Begin::Served => &[0],
            Begin::Leftover | Begin::Unremembered => &[0, 1],
        };
        for a in held {
            let at = number(1);
            state.records[usize::from(*a)].push(Some(Stored {
                record: record(0, 0, *a),
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
                |model: &Self, state: &State| {
                    let mut given: Vec<_> = (0..model.services)
                        .filter_map(|s| last(&state.services[s]))
                        .filter(|service| service.published)
                        .filter_map(|service| service.shown)
                        .collect();
                    let all = given.len();
                    given.sort_unstable();
                    given.dedup();
                    given.len() == all
                },
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
            for seen in 0..state.services[s].len() {
                let service = state.services[s][seen].as_ref();
                for records in views(&state.records) {
                    for plan in self.plans(s, (seen, service), &past, &records) {
                        let action = Action::Start(writer, s, plan);
                        if !actions.contains(&action) {
                            actions.push(action);
                        }
                    }
                }
            }
        }
    }
}

fn fingerprint(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    std::hash::Hasher::finish(&hasher)
}

/// Every combination of a version of each record.
fn views(records: &[History<Stored>]) -> Vec<Vec<Option<&Stored>>> {
    let mut views = vec![Vec::new()];
    for history in records {
        views = views
            .into_iter()
            .flat_map(|view| {
                history.iter().map(move |version| {
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
