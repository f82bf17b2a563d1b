//! The session that is up: what was agreed on, and what the peer is told in it.

use std::sync::Arc;
use std::time::Instant;

use super::halt::Phase;
use super::{Close, ConnId, Peer, count};
use crate::adj_rib_out::AdjRibOut;
use crate::export::Exporter;
use crate::route::RouteSet;
use crate::session::Agreement;

/// What belongs to the session on the connection of this name.
#[derive(Debug)]
pub(super) struct Established {
    pub id: ConnId,
    pub since: Instant,
    pub rib: AdjRibOut,
    pub exporter: Exporter,
    /// Nothing is told before: BFD is waited for.
    pub kept_until: Option<Instant>,
}

impl Peer {
    /// What was agreed on in the established session.
    pub(crate) fn agreement(&self) -> Option<&Arc<Agreement>> {
        let id = self.established.as_ref()?.id;
        self.connection(id)?.session.agreement()
    }

    /// The connection of the established session with its Adj-RIB-Out; `None`
    /// also while its routes wait for BFD.
    pub(crate) fn outgoing(&mut self) -> Option<(ConnId, &mut AdjRibOut)> {
        self.established
            .as_mut()
            .filter(|established| established.kept_until.is_none())
            .map(|established| (established.id, &mut established.rib))
    }

    /// What the established session has told.
    pub(crate) fn rib(&self) -> Option<&AdjRibOut> {
        self.established
            .as_ref()
            .map(|established| &established.rib)
    }

    /// Takes a new set of routes.
    pub(crate) fn announce(&mut self, routes: Arc<RouteSet>) {
        self.routes = routes;
        self.plan();
    }

    pub(super) fn is_established(&self, id: ConnId) -> bool {
        self.established
            .as_ref()
            .is_some_and(|established| established.id == id)
    }

    pub(super) fn establish(&mut self, now: Instant, id: ConnId, agreement: &Agreement) {
        let Some(ends) = self.connection(id).map(|conn| conn.ends) else {
            return;
        };
        self.retry_at = None;
        self.cancel_dial();
        // The peer has restarted: `resolve` let nobody else get this far.
        if let Some(old) = self.established.as_ref().map(|old| old.id) {
            self.forget_established(now);
            self.drop_connection(old, Close::Now);
        }
        let negotiated = &agreement.negotiated;
        let exporter = Exporter {
            peer: Arc::clone(&self.name),
            add_path: negotiated.add_path_send.clone(),
            addresses: ends.addresses,
            extended_next_hop: negotiated.extended_next_hop,
            over_v6: ends.local.is_ipv6(),
            shutting_down: !matches!(self.phase, Phase::Running),
        };
        let rib = AdjRibOut::new(
            agreement.style.clone(),
            &agreement.families,
            negotiated.enhanced_route_refresh,
        );
        let kept_until = self.keep_back_until(now);
        self.established = Some(Established {
            id,
            since: now,
            rib,
            exporter,
            kept_until,
        });
        count(&self.counters.established);
        self.plan();
        // One that did not get this far has lost.
        let losers: Vec<ConnId> = self
            .connections
            .iter()
            .map(|conn| conn.id)
            .filter(|other| *other != id)
            .collect();
        for loser in losers {
            self.close_loser(now, loser);
        }
    }

    pub(super) fn plan(&mut self) {
        if let Some(established) = &mut self.established {
            established.rib.plan(&self.routes, &established.exporter);
        }
    }

    pub(super) fn forget_established(&mut self, now: Instant) {
        if let Some(established) = self.established.take() {
            count(&self.counters.dropped);
            self.backoff.ended(now - established.since);
        }
    }
}
