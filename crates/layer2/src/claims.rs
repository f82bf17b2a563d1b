//! What the engine does about frames of others: requests, announcements and claims.

use std::{net::IpAddr, sync::Arc, time::Duration};

use openelb_net::MacAddr;
use rand::RngExt;

use crate::{
    Conflict, Counters, Event, ProbePolicy, ProbeResult, Role, Withdrawal,
    engine::{Engine, Now, PROBE_AGAIN},
    frame::{self, Ask, Form, Message},
    state::{Phase, Place},
};

/// A foreign claim is answered at most this often (RFC 5227 §2.4 and its DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// A speaker that outranks a claimant waits this long before it insists: the claimant may have
/// newer knowledge, which then arrives here too.
const DEFEND_DELAY: Duration = Duration::from_millis(500);
/// A yielded address is asked for at this pace while its holder says nothing else…
const CHECK: Duration = Duration::from_millis(250);
/// …and taken when the holder has been silent for this long.
const SILENCE: Duration = Duration::from_millis(900);
/// Each yielded address by itself is asked for this often.
const CHECK_EACH: Duration = Duration::from_secs(10);
/// A conflict that is not heard any more is forgotten after this.
const FORGET: Duration = Duration::from_mins(5);
/// About so many contested addresses are asked for at once.
const ASK_AT_ONCE: usize = 100;

impl Engine {
    /// A frame came in by the interface with this index.
    pub(crate) fn receive(&mut self, link: u32, frame: &[u8], now: Now) {
        Counters::add(&self.counters.frames, 1);
        let Ok(Message { claim, ask }) = frame::parse(frame) else {
            Counters::add(&self.counters.malformed, 1);
            return;
        };
        if let Some((ip, mac)) = claim {
            self.claimed(link, ip, mac, now);
        }
        if let Some(ask) = ask {
            self.asked(link, &ask, now);
        }
    }

    fn asked(&mut self, link: u32, ask: &Ask, now: Now) {
        let Some(state) = self.states.get(&ask.ip) else {
            return;
        };
        let Some(place) = state.place.as_ref().filter(|place| place.link == link) else {
            return;
        };
        if self.own_macs.contains(&ask.mac) {
            return;
        }
        let mac = place.mac;
        match state.phase {
            phase if phase.answers() => {
                let peer = self.desired.peers.contains_key(&ask.mac);
                // The new leader asks whether we still hold it: this is the moment to let go.
                if matches!(phase, Phase::HandingOver { .. }) && peer && ask.from.is_none() {
                    self.stop(ask.ip, Withdrawal::HandedOver, Phase::Idle);
                    return;
                }
                Counters::add(self.counters.requests(ask.ip), 1);
                self.sends.push(crate::engine::Send {
                    link,
                    frame: frame::answer(mac, ask),
                });
                Counters::add(self.counters.responses(ask.ip), 1);
                self.schedule.hasten(ask.ip, now.instant);
            }
            // Two hosts probe for one address at once (RFC 5227 §2.1.1): neither may have it yet.
            Phase::Probing { .. }
                if ask.from.is_none() && !self.desired.peers.contains_key(&ask.mac) =>
            {
                self.probe_found(ask.ip, ask.mac, now);
            }
            _ => {}
        }
    }

    fn claimed(&mut self, link: u32, ip: IpAddr, mac: MacAddr, now: Now) {
        if self.own_macs.contains(&mac) {
            return;
        }
        let peer = self.desired.peers.get(&mac).map(Arc::clone);
        if peer.is_some() {
            self.peers_heard.insert(mac, now.instant);
        }
        let Some(state) = self.states.get_mut(&ip) else {
            return;
        };
        if state.place.as_ref().is_none_or(|place| place.link != link) {
            return;
        }
        let phase = state.phase;
        if let Some(node) = &peer {
            let news = state.heard.as_ref().is_none_or(|(last, ..)| last != node);
            state.heard = Some((Arc::clone(node), now.wall, now.instant));
            self.dirty |= news;
            self.claimed_by_speaker(ip, mac, node, phase, now);
        } else {
            match phase {
                Phase::Answering { .. } | Phase::HandingOver { .. } => {
                    self.conflict(ip, mac, None, now);
                    self.defend_against_foreign(ip, now);
                }
                Phase::Probing { .. } => self.probe_found(ip, mac, now),
                _ => {}
            }
        }
    }

