//! Brings every address to where the wish and the interfaces want it.

use std::{net::IpAddr, sync::Arc};

use openelb_net::{Links, MacAddr};

use crate::{
    Ability, Desired, ProbePolicy, ProbeResult, Role, Vip, Withdrawal,
    engine::{Engine, Now},
    schedule::gap,
    state::{Phase, Place, State},
};

impl Engine {
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
                told: false,
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
    pub(crate) fn needs_no_probe(&self, ip: IpAddr) -> bool {
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
}
