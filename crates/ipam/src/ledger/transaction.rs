//! The protocol as a state machine: one transaction brings one Service to its plan.
//!
//! Order of calls, each of which may be the last one this process makes:
//!
//! 1. Read, live, every record that shall be given back (versions *e*).
//! 2. Where the Service is believed gone: read it live; another outcome ends the transaction.
//! 3. Reserve: create each record, or raise it where it is ours already.
//! 4. Publish: one write of the Service's status at the version *r* the plan was made on. Where
//!    something is given back, this write is also the fence: it kills every older version of the
//!    Service, and counts only if the version changed.
//! 5. Give back: delete (or, shared, rewrite) each record at exactly *e*.
//!
//! Why that is safe: let somebody else publish an address that we free. His write of the record lies
//! before our read *e* (else our delete at *e* fails), so his read of the Service lies before our
//! fence; his publication is then either overwritten by the fence or refused because of it.

use std::net::IpAddr;

use super::admission::Admission;
use super::record::{Record, Stored};
use crate::names::{ServiceKey, Uid, Version};

/// Attempts to write one record against others who write it too, before deciding afresh.
const ATTEMPTS: u8 = 8;

/// The Service a plan is about, as the plan's maker saw it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Its namespace and name.
    pub key: ServiceKey,
    /// Its uid.
    pub uid: Uid,
    /// Its version; `None` when it is believed gone.
    pub version: Option<Version>,
}

/// One address to hold for the subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reservation {
    /// The record to create where there is none; its first entry is the subject's, further ones
    /// are Services adopted together with it. They are together only in a record that is created so: one
    /// that somebody else made meanwhile is joined by agreement, or not at all.
    pub record: Record,
    /// The record as it is known to be, where it is known to exist.
    pub known: Option<Stored>,
    /// Whether Services of other namespaces may share the address.
    pub other_namespaces: bool,
    /// Whether the Service shows the address already, by another's word: it has been in use.
    pub adopted: bool,
}

/// What shall become true for one Service; `P` is the status to write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan<P> {
    /// The Service.
    pub subject: Subject,
    /// Addresses to hold.
    pub reserve: Vec<Reservation>,
    /// The status to write; `None` leaves it as it is. A plan that gives addresses back of a Service
    /// that exists always writes.
    pub publish: Option<P>,
    /// Addresses to give back.
    pub release: Vec<IpAddr>,
    /// Those of them whose record stays, without a holder, for a Service of the same name.
    pub keep: Vec<IpAddr>,
}

/// One API request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call<P> {
    /// Read the Service live.
    ReadService(ServiceKey),
    /// Read the record of this address live.
    ReadRecord(IpAddr),
    /// Create the record.
    Create(Record),
    /// Replace the record whose uid and version are exactly these.
    Update(Stored),
    /// Delete the record whose uid and version are exactly these.
    Delete(Stored),
    /// Write the status of the Service whose uid and version are exactly the subject's.
    Publish(Subject, P),
}

/// What the API server said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// To `ReadService`: uid and version, or that there is none.
    Service(Option<(Uid, Version)>),
    /// To `ReadRecord`.
    Record(Option<Stored>),
    /// To `Create` and `Update`: the record as it is stored now.
    Written(Stored),
    /// To `Publish`: the Service's version now (unchanged if the write said nothing new).
    Published(Version),
    /// To `Delete`.
    Deleted,
    /// The uid or version was not the one asked for.
    Conflict,
    /// To `Create`: there is one already.
    Exists,
    /// The object is gone.
    NotFound,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step<P> {
    /// Make this request.
    Call(Call<P>),
    /// The transaction is over.
    End(Conclusion),
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The plan holds.
    Done,
    /// Something changed under it: read the Service live and decide again.
    Again,
    /// This address is somebody else's: decide again without it.
    Taken(IpAddr),
}

/// How a transaction ended, and what it learnt on the way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conclusion {
    /// How it ended.
    pub outcome: Outcome,
    /// The Service's version after the publication.
    pub published: Option<Version>,
    /// The last that was seen of the record of each address.
    pub records: Vec<(IpAddr, Seen)>,
}

/// The last that a transaction saw of an address' record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// This is stored.
    Stored(Stored),
    /// The object with this uid was deleted. Another may have been created since.
    Deleted(Uid),
    /// There was none.
    Absent,
}

/// The rules that the protocol's safety rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "the server enforces two of them; only the model takes rules out"
    )
)]
pub(super) enum Rule {
    /// A record that names us already is raised before we publish.
    Raise,
    /// What is given back is fenced by a write of the Service.
    Fence,
    /// A record is deleted at the version that was read.
    DeleteAtVersion,
    /// A status is written at the version that was read.
    PublishAtVersion,
    /// What is given back is read before the fence, not after.
    ReadBeforeFence,
    /// A Service believed gone is looked for.
    ConfirmGone,
    /// A Service that takes over a record from an older one of its name is looked for.
    ConfirmCurrent,
    /// Whoever joins a record, an address that it shows already among them, agrees with all who are in it.
    Agree,
}

