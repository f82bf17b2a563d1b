//! What must hold in every state, and what an undisturbed writer makes of one.

use stateright::Property;

use super::world::{Address, Service, State, agree, entry, last, service_index, uid};
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
