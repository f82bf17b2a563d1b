//! A writer: what it decides for one Service on a view of any age, the controller's rules in short.

use super::addresses::{Address, Addresses};
use super::world::{Service, State, Status, address, agree, entry, key, record, uid, version};
use super::{Action, Writers};
use crate::ledger::record::{Entry, Stored};
use crate::ledger::transaction::{Plan, Reservation, Rule, Subject};
use crate::names::Uid;

impl Writers {
    /// What a writer decides for one Service on a view of any age: the controller's rules in short. `beside`
    /// are the other Services, as it sees them.
    pub(super) fn plans(
        &self,
        s: usize,
        seen: (usize, Option<&Service>),
        beside: &[(usize, Option<&Service>)],
        past: &[u8],
        records: &[Option<&Stored>],
    ) -> Vec<Plan<Status>> {
        let named = |uid: &Uid| -> Addresses {
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
                .iter()
                .filter(|a| {
                    seen.1
                        .is_none_or(|service| !(service.wanted && service.shown.contains(*a)))
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
        let targets = self.targets(s, service, held, beside, records);
        let mut release = held.without(targets);
        if self.clings && service.wanted && service.shown == targets {
            release = Addresses::NONE;
        }
        // What is shown and held already stays as it is: our write of the status counts only where nobody let go of
        // it meanwhile.
        let stays = |a: Address| service.shown.contains(a) && held.contains(a);
        let reserve: Vec<_> = targets
            .iter()
            .filter(|a| !stays(*a))
            .map(|a| Reservation {
                record: record(a, self.entries(s, service, a, beside, records)),
                known: records[usize::from(a)].cloned(),
                other_namespaces: false,
                adopted: false,
            })
            .collect();
        if service.shown == targets && release.is_empty() && reserve.is_empty() {
            return plans;
        }
        let fence =
            service.fence + u8::from(self.rules.have(Rule::Fence) && service.shown == targets);
        let publish = Some(Status {
            shown: targets,
            fence,
        });
        plans.push(Plan {
            subject,
            reserve,
            publish,
            release: release.iter().map(address).collect(),
            keep: vec![],
        });
        plans
    }

    /// What the Service shall have: an address of each family that it asks for, or what there is of them.
    fn targets(
        &self,
        s: usize,
        service: &Service,
        held: Addresses,
        beside: &[(usize, Option<&Service>)],
        records: &[Option<&Stored>],
    ) -> Addresses {
        if !service.wanted {
            return Addresses::NONE;
        }
        let families = self.families.of(s, self.addresses);
        let chosen: Vec<_> = families
            .iter()
            .map(|family| self.choose(service, held, records, beside, s, *family))
            .collect();
        let targets = chosen.iter().flatten().copied().collect();
        if self.families.needs_all() && chosen.contains(&None) {
            // What it has it keeps; it takes nothing that is of no use to it.
            return held.among(service.shown).among(targets);
        }
        targets
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
        if service.shown.contains(a) && records[usize::from(a)].is_none() {
            entries.extend(beside.iter().filter_map(|(other, seen)| {
                let seen = seen.filter(|seen| seen.wanted && seen.shown.contains(a))?;
                // Of two that show it, one by our word written with it, the other one is wrong.
                if seen.remembered.contains(a) != service.remembered.contains(a) {
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
        held: Addresses,
        records: &[Option<&Stored>],
        beside: &[(usize, Option<&Service>)],
        s: usize,
        family: Addresses,
    ) -> Option<Address> {
        let (held, shown) = (held.among(family), service.shown.among(family));
        let remembered = service.remembered.among(family);
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
        let ours = remembered.iter().find(|a| held.contains(*a) || open(*a));
        let held = || held.among(shown).iter().chain(held.iter()).next();
        if let Some(ours) = ours.or_else(held) {
            return Some(ours);
        }
        let contested = |a: Address| {
            let given = |other: &Service| other.shown.contains(a) && other.remembered.contains(a);
            let mut others = beside.iter().filter_map(|(_, seen)| *seen);
            !remembered.contains(a) && others.any(given)
        };
        let preferred = shown
            .iter()
            .filter(|a| !contested(*a))
            .chain(remembered.iter())
            .find(|a| open(*a));
        let kept = |a: Address| {
            let stored = records[usize::from(a)];
            stored.is_some_and(|stored| stored.record.kept_for == Some(key(s)))
        };
        preferred
            .or_else(|| family.iter().find(|a| kept(*a) && open(*a)))
            .or_else(|| family.iter().find(|a| open(*a)))
            .or_else(|| family.iter().find(|a| vacant(*a)))
    }

    pub(super) fn past(state: &State, s: usize) -> Vec<u8> {
        let mut uids: Vec<u8> = state.services[s]
            .iter()
            .flatten()
            .map(|service| service.uid)
            .collect();
        uids.dedup();
        uids
    }

    /// Nobody needs the record: it names nobody, and nobody of its name can come for it.
    pub(super) fn is_left_over(&self, stored: &Stored) -> bool {
        let record = &stored.record;
        record.entries.is_empty() && !(self.sticky && record.kept_for.is_some())
    }

    pub(super) fn starts(&self, state: &State, writer: usize, actions: &mut Vec<Action>) {
        for s in 0..self.services {
            let past = Self::past(state, s);
            let others: Vec<_> = (0..self.services).filter(|other| *other != s).collect();
            for seen in 0..state.services[s].len() {
                let service = state.services[s][seen].as_ref();
                // How old the word about others is matters only to what is adopted together.
                let found = service.is_some_and(|service| !service.shown.is_empty());
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
