//! The pure core of the gossip: datagrams, wishes and time in; datagrams and [`Members`] out.
//!
//! Around `foca` (SWIM) it adds the seal, the nodes' [`Facts`], joining for ever, and the judgement
//! of whether the own view may be acted on. It does no I/O and reads no clock, so a simulated
//! network can drive many of them.

mod facts;
mod swim;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use facts::Known;
use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast, PostcardCodec};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    Counts, Facts, Key, Member, Members, Parameters,
    forming::Forming,
    seal::{Opened, Seal},
    standing::{Company, Standing},
    wire::{Identity, Intent, Message},
};
use swim::Pending;

/// Bound of a datagram's payload, below any sensible MTU.
pub(crate) const MAX_DATAGRAM: usize = 1400;

/// How many nodes are remembered.
const MOST: usize = 4096;

/// Seeds that are not members are asked at this pace, …
const JOIN: Duration = Duration::from_millis(250);
/// … and this slowly once there are members.
const REJOIN: Duration = Duration::from_secs(2);
/// Members whose facts are unknown are asked for them.
const ASK: Duration = Duration::from_millis(100);
/// A core that was not called for this long (it asks to be every 100 ms) was paused.
const PAUSE: Duration = Duration::from_secs(1);
/// Changed facts are everywhere within this, one lost packet included (see `facts::RETELL`).
const NEWS: Duration = Duration::from_secs(1);
/// Lateness of the own timers that is no sign of trouble.
const PUNCTUAL: Duration = Duration::from_millis(15);
/// How often the core wants to be called at least.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// A datagram to send.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Gossip {
    parameters: Parameters,
    me: Identity,
    changes: u64,
    foca: Foca<Identity, PostcardCodec, SmallRng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Identity>,
    timers: BTreeMap<(Instant, u64), Pending>,
    sequence: u64,
    seal: Seal,
    rng: SmallRng,
    seeds: BTreeSet<SocketAddr>,
    own: Facts,
    known: HashMap<String, Known>,
    /// Those that were given up, and in which order.
    departed: BTreeMap<String, Facts>,
    departures: VecDeque<String>,
    /// When a genuine datagram last came from there.
    heard: HashMap<SocketAddr, Instant>,
    out: Vec<Datagram>,
    counts: Counts,
    standing: Standing,
    forming: Forming,
    /// When this node was last late itself by more than a suspect may be.
    late_at: Option<Instant>,
    /// When a member that was given up here was last met again.
    returned_at: Option<Instant>,
    next_join: Instant,
    next_ask: Instant,
    /// When to tell the facts again, and how often it was done since the last change.
    next_tell: Instant,
    told: usize,
    last: Instant,
}

/// What a core is made with.
pub(crate) struct Setup {
    pub(crate) node: String,
    pub(crate) advertise: SocketAddr,
    pub(crate) key: Key,
    pub(crate) parameters: Parameters,
    /// Grows from run to run, such as the wall clock in microseconds.
    pub(crate) run: u64,
    /// Random.
    pub(crate) seed: [u8; 32],
}

impl Gossip {
    pub(crate) fn new(setup: Setup, now: Instant) -> Option<Self> {
        let mut rng = SmallRng::from_seed(setup.seed);
        let seal = Seal::new(setup.key.0, rng.random(), &rng.random(), now)?;
        let me = Identity {
            address: setup.advertise,
            node: setup.node,
            run: setup.run,
            life: 0,
        };
        let config = swim::config(&setup.parameters)?;
        let foca_rng = SmallRng::from_seed(rng.random());
        Some(Self {
            foca: Foca::new(me.clone(), config, foca_rng, PostcardCodec),
            parameters: setup.parameters,
            me,
            changes: 0,
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            sequence: 0,
            seal,
            rng,
            seeds: BTreeSet::new(),
            own: Facts::default(),
            known: HashMap::new(),
            departed: BTreeMap::new(),
            departures: VecDeque::new(),
            heard: HashMap::new(),
            out: Vec::new(),
            counts: Counts::default(),
            standing: Standing::new(now),
            forming: Forming::default(),
            late_at: None,
            returned_at: None,
            next_join: now,
            next_ask: now,
            next_tell: now,
            told: 0,
            last: now,
        })
    }

    pub(crate) fn set_seeds(&mut self, seeds: BTreeSet<SocketAddr>, now: Instant) {
        self.seeds = seeds;
        self.seeds.remove(&self.me.address);
        self.next_join = now;
    }

    pub(crate) fn set_own(&mut self, leaving: bool, attachment: Bytes, now: Instant) {
        if self.own.leaving != leaving || self.own.attachment != attachment {
            self.own.leaving = leaving;
            self.own.attachment = attachment;
            self.changed(now);
        }
    }

    /// Says goodbye to everybody.
    pub(crate) fn leave(&mut self) {
        self.tell_all(Intent::Leave);
        let result = self.foca.leave_cluster(&mut self.runtime);
        ignore(result);
        self.drain(self.last);
    }

