//! What must hold in every state, and what an undisturbed writer makes of one.

use stateright::Property;

use super::addresses::{Address, Addresses};
use super::world::{Service, State, agree, entry, last, service_index, uid};
use super::{Begin, Writers};
use crate::ledger::transaction::{Call, Step, Transaction};

impl Writers {
    pub(super) fn all_properties(&self) -> Vec<Property<Self>> {
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
                            service.published.iter().all(held)
                        })
                },
            ),
            Property::always("no address moves", |_: &Self, state: &State| {
                state.services.iter().all(|history| {
                    history.windows(2).all(|pair| match pair {
                        [Some(before), Some(after)]
                            if before.uid == after.uid && !after.published.is_empty() =>
                        {
                            before.given.without(after.shown).is_empty()
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
        let shows = |s: usize, a: usize| {
            let service = last(&end.services[s]);
            service.is_some_and(|service| service.shown.iter().any(|shown| usize::from(shown) == a))
        };
        let accounted = end.records.iter().enumerate().all(|(a, history)| {
            last(history).is_none_or(|stored| {
                let mut entries = stored.record.entries.iter();
                !self.is_left_over(stored)
                    && entries.all(|entry| shows(service_index(&entry.service), a))
            })
        });
        let served = (0..self.services).all(|s| {
            let service = last(&end.services[s]).filter(|service| service.wanted);
            service.is_none_or(|service| self.is_served(&end, s, service))
        });
        accounted && served && self.is_given_once(&end)
    }

    /// Whether the Service has an address of each family that it asks for, as far as that can be.
    fn is_served(&self, state: &State, s: usize, service: &Service) -> bool {
        let ours = entry(s, service.uid, self.sharing);
        // Whoever is not served disagrees with somebody on each address.
        let is_open = |a: Address| {
            last(&state.records[usize::from(a)]).is_none_or(|stored| {
                stored
                    .record
                    .entries
                    .iter()
                    .all(|entry| agree(&ours, entry))
            })
        };
        let has = |family: &Addresses| !family.among(service.shown).is_empty();
        let can_have = |family: &Addresses| has(family) || family.iter().any(is_open);
        let families = self.families.of(s, self.addresses);
        let waits = self.families.needs_all() && !families.iter().all(can_have);
        waits
            || families
                .iter()
                .all(|family| has(family) || !can_have(family))
    }

    fn is_given_once(&self, state: &State) -> bool {
        let given: Vec<_> = (0..self.services)
            .filter_map(|s| Some((s, last(&state.services[s])?)))
            .collect();
        given.iter().enumerate().all(|(at, one)| {
            given.iter().skip(at + 1).all(|other| {
                one.1.published.among(other.1.published).is_empty() || self.may_share(*one, *other)
            })
        })
    }
}
