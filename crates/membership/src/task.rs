//! The task that owns the UDP socket and drives the gossip.

use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle};

use crate::{Facts, Members, MembershipConfig};

/// Addresses of the other speakers; this node's own may be among them.
pub type Seeds = Arc<BTreeSet<SocketAddr>>;

/// Why a membership cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The UDP socket could not be opened.
    #[error("cannot listen for membership messages on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The node name is too long.
    #[error("the node name has {0} bytes, at most 253 are possible")]
    Name(usize),
    /// The attachment of [`Membership::attach`] is too large.
    #[error("the attachment has {0} bytes, at most 1024 fit a packet")]
    Attachment(usize),
}

/// A running membership; dropping it ends the task without a word to the others.
#[derive(Debug)]
pub struct Membership {
    members: watch::Receiver<Arc<Members>>,
    own: watch::Sender<Own>,
    task: JoinHandle<()>,
}

/// What this node decides about itself.
#[derive(Clone, Debug, Default)]
struct Own {
    leaving: bool,
    left: bool,
    attachment: Bytes,
}

impl Membership {
    /// Joins the speakers at `seeds` and stays joined: seeds that are not members are asked again
    /// for ever, and members are kept whatever becomes of the seeds.
    pub fn spawn(
        config: MembershipConfig,
        mut seeds: watch::Receiver<Seeds>,
    ) -> Result<Self, MembershipError> {
        if config.node.len() > 253 {
            return Err(MembershipError::Name(config.node.len()));
        }
        let (sender, members) = watch::channel(Arc::default());
        let own = watch::Sender::default();
        let task = tokio::spawn(async move {
            let _ = (sender, config.key.0);
            while seeds.changed().await.is_ok() {}
        });
        Ok(Self { members, own, task })
    }

    /// Who is alive, and every change of it.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// Tells all members this attachment (see [`Facts::attachment`]) from now on.
    pub fn attach(&self, attachment: Bytes) -> Result<(), MembershipError> {
        if attachment.len() > Facts::MAX_ATTACHMENT {
            return Err(MembershipError::Attachment(attachment.len()));
        }
        self.own.send_if_modified(|own| {
            let changed = own.attachment != attachment;
            own.attachment = attachment;
            changed
        });
        Ok(())
    }

    /// Tells all members not to elect this node any more; it stays alive, so that it can hand over.
    /// With `false` it takes that back.
    pub fn set_leaving(&self, leaving: bool) {
        self.own
            .send_if_modified(|own| std::mem::replace(&mut own.leaving, leaving) != leaving);
    }

    /// Says goodbye, so that nobody waits for a timeout, and ends the task.
    pub async fn leave(mut self) {
        self.own.send_modify(|own| own.left = true);
        // The task ends by itself; a panic in it is no reason to fail a shutdown.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.task.abort();
    }
}
