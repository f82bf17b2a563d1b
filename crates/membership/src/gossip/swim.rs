//! Around foca: its configuration, its timers with the credit that late nodes give to suspects, and what it wants sent,
//! scheduled and known.

use std::{
    num::{NonZeroU8, NonZeroUsize},
    time::{Duration, Instant},
};

use foca::{Config, OwnedNotification, PeriodicParams, Timer};

use super::{Gossip, MAX_DATAGRAM, ignore};
use crate::{
    Members, Parameters,
    seal::OVERHEAD,
    wire::{Identity, Intent, Message},
};

/// A timer of foca.
pub(super) struct Pending {
    timer: Timer<Identity>,
    /// What it was put off by.
    credit: Duration,
}

impl Gossip {
    /// Runs foca's timers that are due.
    pub(super) fn run_timers(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let Pending { timer, .. } = entry.remove();
            let suspect = match &timer {
                Timer::ChangeSuspectToDown { member_id, .. } => Some(member_id.clone()),
                _ => None,
            };
            let result = self.foca.handle_timer(timer, &mut self.runtime);
            ignore(result);
            self.spare(suspect.as_ref());
            self.drain(now);
        }
    }

    /// When a suspicion runs out foca tells the suspect that it is down even if it has refuted in
    /// time, and the suspect would take another identity for nothing. That word is not sent.
    fn spare(&mut self, suspect: Option<&Identity>) {
        if let Some(suspect) = suspect
            && self
                .foca
                .iter_members()
                .any(|member| member.id() == suspect)
        {
            while self.runtime.to_send().is_some() {}
        }
    }

    /// A node that was late itself may have been late to hear of others: suspects get that much
    /// more time to refute (the idea of Lifeguard, <https://arxiv.org/abs/1707.00788>), but at most
    /// as long again, so that a node which is always late still finds the dead.
    pub(super) fn give_credit(&mut self, late: Duration) {
        let most = self.parameters.suspicion;
        let all = std::mem::take(&mut self.timers);
        for ((due, sequence), mut pending) in all {
            let mut due = due;
            if matches!(pending.timer, Timer::ChangeSuspectToDown { .. }) {
                let more = late.min(most.saturating_sub(pending.credit));
                pending.credit += more;
                due += more;
            }
            self.timers.insert((due, sequence), pending);
        }
    }

    /// Takes from foca what it wants sent, scheduled and known.
    pub(super) fn drain(&mut self, now: Instant) {
        while let Some((to, data)) = self.runtime.to_send() {
            let body = postcard::to_stdvec(&Message::Swim(&data));
            self.push(to.address, body);
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.sequence += 1;
            let credit = Duration::ZERO;
            self.timers
                .insert((now + after, self.sequence), Pending { timer, credit });
        }
        let notifications: Vec<_> = std::iter::from_fn(|| self.runtime.to_notify()).collect();
        // The own standing first: what is told to others below must be true already.
        for notification in &notifications {
            match notification {
                OwnedNotification::Rejoin(identity) => {
                    self.me = identity.clone();
                    self.counts.resurrections += 1;
                    let absent = self.was_absent(now);
                    self.standing.resurrected(absent, now);
                    if absent {
                        self.forming.was_away();
                    }
                    self.show_standing(now);
                }
                OwnedNotification::Idle => self.standing.isolated(),
                _ => {}
            }
        }
        for notification in notifications {
            match notification {
                OwnedNotification::MemberUp(identity) => {
                    if self.departed.remove(&identity.node).is_some() {
                        self.departures.retain(|node| *node != identity.node);
                        self.returned_at = Some(now);
                    }
                    self.forget_void(&identity);
                    self.tell(identity.address, Intent::Ask);
                }
                OwnedNotification::MemberDown(identity) => self.departs(&identity, now),
                OwnedNotification::Rename(_, new) => {
                    self.forget_void(&new);
                    self.tell(new.address, Intent::Ask);
                }
                _ => {}
            }
        }
    }

    fn departs(&mut self, identity: &Identity, now: Instant) {
        self.counts.deaths += 1;
        let heard = self.heard.remove(&identity.address);
        // One that said goodbye was heard just now.
        let silent = heard.map(|heard| now.saturating_duration_since(heard));
        if let Some(silent) = silent.filter(|silent| *silent >= self.parameters.suspicion) {
            self.counts.detection.add(silent);
        }
        if let Some(known) = self.known.remove(&identity.node) {
            if self.departed.len() >= Members::MAX_DEPARTED
                && let Some(first) = self.departures.pop_front()
            {
                self.departed.remove(&first);
            }
            self.departures.retain(|node| *node != identity.node);
            self.departures.push_back(identity.node.clone());
            self.departed.insert(identity.node.clone(), known.facts);
        }
    }
}

/// foca's configuration; `None` for parameters that make none.
pub(super) fn config(parameters: &Parameters) -> Option<Config> {
    let fanout = NonZeroUsize::new(4)?;
    Some(Config {
        probe_period: parameters.probe_period,
        probe_rtt: parameters.probe_rtt,
        num_indirect_probes: NonZeroUsize::new(3)?,
        max_transmissions: NonZeroU8::new(20)?,
        suspect_to_down_after: parameters.suspicion,
        // A node that renews its identity is let in at once; this bounds only what is remembered.
        remove_down_after: Some(Duration::from_hours(24)),
        max_packet_size: NonZeroUsize::new(MAX_DATAGRAM - OVERHEAD - 8)?,
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams {
            frequency: Duration::from_secs(5),
            num_members: NonZeroUsize::MIN,
        }),
        periodic_announce_to_down_members: Some(PeriodicParams {
            frequency: Duration::from_millis(500),
            num_members: NonZeroUsize::new(2)?,
        }),
        periodic_gossip: Some(PeriodicParams {
            frequency: parameters.gossip_period,
            num_members: fanout,
        }),
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::{Setup, facts::Known};
    use super::*;
    use crate::{Facts, Key, Profile};

    #[test]
    fn of_too_many_that_were_given_up_the_first_are_forgotten() {
        let now = Instant::now();
        let setup = Setup {
            node: "me".to_owned(),
            advertise: SocketAddr::from(([10, 0, 0, 1], 7946)),
            key: Key::new(b"a key of thirty-two bytes, tests").unwrap(),
            parameters: Profile::Default.parameters(),
            run: 1,
            seed: [1; 32],
        };
        let mut gossip = Gossip::new(setup, now).unwrap();
        let most = Members::MAX_DEPARTED;
        // The names fall, so that the first that goes is the last by name.
        let name = |number: usize| format!("n{:04}", 9_000 - number);
        for number in 0..=most {
            let identity = Identity {
                address: SocketAddr::from(([10, 0, 0, 2], 7946)),
                node: name(number),
                run: 1,
                life: 0,
            };
            let known = Known {
                version: (1, 0, 0),
                facts: Facts::default(),
            };
            gossip.known.insert(name(number), known);
            gossip.departs(&identity, now);
        }
        let departed = gossip.members().departed;
        assert_eq!(departed.len(), most);
        assert!(!departed.contains_key(&name(0)) && departed.contains_key(&name(most)));
    }
}
