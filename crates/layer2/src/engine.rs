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
    Counters, Desired, Event, ProbePolicy, ProbeResult, ResponderConfig, Snapshot, Withdrawal,
    frame::{self, Form},
    schedule::{Schedule, Urgency, gap},
    state::{Phase, Place, State},
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

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: ResponderConfig,
    pub(crate) desired: Arc<Desired>,
    pub(crate) links: Arc<Links>,
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
        state.told &= matches!(
            state.phase,
            Phase::Answering { .. } | Phase::HandingOver { .. }
        );
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

    pub(crate) fn hand_over(&mut self, ip: IpAddr, since: SystemTime, now: Now) {
        let Some(state) = self.states.get(&ip) else {
            return;
        };
        // Nobody believes this node yet. The leader may have answered all the time, unaware that
        // another was about to: there is no announcement of it to wait for.
        if !state.told {
            self.stop(ip, Withdrawal::HandedOver, Phase::Idle);
            return;
        }
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

    pub(crate) fn plan_refresh(&mut self, ip: IpAddr, now: Instant) {
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
        if let Some(state) = self.states.get_mut(&ip) {
            state.told = true;
        }
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

#[cfg(test)]
mod tests;
