//! What the nodes tell each other about themselves: their [`Facts`], each with a version.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Gossip, MOST, ignore};
use crate::{
    Facts,
    wire::{Identity, Intent, Message, Told, Version},
};

/// Facts are told again after a change (a lost packet is made good), …
const RETELL: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(60),
    Duration::from_millis(250),
];
/// … and for ever.
const RETELL_EVER: Duration = Duration::from_secs(5);

/// What a node knows of another's facts.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) version: Version,
    pub(super) facts: Facts,
}

impl Gossip {
    /// Another has told something.
    pub(super) fn hear(&mut self, from: SocketAddr, told: &Told<'_>, now: Instant) {
        if told.node == self.me.node || told.attachment.len() > Facts::MAX_ATTACHMENT {
            return;
        }
        if told.intent == Intent::Ask {
            self.tell(from, Intent::Tell);
        }
        if told.intent == Intent::Leave {
            let identity = self.foca.iter_members().find(|m| m.id().node == told.node);
            if let Some(identity) = identity.map(|member| member.id().clone())
                && identity.address == from
            {
                let gone = std::iter::once(foca::Member::down(identity));
                let result = self.foca.apply_many(gone, true, &mut self.runtime);
                ignore(result);
                self.drain(now);
            }
        }
        let void = self
            .foca
            .iter_members()
            .any(|member| member.id().node == told.node && member.id().voids(told.version));
        let newer = !void
            && self
                .known
                .get(told.node)
                .is_none_or(|known| known.version < told.version);
        // Names come from authenticated nodes only; the bound is against a run-away one.
        if newer && (self.known.len() < MOST || self.known.contains_key(told.node)) {
            let facts = Facts {
                steady: told.steady,
                leaving: told.leaving,
                attachment: Bytes::copy_from_slice(told.attachment),
            };
            self.known.insert(
                told.node.to_owned(),
                Known {
                    version: told.version,
                    facts,
                },
            );
        }
    }

    /// The own facts have changed: everybody is told at once.
    pub(super) fn changed(&mut self, now: Instant) {
        self.changes += 1;
        self.told = 0;
        self.next_tell = now;
    }

    /// Tells everybody again, and plans the next time.
    pub(super) fn tell_again(&mut self, now: Instant) {
        self.tell_all(Intent::Tell);
        self.told += 1;
        let gap = RETELL.get(self.told).copied();
        self.next_tell = now + gap.unwrap_or_else(|| self.jitter(RETELL_EVER));
    }

    pub(super) fn tell_all(&mut self, intent: Intent) {
        let all: Vec<SocketAddr> = self.foca.iter_members().map(|m| m.id().address).collect();
        for address in all {
            self.tell(address, intent);
        }
    }

    pub(super) fn tell(&mut self, to: SocketAddr, intent: Intent) {
        let told = Told {
            node: &self.me.node,
            version: (self.me.run, self.me.life, self.changes),
            steady: self.own.steady,
            leaving: self.own.leaving,
            intent,
            attachment: &self.own.attachment,
        };
        let body = postcard::to_stdvec(&Message::Facts(told));
        self.push(to, body);
    }

    /// What a node said before it was taken for dead, or before it was started again, does not count.
    pub(super) fn forget_void(&mut self, identity: &Identity) {
        let known = self.known.get(&identity.node);
        if known.is_some_and(|known| identity.voids(known.version)) {
            self.known.remove(&identity.node);
        }
    }
}
