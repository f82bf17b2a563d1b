//! The task that owns the packet socket and drives the engine.
//!
//! It has a thread of its own, so that an answer does not wait for the rest of the process.
//!
//! It sleeps until a frame, a new wish, a change of the interfaces or a deadline wakes it, and does
//! not queue: what it learns from the watches is the latest state, what it cannot send is counted.

use std::{
    collections::HashSet,
    io,
    net::Ipv6Addr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use openelb_net::{Groups, Links, PacketSocket};
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    time,
};

use crate::{
    Counters, Desired, Event, ResponderConfig, Snapshot,
    engine::{Engine, Now},
    filter, frame,
};

/// The engine is woken at least this often: by a longer gap it knows that the process was paused.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// Least time between two snapshots.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(20);
/// Frames handled before other work gets its turn.
const BATCH: usize = 64;
/// More groups than this on one interface, and it receives all multicast.
const MANY_GROUPS: usize = 64;

/// Why a responder cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ResponderError {
    /// The packet socket could not be opened.
    #[error(
        "cannot open a packet socket to answer ARP and NDP: {0}; the speaker needs the capability NET_RAW"
    )]
    Socket(#[source] io::Error),
    /// The thread could not be started.
    #[error("cannot start the thread that answers ARP and NDP: {0}")]
    Thread(#[source] io::Error),
}

/// A running responder; dropping it stops answering at once.
#[derive(Debug)]
pub struct Responder {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    events: mpsc::Receiver<Event>,
    counters: Arc<Counters>,
    /// Dropped, it ends the task.
    _stop: oneshot::Sender<()>,
}

impl Responder {
    /// Opens the socket and starts to act on `desired` and `links`, both watched for ever.
    ///
    /// Should the task ever fail, the receivers of [`Self::snapshot`] are closed.
    pub fn spawn(
        config: ResponderConfig,
        desired: watch::Receiver<Arc<Desired>>,
        links: watch::Receiver<Arc<Links>>,
    ) -> Result<Self, ResponderError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ResponderError::Thread)?;
        let socket = {
            let _context = runtime.enter();
            PacketSocket::open(&filter::program(&[])).map_err(ResponderError::Socket)?
        };
        let (snapshots, snapshot) = watch::channel(Arc::default());
        let (event_sender, events) = mpsc::channel(1024);
        let counters = Arc::<Counters>::default();
        let engine = Engine::new(
            config,
            Arc::clone(&counters),
            rand::random(),
            Instant::now(),
        );
        let task = Task {
            engine,
            socket,
            members: Memberships::default(),
            filtered: None,
            snapshots,
            events: event_sender,
            counters: Arc::clone(&counters),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("layer2".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = task.run(desired, links) => {}
                        _ = stopped => {}
                    }
                });
            })
            .map_err(ResponderError::Thread)?;
        Ok(Self {
            snapshot,
            events,
            counters,
            _stop: stop,
        })
    }

    /// The state of every address, and its changes.
    #[must_use]
    pub fn snapshot(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// The next event; `None` when the task has ended.
    pub async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Counters for metrics.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}

struct Task {
    engine: Engine,
    socket: PacketSocket,
    members: Memberships,
    /// The wish whose prefixes the filter has.
    filtered: Option<Arc<Desired>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    events: mpsc::Sender<Event>,
    counters: Arc<Counters>,
}