    pub(crate) fn take_datagrams(&mut self) -> Vec<Datagram> {
        std::mem::take(&mut self.out)
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// A datagram came in.
    pub(crate) fn receive(&mut self, from: SocketAddr, packet: &[u8], now: Instant) {
        self.wake(now);
        match self.seal.open(packet, now) {
            Opened::Data(body) => {
                if self.heard.len() < MOST || self.heard.contains_key(&from) {
                    self.heard.insert(from, now);
                }
                self.read(from, &body, now);
            }
            Opened::Reply(bytes) => self.out.push(Datagram { to: from, bytes }),
            // The first word was lost to the challenge: say it again now.
            Opened::Admitted => {
                if !self.is_member(from) {
                    self.announce(from);
                }
                self.tell(from, Intent::Ask);
            }
            Opened::Replayed => self.counts.replayed += 1,
            Opened::Refused => self.counts.refused += 1,
        }
        self.drain(now);
    }

    pub(crate) fn read(&mut self, from: SocketAddr, body: &[u8], now: Instant) {
        match postcard::from_bytes(body) {
            Ok(Message::Swim(data)) => {
                let result = self.foca.handle_data(data, &mut self.runtime);
                ignore(result);
            }
            Ok(Message::Facts(told)) => self.hear(from, &told, now),
            Err(_) => self.counts.refused += 1,
        }
    }

    /// Does what is due. Must be called at [`Self::deadline`].
    pub(crate) fn tick(&mut self, now: Instant) {
        self.wake(now);
        let late = now.saturating_duration_since(self.deadline());
        if late > PUNCTUAL {
            self.give_credit(late);
            if late > self.parameters.suspicion / 2 {
                self.late_at = Some(now);
            }
        }
        self.last = now;
        self.run_timers(now);
        if self.next_join <= now {
            let missing: Vec<SocketAddr> = self
                .seeds
                .iter()
                .copied()
                .filter(|seed| !self.is_member(*seed))
                .collect();
            for seed in missing {
                self.announce(seed);
            }
            let pace = if self.foca.num_members() == 0 {
                JOIN
            } else {
                REJOIN
            };
            self.next_join = now + self.jitter(pace);
        }
        self.settle(now);
        if self.next_tell <= now {
            self.tell_again(now);
        }
        if self.next_ask <= now {
            let unknown: Vec<SocketAddr> = self
                .foca
                .iter_members()
                .filter(|member| !self.known.contains_key(&member.id().node))
                .map(|member| member.id().address)
                .collect();
            for address in unknown {
                self.tell(address, Intent::Ask);
            }
            self.next_ask = now + ASK;
        }
        self.drain(now);
    }

    /// When [`Self::tick`] is due next.
    pub(crate) fn deadline(&self) -> Instant {
        let timer = self.timers.first_key_value().map(|((due, _), _)| *due);
        [
            timer,
            Some(self.next_join),
            Some(self.next_tell),
            Some(self.next_ask),
        ]
        .into_iter()
        .flatten()
        .fold(self.last + HEARTBEAT, Instant::min)
    }

    /// The view as it is now.
    pub(crate) fn members(&self) -> Members {
        let mut alive: BTreeMap<String, Member> = self
            .foca
            .iter_members()
            .map(|member| {
                let identity = member.id();
                let facts = self
                    .known
                    .get(&identity.node)
                    .map(|known| known.facts.clone());
                (
                    identity.node.clone(),
                    Member {
                        address: identity.address,
                        facts,
                    },
                )
            })
            .collect();
        let me = Member {
            address: self.me.address,
            facts: Some(self.own.clone()),
        };
        alive.insert(self.me.node.clone(), me);
        Members {
            me: self.me.node.clone(),
            settled: self.standing.settled(),
            formed: self.forming.formed(),
            alive,
            departed: self.departed.clone(),
        }
    }

    fn is_member(&self, address: SocketAddr) -> bool {
        self.foca
            .iter_members()
            .any(|member| member.id().address == address)
    }

    fn announce(&mut self, to: SocketAddr) {
        let unknown = Identity {
            address: to,
            node: String::new(),
            run: 0,
            life: 0,
        };
        let result = self.foca.announce(unknown, &mut self.runtime);
        ignore(result);
    }

    /// Judges the own standing, and tells of it when it changed.
    fn settle(&mut self, now: Instant) {
        let all_known = self
            .foca
            .iter_members()
            .all(|m| self.known.contains_key(&m.id().node));
        let company = Company {
            any: self.foca.num_members() > 0,
            all_known,
            expected: !self.seeds.is_empty(),
        };
        self.standing.judge(company, now);
        self.show_standing(now);
    }

    fn show_standing(&mut self, now: Instant) {
        let settled = self.standing.settled();
        let any_steady = self.own.steady || self.hears_of_a_steady_member();
        self.forming.observe(settled, any_steady, NEWS, now);
        let steady = self.standing.steady(self.parameters.steady_after, now)
            || self.forming.founder_is_steady();
        if self.own.steady != steady {
            self.own.steady = steady;
            self.changed(now);
        }
    }

    fn hears_of_a_steady_member(&self) -> bool {
        self.foca
            .iter_members()
            .filter_map(|member| self.known.get(&member.id().node))
            .any(|known| known.facts.steady)
    }

    /// Whether it is this node that was away, if the others took it for dead just now: it was late
    /// itself, or it missed none of them meanwhile.
    fn was_absent(&self, now: Instant) -> bool {
        let lately = |at: Option<Instant>| {
            at.is_some_and(|at| now.saturating_duration_since(at) < self.parameters.steady_after)
        };
        lately(self.late_at) || (self.departed.is_empty() && !lately(self.returned_at))
    }

    /// Notices that the process did not run for a while; before anything else is done or said.
    fn wake(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last) > PAUSE {
            self.counts.pauses += 1;
            self.last = now;
            self.standing.paused(now);
            self.show_standing(now);
        }
    }

    fn push(&mut self, to: SocketAddr, body: postcard::Result<Vec<u8>>) {
        if let Some(bytes) = body.ok().and_then(|body| self.seal.seal(&body)) {
            self.out.push(Datagram { to, bytes });
        }
    }

    fn jitter(&mut self, around: Duration) -> Duration {
        around.mul_f64(self.rng.random_range(0.75..1.25))
    }
}

/// Errors of foca are about the peer's data, or the consequence of our having left.
fn ignore(result: Result<(), foca::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "membership message ignored");
    }
}