/// All rules, but for the one that the model check takes out to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rules {
    pub(super) without: Option<Rule>,
}

impl Rules {
    /// The protocol.
    pub(super) const ALL: Self = Self { without: None };

    pub(super) fn have(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    ReadReleased(usize),
    ConfirmGone,
    Reserve(usize, Attempt),
    Publish,
    GiveBack(usize),
    End(Outcome),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Attempt {
    Create,
    Read,
    /// The record names an older Service of the same name: see that ours is the one that lives.
    ConfirmCurrent(Stored),
    Update(Stored),
}

/// One run of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transaction<P> {
    plan: Plan<P>,
    rules: Rules,
    stage: Stage,
    attempts: u8,
    released: Vec<Stored>,
    published: Option<Version>,
    records: Vec<(IpAddr, Seen)>,
}

impl<P: Clone> Transaction<P> {
    /// A run that has not begun.
    #[must_use]
    pub fn new(plan: Plan<P>) -> Self {
        Self::with_rules(plan, Rules::ALL)
    }

    pub(super) fn with_rules(plan: Plan<P>, rules: Rules) -> Self {
        let mut transaction = Self {
            plan,
            rules,
            stage: Stage::Publish,
            attempts: 0,
            released: Vec::new(),
            published: None,
            records: Vec::new(),
        };
        transaction.stage = if rules.have(Rule::ReadBeforeFence) {
            transaction.read_released(0)
        } else {
            transaction.after_reading()
        };
        transaction
    }

    /// What to do now.
    #[must_use]
    pub fn step(&self) -> Step<P> {
        match self.call() {
            Some(call) => Step::Call(call),
            None => Step::End(Conclusion {
                outcome: match &self.stage {
                    Stage::End(outcome) => outcome.clone(),
                    _ => Outcome::Again,
                },
                published: self.published.clone(),
                records: self.records.clone(),
            }),
        }
    }

    /// Takes in the answer to the call of [`step`](Self::step). An answer that does not belong to
    /// that call ends the transaction with [`Outcome::Again`].
    pub fn answer(&mut self, answer: Answer) {
        let stage = std::mem::replace(&mut self.stage, Stage::End(Outcome::Again));
        self.stage = match (stage, answer) {
            (Stage::ReadReleased(i), Answer::Record(stored)) => self.on_released_read(i, stored),
            (Stage::ConfirmGone, Answer::Service(found)) => match found {
                Some((uid, _)) if uid == self.plan.subject.uid => Stage::End(Outcome::Again),
                _ => self.reserve(0),
            },
            (Stage::Reserve(i, attempt), answer) => self.on_reserve(i, attempt, answer),
            (Stage::Publish, Answer::Published(version)) => self.on_published(version),
            (Stage::GiveBack(i), Answer::Deleted | Answer::NotFound) => {
                self.learn_released(i, |released| Seen::Deleted(released.uid.clone()));
                self.give_back(i + 1)
            }
            (Stage::GiveBack(i), Answer::Written(stored)) => {
                self.learn_released(i, |_| Seen::Stored(stored));
                self.give_back(i + 1)
            }
            _ => Stage::End(Outcome::Again),
        };
    }

    fn call(&self) -> Option<Call<P>> {
        let subject = &self.plan.subject;
        match &self.stage {
            Stage::ReadReleased(i) => self.plan.release.get(*i).copied().map(Call::ReadRecord),
            Stage::ConfirmGone | Stage::Reserve(_, Attempt::ConfirmCurrent(_)) => {
                Some(Call::ReadService(subject.key.clone()))
            }
            Stage::Reserve(i, attempt) => {
                let reservation = self.plan.reserve.get(*i)?;
                Some(match attempt {
                    Attempt::Create => Call::Create(reservation.record.clone()),
                    Attempt::Update(stored) => Call::Update(stored.clone()),
                    Attempt::Read | Attempt::ConfirmCurrent(_) => {
                        Call::ReadRecord(reservation.record.address)
                    }
                })
            }
            Stage::Publish => Some(Call::Publish(subject.clone(), self.plan.publish.clone()?)),
            Stage::GiveBack(i) => {
                let stored = self.released.get(*i)?;
                let mut left = stored.record.without(&subject.uid);
                if left.entries.is_empty() && !left.reserved {
                    if !self.plan.keep.contains(&left.address) {
                        return Some(Call::Delete(stored.clone()));
                    }
                    left.kept_for = Some(subject.key.clone());
                }
                Some(Call::Update(Stored {
                    record: left,
                    ..stored.clone()
                }))
            }
            Stage::End(_) => None,
        }
    }

    fn read_released(&self, i: usize) -> Stage {
        if i < self.plan.release.len() {
            Stage::ReadReleased(i)
        } else {
            self.after_reading()
        }
    }

    fn after_reading(&self) -> Stage {
        if self.plan.subject.version.is_none() && self.rules.have(Rule::ConfirmGone) {
            return Stage::ConfirmGone;
        }
        self.reserve(0)
    }

