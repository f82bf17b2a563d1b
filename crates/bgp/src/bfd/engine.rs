//! The thread that runs all BFD sessions: sockets, timers, and the way of a
//! packet to its session.
//!
//! ```text
//!  Speaker ── watch: sessions wanted ──▶ ┌──────────── thread "bfd" ─────────┐
//!                                        │ sessions by name, discriminator   │
//!  UDP 3784, 4784 (v4, v6) ────────────▶ │ and address; one sending socket   │ ─▶ peers
//!  PeerTask ◀── watch: BfdSnapshot ───── │ each; earliest deadline           │
//!                                        └───────────────────────────────────┘
//! ```

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use openelb_net::udp::{self, Datagram, Priority, Receiver};
use tokio::sync::watch;

use crate::bfd::packet::Packet;
use crate::bfd::session::Session;
use crate::config::{BfdConfig, PeerName};
use crate::snapshot::{BfdSnapshot, Counters};

/// Destination port on the same link (RFC 5881 §4).
const SINGLE_HOP: u16 = 3784;
/// Destination port over several hops (RFC 5883 §5).
const MULTI_HOP: u16 = 4784;
/// How soon a socket that could not be opened is tried again: an engine that
/// has just ended may still be closing its own. Each wait is twice the one before.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// The longest of these waits.
const LAST_RETRY: Duration = Duration::from_secs(5);
/// Packets taken from a socket before timers are looked at again.
const BATCH: usize = 64;

/// A session that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub config: BfdConfig,
    pub remote: IpAddr,
    /// Interface index, for a link-local address.
    pub scope: u32,
    pub source: Option<IpAddr>,
    pub interface: Option<String>,
    pub admin_down: bool,
    /// Where its state is told.
    pub status: watch::Sender<Option<BfdSnapshot>>,
    /// Where its packets are counted.
    pub counters: Arc<Counters>,
}

impl Wish {
    fn port(&self) -> u16 {
        if self.config.multihop.is_some() {
            MULTI_HOP
        } else {
            SINGLE_HOP
        }
    }

    /// What cannot change without another session.
    fn is_same(&self, other: &Self) -> bool {
        self.remote == other.remote
            && self.scope == other.scope
            && self.source == other.source
            && self.interface == other.interface
            && self.config.multihop == other.config.multihop
    }
}

/// The complete set of sessions that are wanted.
pub(crate) type Wishes = BTreeMap<PeerName, Wish>;

/// A running engine; its thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Engine {
    wishes: watch::Sender<Arc<Wishes>>,
}

impl Engine {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (wishes, follow) = watch::channel(Arc::default());
        std::thread::Builder::new()
            .name("bfd".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => runtime.block_on(Threaded::default().run(follow)),
                    Err(error) => tracing::error!(%error, "BFD cannot run"),
                }
            })?;
        Ok(Self { wishes })
    }

    /// Says which sessions are wanted.
    pub(crate) fn follow(&self, wishes: Wishes) {
        self.wishes.send_replace(Arc::new(wishes));
    }
}

/// A session with its socket.
#[derive(Debug)]
struct Running {
    wish: Wish,
    session: Session,
    socket: Option<UdpSocket>,
    since: SystemTime,
    told: Option<BfdSnapshot>,
}