    fn claimed_by_speaker(
        &mut self,
        ip: IpAddr,
        mac: MacAddr,
        node: &Arc<str>,
        phase: Phase,
        now: Now,
    ) {
        let yielded = Phase::Yielded {
            to: mac,
            heard: now.instant,
        };
        match phase {
            Phase::HandingOver { .. } => self.stop(ip, Withdrawal::HandedOver, Phase::Idle),
            Phase::Answering { muted, .. } => {
                if muted.is_none() && self.outranks(ip, node) {
                    self.insist_later(ip, now);
                } else {
                    self.conflict(ip, mac, Some(Arc::clone(node)), now);
                    self.stop(ip, Withdrawal::Outranked, yielded);
                    self.set_timer(ip, Some(now.instant + CHECK));
                }
            }
            Phase::Probing { .. } => {
                // One of ours holds it, so it is in use already.
                if let Some(state) = self.states.get_mut(&ip) {
                    state.probe = ProbeResult::Free;
                    state.probed = Some(now.instant);
                }
                self.enter(ip, yielded);
                self.set_timer(ip, Some(now.instant + CHECK));
            }
            Phase::Yielded { .. } => {
                if let Some(state) = self.states.get_mut(&ip) {
                    state.phase = yielded;
                }
            }
            _ => {}
        }
    }

    /// Whether this node goes before another that claims the address too: as in the election, whoever
    /// the Service prefers, else the order of all nodes.
    fn outranks(&self, ip: IpAddr, other: &Arc<str>) -> bool {
        let us = &self.config.node;
        let preferred = self
            .states
            .get(&ip)
            .and_then(|state| state.vip.preferred.as_ref());
        match preferred {
            Some(node) if node == us => true,
            Some(node) if node == other => false,
            _ => (self.config.outranks)(ip, us, other),
        }
    }

    /// Plans to insist on an address that another speaker claims although we outrank it.
    fn insist_later(&mut self, ip: IpAddr, now: Now) {
        let Some(state) = self.states.get_mut(&ip) else {
            return;
        };
        if state.defend.is_none() {
            let due = now.instant + DEFEND_DELAY;
            state.defend = Some(due);
            self.set_timer(ip, Some(due));
        }
    }

    /// Announces once, at a bounded rate.
    fn defend_against_foreign(&mut self, ip: IpAddr, now: Now) {
        let Some(state) = self.states.get_mut(&ip) else {
            return;
        };
        let lately = state
            .defended
            .is_some_and(|at| now.instant.duration_since(at) < DEFEND_INTERVAL);
        let answers = matches!(state.phase, Phase::Answering { muted: None, .. });
        if !lately
            && answers
            && let Some(place) = state.place.clone()
        {
            state.defended = Some(now.instant);
            self.insist(ip, &place, now);
        }
    }

    fn insist(&mut self, ip: IpAddr, place: &Place, now: Now) {
        let forms: &[Form] = if ip.is_ipv4() {
            &[Form::Request, Form::Reply]
        } else {
            &[Form::Reply]
        };
        self.announce(place, ip, forms);
        self.schedule.pay(forms.len(), now.instant);
    }

    /// A foreign host was found while probing.
    fn probe_found(&mut self, ip: IpAddr, mac: MacAddr, now: Now) {
        let Some(state) = self.states.get_mut(&ip) else {
            return;
        };
        let found = ProbeResult::Taken(mac);
        if std::mem::replace(&mut state.probe, found) != found {
            self.events.push(Event::Taken { ip, mac });
        }
        state.probed = Some(now.instant);
        self.dirty = true;
        if state.vip.probe == ProbePolicy::Avoid {
            self.enter(ip, Phase::SetAside);
            let again = self.jitter(PROBE_AGAIN);
            self.set_timer(ip, Some(now.instant + again));
        } else if !self.desired.hold {
            self.take(ip, now);
        }
    }