    fn on_released_read(&mut self, i: usize, stored: Option<Stored>) -> Stage {
        if let Some(&address) = self.plan.release.get(i) {
            self.learn(address, stored.clone().map_or(Seen::Absent, Seen::Stored));
        }
        self.released
            .extend(stored.filter(|stored| stored.record.names(&self.plan.subject.uid)));
        if self.rules.have(Rule::ReadBeforeFence) {
            self.read_released(i + 1)
        } else if i + 1 < self.plan.release.len() {
            Stage::ReadReleased(i + 1)
        } else {
            self.give_back(0)
        }
    }

    fn reserve(&self, i: usize) -> Stage {
        match self.plan.reserve.get(i) {
            None => self.publish(),
            Some(Reservation { known: None, .. }) => Stage::Reserve(i, Attempt::Create),
            Some(Reservation {
                known: Some(stored),
                ..
            }) => self.take(i, stored.clone()),
        }
    }

    /// The write that makes a record ours, or the end where it is somebody else's.
    fn take(&self, i: usize, stored: Stored) -> Stage {
        let Some(reservation) = self.plan.reserve.get(i) else {
            return self.publish();
        };
        let subject = &self.plan.subject;
        if stored.record.names(&subject.uid) && !self.rules.have(Rule::Raise) {
            return self.reserve(i + 1);
        }
        let asked = self.rules.have(Rule::Agree);
        match reservation.admit(&stored.record, subject, asked) {
            Admission::Refused => Stage::End(Outcome::Taken(stored.record.address)),
            Admission::Ours(record) => {
                Stage::Reserve(i, Attempt::Update(Stored { record, ..stored }))
            }
            Admission::Succeeds(record) => {
                let stored = Stored { record, ..stored };
                if self.rules.have(Rule::ConfirmCurrent) {
                    Stage::Reserve(i, Attempt::ConfirmCurrent(stored))
                } else {
                    Stage::Reserve(i, Attempt::Update(stored))
                }
            }
        }
    }

    fn on_reserve(&mut self, i: usize, attempt: Attempt, answer: Answer) -> Stage {
        self.attempts = self.attempts.saturating_add(1);
        if self.attempts > ATTEMPTS {
            return Stage::End(Outcome::Again);
        }
        match (attempt, answer) {
            (Attempt::Create | Attempt::Update(_), Answer::Written(stored)) => {
                self.learn(stored.record.address, Seen::Stored(stored));
                self.attempts = 0;
                self.reserve(i + 1)
            }
            (Attempt::Create, Answer::Exists | Answer::Conflict)
            | (Attempt::Update(_), Answer::Conflict) => Stage::Reserve(i, Attempt::Read),
            (Attempt::Update(_), Answer::NotFound) | (Attempt::Read, Answer::Record(None)) => {
                Stage::Reserve(i, Attempt::Create)
            }
            (Attempt::Read, Answer::Record(Some(stored))) => {
                self.learn(stored.record.address, Seen::Stored(stored.clone()));
                self.take(i, stored)
            }
            (Attempt::ConfirmCurrent(stored), Answer::Service(Some((uid, version))))
                if uid == self.plan.subject.uid
                    && Some(&version) == self.plan.subject.version.as_ref() =>
            {
                Stage::Reserve(i, Attempt::Update(stored))
            }
            _ => Stage::End(Outcome::Again),
        }
    }

    fn publish(&self) -> Stage {
        if self.plan.publish.is_some() && self.plan.subject.version.is_some() {
            Stage::Publish
        } else if self.plan.subject.version.is_some()
            && !self.plan.release.is_empty()
            && self.rules.have(Rule::Fence)
        {
            // Nothing would kill the older versions of the Service: such a plan is not carried out.
            Stage::End(Outcome::Again)
        } else {
            self.after_publishing()
        }
    }

    fn on_published(&mut self, version: Version) -> Stage {
        let unchanged = self.plan.subject.version.as_ref() == Some(&version);
        self.published = Some(version);
        if unchanged && !self.plan.release.is_empty() && self.rules.have(Rule::Fence) {
            return Stage::End(Outcome::Again);
        }
        self.after_publishing()
    }

    fn after_publishing(&self) -> Stage {
        if !self.rules.have(Rule::ReadBeforeFence) && !self.plan.release.is_empty() {
            return Stage::ReadReleased(0);
        }
        self.give_back(0)
    }

    fn give_back(&self, i: usize) -> Stage {
        if i < self.released.len() {
            Stage::GiveBack(i)
        } else {
            Stage::End(Outcome::Done)
        }
    }

    fn learn_released(&mut self, i: usize, seen: impl FnOnce(&Stored) -> Seen) {
        if let Some(released) = self.released.get(i) {
            let (address, seen) = (released.record.address, seen(released));
            self.learn(address, seen);
        }
    }

    fn learn(&mut self, address: IpAddr, seen: Seen) {
        match self.records.iter_mut().find(|(known, _)| *known == address) {
            Some((_, known)) => *known = seen,
            None => self.records.push((address, seen)),
        }
    }
}