impl Running {
    fn destination(&self) -> SocketAddr {
        match self.wish.remote {
            IpAddr::V4(ip) => (ip, self.wish.port()).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, self.wish.port(), 0, self.wish.scope).into(),
        }
    }

    fn open(&mut self) {
        if self.socket.is_some() {
            return;
        }
        // RFC 5881 §4: a source port from 49152 on, the same for the life of
        // the session, and not that of another session.
        let mut last = None;
        for _ in 0..16 {
            let port = rand::random_range(49_152..=u16::MAX);
            let source = self.wish.source.map_or_else(
                || udp::any_address(self.wish.remote, port),
                |ip| SocketAddr::new(ip, port),
            );
            match udp::sender(source, self.wish.interface.as_deref()) {
                Ok(socket) => {
                    self.socket = Some(socket);
                    return;
                }
                Err(error) => last = Some(error),
            }
        }
        if let Some(error) = last {
            tracing::warn!(peer = %self.wish.remote, %error, "BFD cannot open a socket to send from");
        }
    }

    fn tick(&mut self, now: Instant) {
        for packet in self.session.tick(now, rand::random()) {
            let Some(socket) = &self.socket else { continue };
            match socket.send_to(&packet.encode(), self.destination()) {
                Ok(_) => count(&self.wish.counters.bfd_sent),
                // No route, no neighbour: what BFD is there to find out.
                Err(error) => {
                    tracing::trace!(peer = %self.wish.remote, %error, "BFD packet not sent");
                }
            }
        }
        self.tell();
    }

    fn tell(&mut self) {
        let (diagnostic, remote_diagnostic) = self.session.diagnostics();
        let state = self.session.state();
        let changed = self.told.is_none_or(|told| told.state != state);
        if changed {
            self.since = SystemTime::now();
        }
        let snapshot = BfdSnapshot {
            state,
            remote_state: self.session.remote_state(),
            peer: self.wish.remote,
            since: self.since,
            diagnostic,
            remote_diagnostic,
            transmit: self.session.transmit_interval().unwrap_or_default(),
            receive: self.session.receive_interval(),
            detection: self.session.detection_time(),
            flaps: self.session.flaps(),
        };
        if self.told != Some(snapshot) {
            self.told = Some(snapshot);
            self.wish.status.send_replace(Some(snapshot));
            if changed {
                tracing::info!(peer = %self.wish.remote, %state, diagnostic, "BFD session");
            }
        }
    }

    /// Whether a datagram may belong to this session, by where it came from.
    fn accepts(&self, port: u16, datagram: &Datagram) -> bool {
        let scope = match datagram.from {
            SocketAddr::V6(from) => from.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        // RFC 5881 §5: on the same link nothing came through a router.
        let min_ttl = self.wish.config.multihop.unwrap_or(u8::MAX);
        self.wish.port() == port
            && self.wish.remote == datagram.from.ip().to_canonical()
            && (self.wish.scope == 0 || self.wish.scope == scope)
            && datagram.ttl.is_some_and(|ttl| ttl >= min_ttl)
    }
}

/// Everything the thread owns.
#[derive(Debug, Default)]
struct Threaded {
    sessions: BTreeMap<PeerName, Running>,
    by_discriminator: HashMap<u32, PeerName>,
    receivers: Vec<(u16, bool, Receiver)>,
    retry_at: Option<Instant>,
    /// The wait before the last retry; zero where the last try was a success.
    waited: Duration,
}

