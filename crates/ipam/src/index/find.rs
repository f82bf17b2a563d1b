//! Which addresses a Service shall have, family by family, and what is to be said of those that it has.
//!
//! A held address stays (a restart, a pool edit, a full or disabled pool or somebody's write to a
//! status move nothing) until the user asks for another, opts out, or the address left every pool and
//! the Eip says `onAddressRemoved: Reassign`.

use std::net::IpAddr;
use std::sync::Arc;

use openelb_api::Family;
use openelb_api::keys::reasons;
use openelb_api::v1alpha2::OnAddressRemoved;

use super::pools::is_deleting;
use super::wording::Problem;
use super::{Index, Slot};
use crate::service::{Request, ServiceFacts};

/// An address that a Service shall have.
pub(super) struct Target {
    pub(super) eip: Arc<str>,
    pub(super) address: IpAddr,
    /// It is shown already, by somebody's word but ours.
    pub(super) adopt: bool,
}

/// What is to be said of a held address.
enum Standing {
    /// It stays; with a warning, where there is one.
    Stays(Arc<str>, Option<Warning>),
    /// Another is wanted; it stays until there is one.
    Leaves(Arc<str>),
    /// Its Eip is gone: it is given back, with or without another.
    Homeless,
    /// Another Service on the address has the better right.
    Lost(Problem),
}

/// Why a Service cannot have what it wants of a family, and what it has instead.
struct Miss {
    problem: Problem,
    fallback: Option<Target>,
}

impl Miss {
    fn of<T>(problem: Problem, fallback: Option<Target>) -> Result<T, Box<Self>> {
        Err(Box::new(Self { problem, fallback }))
    }
}

/// What is found for a Service, family by family.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) targets: Vec<Target>,
    pub(super) problems: Vec<Problem>,
    /// A second family that is wanted but not needed.
    pub(super) shortcomings: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
}

/// A Service has what it asks for, but somebody should look at it.
pub(super) struct Warning {
    /// The condition's reason.
    pub(super) reason: &'static str,
    pub(super) text: String,
}

impl Index {
    /// What is found for a Service that asks: an address of each family, or why there is none.
    pub(super) fn find(
        &self,
        service: &ServiceFacts,
        request: &Request,
        mine: &[IpAddr],
    ) -> Findings {
        let mut findings = Findings::default();
        if let Some(rule) = &request.refused {
            findings.problems.push(Problem::Rule(rule.clone()));
            // What it has it keeps until it asks for something that can be.
            let nothing_more = Request {
                eip: None,
                addresses: Vec::new(),
                refused: None,
                ..request.clone()
            };
            let kept = self.find(service, &nothing_more, mine).targets;
            findings.targets.extend(
                kept.into_iter()
                    .filter(|target| target.adopt || mine.contains(&target.address)),
            );
            return findings;
        }
        let other = request
            .addresses
            .iter()
            .find(|address| !request.families.contains(&Family::of(**address)));
        findings
            .problems
            .extend(other.map(|address| Problem::OtherFamily(*address, Family::of(*address))));
        for family in &request.families {
            match self.target(service, request, *family, mine, &mut findings.warnings) {
                Ok(target) => findings.targets.push(target),
                Err(miss) => {
                    let Miss { problem, fallback } = *miss;
                    let optional = fallback.is_none()
                        && !request.all_families
                        && request.families.len() > 1
                        && request.named(*family).is_none();
                    findings.targets.extend(fallback);
                    if optional {
                        &mut findings.shortcomings
                    } else {
                        &mut findings.problems
                    }
                    .push(problem);
                }
            }
        }
        if findings.targets.is_empty() {
            findings.problems.append(&mut findings.shortcomings);
        }
        if request.all_families && findings.targets.len() < request.families.len() {
            let shown = &service.status.addresses;
            findings
                .targets
                .retain(|target| mine.contains(&target.address) && shown.contains(&target.address));
        }
        findings
    }