impl Task {
    async fn run(
        mut self,
        mut desired: watch::Receiver<Arc<Desired>>,
        mut links: watch::Receiver<Arc<Links>>,
    ) {
        let mut buffer = [0; 2048];
        let mut heartbeat = time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut last_snapshot = Instant::now();
        let mut beats = 0_u32;

        let first = Arc::clone(&links.borrow_and_update());
        self.engine.set_links(first, now());
        self.wish(Arc::clone(&desired.borrow_and_update()));
        loop {
            self.act();
            if self.engine.dirty && last_snapshot.elapsed() >= SNAPSHOT_PAUSE {
                self.engine.dirty = false;
                last_snapshot = Instant::now();
                self.members.want(&self.socket, &self.engine.groups());
                self.snapshots
                    .send_replace(Arc::new(self.engine.snapshot()));
            }
            let mut wake = self.engine.deadline(Instant::now());
            if self.engine.dirty {
                let show = last_snapshot + SNAPSHOT_PAUSE;
                wake = Some(wake.map_or(show, |wake| wake.min(show)));
            }
            let wake = wake.unwrap_or_else(|| Instant::now() + HEARTBEAT);
            tokio::select! {
                received = self.socket.receive(&mut buffer) => self.received(received, &mut buffer),
                changed = desired.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wish = Arc::clone(&desired.borrow_and_update());
                    self.wish(wish);
                }
                changed = links.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let links = Arc::clone(&links.borrow_and_update());
                    self.engine.set_links(links, now());
                }
                () = time::sleep_until(wake.into()) => {}
                _ = heartbeat.tick() => {
                    beats = beats.wrapping_add(1);
                    if beats.is_multiple_of(100) {
                        self.engine.forget_conflicts(now());
                    }
                }
            }
        }
    }

    fn wish(&mut self, desired: Arc<Desired>) {
        let same = self.filtered.as_ref().is_some_and(|old| {
            old.ranges == desired.ranges
                && old.addresses.len() == desired.addresses.len()
                && old
                    .addresses
                    .keys()
                    .all(|ip| desired.addresses.contains_key(ip))
        });
        if !same {
            let prefixes = filter::prefixes(&desired.ranges, desired.addresses.keys());
            match self.socket.set_filter(&filter::program(&prefixes)) {
                Ok(()) => self.filtered = Some(Arc::clone(&desired)),
                Err(error) => tracing::error!(%error, "cannot set the filter of the packet socket"),
            }
        }
        self.engine.set_desired(desired, now());
    }

    /// Handles a frame and those queued behind it, up to a bound.
    fn received(&mut self, received: io::Result<openelb_net::Received>, buffer: &mut [u8]) {
        let mut received = received;
        for _ in 0..BATCH {
            match received {
                Ok(frame) => {
                    let now = now();
                    // Requests that were queued while the process was paused are stale.
                    if !self.engine.was_paused(now.instant)
                        && let Some(bytes) = buffer.get(..frame.length)
                    {
                        self.engine.receive(frame.link, bytes, now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    // ENETDOWN: some interface went down; netlink tells which.
                    tracing::debug!(%error, "packet socket");
                    break;
                }
            }
            received = self.socket.try_receive(buffer);
        }
    }

    /// Lets the engine do what is due, then sends and reports what it said.
    fn act(&mut self) {
        let now = now();
        if self.engine.was_paused(now.instant) {
            let mut buffer = [0; 2048];
            while self.socket.try_receive(&mut buffer).is_ok() {}
        }
        self.engine.tick(now);
        if self.engine.dirty {
            // A probe or an announcement of IPv6 is of no use before its group is joined.
            self.members.want(&self.socket, &self.engine.groups());
        }
        for send in self.engine.sends.drain(..) {
            if let Err(error) = self.socket.send(send.link, &send.frame) {
                Counters::add(&self.counters.send_errors, 1);
                tracing::debug!(link = send.link, %error, "cannot send a frame");
            }
        }
        for event in self.engine.events.drain(..) {
            tracing::debug!(?event, "layer 2");
            if self.events.try_send(event).is_err() {
                Counters::add(&self.counters.events_dropped, 1);
            }
        }
    }
}

fn now() -> Now {
    Now {
        instant: Instant::now(),
        wall: SystemTime::now(),
    }
}

/// The multicast groups joined, by the packet socket and by MLD.
#[derive(Debug, Default)]
struct Memberships {
    joined: HashSet<(u32, Ipv6Addr)>,
    all_multicast: HashSet<u32>,
    groups: Groups,
}

impl Memberships {
    fn want(&mut self, socket: &PacketSocket, wanted: &HashSet<(u32, Ipv6Addr)>) {
        if self.joined == *wanted {
            return;
        }
        let gone: Vec<_> = self.joined.difference(wanted).copied().collect();
        let new: Vec<_> = wanted.difference(&self.joined).copied().collect();
        for (link, group) in gone {
            self.groups.leave(link, group);
            // An interface that is gone has taken its memberships with it.
            let _ = socket.leave(link, frame::group_mac(group));
            self.joined.remove(&(link, group));
        }
        for (link, group) in new {
            if let Err(error) = self.groups.join(link, group) {
                tracing::warn!(link, %group, %error, "cannot join by MLD; a switch that snoops may not forward solicitations here");
            }
            let many = self.joined.iter().filter(|(at, _)| *at == link).count() >= MANY_GROUPS;
            if many {
                if self.all_multicast.insert(link) {
                    report(link, socket.join_all(link));
                }
            } else {
                report(link, socket.join(link, frame::group_mac(group)));
            }
            self.joined.insert((link, group));
        }
        self.all_multicast.retain(|link| {
            let keep = self.joined.iter().any(|(at, _)| at == link);
            if !keep {
                let _ = socket.leave_all(*link);
            }
            keep
        });
    }
}

fn report(link: u32, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(link, %error, "cannot receive a multicast group; solicitations may be missed");
    }
}
