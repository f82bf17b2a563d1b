//! The pure core of the responder: wishes, interfaces, frames and time in; frames, events and the
//! snapshot out.
//!
//! One [`Engine`] owns the state of all addresses of a node. It does no I/O and reads no clock.
//!
//! ```text
//!            Lead, not proven            nobody objects
//!   Idle ───────────────────> Probing ─────────────────┐
//!    │ └─ Lead ─────────────────────────────────────> Answering <──── peer silent ── Yielded
//!    │                                                 │  │  └─ an outranking peer claims ─^
//!    │<── new leader heard, or too late ── HandingOver <┘  │
//!    └<──────────────── Silent, unlisted, interface lost ──┘
//! ```
//!
//! Where probing finds a foreign host and the policy is to avoid it, the address is *set aside*: probed
//! again now and then, and taken once nobody objects or the policy is another.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use openelb_net::{Links, MacAddr};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    Ability, Activity, Conflict, Counters, Desired, Event, ProbePolicy, ProbeResult,
    ResponderConfig, Role, Snapshot, Vip, VipState, Withdrawal,
    frame::{self, Form},
    schedule::{Schedule, Urgency, gap},
};

/// Probes before the first use, and the pause after each (RFC 5227 has 1 to 2 seconds for hosts
/// that boot; a Service waits for its address meanwhile).
const PROBES: u8 = 3;
const PROBE_GAP: Duration = Duration::from_millis(200);

/// An address that was set aside is probed again this often.
pub(crate) const PROBE_AGAIN: Duration = Duration::from_secs(30);

/// A process that did not run for this long must not trust what it believed before.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// How long it then listens before it answers again.
const LISTEN: Duration = Duration::from_millis(500);

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) wall: SystemTime,
}

/// A frame to send by the interface with this index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) link: u32,
    pub(crate) frame: Vec<u8>,
}

/// Where an address is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) link: u32,
    pub(crate) name: Arc<str>,
    pub(crate) mac: MacAddr,
    pub(crate) in_subnet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    NoInterface,
    Probing {
        sent: u8,
    },
    SetAside,
    Answering {
        since: SystemTime,
        step: usize,
        muted: Option<Instant>,
    },
    HandingOver {
        since: SystemTime,
        until: Instant,
    },
    Yielded {
        to: MacAddr,
        heard: Instant,
    },
}

impl Phase {
    pub(crate) const fn answers(self) -> bool {
        matches!(
            self,
            Self::Answering { muted: None, .. } | Self::HandingOver { .. }
        )
    }
}

/// The state of one address.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) vip: Vip,
    pub(crate) place: Option<Place>,
    pub(crate) phase: Phase,
    pub(crate) probe: ProbeResult,
    /// When the probe's result was found.
    pub(crate) probed: Option<Instant>,
    pub(crate) conflict: Option<(Conflict, Instant)>,
    /// The speaker last heard claiming the address.
    pub(crate) heard: Option<(Arc<str>, SystemTime, Instant)>,
    /// A winner's answer to a claim, due then.
    pub(crate) defend: Option<Instant>,
    pub(crate) defended: Option<Instant>,
    /// When [`Engine::expire`] has something to do for this address.
    pub(crate) timer: Option<Instant>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: ResponderConfig,
    pub(crate) desired: Arc<Desired>,
    links: Arc<Links>,
    pub(crate) states: HashMap<IpAddr, State>,
    pub(crate) schedule: Schedule,
    pub(crate) timers: BTreeSet<(Instant, IpAddr)>,
    /// When a frame of another speaker was last heard, by its hardware address.
    pub(crate) peers_heard: HashMap<MacAddr, Instant>,
    pub(crate) own_macs: HashSet<MacAddr>,
    pub(crate) sends: Vec<Send>,
    pub(crate) events: Vec<Event>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) dirty: bool,
    pub(crate) rng: SmallRng,
    last: Instant,
}

