//! May this Service have this address?

use std::net::IpAddr;
use std::sync::Arc;

use openelb_api::v1alpha2::Sharing;
use openelb_api::{Closed, Family};

use super::find::Warning;
use super::pools::Entry;
use super::wording::Problem;
use super::{Index, Slot};
use crate::ledger::{Entry as Holder, Record, Reservation};
use crate::names::ServiceKey;
use crate::service::{Request, ServiceFacts};
use crate::sharing;

impl Index {
    /// Whether a Service may have an address that it names.
    pub(super) fn named(
        &self,
        service: &ServiceFacts,
        request: &Request,
        address: IpAddr,
    ) -> Result<Arc<str>, Problem> {
        let (name, entry) = self.home_of_named(service, request, address)?;
        let closed = match entry.pool.closed {
            Some(Closed::Disabled) => Some("disabled"),
            Some(Closed::Deleting) => Some("being deleted"),
            None => None,
        };
        if let Some(why) = closed {
            return Err(Problem::Closed(address, name.clone(), why));
        }
        if let Some(record) = self.slots.get(&address).and_then(Slot::record) {
            Self::admits(service, request, record, entry, name)?;
        } else if let Some(other) = self.shown_by_other(address, &service.key) {
            return Err(Problem::Shown(address, other.to_string()));
        }
        Ok(name.clone())
    }

    fn home_of_named(
        &self,
        service: &ServiceFacts,
        request: &Request,
        address: IpAddr,
    ) -> Result<(&Arc<str>, &Entry), Problem> {
        if let Some(eip) = &request.eip {
            let candidates = self.candidates(service, request);
            let Some((name, entry)) = candidates.open.first().copied() else {
                return Err(candidates.problem);
            };
            return if entry.gives.contains(address) {
                Ok((name, entry))
            } else {
                Err(Problem::OutsideEip(address, eip.clone()))
            };
        }
        let labels = service.labels.to_map();
        let strict = |entry: &Entry| {
            let binding = &entry.pool.binding;
            binding.strict && binding.is_bound() && !self.fits(service, &labels, entry)
        };
        self.pools
            .iter()
            .find(|(_, entry)| entry.gives.contains(address) && !strict(entry))
            .ok_or(Problem::Outside(address))
    }

    fn admits(
        service: &ServiceFacts,
        request: &Request,
        record: &Record,
        entry: &Entry,
        eip: &Arc<str>,
    ) -> Result<(), Problem> {
        let address = record.address;
        if record.reserved && !record.is_reserved_for(&service.key) {
            return Err(Problem::Reserved(address));
        }
        if let Some(kept) = record
            .kept_for
            .as_ref()
            .filter(|kept| **kept != service.key)
        {
            return Err(Problem::Kept(address, kept.to_string()));
        }
        let terms = request.terms_for(address);
        for other in record
            .entries
            .iter()
            .filter(|other| other.service != service.key)
        {
            if entry.pool.sharing == Sharing::Never {
                return Err(Problem::NotShared(
                    address,
                    other.service.to_string(),
                    eip.clone(),
                ));
            }
            sharing::agree(
                (&service.key, &terms),
                (&other.service, &other.terms),
                entry.pool.sharing == Sharing::AnyNamespace,
            )
            .map_err(|refusal| Problem::Held(address, refusal))?;
        }
        Ok(())
    }

    /// Whether a Service that holds an address beside others may stay: it may, as long as it asks for
    /// what it asked for when it was let on; after an edit it must agree with them.
    pub(super) fn may_stay(
        &self,
        service: &ServiceFacts,
        request: &Request,
        record: &Record,
    ) -> Result<(), Problem> {
        let terms = request.terms_for(record.address);
        let recorded = record.entry(&service.uid).map(|entry| &entry.terms);
        if recorded == Some(&terms) {
            return Ok(());
        }
        let sharing = self
            .pools
            .get(&record.eip)
            .map_or(Sharing::default(), |entry| entry.pool.sharing);
        for other in record
            .entries
            .iter()
            .filter(|other| other.uid != service.uid)
        {
            sharing::agree(
                (&service.key, &terms),
                (&other.service, &other.terms),
                sharing == Sharing::AnyNamespace,
            )
            .map_err(|refusal| Problem::Held(record.address, refusal))?;
        }
        Ok(())
    }

    /// What is to be said of a Service that stands on an address with others who do not agree with it:
    /// they were found so.
    pub(super) fn disagreement(
        &self,
        service: &ServiceFacts,
        request: &Request,
        record: &Record,
    ) -> Option<Warning> {
        let terms = request.terms_for(record.address);
        let sharing = self
            .pools
            .get(&record.eip)
            .map_or(Sharing::default(), |entry| entry.pool.sharing);
        let refusal = record
            .entries
            .iter()
            .filter(|other| other.uid != service.uid)
            .find_map(|other| {
                sharing::agree(
                    (&service.key, &terms),
                    (&other.service, &other.terms),
                    sharing == Sharing::AnyNamespace,
                )
                .err()
            })?;
        Some(Warning {
            reason: "SharedWithoutAgreement",
            text: format!(
                "{} stays shared as it was found, although {refusal}; give one of the two another address",
                record.address
            ),
        })
    }

