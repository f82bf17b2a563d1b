//! The task that owns the UDP socket and drives the gossip.
//!
//! It has a thread of its own: whether this node is alive must not depend on how busy the rest of
//! the process is.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, runtime, sync::watch, time};

use crate::{
    Counts, Facts, Members, MembershipConfig,
    gossip::{Gossip, MAX_DATAGRAM, Setup},
};

/// Datagrams handled before other work gets its turn.
const BATCH: usize = 256;

/// Addresses of the other speakers; this node's own may be among them.
pub type Seeds = Arc<BTreeSet<SocketAddr>>;

/// Why a membership cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The UDP socket could not be opened, or the thread not be started.
    #[error("cannot listen for membership messages on {address}: {source}")]
    Start {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The node name is too long.
    #[error("the node name has {0} bytes, at most 253 are possible")]
    Name(usize),
    /// No key could be derived.
    #[error("the membership key cannot be used")]
    Key,
    /// The attachment of [`Membership::attach`] is too large.
    #[error("the attachment has {0} bytes, at most 1024 fit a packet")]
    Attachment(usize),
}

/// A running membership; dropping it ends it without a word to the others.
#[derive(Debug)]
pub struct Membership {
    members: watch::Receiver<Arc<Members>>,
    counts: watch::Receiver<Counts>,
    /// Closed, it ends the task.
    own: watch::Sender<Own>,
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
    ///
    /// Should the task ever fail, the receivers of [`Self::members`] are closed.
    pub fn spawn(
        config: MembershipConfig,
        seeds: watch::Receiver<Seeds>,
    ) -> Result<Self, MembershipError> {
        if config.node.len() > 253 {
            return Err(MembershipError::Name(config.node.len()));
        }
        let address = config.bind;
        let start = |source| MembershipError::Start { address, source };
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(start)?;
        let socket = {
            let _context = runtime.enter();
            bind(address).map_err(start)?
        };
        let run = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_micros();
        let setup = Setup {
            node: config.node,
            advertise: config.advertise,
            key: config.key,
            parameters: config.profile.parameters(),
            run: u64::try_from(run).unwrap_or(u64::MAX),
            seed: rand::random(),
        };
        let gossip = Gossip::new(setup, Instant::now()).ok_or(MembershipError::Key)?;
        let (member_sender, members) = watch::channel(Arc::new(gossip.members()));
        let (count_sender, counts) = watch::channel(gossip.counts());
        let (own, own_receiver) = watch::channel(Own::default());
        let task = Task {
            gossip,
            socket,
            members: member_sender,
            counts: count_sender,
        };
        std::thread::Builder::new()
            .name("membership".to_owned())
            .spawn(move || runtime.block_on(task.run(seeds, own_receiver)))
            .map_err(start)?;
        Ok(Self {
            members,
            counts,
            own,
        })
    }

    /// Who is alive, and every change of it.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// Counters for metrics.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// The same, to be read whenever it is wanted.
    #[must_use]
    pub fn watch_counts(&self) -> watch::Receiver<Counts> {
        self.counts.clone()
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
        // The task ends by itself and closes the channel; a failure of it closes it too.
        while self.members.changed().await.is_ok() {}
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    // A burst must not push out the one answer that says we live.
    let _ = socket.set_recv_buffer_size(1 << 20);
    // Network control (DSCP CS6): the last to be dropped in a full queue.
    if address.is_ipv4() {
        let _ = socket.set_tos_v4(0xc0);
    } else {
        let _ = socket.set_tclass_v6(0xc0);
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

struct Task {
    gossip: Gossip,
    socket: UdpSocket,
    members: watch::Sender<Arc<Members>>,
    counts: watch::Sender<Counts>,
}

impl Task {
    async fn run(mut self, mut seeds: watch::Receiver<Seeds>, mut own: watch::Receiver<Own>) {
        // One byte more than allowed, so that too long a datagram is known as such.
        let mut buffer = [0; MAX_DATAGRAM + 1];
        self.gossip
            .set_seeds(seeds.borrow_and_update().as_ref().clone(), Instant::now());
        let mut seeds_open = true;
        loop {
            // What has been said meanwhile comes before the judgement that nothing was said.
            self.receive(&mut buffer);
            self.gossip.tick(Instant::now());
            self.flush();
            self.publish();
            tokio::select! {
                biased;
                readable = self.socket.readable() => match readable {
                    Ok(()) => {}
                    Err(error) => tracing::warn!(%error, "membership socket"),
                },
                () = time::sleep_until(self.gossip.deadline().into()) => {}
                changed = seeds.changed(), if seeds_open => match changed {
                    Ok(()) => {
                        let seeds = seeds.borrow_and_update().as_ref().clone();
                        self.gossip.set_seeds(seeds, Instant::now());
                    }
                    // Whoever knew the seeds is gone; the members stay.
                    Err(_) => seeds_open = false,
                },
                changed = own.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let own = own.borrow_and_update().clone();
                    if own.left {
                        self.gossip.leave();
                        self.flush();
                        return;
                    }
                    self.gossip.set_own(own.leaving, own.attachment, Instant::now());
                }
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            match self.socket.try_recv_from(buffer) {
                Ok((length, from)) if length <= MAX_DATAGRAM => {
                    if let Some(packet) = buffer.get(..length) {
                        self.gossip.receive(canonical(from), packet, Instant::now());
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier send; SWIM will notice by itself.
                Err(error) => tracing::debug!(%error, "membership socket"),
            }
        }
    }

    fn flush(&mut self) {
        for datagram in self.gossip.take_datagrams() {
            // A datagram that cannot be sent is one that got lost.
            if let Err(error) = self.socket.try_send_to(&datagram.bytes, datagram.to) {
                tracing::trace!(to = %datagram.to, %error, "membership datagram not sent");
            }
        }
    }

    fn publish(&self) {
        let members = self.gossip.members();
        self.members.send_if_modified(|old| {
            let changed = **old != members;
            if changed {
                *old = Arc::new(members);
            }
            changed
        });
        self.counts.send_replace(self.gossip.counts());
    }
}

/// An IPv4 address that arrives by a dual-stack socket is written as such.
fn canonical(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}
