//! Who is alive, by gossip or by Leases: two sources of the same stream of members.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use openelb_membership::{Counts, Members, Membership, MembershipConfig, MembershipError, Seeds};
use tokio::sync::watch;

use super::lease::LeaseMembership;

/// A running membership of either kind.
pub(super) enum Alive {
    Gossip {
        membership: Membership,
        seeds: watch::Sender<Seeds>,
    },
    Lease(LeaseMembership),
}

impl Alive {
    /// By gossip; the others are named by [`Alive::meet`].
    pub(super) fn gossip(config: MembershipConfig) -> Result<Self, MembershipError> {
        let (seeds, seeds_rx) = watch::channel(Seeds::default());
        let membership = Membership::spawn(config, seeds_rx)?;
        Ok(Self::Gossip { membership, seeds })
    }

    /// Who is alive, and every change of it.
    pub(super) fn members(&self) -> watch::Receiver<Arc<Members>> {
        match self {
            Self::Gossip { membership, .. } => membership.members(),
            Self::Lease(membership) => membership.members(),
        }
    }

    /// Names the addresses at which other speakers may be found. Leases are found by themselves.
    pub(super) fn meet(&self, others: BTreeSet<SocketAddr>) {
        if let Self::Gossip { seeds, .. } = self {
            seeds.send_if_modified(|current| {
                let differs = **current != others;
                if differs {
                    *current = Arc::new(others);
                }
                differs
            });
        }
    }

    /// Tells all others this attachment from now on.
    pub(super) fn attach(&self, attachment: Bytes) -> Result<(), MembershipError> {
        match self {
            Self::Gossip { membership, .. } => membership.attach(attachment),
            Self::Lease(membership) => {
                membership.attach(attachment);
                Ok(())
            }
        }
    }

    /// Tells all others not to elect this node any more.
    pub(super) fn set_leaving(&self) {
        match self {
            Self::Gossip { membership, .. } => membership.set_leaving(true),
            Self::Lease(membership) => membership.set_leaving(),
        }
    }

    /// Says goodbye and ends.
    pub(super) async fn leave(self) {
        match self {
            Self::Gossip { membership, .. } => membership.leave().await,
            Self::Lease(membership) => membership.leave().await,
        }
    }

    /// What gossip counts; nothing of it happens with Leases.
    pub(super) fn counts(&self) -> Option<watch::Receiver<Counts>> {
        match self {
            Self::Gossip { membership, .. } => Some(membership.watch_counts()),
            Self::Lease(_) => None,
        }
    }
}
