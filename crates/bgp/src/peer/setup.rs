//! What a peer is made from, and which changes of it need another session.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{ConfigError, PeerConfig, RemoteAs};

/// Everything about a peer that comes from configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setup {
    pub asn: u32,
    pub router_id: Ipv4Addr,
    /// OPENs sent before this time say that we restarted.
    pub restarting_until: Option<Instant>,
    pub peer: Arc<PeerConfig>,
}

impl Setup {
    /// Our AS number towards this peer.
    pub(crate) fn local_as(&self) -> u32 {
        self.peer.local_as.unwrap_or(self.asn)
    }

    /// Whether the peer is known to be in our AS before it says so.
    pub(crate) fn internal(&self) -> Option<bool> {
        match self.peer.remote_as {
            RemoteAs::Exactly(asn) => Some(asn == self.local_as()),
            RemoteAs::Internal => Some(true),
            RemoteAs::External => Some(false),
            RemoteAs::Any => None,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.asn == 0 {
            return Err(ConfigError::LocalAs);
        }
        if self.router_id.is_unspecified() {
            return Err(ConfigError::RouterId);
        }
        self.peer.check()
    }

    /// Whether going from `self` to `new` needs another OPEN or connection.
    pub(crate) fn needs_reset(&self, new: &Self) -> bool {
        let (a, b) = (&self.peer, &new.peer);
        self.local_as() != new.local_as()
            || self.router_id != new.router_id
            || a.address != b.address
            || a.remote_port != b.remote_port
            || a.remote_as != b.remote_as
            || a.password != b.password
            || a.timers.hold != b.timers.hold
            || a.hops != b.hops
            || a.source != b.source
            || a.interface != b.interface
            || a.offered_families() != b.offered_families()
            || a.add_path_send != b.add_path_send
            || a.extended_next_hop != b.extended_next_hop
            || a.graceful_restart != b.graceful_restart
    }
}
