//! An API server in memory, and one controller's index beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use openelb_api::Family;
use openelb_api::v1alpha2::{Eip, EipSpec};
use openelb_ipam::ledger::{Answer, Call, Conclusion, Outcome, Plan, Step, Stored, Transaction};
use openelb_ipam::sharing::{Port, Terms};
use openelb_ipam::{Index, Pairs, Request, ServiceFacts, ServiceKey, ServiceStatus, Uid, Version};

/// The API server, the index, and the time.
#[derive(Default)]
pub struct World {
    pub services: BTreeMap<ServiceKey, ServiceFacts>,
    pub records: BTreeMap<IpAddr, Stored>,
    pub eips: BTreeMap<String, Eip>,
    pub index: Index,
    pub now: u64,
    /// Services whose turn comes, because a watch said something new of them.
    pub queue: BTreeSet<ServiceKey>,
    /// Writes so far.
    pub writes: usize,
    version: u64,
}

/// The key of a Service in `default`.
pub fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

/// A wish for any IPv4 address, with one TCP port.
pub fn wish(port: u16) -> Request {
    Request {
        families: vec![Family::V4],
        terms: Arc::new(Terms {
            ports: vec![Port {
                protocol: "TCP".into(),
                number: port,
            }],
            ..Terms::default()
        }),
        ..Request::default()
    }
}

impl World {
    fn next(&mut self) -> Version {
        self.version += 1;
        Version::from(self.version.to_string().as_str())
    }

    /// Creates or changes an Eip.
    pub fn eip(&mut self, name: &str, spec: EipSpec) {
        let mut eip = Eip::new(name, spec);
        eip.metadata.creation_timestamp = None;
        self.index.apply_eip(&eip);
        self.eips.insert(name.to_owned(), eip);
    }

    /// Creates a Service, or changes what it asks for.
    pub fn ask(&mut self, name: &str, request: Option<Request>) {
        let version = self.next();
        let created = i64::try_from(self.version).unwrap();
        let fresh = || ServiceFacts {
            key: key(name),
            uid: Uid::from(format!("uid-{created}").as_str()),
            version: version.clone(),
            generation: None,
            created,
            labels: Pairs::default(),
            deleting: false,
            request: None,
            status: ServiceStatus::default(),
            load_balancer: true,
            openelb_finalizer: false,
        };
        let facts = self.services.entry(key(name)).or_insert_with(fresh);
        facts.request = request;
        facts.version = version;
        let facts = facts.clone();
        self.see(facts);
    }

    /// The watch says this of a Service.
    pub fn see(&mut self, facts: ServiceFacts) {
        let key = facts.key.clone();
        if self.index.apply_service(facts, self.now) {
            self.queue.insert(key);
        }
    }

    /// Somebody edits a Service.
    pub fn edit(&mut self, name: &str, edit: impl FnOnce(&mut ServiceFacts)) {
        let version = self.next();
        let facts = self.services.get_mut(&key(name)).unwrap();
        edit(facts);
        facts.version = version;
        let facts = facts.clone();
        self.see(facts);
    }

    /// Somebody edits a record.
    pub fn edit_record(&mut self, address: &str, edit: impl FnOnce(&mut Stored)) {
        let version = self.next();
        let stored = self.records.get_mut(&address.parse().unwrap()).unwrap();
        edit(stored);
        stored.version = version;
        self.index.apply_record(stored.clone(), self.now);
    }

    /// Deletes a Service.
    pub fn delete(&mut self, name: &str) {
        if let Some(gone) = self.services.remove(&key(name))
            && self
                .index
                .remove_service(&gone.key, Some(&gone.uid), self.now)
        {
            self.queue.insert(gone.key);
        }
    }

    /// Forgets everything but what the API server has.
    pub fn restart(&mut self) {
        self.index = Index::default();
        self.eips.values().for_each(|eip| self.index.apply_eip(eip));
        for stored in self.records.values() {
            self.index.apply_record(stored.clone(), self.now);
        }
        for facts in self.services.values() {
            self.index.apply_service(facts.clone(), self.now);
        }
        self.queue = self.index.keys().into_iter().collect();
    }

