//! The protocol checked as a model: an exhaustive search of what several writers can do.
//!
//! Writers run the product's own [`Transaction`], one API call per step, between any two of which
//! they may be paused for ever (killed) or while others act. A writer plans on what it saw at any
//! earlier time, for each object on its own. Users delete, re-create and restore Services, opt out,
//! clear or forge statuses, and touch, strip or delete records. Services may ask for one address by name and
//! agree on sharing it or not, may be found with an address that another controller gave, may leave
//! theirs behind for a Service of their name, and may ask for an address of each of two families.
//!
//! Wrong is: two Services that show one address and do not agree, both because a writer published it (but
//! for those that were found together); a published address whose record does not name the Service; a Service that
//! a writer moved from the address it held; and a state that one undisturbed writer does not bring to rest with
//! everybody served and no record that is held in vain. What a user forged is not counted until a writer publishes
//! over it.

mod addresses;
mod properties;
mod server;
mod tests;
mod user;
mod world;
mod writer;

use stateright::{Model, Property};

use crate::ledger::record::Stored;
use crate::ledger::transaction::{Call, Conclusion, Outcome, Plan, Rules, Step, Transaction};
use crate::names::{Uid, Version};
use addresses::{Addresses, Families};
use user::Edit;
use world::{Service, State, Status, entry, number, record};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Start(usize, usize, Plan<Status>),
    Step(usize),
    /// A writer deletes a record that names nobody, at the version it saw.
    Discard(Stored),
    Kill(usize),
    User(Edit),
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
    families: Families,
    /// Who needs both families and cannot have one of them keeps what it reserved of the other: a mistake.
    clings: bool,
}

/// How the search begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// Nobody has anything.
    Empty,
    /// The first Service shows the first address of each family that it asks for, and holds it.
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

impl Model for Writers {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let service = |s: usize| Service {
            uid: u8::try_from(s).unwrap(),
            wanted: true,
            shown: Addresses::NONE,
            published: Addresses::NONE,
            given: Addresses::NONE,
            remembered: Addresses::NONE,
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
        let families = self.families.of(0, self.addresses);
        let firsts = families.iter().filter_map(|family| family.iter().next());
        let (held, shown): (Addresses, Addresses) = match self.begin {
            Begin::Empty | Begin::Found | Begin::FoundTogether => Default::default(),
            Begin::Served => (firsts.clone().collect(), firsts.collect()),
            Begin::Leftover | Begin::Unremembered => ((0..2).collect(), 1.into()),
        };
        for a in held.iter() {
            let at = number(1);
            state.records[usize::from(a)].push(Some(Stored {
                record: record(a, vec![entry(0, 0, self.sharing)]),
                uid: Uid(at.clone()),
                version: Version(at),
            }));
        }
        if !shown.is_empty() {
            let is_remembered = self.begin != Begin::Unremembered;
            state.services[0].push(Some(Service {
                shown,
                published: shown,
                given: shown,
                remembered: if is_remembered {
                    shown
                } else {
                    Addresses::NONE
                },
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
                shown: 0.into(),
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
        self.all_properties()
    }
}

fn fingerprint(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    std::hash::Hasher::finish(&hasher)
}
