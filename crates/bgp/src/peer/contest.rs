//! Which of two connections with one peer stays (RFC 4271 §6.8, RFC 4724 §5).

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::{Close, ConnId, Output, Peer};
use crate::collision::{Speaker, inbound_stays};
use crate::session::{Event, Opened, Stop};

impl Peer {
    /// Decides between this connection, whose peer is now known, and others.
    pub(super) fn resolve(&mut self, now: Instant, id: ConnId, opened: Opened) {
        if let Some(established) = &self.established {
            let old = established.id;
            if old == id {
                return;
            }
            // RFC 4724 §5: a peer that restarts comes back before we notice
            // that it left. Its KEEPALIVE shows that it has, and not just
            // called us before the session came up: that connection it ends
            // itself. Others are told that the session stands.
            let may_restart = opened.graceful_restart
                && self
                    .connection(old)
                    .and_then(|conn| conn.session.opened())
                    .is_some_and(|before| before.router_id == opened.router_id);
            if !may_restart {
                self.close_loser(now, id);
            }
            return;
        }
        let Some(other) = self
            .connections
            .iter()
            .map(|conn| conn.id)
            .find(|other| *other != id)
        else {
            return;
        };
        let local = Speaker {
            router_id: self.setup.router_id,
            asn: self.setup.local_as(),
        };
        let remote = Speaker {
            router_id: opened.router_id,
            asn: opened.asn,
        };
        let inbound = self
            .connection(id)
            .is_some_and(|conn| conn.session.inbound());
        let loser = if inbound == inbound_stays(local, remote) {
            other
        } else {
            id
        };
        self.close_loser(now, loser);
    }

    /// Whether this connection came beside the one that carries the session.
    /// How it ends says nothing of the session.
    pub(super) fn is_beside(&self, id: ConnId) -> bool {
        self.established
            .as_ref()
            .is_some_and(|established| established.id != id)
    }

    pub(super) fn close_loser(&mut self, now: Instant, id: ConnId) {
        self.counters.collisions.fetch_add(1, Relaxed);
        if let Some(conn) = self.connection_mut(id) {
            for event in conn.session.stop(now, &Stop::Collision) {
                if let Event::Send(octets) = event {
                    self.outputs.push(Output::Send(id, octets));
                }
            }
        }
        self.drop_connection(id, Close::Flush);
    }
}