    fn target(
        &self,
        service: &ServiceFacts,
        request: &Request,
        family: Family,
        mine: &[IpAddr],
        warnings: &mut Vec<Warning>,
    ) -> Result<Target, Box<Miss>> {
        let shown = &service.status.addresses;
        let mut held: Vec<_> = mine
            .iter()
            .copied()
            .filter(|address| Family::of(*address) == family)
            .collect();
        held.sort_by_key(|address| (!shown.contains(address), *address));
        let wanted = request.named(family);
        if let Some(address) = wanted.filter(|address| held.contains(address)) {
            held = vec![address];
        }
        let target = |eip: Arc<str>, address, adopt| Target {
            eip,
            address,
            adopt,
        };
        if !held.is_empty()
            && let Some((eip, address)) = self.unseen(service, request, family)
            && wanted.is_none_or(|wanted| wanted == address)
        {
            return Ok(target(eip, address, false));
        }
        let mut fallback = None;
        for address in held {
            match self.standing(service, request, address) {
                Standing::Stays(eip, warning) if wanted.is_none_or(|wanted| wanted == address) => {
                    warnings.extend(warning);
                    return Ok(target(eip, address, false));
                }
                Standing::Stays(eip, _) | Standing::Leaves(eip) => {
                    fallback.get_or_insert(target(eip, address, false));
                }
                Standing::Lost(problem) if wanted == Some(address) => {
                    return Miss::of(problem, None);
                }
                Standing::Homeless | Standing::Lost(_) => {}
            }
        }
        if let Some(address) = wanted {
            let adopted = shown
                .contains(&address)
                .then(|| self.had_before(service, request, family))
                .flatten();
            if let Some((eip, found)) = adopted.filter(|(_, found)| *found == address) {
                return Ok(target(eip, found, true));
            }
            return match self.named(service, request, address) {
                Ok(eip) => Ok(target(eip, address, false)),
                Err(problem) => Miss::of(problem, fallback),
            };
        }
        if fallback.is_none()
            && let Some((eip, address)) = self.had_before(service, request, family)
        {
            return Ok(target(eip, address, shown.contains(&address)));
        }
        match self.choose(&self.candidates(service, request), family) {
            Ok((eip, address)) => Ok(target(eip, address, false)),
            Err(problem) => Miss::of(problem, fallback),
        }
    }

    /// An address that we published, by the word of the annotation written with it, and whose record
    /// is only not seen yet. What a user forges has no such annotation.
    fn unseen(
        &self,
        service: &ServiceFacts,
        request: &Request,
        family: Family,
    ) -> Option<(Arc<str>, IpAddr)> {
        let status = &service.status;
        let mut ours = status
            .held
            .iter()
            .filter(|address| Family::of(**address) == family);
        let address = *ours.next()?;
        if self.slots.contains_key(&address) || self.shown_by_other(address, &service.key).is_some()
        {
            return None;
        }
        let (eip, _) = self.pools.keeping(address, status.eip.as_deref())?;
        let wanted = request.eip.as_ref().is_none_or(|wanted| wanted == eip);
        wanted.then(|| (eip.clone(), address))
    }

    fn standing(&self, service: &ServiceFacts, request: &Request, address: IpAddr) -> Standing {
        let Some(record) = self.slots.get(&address).and_then(Slot::record) else {
            return Standing::Homeless;
        };
        if let Err(problem) = self.may_stay(service, request, record) {
            return Standing::Lost(problem);
        }
        let eip = &record.eip;
        if let Some((home, _)) = self.pools.keeping(address, Some(eip)) {
            return match &request.eip {
                Some(wanted) if wanted != home => Standing::Leaves(home.clone()),
                // A foreign host has it, and the Service does not insist.
                _ if self.is_aside(address)
                    && request.named(Family::of(address)) != Some(address) =>
                {
                    Standing::Leaves(home.clone())
                }
                _ => Standing::Stays(home.clone(), self.disagreement(service, request, record)),
            };
        }
        if self.pools.invalid.contains_key(eip) {
            let warning = Warning {
                reason: "EipInvalid",
                text: format!("{address} stays, although Eip {eip} cannot be used now"),
            };
            return Standing::Stays(eip.clone(), Some(warning));
        }
        match self
            .pools
            .get(eip)
            .filter(|entry| !is_deleting(&entry.pool))
        {
            None => Standing::Homeless,
            Some(entry) if entry.pool.on_address_removed == OnAddressRemoved::Reassign => {
                Standing::Leaves(eip.clone())
            }
            Some(_) if request.eip.as_ref().is_some_and(|wanted| wanted != eip) => {
                Standing::Leaves(eip.clone())
            }
            Some(_) => {
                let warning = Warning {
                    reason: reasons::ADDRESS_REMOVED,
                    text: format!(
                        "{address} is no longer in Eip {eip}; it stays until the Service asks for another \
                         address or the Eip says onAddressRemoved: Reassign"
                    ),
                };
                Standing::Stays(eip.clone(), Some(warning))
            }
        }
    }
}
