//! The planned end of a peer: restart, drain, removal (RFC 8326, RFC 9003).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Close, ConnId, Peer};
use crate::adj_rib_out::AdjRibOut;
use crate::route::RouteSet;
use crate::session::Stop;

/// How long a peer gets to take the last messages of a planned stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// How the peer is stopped by the speaker's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// Close without a word where the peer keeps our routes, else drain.
    Restart { wait: Duration },
    /// Move traffic away, withdraw, Cease.
    Drain { wait: Duration, reason: String },
    /// Cease, peer deconfigured.
    Remove,
}

#[derive(Debug)]
pub(super) enum Phase {
    Running,
    /// Routes carry GRACEFUL_SHUTDOWN until then.
    Draining {
        until: Instant,
        reason: String,
    },
    /// Routes are withdrawn, at the latest by then.
    Withdrawing {
        until: Instant,
        reason: String,
    },
    Done,
}

impl Peer {
    /// Ends the peer's life in the given way.
    pub(crate) fn halt(&mut self, now: Instant, halt: Halt) {
        self.retry_at = None;
        self.cancel_dial();
        self.release();
        match halt {
            Halt::Remove => {
                self.stop_all(now, &Stop::Deconfigured);
                self.phase = Phase::Done;
            }
            Halt::Restart { wait } => {
                let kept = self
                    .agreement()
                    .is_some_and(|agreed| agreed.negotiated.graceful_restart.is_some());
                if kept {
                    let ids: Vec<ConnId> = self.connections.iter().map(|conn| conn.id).collect();
                    for id in ids {
                        self.drop_connection(id, Close::Flush);
                    }
                    self.phase = Phase::Done;
                } else {
                    self.drain(now, wait, "restarting".to_owned());
                }
            }
            Halt::Drain { wait, reason } => self.drain(now, wait, reason),
        }
    }

    /// Everything told is out: the last step of a planned stop may follow.
    pub(crate) fn flushed(&mut self, now: Instant) {
        let idle = self.rib().is_none_or(AdjRibOut::is_idle);
        if idle && let Phase::Withdrawing { reason, .. } = &self.phase {
            let stop = Stop::Shutdown(reason.clone());
            self.stop_all(now, &stop);
            self.phase = Phase::Done;
        }
    }

    fn drain(&mut self, now: Instant, wait: Duration, reason: String) {
        self.phase = Phase::Draining {
            until: now + wait,
            reason,
        };
        if let Some(established) = &mut self.established {
            established.exporter.shutting_down = true;
        }
        self.plan();
        self.step_phase(now);
    }

    pub(super) fn step_phase(&mut self, now: Instant) {
        match &self.phase {
            Phase::Draining { until, reason } if *until <= now || self.established.is_none() => {
                let reason = reason.clone();
                self.routes = Arc::new(RouteSet::new());
                self.plan();
                self.phase = Phase::Withdrawing {
                    until: now + FAREWELL,
                    reason,
                };
                if self.established.is_none() {
                    self.flushed(now);
                }
            }
            Phase::Withdrawing { until, reason } if *until <= now => {
                let stop = Stop::Shutdown(reason.clone());
                self.stop_all(now, &stop);
                self.phase = Phase::Done;
            }
            _ => {}
        }
    }
}
