//! What to do for one Service: what to write, what to give back, and what to say, once it is found which addresses it
//! shall have. A new address is taken before the old one is given back.

use std::net::IpAddr;
use std::sync::Arc;

use openelb_api::Family;

use super::find::{Findings, Target};
use super::select::Candidates;
use super::waiting::Needs;
use super::wording::Problem;
use super::{Decision, Index, Millis, News, Slot};
use crate::ledger::{Plan, Record, Reservation, Subject};
use crate::names::{ServiceKey, Uid};
use crate::service::{Request, Said, ServiceFacts, ServiceStatus};

impl Index {
    /// What to do for a Service; `None` when nothing is. The plan's addresses are taken at once.
    pub fn plan(&mut self, key: &ServiceKey, now: Millis) -> Option<Decision> {
        self.tick(now);
        let created = self.services.get(key).map(|service| service.created);
        let (decision, needs) = self.decide(key);
        for reservation in decision.iter().flat_map(|decision| &decision.plan.reserve) {
            self.take(reservation, now);
        }
        if let Some(created) = created {
            let waited = self.waiting.remove(created, key);
            if let Some(needs) = needs {
                self.waiting.insert(created, key, needs);
            }
            let eips = waited.map(|needs| needs.eips).unwrap_or_default();
            self.wake_next(eips, created, key);
        }
        decision
    }

    /// One had its turn for these Eips: where there is room left, that of the next has come.
    pub(super) fn wake_next(&mut self, eips: Vec<Arc<str>>, created: i64, key: &ServiceKey) {
        for eip in eips {
            if self.has_room(&eip) {
                self.waiting
                    .wake_next(&eip, &(created, key.clone()), &mut self.woken);
            }
        }
    }

    fn take(&mut self, reservation: &Reservation, now: Millis) {
        let address = reservation.record.address;
        let stored = self
            .slots
            .get(&address)
            .and_then(|slot| slot.stored.clone());
        let pending = match (&stored, reservation.record.entries.first()) {
            (Some(stored), Some(ours)) => Record {
                eip: reservation.record.eip.clone(),
                kept_for: None,
                ..stored.record.with(ours)
            },
            _ => reservation.record.clone(),
        };
        self.resting.end(address);
        self.unsure.remove(&address);
        self.set_slot(
            address,
            Some(Slot {
                stored,
                pending: Some(Box::new(pending)),
            }),
            now,
        );
    }

    pub(super) fn decide(&self, key: &ServiceKey) -> (Option<Decision>, Option<Needs>) {
        let service = self.services.get(key);
        if let Some(decision) = self.give_back_of_the_gone(key, service) {
            return (Some(decision), None);
        }
        match service {
            None => (None, None),
            Some(service) => match &service.request {
                Some(request) => self.serve(service, request),
                None => (self.let_go(service), None),
            },
        }
    }

    /// Addresses held by an earlier Service of this name.
    fn give_back_of_the_gone(
        &self,
        key: &ServiceKey,
        service: Option<&ServiceFacts>,
    ) -> Option<Decision> {
        let held = self.held.get(key)?;
        let inherits = |address: &IpAddr| {
            service.is_some_and(|service| {
                service.request.is_some() && service.status.addresses.contains(address)
            })
        };
        let is_gone = |uid: &Uid| service.is_none_or(|service| service.uid != *uid);
        let (uid, _) = held
            .iter()
            .find(|(uid, address)| is_gone(uid) && !inherits(address))?;
        let release: Vec<_> = held
            .iter()
            .filter(|(other, address)| other == uid && !inherits(address))
            .map(|(_, address)| *address)
            .collect();
        let keep = self.sticky(&release);
        let subject = Subject {
            key: key.clone(),
            uid: uid.clone(),
            version: None,
        };
        Some(Decision {
            news: release.iter().copied().map(News::Released).collect(),
            plan: Plan {
                subject,
                reserve: Vec::new(),
                publish: None,
                release,
                keep,
            },
        })
    }

    /// Those of the addresses that their Eip keeps for a Service of the same name.
    fn sticky(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let is_sticky = |address: &&IpAddr| {
            let record = self.slots.get(address).and_then(Slot::record);
            record
                .and_then(|record| self.pools.get(&record.eip))
                .is_some_and(|entry| entry.pool.sticky)
        };
        addresses.iter().filter(is_sticky).copied().collect()
    }

    /// A Service that is not ours (any more).
    fn let_go(&self, service: &ServiceFacts) -> Option<Decision> {
        let release = self.held_by(service);
        if release.is_empty() && service.status.eip.is_none() {
            return None;
        }
        let labelled = service.status.eip.is_some();
        let ours = |address: &IpAddr| {
            release.contains(address) || labelled && self.pools.keeping(*address, None).is_some()
        };
        let (gone, left): (Vec<_>, Vec<_>) =
            service.status.addresses.iter().copied().partition(ours);
        let mut wanted = ServiceStatus {
            addresses: left,
            more: service.status.more,
            eip: None,
            held: Vec::new(),
            allocated: Some(Said {
                holds: false,
                reason: "NotRequested".into(),
                message: "The Service does not ask openelb-rs for an address.".into(),
            }),
        };
        if !release.is_empty() && wanted == service.status {
            wanted = fenced(wanted);
        }
        let news = gone.into_iter().map(News::Released).collect();
        let plan = Plan {
            subject: subject(service),
            reserve: Vec::new(),
            publish: (wanted != service.status).then_some(wanted),
            // A Service that goes while somebody's finalizer holds it back is as good as gone.
            keep: if service.deleting {
                self.sticky(&release)
            } else {
                Vec::new()
            },
            release,
        };
        Some(Decision { plan, news })
    }

