//! Which Eips may serve a Service, in which order, and why the others may not.
//!
//! The Eip it names; else those bound to its namespace or selecting it, by priority and name, and after
//! them the default Eip; where there is no default, the unbound ones that assign automatically.
//! Bindings steer the automatic choice only, unless the Eip says `strictBinding`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use openelb_api::{Closed, Family};

use super::Index;
use super::pools::Entry;
use super::wording::{Names, Problem, Rejections};
use crate::service::{Request, ServiceFacts};

/// Where an address may come from.
pub(super) struct Candidates<'a> {
    /// Eips that may give addresses now, best first.
    pub(super) open: Vec<(&'a Arc<str>, &'a Entry)>,
    /// Why none may, when there is none.
    pub(super) problem: Problem,
}

impl Index {
    pub(super) fn candidates(&self, service: &ServiceFacts, request: &Request) -> Candidates<'_> {
        if let Some(name) = &request.eip {
            return self.explicit(service, name);
        }
        let labels = service.labels.to_map();
        let mut rejected = Vec::new();
        let mut bound = Vec::new();
        let mut unbound = Vec::new();
        let mut default = Vec::new();
        let default_eip = self.pools.default_eip();
        for (name, entry) in self.pools.iter() {
            let pool = &entry.pool;
            let fits = self.fits(service, &labels, entry);
            let other_protocol = request
                .protocol
                .is_some_and(|protocol| protocol != pool.protocol);
            let why = match pool.closed {
                Some(Closed::Disabled) => Some("is disabled"),
                Some(Closed::Deleting) => Some("is being deleted"),
                None if other_protocol => Some("has another protocol"),
                None if pool.binding.strict && pool.binding.is_bound() && !fits => {
                    Some("is strictly bound to others")
                }
                None => None,
            };
            match why {
                Some(why) => rejected.push((name.clone(), why)),
                None if fits => bound.push((name, entry)),
                None if default_eip == Some(name) => default.push((name, entry)),
                None if pool.binding.is_bound() => {
                    rejected.push((name.clone(), "is bound to others"));
                }
                None if !pool.auto_assign => {
                    rejected.push((name.clone(), "does not assign automatically"));
                }
                None => unbound.push((name, entry)),
            }
        }
        let has_default = self.pools.iter().any(|(_, entry)| entry.pool.default);
        let rank = |(name, entry): &(&Arc<str>, &Entry)| (entry.pool.priority, (*name).clone());
        bound.sort_by_key(rank);
        default.sort_by_key(rank);
        unbound.sort_by_key(rank);
        if has_default {
            rejected.extend(
                unbound
                    .drain(..)
                    .map(|(name, _)| (name.clone(), "is not the default")),
            );
        }
        let problem = if self.pools.is_empty() {
            Problem::NoEip
        } else {
            Problem::NoneFits(Rejections(rejected))
        };
        Candidates {
            open: [bound, default, unbound].concat(),
            problem,
        }
    }

    fn explicit(&self, service: &ServiceFacts, name: &Arc<str>) -> Candidates<'_> {
        let reject = |why| Problem::NoneFits(Rejections(vec![(name.clone(), why)]));
        let invalid = || match self.pools.invalid.get(name) {
            Some(why) => Problem::InvalidEip(name.clone(), why.clone()),
            None => Problem::UnknownEip(name.clone()),
        };
        let Some((name, entry)) = self.pools.iter().find(|(known, _)| *known == name) else {
            return Candidates {
                open: vec![],
                problem: invalid(),
            };
        };
        let problem = match entry.pool.closed {
            Some(Closed::Disabled) => reject("is disabled"),
            Some(Closed::Deleting) => reject("is being deleted"),
            None if entry.pool.binding.strict
                && entry.pool.binding.is_bound()
                && !self.fits(service, &service.labels.to_map(), entry) =>
            {
                reject("is strictly bound to others")
            }
            None => {
                return Candidates {
                    open: vec![(name, entry)],
                    problem: Problem::NoEip,
                };
            }
        };
        Candidates {
            open: vec![],
            problem,
        }
    }

    pub(super) fn fits(
        &self,
        service: &ServiceFacts,
        labels: &BTreeMap<String, String>,
        entry: &Entry,
    ) -> bool {
        let none = BTreeMap::new();
        let namespace = self.namespaces.get(&service.key.namespace).unwrap_or(&none);
        entry
            .pool
            .binding
            .fits(&service.key.namespace, namespace, labels)
    }

    /// The address to give from these Eips: the lowest free one of the first Eip with room; where
    /// there is none, the one that rested longest; where there is none, one kept for somebody else.
    pub(super) fn choose(
        &self,
        candidates: &Candidates<'_>,
        family: Family,
    ) -> Result<(Arc<str>, IpAddr), Problem> {
        let suited: Vec<_> = candidates
            .open
            .iter()
            .filter(|(_, entry)| !entry.gives.family(family).is_empty())
            .collect();
        let Some(_) = candidates.open.first() else {
            return Err(candidates.problem.clone());
        };
        if suited.is_empty() {
            let names = candidates
                .open
                .iter()
                .map(|(name, _)| (*name).clone())
                .collect();
            return Err(Problem::FamilyMissing(family, Names(names)));
        }
        let free = suited.iter().find_map(|(name, entry)| {
            Some((
                (*name).clone(),
                self.taken.lowest_free(entry.gives.family(family))?,
            ))
        });
        let from = |address: IpAddr| {
            let found = suited
                .iter()
                .find(|(_, entry)| entry.gives.contains(address));
            found.map(|(name, _)| ((*name).clone(), address))
        };
        let rested = || {
            let unused = |address: &IpAddr| {
                !self.slots.contains_key(address)
                    && !self.shown.contains_key(address)
                    && !self.is_aside(*address)
            };
            self.resting.oldest_first().filter(unused).find_map(from)
        };
        let kept = || {
            let vacant = self.vacant.iter().copied();
            vacant
                .filter(|address| !self.shown.contains_key(address) && !self.is_aside(*address))
                .find_map(from)
        };
        free.or_else(rested).or_else(kept).ok_or_else(|| {
            let names = suited.iter().map(|(name, _)| (*name).clone()).collect();
            Problem::Exhausted(Names(names), family)
        })
    }
}