impl Threaded {
    async fn run(mut self, mut follow: watch::Receiver<Arc<Wishes>>) {
        match udp::raise_priority() {
            Priority::Normal => tracing::info!(
                "BFD runs with normal priority: intervals below 50 ms may flap under load \
                 (CAP_SYS_NICE would permit more)"
            ),
            priority => tracing::debug!(?priority, "BFD priority"),
        }
        let mut buffer = [0; 64];
        loop {
            // What has arrived counts before what is overdue: a thread that
            // was kept waiting must not take that for silence of the peer.
            self.drain(&mut buffer);
            let now = Instant::now();
            for running in self.sessions.values_mut() {
                running.tick(now);
            }
            if self.retry_at.is_some_and(|at| at <= now) {
                self.open_sockets(now);
            }
            let deadline = self.deadline(now);
            tokio::select! {
                biased;
                ready = readable(&self.receivers) => {
                    if let Err(error) = ready {
                        tracing::warn!(%error, "BFD cannot receive");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                changed = follow.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wishes = Arc::clone(&follow.borrow_and_update());
                    self.follow(&wishes);
                }
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
    }

    fn deadline(&self, now: Instant) -> Instant {
        self.sessions
            .values()
            .filter_map(|running| running.session.deadline())
            .chain(self.retry_at)
            .fold(now + Duration::from_hours(1), Instant::min)
    }

    fn follow(&mut self, wishes: &Wishes) {
        let now = Instant::now();
        self.sessions.retain(|name, running| {
            let stays = wishes
                .get(name)
                .is_some_and(|wish| wish.is_same(&running.wish));
            if !stays {
                running.session.set_admin_down(now, true);
                running.tick(now);
                running.wish.status.send_replace(None);
            }
            stays
        });
        let sessions = &self.sessions;
        self.by_discriminator
            .retain(|_, name| sessions.contains_key(name));
        for (name, wish) in wishes {
            if !self.sessions.contains_key(name) {
                let discriminator = self.free_discriminator();
                self.by_discriminator
                    .insert(discriminator, Arc::clone(name));
                let running = Running {
                    session: Session::new(wish.config, discriminator, now),
                    wish: wish.clone(),
                    socket: None,
                    since: SystemTime::now(),
                    told: None,
                };
                self.sessions.insert(Arc::clone(name), running);
            }
            if let Some(running) = self.sessions.get_mut(name) {
                if running.wish.config != wish.config {
                    running.session.configure(now, wish.config);
                }
                running.session.set_admin_down(now, wish.admin_down);
                // A peer that was removed and added again between two looks of
                // ours is another listener, who has heard nothing yet.
                if !running.wish.status.same_channel(&wish.status) {
                    running.told = None;
                }
                running.wish = wish.clone();
            }
        }
        self.open_sockets(now);
    }

    /// Random, so that packets of a session before ours find nobody.
    fn free_discriminator(&self) -> u32 {
        loop {
            let candidate = rand::random_range(1..=u32::MAX);
            if !self.by_discriminator.contains_key(&candidate) {
                return candidate;
            }
        }
    }

    fn open_sockets(&mut self, now: Instant) {
        let mut failed = false;
        let mut wanted: Vec<(u16, bool)> = self
            .sessions
            .values()
            .map(|running| (running.wish.port(), running.wish.remote.is_ipv4()))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        self.receivers
            .retain(|(port, ipv4, _)| wanted.contains(&(*port, *ipv4)));
        for (port, ipv4) in wanted {
            if self
                .receivers
                .iter()
                .any(|(open, v4, _)| (*open, *v4) == (port, ipv4))
            {
                continue;
            }
            let any = if ipv4 {
                IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
            } else {
                IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
            };
            match Receiver::bind(SocketAddr::new(any, port)) {
                Ok(receiver) => self.receivers.push((port, ipv4, receiver)),
                Err(error) => {
                    tracing::warn!(port, %error, "BFD cannot listen: does another BFD daemon run here?");
                    failed = true;
                }
            }
        }
        for running in self.sessions.values_mut() {
            running.open();
            failed |= running.socket.is_none();
        }
        self.waited = if failed {
            (self.waited * 2).clamp(FIRST_RETRY, LAST_RETRY)
        } else {
            Duration::ZERO
        };
        self.retry_at = failed.then(|| now + self.waited);
    }

    fn drain(&mut self, buffer: &mut [u8; 64]) {
        for index in 0..self.receivers.len() {
            for _ in 0..BATCH {
                let Some((port, _, receiver)) = self.receivers.get(index) else {
                    break;
                };
                let port = *port;
                match receiver.try_receive(buffer) {
                    Ok(datagram) => self.dispatch(port, &datagram, buffer),
                    Err(_) => break,
                }
            }
        }
    }

    fn dispatch(&mut self, port: u16, datagram: &Datagram, buffer: &[u8; 64]) {
        let Some(octets) = buffer.get(..datagram.len) else {
            return;
        };
        let packet = match Packet::decode(octets) {
            Ok(packet) => packet,
            Err(error) => {
                tracing::debug!(from = %datagram.from, %error, "BFD packet dropped");
                return;
            }
        };
        let now = Instant::now();
        let named = self
            .by_discriminator
            .get(&packet.your_discriminator)
            .and_then(|name| self.sessions.get_mut(name))
            .filter(|running| running.accepts(port, datagram));
        let running = match named {
            Some(running) => Some(running),
            // The first packets of a peer do not know our number yet.
            None if packet.your_discriminator == 0 => self
                .sessions
                .values_mut()
                .find(|running| running.accepts(port, datagram)),
            None => None,
        };
        if let Some(running) = running {
            count(&running.wish.counters.bfd_received);
            running.session.receive(now, &packet);
            running.tick(now);
        }
    }
}

fn count(packets: &AtomicU64) {
    packets.fetch_add(1, Ordering::Relaxed);
}

/// Waits until a socket has something, for ever if there is none. What arrives
/// is taken by [`Threaded::drain`].
async fn readable(receivers: &[(u16, bool, Receiver)]) -> io::Result<()> {
    poll_fn(|context| {
        for (_, _, receiver) in receivers {
            if let Poll::Ready(ready) = receiver.poll_readable(context) {
                return Poll::Ready(ready);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests;
