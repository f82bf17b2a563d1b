//! Why there is no session, in words.

use super::{ConnId, Peer};
use crate::config::AdminState;
use crate::session::Notified;
use crate::snapshot::PeerError;
use crate::ttl;

/// Why there is no session, in terms of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub label: &'static str,
    pub message: String,
}

impl Peer {
    /// Why there is no session, or why the last one ended.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Takes the NOTIFICATION that ended a session since the last call.
    pub(crate) fn take_notified(&mut self) -> Option<Notified> {
        self.notified.take()
    }

    /// Says what of the configuration stands in the way.
    pub(super) fn report_config(&mut self) {
        if let Err(error) = self.setup.check() {
            self.fail("config", error.to_string());
        } else if let AdminState::Down(text) = &self.setup.peer.admin {
            let message = format!("administratively down: {text}");
            self.fail(PeerError::ADMIN_DOWN, message);
        } else if self
            .failure
            .as_ref()
            .is_some_and(|failure| ["config", PeerError::ADMIN_DOWN].contains(&failure.label))
        {
            self.failure = None;
        }
    }

    pub(super) fn fail(&mut self, label: &'static str, message: String) {
        self.failure = Some(Failure { label, message });
    }

    /// A NOTIFICATION ends the session on this connection.
    pub(super) fn report_notified(&mut self, id: ConnId, notified: Notified) {
        let who = if notified.received { "peer" } else { "we" };
        let text = notified
            .text
            .clone()
            .or_else(|| self.why_silent(id, &notified))
            .map(|text| format!(": {text}"))
            .unwrap_or_default();
        self.fail(
            if notified.received {
                "notification-received"
            } else {
                "notification-sent"
            },
            format!(
                "{who} ended the session: {} ({}/{}){text}",
                notified.meaning, notified.code, notified.subcode
            ),
        );
        self.notified = Some(notified);
    }

    /// What may be wrong where the hold timer ends a session that did not come up.
    fn why_silent(&self, id: ConnId, notified: &Notified) -> Option<String> {
        if !notified.is_hold_timer() || self.is_established(id) {
            return None;
        }
        let hops = self.setup.peer.hops;
        match self.connection(id)?.session.opened() {
            // Whichever side's timer is the first: the peer was heard, and we were not.
            Some(_) => Some(ttl::not_heard(hops).to_owned()),
            None if notified.received => None,
            None => ttl::nothing_heard(hops),
        }
    }
}