    fn serve(
        &self,
        service: &ServiceFacts,
        request: &Request,
    ) -> (Option<Decision>, Option<Needs>) {
        let mine = self.held_by(service);
        let findings = self.find(service, request, &mine);
        let addresses: Vec<_> = findings
            .targets
            .iter()
            .map(|target| target.address)
            .collect();
        let release: Vec<_> = mine
            .iter()
            .copied()
            .filter(|address| !addresses.contains(address))
            .collect();
        let reserve: Vec<_> = findings
            .targets
            .iter()
            .filter(|target| self.needs_writing(service, request, target))
            .map(|target| {
                self.reservation(service, request, &target.eip, target.address, target.adopt)
            })
            .collect();
        let said = condition(&findings, &addresses);
        let mut wanted = ServiceStatus {
            held: if addresses.is_empty() {
                service.status.held.clone()
            } else {
                addresses.clone()
            },
            addresses,
            more: false,
            eip: findings.targets.first().map(|target| target.eip.clone()),
            allocated: Some(said),
        };
        let needs = needs(findings.problems.iter().chain(&findings.shortcomings));
        if !release.is_empty() && wanted == service.status {
            wanted = fenced(wanted);
        }
        if wanted == service.status && reserve.is_empty() && release.is_empty() {
            return (None, needs);
        }
        let news = news(&service.status, &wanted, &release, &findings);
        let plan = Plan {
            subject: subject(service),
            reserve,
            publish: (wanted != service.status).then_some(wanted),
            release,
            keep: Vec::new(),
        };
        (Some(Decision { plan, news }), needs)
    }

    /// Whether a target's record must be written before the status shows it.
    fn needs_writing(&self, service: &ServiceFacts, request: &Request, target: &Target) -> bool {
        if !service.status.addresses.contains(&target.address) {
            return true;
        }
        let Some(stored) = self
            .slots
            .get(&target.address)
            .and_then(|slot| slot.stored.as_ref())
        else {
            return true;
        };
        let terms = request.terms_for(target.address);
        let pool = self.pools.get(&target.eip).map(|entry| &entry.pool);
        stored.record.eip != target.eip
            || pool.is_some_and(|pool| *stored.record.protocol != *pool.protocol.as_str())
            || stored
                .record
                .entry(&service.uid)
                .is_none_or(|entry| entry.terms != terms)
    }

    fn held_by(&self, service: &ServiceFacts) -> Vec<IpAddr> {
        let held = self.held.get(&service.key).into_iter().flatten();
        held.filter(|(uid, _)| *uid == service.uid)
            .map(|(_, address)| *address)
            .collect()
    }

    fn has_room(&self, eip: &str) -> bool {
        let Some((name, entry)) = self.pools.iter().find(|(name, _)| ***name == *eip) else {
            return false;
        };
        let problem = Problem::NoEip;
        let candidates = Candidates {
            open: vec![(name, entry)],
            problem,
        };
        Family::ALL
            .into_iter()
            .any(|family| self.choose(&candidates, family).is_ok())
    }
}

fn subject(service: &ServiceFacts) -> Subject {
    Subject {
        key: service.key.clone(),
        uid: service.uid.clone(),
        version: Some(service.version.clone()),
    }
}

/// The same status, said so that the write has an effect: it must kill older versions of the Service.
fn fenced(mut status: ServiceStatus) -> ServiceStatus {
    if let Some(said) = &mut status.allocated {
        said.message = match said.message.strip_suffix(" (again)") {
            Some(before) => before.into(),
            None => format!("{} (again)", said.message).into(),
        };
    }
    status
}

fn condition(findings: &Findings, addresses: &[IpAddr]) -> Said {
    if let Some(problem) = findings.problems.first() {
        return problem.said(addresses);
    }
    let list: Vec<_> = findings
        .targets
        .iter()
        .map(|target| format!("{} from Eip {}", target.address, target.eip))
        .collect();
    let mut message = list.join(", ");
    for more in findings
        .shortcomings
        .iter()
        .map(ToString::to_string)
        .chain(findings.warnings.iter().map(|warning| warning.text.clone()))
    {
        message = format!("{message}; {more}");
    }
    let warning = findings.warnings.first();
    let reason = warning.map_or("Allocated", |warning| warning.reason);
    Said {
        holds: true,
        reason: reason.into(),
        message: message.into(),
    }
}

fn needs<'a>(problems: impl Iterator<Item = &'a Problem>) -> Option<Needs> {
    let mut needs = None;
    for problem in problems {
        let needs = needs.get_or_insert_with(Needs::default);
        match problem {
            Problem::Exhausted(eips, _) => needs.eips.extend(eips.0.iter().cloned()),
            Problem::Held(address, _)
            | Problem::NotShared(address, ..)
            | Problem::Shown(address, _)
            | Problem::Reserved(address)
            | Problem::Kept(address, _) => needs.addresses.push(*address),
            _ => {}
        }
    }
    needs
}

fn news(
    before: &ServiceStatus,
    after: &ServiceStatus,
    release: &[IpAddr],
    findings: &Findings,
) -> Vec<News> {
    let gained = after
        .addresses
        .iter()
        .filter(|address| !before.addresses.contains(address));
    let lost = before
        .addresses
        .iter()
        .filter(|address| !after.addresses.contains(address));
    let mut news: Vec<_> = lost
        .copied()
        .filter(|address| release.contains(address))
        .map(News::Released)
        .collect();
    news.extend(gained.copied().map(News::Assigned));
    if let Some(said) = after
        .allocated
        .as_ref()
        .filter(|said| before.allocated.as_ref() != Some(said))
    {
        if !findings.problems.is_empty() {
            news.push(News::Failed(said.message.clone()));
        } else if let Some(warning) = findings.warnings.first() {
            news.push(News::Warning(warning.reason, said.message.clone()));
        }
    }
    news
}