    /// Works as the controller does: on what changed and on what the index wakes, and on nothing else.
    pub fn work(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "it does not end");
            for left in self.index.take_leftovers() {
                let address = left.record.address;
                if self.answer(Call::Delete(left.clone())) == Answer::Deleted {
                    self.index.remove_record(address, &left.uid, self.now);
                }
            }
            // After what was left over is gone, since that wakes too.
            let woken = self.index.take_woken();
            self.queue.extend(woken);
            let created = |key: &ServiceKey| self.services.get(key).map(|service| service.created);
            let Some(key) = self.queue.iter().min_by_key(|key| created(key)).cloned() else {
                return;
            };
            self.queue.remove(&key);
            if let Some(decision) = self.index.plan(&key, self.now) {
                let end = self.carry_out(&decision.plan);
                self.index.conclude(&decision.plan, Some(&end), self.now);
                if end.outcome != Outcome::Done || self.index.has_leftovers(&key) {
                    self.queue.insert(key);
                }
            }
        }
    }

    /// Works until nothing is left to do. Oldest first, as the controller does.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100, "it does not end");
            self.index.take_woken();
            let mut keys = self.index.keys();
            keys.sort_by_key(|key| self.services.get(key).map(|service| service.created));
            let mut idle = true;
            for key in keys {
                while let Some(decision) = self.index.plan(&key, self.now) {
                    idle = false;
                    let end = self.carry_out(&decision.plan);
                    self.index.conclude(&decision.plan, Some(&end), self.now);
                }
            }
            if idle {
                return;
            }
        }
    }

    /// Makes the requests of a plan.
    pub fn carry_out(&mut self, plan: &Plan<ServiceStatus>) -> Conclusion {
        let mut transaction = Transaction::new(plan.clone());
        loop {
            if let Some(end) = self.step(&mut transaction) {
                return end;
            }
        }
    }

    /// Makes the next request of a plan; how it ended, when there is none left.
    pub fn step(&mut self, transaction: &mut Transaction<ServiceStatus>) -> Option<Conclusion> {
        match transaction.step() {
            Step::Call(call) => {
                let answer = self.answer(call);
                transaction.answer(answer);
                None
            }
            Step::End(end) => Some(end),
        }
    }

    /// What a Service shows.
    pub fn shown(&self, name: &str) -> Vec<String> {
        let service = self.services.get(&key(name));
        service
            .into_iter()
            .flat_map(|service| &service.status.addresses)
            .map(ToString::to_string)
            .collect()
    }

    /// The reason in a Service's condition.
    pub fn reason(&self, name: &str) -> String {
        let said = self
            .services
            .get(&key(name))
            .and_then(|service| service.status.allocated.clone());
        said.map(|said| said.reason.to_string()).unwrap_or_default()
    }

    fn answer(&mut self, call: Call<ServiceStatus>) -> Answer {
        match call {
            Call::ReadService(key) => {
                let found = self.services.get(&key);
                Answer::Service(found.map(|found| (found.uid.clone(), found.version.clone())))
            }
            Call::ReadRecord(address) => Answer::Record(self.records.get(&address).cloned()),
            Call::Create(record) => {
                if self.records.contains_key(&record.address) {
                    return Answer::Exists;
                }
                let version = self.next();
                self.writes += 1;
                let stored = Stored {
                    uid: Uid(version.0.clone()),
                    version,
                    record,
                };
                self.records.insert(stored.record.address, stored.clone());
                Answer::Written(stored)
            }
            Call::Update(written) => {
                let version = self.next();
                match self.records.get_mut(&written.record.address) {
                    None => Answer::NotFound,
                    Some(known) if known.version != written.version => Answer::Conflict,
                    Some(known) => {
                        *known = Stored { version, ..written };
                        self.writes += 1;
                        Answer::Written(known.clone())
                    }
                }
            }
            Call::Delete(read) => match self.records.get(&read.record.address) {
                None => Answer::NotFound,
                Some(known) if known.version != read.version => Answer::Conflict,
                Some(_) => {
                    self.records.remove(&read.record.address);
                    self.writes += 1;
                    Answer::Deleted
                }
            },
            Call::Publish(subject, status) => {
                let version = self.next();
                match self.services.get_mut(&subject.key) {
                    None => Answer::NotFound,
                    Some(found) if Some(&found.version) != subject.version.as_ref() => {
                        Answer::Conflict
                    }
                    Some(found) => {
                        if found.status != status {
                            found.status = status;
                            found.version = version;
                            self.writes += 1;
                        }
                        Answer::Published(found.version.clone())
                    }
                }
            }
        }
    }
}