impl Engine {
    pub(crate) fn new(
        config: ResponderConfig,
        counters: Arc<Counters>,
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            schedule: Schedule::new(config.pace, now),
            config,
            desired: Arc::default(),
            links: Arc::default(),
            states: HashMap::new(),
            timers: BTreeSet::new(),
            peers_heard: HashMap::new(),
            own_macs: HashSet::new(),
            sends: Vec::new(),
            events: Vec::new(),
            counters,
            dirty: true,
            rng: SmallRng::seed_from_u64(seed),
            last: now,
        }
    }

    /// Takes over a new wish.
    pub(crate) fn set_desired(&mut self, desired: Arc<Desired>, now: Now) {
        self.desired = desired;
        self.peers_heard
            .retain(|mac, _| self.desired.peers.contains_key(mac));
        self.reconcile(now);
    }

    /// Takes over a new view of the interfaces.
    pub(crate) fn set_links(&mut self, links: Arc<Links>, now: Now) {
        self.links = links;
        self.own_macs = self
            .links
            .links
            .values()
            .filter_map(|link| link.mac)
            .collect();
        self.reconcile(now);
    }

    fn reconcile(&mut self, now: Now) {
        let desired = Arc::clone(&self.desired);
        let gone: Vec<IpAddr> = self
            .states
            .keys()
            .filter(|ip| !desired.addresses.contains_key(ip))
            .copied()
            .collect();
        for ip in gone {
            self.stop(ip, Withdrawal::Unwanted, Phase::Idle);
            self.states.remove(&ip);
            self.dirty = true;
        }
        let ability = Ability::of(
            &self.links,
            desired.addresses.values().map(|vip| &*vip.choice),
            &desired.ranges,
        );
        for (ip, vip) in &desired.addresses {
            let place = self.place(&ability, *ip, vip);
            let state = self.states.entry(*ip).or_insert_with(|| State {
                vip: vip.clone(),
                place: None,
                phase: Phase::Idle,
                probe: ProbeResult::None,
                probed: None,
                conflict: None,
                heard: None,
                defend: None,
                defended: None,
                timer: None,
            });
            let refresh_changed = state.vip.refresh != vip.refresh;
            if state.vip != *vip {
                state.vip = vip.clone();
            }
            let moved = state.place != place
                && (state.place.as_ref().map(|p| (p.link, p.mac))
                    != place.as_ref().map(|p| (p.link, p.mac)));
            if state.place != place {
                state.place = place;
                self.dirty = true;
            }
            self.settle(*ip, moved, refresh_changed, now);
        }
    }

    fn place(&self, ability: &Ability, ip: IpAddr, vip: &Vip) -> Option<Place> {
        let able = ability.usable(&vip.choice, ip)?;
        let link = self.links.by_name(&able.name)?;
        Some(Place {
            link: link.index,
            name: link.name.as_str().into(),
            mac: MacAddr(able.mac),
            in_subnet: ability.in_subnet(&vip.choice, ip),
        })
    }

    /// Brings one address to where its role and interface want it.
    fn settle(&mut self, ip: IpAddr, moved: bool, refresh_changed: bool, now: Now) {
        let hold = self.desired.hold;
        let Some(state) = self.states.get(&ip) else {
            return;
        };
        let usable = state.place.is_some();
        match (state.vip.role, state.phase) {
            (Role::Silent, _) => self.stop(ip, Withdrawal::Unwanted, Phase::Idle),
            (Role::Lead | Role::Follow, Phase::Answering { .. } | Phase::HandingOver { .. })
                if !usable =>
            {
                let then = if state.vip.role == Role::Lead {
                    Phase::NoInterface
                } else {
                    Phase::Idle
                };
                self.stop(ip, Withdrawal::InterfaceLost, then);
            }
            (Role::Follow, Phase::Answering { muted: Some(_), .. }) => {
                self.stop(ip, Withdrawal::Outranked, Phase::Idle);
            }
            (Role::Lead, Phase::Answering { muted: None, .. }) if moved => self.take(ip, now),
            (Role::Lead, Phase::Answering { step, .. }) => {
                if refresh_changed && gap(step).is_none() {
                    self.plan_refresh(ip, now.instant);
                }
            }
            (Role::Lead, Phase::HandingOver { .. }) => self.take(ip, now),
            (Role::Lead, Phase::Yielded { to, .. }) => {
                if !usable {
                    self.enter(ip, Phase::NoInterface);
                } else if !hold && !self.desired.peers.contains_key(&to) {
                    self.take(ip, now);
                }
            }
            (Role::Lead, Phase::Probing { .. }) => {
                if !usable {
                    self.enter(ip, Phase::NoInterface);
                } else if moved || self.needs_no_probe(ip) {
                    self.begin(ip, now);
                }
            }
            (Role::Lead, Phase::SetAside) => {
                if !usable {
                    self.enter(ip, Phase::NoInterface);
                } else if moved {
                    // What was found was found on another segment.
                    if let Some(state) = self.states.get_mut(&ip) {
                        state.probe = ProbeResult::None;
                    }
                    self.begin(ip, now);
                } else if self.needs_no_probe(ip) {
                    self.begin(ip, now);
                }
            }
            (Role::Lead, Phase::Idle | Phase::NoInterface) => match (usable, hold) {
                (false, _) => self.enter(ip, Phase::NoInterface),
                (true, false) => self.begin(ip, now),
                (true, true) => {}
            },
            (Role::Follow, Phase::Answering { since, .. }) => self.hand_over(ip, since, now),
            (Role::Follow, Phase::HandingOver { .. } | Phase::Idle) => {}
            (Role::Follow, _) => self.enter(ip, Phase::Idle),
        }
    }

    /// Whether the address may be used as it is: it has been in use, or was found free, or it does not
    /// matter who has it.
    fn needs_no_probe(&self, ip: IpAddr) -> bool {
        self.states.get(&ip).is_some_and(|state| {
            let answered = match state.probe {
                ProbeResult::None => false,
                ProbeResult::Free => true,
                ProbeResult::Taken(_) => state.vip.probe != ProbePolicy::Avoid,
            };
            state.vip.proven
                || answered
                || state.heard.is_some()
                || state.vip.probe == ProbePolicy::Off
        })
    }

    /// Leads from nothing: probes first where that is wanted.
    pub(crate) fn begin(&mut self, ip: IpAddr, now: Now) {
        if self.needs_no_probe(ip) {
            if !self.desired.hold {
                self.take(ip, now);
            }
        } else {
            self.enter(ip, Phase::Probing { sent: 0 });
            self.schedule.plan(ip, Urgency::First, now.instant);
        }
    }

    /// Announces and answers from now on.
    pub(crate) fn take(&mut self, ip: IpAddr, now: Now) {
        let Some(state) = self.states.get_mut(&ip) else {
            return;
        };
        let Some(place) = &state.place else { return };
        let since = match state.phase {
            Phase::Answering { since, .. } | Phase::HandingOver { since, .. } => since,
            _ => {
                let interface = Arc::clone(&place.name);
                self.events.push(Event::Announced { ip, interface });
                Counters::add(&self.counters.taken, 1);
                now.wall
            }
        };
        self.enter(
            ip,
            Phase::Answering {
                since,
                step: 0,
                muted: None,
            },
        );
        self.schedule.plan(ip, Urgency::First, now.instant);
    }

    fn hand_over(&mut self, ip: IpAddr, since: SystemTime, now: Now) {
        let Some(state) = self.states.get(&ip) else {
            return;
        };
        // The new leader may have been quicker than the news that it leads.
        let lately = now.instant.checked_sub(Duration::from_secs(2));
        let heard = state
            .heard
            .as_ref()
            .is_some_and(|(.., at)| lately.is_none_or(|l| *at > l));
        if heard {
            self.stop(ip, Withdrawal::HandedOver, Phase::Idle);
            return;
        }
        let until = now.instant + self.config.hand_over;
        self.enter(ip, Phase::HandingOver { since, until });
        self.set_timer(ip, Some(until));
    }

    /// Falls silent.
    pub(crate) fn stop(&mut self, ip: IpAddr, reason: Withdrawal, then: Phase) {
        let Some(state) = self.states.get(&ip) else {
            return;
        };
        if matches!(
            state.phase,
            Phase::Answering { .. } | Phase::HandingOver { .. }
        ) {
            self.events.push(Event::Withdrawn { ip, reason });
            Counters::add(&self.counters.given_up, 1);
        }
        self.enter(ip, then);
    }

    /// Changes the phase and forgets what was planned for the old one.
    pub(crate) fn enter(&mut self, ip: IpAddr, phase: Phase) {
        self.schedule.cancel(ip);
        self.set_timer(ip, None);
        if let Some(state) = self.states.get_mut(&ip) {
            state.defend = None;
            if state.phase != phase {
                state.phase = phase;
                self.dirty = true;
            }
        }
    }

    pub(crate) fn set_timer(&mut self, ip: IpAddr, timer: Option<Instant>) {
        let Some(state) = self.states.get_mut(&ip) else {
            return;
        };
        if let Some(old) = state.timer.take() {
            self.timers.remove(&(old, ip));
        }
        state.timer = timer;
        if let Some(timer) = timer {
            self.timers.insert((timer, ip));
        }
    }

    /// Does what is due. Must be called at [`Self::deadline`], and at least every 100 ms while the
    /// process runs: a longer silence is taken for a pause of the process.
    pub(crate) fn tick(&mut self, now: Now) {
        if now.instant.duration_since(self.last) > PAUSE {
            self.resume(now);
        }
        self.last = now.instant;
        while let Some((due, ip)) = self.timers.first().copied() {
            if due > now.instant {
                break;
            }
            self.set_timer(ip, None);
            self.expire(ip, now);
        }
        while let Some((ip, _)) = self.schedule.next(now.instant) {
            self.emit(ip, now);
        }
    }

    /// Whether the process was paused, so that frames queued meanwhile are stale.
    pub(crate) fn was_paused(&self, now: Instant) -> bool {
        now.duration_since(self.last) > PAUSE
    }

    /// When [`Self::tick`] is due next.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let timer = self.timers.first().map(|(due, _)| *due);
        [timer, self.schedule.deadline(now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// The process was paused: another may lead by now. Listens, asks, and only then goes on.
    fn resume(&mut self, now: Now) {
        let until = now.instant + LISTEN;
        let answering: Vec<(IpAddr, Phase)> = self
            .states
            .iter()
            .map(|(ip, state)| (*ip, state.phase))
            .collect();
        for (ip, phase) in answering {
            match phase {
                Phase::Answering { since, .. } => {
                    let muted = Some(until);
                    self.enter(
                        ip,
                        Phase::Answering {
                            since,
                            step: 0,
                            muted,
                        },
                    );
                    self.schedule.plan(ip, Urgency::First, now.instant);
                    self.set_timer(ip, Some(until));
                }
                Phase::HandingOver { .. } => {
                    self.stop(ip, Withdrawal::HandOverTimedOut, Phase::Idle);
                }
                _ => {}
            }
        }
    }

    /// Sends what the schedule has chosen, and plans the next.
    fn emit(&mut self, ip: IpAddr, now: Now) {
        let Some(state) = self.states.get_mut(&ip) else {
            return;
        };
        let Some(place) = state.place.clone() else {
            return;
        };
        match &mut state.phase {
            Phase::Probing { sent } if *sent < PROBES => {
                *sent += 1;
                self.send(&place, frame::probe(place.mac, ip));
                let gap = self.jitter(PROBE_GAP);
                self.schedule.plan(ip, Urgency::First, now.instant + gap);
            }
            // Nobody objected; but nothing is taken while the view is not settled.
            Phase::Probing { .. } if self.desired.hold => {
                let gap = self.jitter(PROBE_GAP);
                self.schedule.plan(ip, Urgency::First, now.instant + gap);
            }
            Phase::Probing { .. } => {
                // With another policy than to avoid it, a host that was found does not matter.
                if state.probe == ProbeResult::None || state.vip.probe == ProbePolicy::Avoid {
                    state.probe = ProbeResult::Free;
                    state.probed = Some(now.instant);
                }
                self.take(ip, now);
            }
            Phase::Answering { muted: Some(_), .. } => {
                self.send(&place, frame::probe(place.mac, ip));
            }
            Phase::Answering { step, .. } => {
                // IPv6 has one form only, so its first announcement stands for two steps.
                let at = if ip.is_ipv6() { (*step).max(1) } else { *step };
                *step = at.saturating_add(1);
                let forms: &[Form] = match (at, ip) {
                    (0, IpAddr::V4(_)) => &[Form::Request],
                    (1, IpAddr::V4(_)) | (_, IpAddr::V6(_)) => &[Form::Reply],
                    _ => &[Form::Request, Form::Reply],
                };
                self.announce(&place, ip, forms);
                // The schedule has paid for one frame.
                self.schedule
                    .pay(forms.len().saturating_sub(1), now.instant);
                match gap(at) {
                    Some(gap) => self.schedule.plan(ip, Urgency::Repeat, now.instant + gap),
                    None => self.plan_refresh(ip, now.instant),
                }
            }
            _ => {}
        }
    }

    fn plan_refresh(&mut self, ip: IpAddr, now: Instant) {
        let refresh = self.states.get(&ip).and_then(|state| state.vip.refresh);
        match refresh.filter(|refresh| !refresh.is_zero()) {
            Some(refresh) => {
                let gap = self.jitter(refresh);
                self.schedule.plan(ip, Urgency::Refresh, now + gap);
            }
            None => self.schedule.cancel(ip),
        }
    }

    /// ±25 %.
    pub(crate) fn jitter(&mut self, around: Duration) -> Duration {
        around.mul_f64(self.rng.random_range(0.75..1.25))
    }

    /// Sends announcements, and counts them.
    pub(crate) fn announce(&mut self, place: &Place, ip: IpAddr, forms: &[Form]) {
        for form in forms {
            self.send(place, frame::announcement(place.mac, ip, *form));
            Counters::add(self.counters.gratuitous(ip), 1);
        }
    }

    pub(crate) fn send(&mut self, place: &Place, frame: Vec<u8>) {
        self.sends.push(Send {
            link: place.link,
            frame,
        });
    }

    /// The solicited-node groups to be a member of.
    pub(crate) fn groups(&self) -> HashSet<(u32, Ipv6Addr)> {
        self.states
            .iter()
            .filter(|(_, state)| !matches!(state.phase, Phase::Idle | Phase::NoInterface))
            .filter_map(|(ip, state)| match ip {
                IpAddr::V6(ip) => Some((state.place.as_ref()?.link, frame::solicited_node(*ip))),
                IpAddr::V4(_) => None,
            })
            .collect()
    }

    /// The state of all addresses.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let addresses = self
            .states
            .iter()
            .map(|(ip, state)| (*ip, state.show()))
            .collect();
        Snapshot { addresses }
    }
}

impl State {
    fn show(&self) -> VipState {
        VipState {
            activity: match self.phase {
                Phase::Idle => Activity::Idle,
                Phase::NoInterface => Activity::NoInterface,
                Phase::Probing { .. } => Activity::Probing,
                Phase::SetAside => Activity::SetAside,
                Phase::Answering { since, .. } => Activity::Answering(since),
                Phase::HandingOver { since, .. } => Activity::HandingOver(since),
                Phase::Yielded { .. } => Activity::Yielded,
            },
            interface: self.place.as_ref().map(|place| Arc::clone(&place.name)),
            in_subnet: self.place.as_ref().is_some_and(|place| place.in_subnet),
            probe: self.probe,
            conflict: self.conflict.as_ref().map(|(conflict, _)| conflict.clone()),
            heard: self
                .heard
                .as_ref()
                .map(|(node, wall, _)| (Arc::clone(node), *wall)),
        }
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