    /// An address that a Service had before and that is nobody's now: shown, kept or remembered.
    pub(super) fn had_before(
        &self,
        service: &ServiceFacts,
        request: &Request,
        family: Family,
    ) -> Option<(Arc<str>, IpAddr)> {
        let fits_eip = |eip: &Arc<str>| request.eip.as_ref().is_none_or(|wanted| wanted == eip);
        let mine = |address: &IpAddr| {
            Family::of(*address) == family
                && self
                    .slots
                    .get(address)
                    .and_then(Slot::record)
                    .is_none_or(|record| {
                        // A record that somebody stripped says nothing against whoever shows the address.
                        let keeper = record.kept_for.as_ref();
                        let vacant = match keeper {
                            Some(keeper) => *keeper == service.key,
                            None => !record.reserved,
                        };
                        let mut entries = record.entries.iter();
                        entries.all(|entry| entry.service == service.key)
                            && (vacant || !record.entries.is_empty())
                    })
        };
        let shown = service
            .status
            .addresses
            .iter()
            .copied()
            .filter(|address| mine(address) && !self.is_anothers_by_our_word(service, *address))
            .find_map(|address| {
                let (eip, _) = self.pools.keeping(address, service.status.eip.as_deref())?;
                Some((eip.clone(), address))
            });
        shown.or_else(|| {
            let kept = self.kept.get(&service.key).into_iter().flatten();
            let before = kept.chain(&service.status.held).copied();
            before
                .filter(|address| {
                    mine(address)
                        && self.shown_by_other(*address, &service.key).is_none()
                        && !self.is_aside(*address)
                })
                .find_map(|address| {
                    let candidates = self.candidates(service, request);
                    let home = candidates
                        .open
                        .into_iter()
                        .find(|(_, entry)| entry.gives.contains(address));
                    home.map(|(name, _)| (name.clone(), address))
                })
                .filter(|(eip, _)| fits_eip(eip))
        })
    }

    /// The reservation that makes an address this Service's, from what is known of its record.
    pub(super) fn reservation(
        &self,
        service: &ServiceFacts,
        request: &Request,
        eip: &Arc<str>,
        address: IpAddr,
        adopt: bool,
    ) -> Reservation {
        let pool = self.pools.get(eip).map(|entry| &entry.pool);
        let slot = self.slots.get(&address);
        let stored = slot.and_then(|slot| slot.stored.clone());
        let entry = |service: &ServiceFacts, request: &Request| Holder {
            service: service.key.clone(),
            uid: service.uid.clone(),
            terms: request.terms_for(address),
        };
        let mut entries = vec![entry(service, request)];
        if adopt && stored.is_none() {
            // OpenELB let several Services stand on one address: they are adopted together.
            let others = self
                .shown
                .get(&address)
                .into_iter()
                .flatten()
                .filter(|key| **key != service.key);
            let ours = service.status.held.contains(&address);
            entries.extend(others.filter_map(|key| {
                let other = self.services.get(key)?;
                // Of two that show it, one by our word written with it, the other one is wrong.
                if other.status.held.contains(&address) != ours {
                    return None;
                }
                let already = self.held.get(key).into_iter().flatten().any(|(uid, held)| {
                    *uid == other.uid && Family::of(*held) == Family::of(address)
                });
                let request = other.request.as_ref().filter(|_| !already)?;
                Some(entry(other, request))
            }));
        } else if stored.is_none()
            && let Some(pending) = slot.and_then(|slot| slot.pending.as_ref())
            && pending.names(&service.uid)
        {
            // Adopted together with others a moment ago: whoever writes first writes of all.
            let others = pending.entries.iter();
            entries.extend(others.filter(|other| other.uid != service.uid).cloned());
        }
        let protocol = pool.map(|pool| pool.protocol.as_str().into());
        let known = stored.as_ref().map(|stored| &stored.record);
        Reservation {
            record: Record {
                address,
                eip: eip.clone(),
                protocol: protocol
                    .or_else(|| known.map(|record| record.protocol.clone()))
                    .unwrap_or_else(|| "bgp".into()),
                entries,
                reserved: false,
                reserved_for: Vec::new(),
                kept_for: None,
                revision: 1,
            },
            known: stored,
            other_namespaces: pool.is_some_and(|pool| pool.sharing == Sharing::AnyNamespace),
            adopted: adopt,
        }
    }

    /// Whether another Service shows the address too, and the annotation says that we gave it, which is not
    /// so here.
    fn is_anothers_by_our_word(&self, service: &ServiceFacts, address: IpAddr) -> bool {
        let given = |service: &ServiceFacts| service.status.held.contains(&address);
        let others = self.shown.get(&address).into_iter().flatten();
        let mut others = others.filter(|key| **key != service.key);
        !given(service) && others.any(|key| self.services.get(key).is_some_and(given))
    }

    pub(super) fn shown_by_other(
        &self,
        address: IpAddr,
        service: &ServiceKey,
    ) -> Option<&ServiceKey> {
        self.shown
            .get(&address)
            .into_iter()
            .flatten()
            .find(|key| *key != service)
    }
}