    /// Notes a conflict, and reports it where it is news.
    fn conflict(&mut self, ip: IpAddr, mac: MacAddr, speaker: Option<Arc<str>>, now: Now) {
        Counters::add(self.counters.conflicts(ip), 1);
        let Some(state) = self.states.get_mut(&ip) else {
            return;
        };
        let old = state.conflict.as_ref().filter(|(old, _)| old.mac == mac);
        let count = old.map_or(0, |(old, _)| old.count).saturating_add(1);
        // The moment kept here is that of the last report.
        let reported = old.map(|(_, at)| *at);
        let news = reported.is_none_or(|at| now.instant.duration_since(at) >= DEFEND_INTERVAL);
        if news {
            self.events.push(Event::Conflict {
                ip,
                mac,
                speaker: speaker.clone(),
            });
            self.dirty = true;
        }
        let at = if news {
            now.instant
        } else {
            reported.unwrap_or(now.instant)
        };
        state.conflict = Some((
            Conflict {
                mac,
                speaker,
                at: now.wall,
                count,
            },
            at,
        ));
    }

    /// A timer of this address has run out.
    pub(crate) fn expire(&mut self, ip: IpAddr, now: Now) {
        let Some(state) = self.states.get_mut(&ip) else {
            return;
        };
        match state.phase {
            Phase::HandingOver { until, .. } if until <= now.instant => {
                self.stop(ip, Withdrawal::HandOverTimedOut, Phase::Idle);
            }
            Phase::Answering { muted: Some(_), .. } => self.take(ip, now),
            Phase::Answering { .. } => {
                let due = state.defend.take().is_some();
                let heard = state.heard.clone();
                if due
                    && state.vip.role == Role::Lead
                    && let Some(place) = state.place.clone()
                {
                    if let Some((node, ..)) = heard {
                        let mac = self.desired.peers.iter().find(|(_, name)| **name == node);
                        let mac = mac.map(|(mac, _)| *mac).unwrap_or_default();
                        self.conflict(ip, mac, Some(node), now);
                    }
                    self.insist(ip, &place, now);
                }
            }
            Phase::Yielded { to, heard } => self.check(ip, to, heard, now),
            Phase::SetAside => self.begin(ip, now),
            _ => {}
        }
    }

    /// Is the speaker to which an address was yielded still there, and does it still answer?
    fn check(&mut self, ip: IpAddr, to: MacAddr, heard: std::time::Instant, now: Now) {
        let of_peer = self
            .peers_heard
            .get(&to)
            .copied()
            .unwrap_or(heard)
            .max(heard);
        let peer_silent = now.instant.duration_since(of_peer);
        let silent = now.instant.duration_since(heard);
        let over = peer_silent >= SILENCE || silent >= CHECK_EACH + SILENCE;
        if over && !self.desired.hold {
            self.take(ip, now);
            return;
        }
        if peer_silent >= CHECK || silent >= CHECK_EACH {
            let place = self.states.get(&ip).and_then(|state| state.place.clone());
            if let Some(place) = place {
                self.send(&place, frame::probe(place.mac, ip));
            }
        }
        let next = self.jitter(CHECK);
        self.set_timer(ip, Some(now.instant + next));
    }

    /// Drops conflicts that are over, and looks whether the others are. Called now and then.
    pub(crate) fn forget_conflicts(&mut self, now: Now) {
        let mut open = Vec::new();
        for (ip, state) in &mut self.states {
            let over = state.conflict.as_ref().is_some_and(|(conflict, _)| {
                now.wall
                    .duration_since(conflict.at)
                    .is_ok_and(|since| since > FORGET)
            });
            if over {
                state.conflict = None;
                self.dirty = true;
            }
            if !matches!(state.phase, Phase::Answering { muted: None, .. }) {
                continue;
            }
            let found = matches!(state.probe, ProbeResult::Taken(_));
            let old = state
                .probed
                .is_some_and(|at| now.instant.duration_since(at) > FORGET);
            if found && old {
                // Whoever is still there has claimed it since, which is a conflict of its own.
                state.probe = ProbeResult::Free;
                self.dirty = true;
            }
            let foreign = state
                .conflict
                .as_ref()
                .is_some_and(|(conflict, _)| conflict.speaker.is_none());
            if (found && !old) || foreign {
                open.extend(state.place.clone().map(|place| (*ip, place)));
            }
        }
        // A host that still has the address answers, and one that is gone does not. Of very many a part.
        let all = open.len();
        for (ip, place) in open {
            if self.rng.random_range(0..all) >= ASK_AT_ONCE {
                continue;
            }
            self.send(&place, frame::probe(place.mac, ip));
            self.schedule.pay(1, now.instant);
        }
    }
}
