//! BFD's word on a session (RFC 5882 §4): it ends with the path, and where BFD
//! is wanted its routes are told once BFD watches them.

use std::time::{Duration, Instant};

use super::{Peer, Stop};

/// How long routes wait for BFD. Both sides speak once a second while the BFD
/// session is down (RFC 5880 §6.8.3): one that is not up after this will not be.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

impl Peer {
    /// BFD hears the peer and is heard, or not. It is no reason to end the
    /// session: [`Self::bfd_down`] is.
    pub(crate) fn bfd_is(&mut self, now: Instant, up: bool) {
        let came_up = up && !self.bfd_up;
        self.bfd_up = up;
        if !came_up {
            return;
        }
        self.release();
        // No reason to wait with another attempt.
        if self.retry_at.take().is_some() {
            self.backoff.reset();
            self.dial_if_wanted(now);
        }
    }

    /// BFD lost the peer.
    pub(crate) fn bfd_down(&mut self, now: Instant, jitter: f64) {
        self.bfd_up = false;
        if self.connections.is_empty() {
            return;
        }
        self.stop_all(now, &Stop::BfdDown);
        self.fail(
            "bfd",
            "BFD says that the peer is gone: check the link and the peer's BFD".to_owned(),
        );
        self.retry_later(now, jitter);
    }

    /// Until when the routes of a session that comes up now are kept back. A
    /// router that has them before BFD is up would send into a node that dies
    /// in between for as long as the hold time.
    pub(super) fn keep_back_until(&self, now: Instant) -> Option<Instant> {
        (self.setup.peer.is_watched() && !self.bfd_up).then(|| now + PATIENCE)
    }

    /// Lets the routes go.
    pub(super) fn release(&mut self) {
        if let Some(established) = &mut self.established {
            established.kept_until = None;
        }
    }

    /// Lets the routes go where the time has come.
    pub(super) fn release_due(&mut self, now: Instant) {
        let due = |established: &super::Established| {
            established.kept_until.is_some_and(|until| until <= now)
        };
        if self.established.as_ref().is_some_and(due) {
            self.release();
        }
    }
}
