//! The speaker: starts, configures and stops the tasks of listener and peers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openelb_net::tcp;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::Instrument as _;

use crate::bfd::{Engine, Wish as BfdWish, Wishes};
use crate::config::{AdminState, PeerAddress, PeerName, SpeakerConfig};
use crate::listener::{self, Door, Wish};
use crate::peer::{Halt, Setup};
use crate::route::RouteSet;
use crate::snapshot::{BfdSnapshot, Counters, Snapshot};
use crate::task::{Inputs, PeerTask};

/// Time for BFD to say AdminDown a few times.
const FAREWELL: Duration = Duration::from_millis(50);

/// A running speaker: owns its tasks, which end when it is shut down or
/// dropped (a drop closes connections without a word, as a crash would).
#[derive(Debug)]
pub struct Speaker {
    snapshot: watch::Receiver<Snapshot>,
    stop: mpsc::Sender<(Shutdown, oneshot::Sender<()>)>,
    task: JoinHandle<()>,
}

/// How a speaker stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// It will be back: peers that agreed on graceful restart see the
    /// connection close without NOTIFICATION and keep the routes, others are
    /// drained as below. Then BFD says AdminDown.
    Restart {
        /// As in [`Self::Drain`], for the peers without graceful restart.
        wait: Duration,
    },
    /// It will not be back: routes are announced once more with the
    /// GRACEFUL_SHUTDOWN community (RFC 8326), and after `wait` withdrawn;
    /// then Cease, Administrative Shutdown, with `reason` as text.
    Drain {
        /// Time given to peers to move traffic elsewhere.
        wait: Duration,
        /// Text of the NOTIFICATION (RFC 9003).
        reason: String,
    },
}

impl Speaker {
    /// Starts a speaker on the current tokio runtime. It follows both
    /// channels: every new value is the complete wish.
    #[must_use]
    pub fn spawn(
        config: watch::Receiver<Arc<SpeakerConfig>>,
        routes: watch::Receiver<Arc<RouteSet>>,
    ) -> Self {
        let (snapshot_tx, snapshot) = watch::channel(Snapshot::default());
        let (stop, stopped) = mpsc::channel(1);
        let task = tokio::spawn(run(config, routes, snapshot_tx, stopped));
        Self {
            snapshot,
            stop,
            task,
        }
    }

    /// What the speaker does, live.
    #[must_use]
    pub fn snapshot(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.clone()
    }

    /// Stops the speaker in the given way; returns when every session is
    /// closed, which takes the time to wait and a few seconds at most.
    pub async fn shutdown(self, how: Shutdown) {
        let (done, wait) = oneshot::channel();
        if self.stop.send((how, done)).await.is_ok() {
            // An error says that the task is gone, which is what is wanted.
            let _ = wait.await;
        }
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the speaker keeps of a peer.
#[derive(Debug)]
struct PeerHandle {
    setup: watch::Sender<Setup>,
    halt: watch::Sender<Option<Halt>>,
    accepted: mpsc::Sender<TcpStream>,
    bfd: watch::Sender<Option<BfdSnapshot>>,
    counters: Arc<Counters>,
}

/// Everything the speaker's own task owns.
struct State {
    /// Dropped before `peers`, whose end a peer's task would take for its removal, and close the session
    /// with a Cease: a speaker that is dropped ends like a killed process, without a word.
    tasks: JoinSet<()>,
    peers: BTreeMap<PeerName, PeerHandle>,
    wish: watch::Sender<Arc<Wish>>,
    routes: watch::Receiver<Arc<RouteSet>>,
    snapshot: watch::Sender<Snapshot>,
    /// Runs from the first peer with BFD on.
    bfd: Option<Engine>,
    started: Instant,
}

async fn run(
    mut config: watch::Receiver<Arc<SpeakerConfig>>,
    routes: watch::Receiver<Arc<RouteSet>>,
    snapshot: watch::Sender<Snapshot>,
    mut stop: mpsc::Receiver<(Shutdown, oneshot::Sender<()>)>,
) {
    let (wish, wished) = watch::channel(Arc::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(listener::run(wished, snapshot.clone()));
    let mut state = State {
        tasks,
        peers: BTreeMap::new(),
        wish,
        routes,
        snapshot,
        bfd: None,
        started: Instant::now(),
    };
    loop {
        let wanted = Arc::clone(&config.borrow_and_update());
        state.follow(&wanted);
        let changed = async {
            if config.changed().await.is_err() {
                // Nobody can change the configuration any more: it stays.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = changed => {}
            asked = stop.recv() => {
                let Some((how, done)) = asked else { return };
                state.stop(&how, &wanted).await;
                // The one who asked may have gone away.
                let _ = done.send(());
                return;
            }
        }
    }
}

impl State {
    fn follow(&mut self, wanted: &SpeakerConfig) {
        let gone: Vec<PeerName> = self
            .peers
            .keys()
            .filter(|name| !wanted.peers.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(handle) = self.peers.remove(&name) {
                handle.halt.send_replace(Some(Halt::Remove));
            }
            self.snapshot.send_modify(|all| {
                all.peers.remove(&name);
            });
        }
        for (name, peer) in &wanted.peers {
            let window = wanted.restart_window;
            let setup = Setup {
                asn: wanted.asn,
                router_id: wanted.router_id,
                restarting_until: (!window.is_zero()).then(|| self.started + window),
                peer: Arc::clone(peer),
            };
            match self.peers.get(name) {
                Some(handle) => {
                    handle.setup.send_if_modified(|old| {
                        let changed = *old != setup;
                        *old = setup;
                        changed
                    });
                }
                None => self.add(name, setup),
            }
        }
        self.listen(wanted);
        self.watch_paths(wanted, false);
        let error = wanted.check().err().map(|error| error.to_string().into());
        self.snapshot.send_if_modified(|all| {
            let changed = all.error != error;
            all.error = error;
            changed
        });
    }

    fn add(&mut self, name: &PeerName, setup: Setup) {
        let (setup_tx, setup) = watch::channel(setup);
        let (halt_tx, halt) = watch::channel(None);
        let (accepted_tx, accepted) = mpsc::channel(1);
        let (bfd_tx, bfd) = watch::channel(None);
        let mut routes = self.routes.clone();
        routes.mark_changed();
        let counters = Arc::<Counters>::default();
        let inputs = Inputs {
            setup,
            routes,
            accepted,
            bfd,
            halt,
            counters: Arc::clone(&counters),
        };
        let span = tracing::info_span!("session", peer = %name);
        let task = PeerTask::run(Arc::clone(name), self.snapshot.clone(), inputs);
        self.tasks.spawn(task.instrument(span));
        self.peers.insert(
            Arc::clone(name),
            PeerHandle {
                setup: setup_tx,
                halt: halt_tx,
                accepted: accepted_tx,
                bfd: bfd_tx,
                counters,
            },
        );
    }

    fn listen(&self, wanted: &SpeakerConfig) {
        let doors = wanted
            .peers
            .iter()
            .filter(|(_, peer)| peer.admin == AdminState::Up && peer.check().is_ok())
            .filter_map(|(name, peer)| {
                let handle = self.peers.get(name)?;
                let door = Door {
                    address: peer.address.clone(),
                    key: peer.password.clone(),
                    accepted: handle.accepted.clone(),
                };
                Some((Arc::clone(name), door))
            })
            .collect();
        let addresses = wanted.listen.clone();
        self.wish.send_replace(Arc::new(Wish { addresses, doors }));
    }

    /// Tells the BFD engine which sessions are wanted.
    fn watch_paths(&mut self, wanted: &SpeakerConfig, stopping: bool) {
        let wishes: Wishes = wanted
            .peers
            .iter()
            .filter(|(_, peer)| peer.check().is_ok())
            .filter_map(|(name, peer)| {
                let (remote, scope) = match &peer.address {
                    PeerAddress::Ip(ip) => (*ip, 0),
                    PeerAddress::LinkLocal(ip, interface) => {
                        (IpAddr::V6(*ip), tcp::interface_index(interface).ok()?)
                    }
                    // Its address is not known before it is found.
                    PeerAddress::Interface(_) => return None,
                };
                let handle = self.peers.get(name)?;
                let wish = BfdWish {
                    config: peer.bfd?,
                    remote,
                    scope,
                    source: peer.source,
                    interface: peer.interface.clone(),
                    admin_down: stopping || peer.admin != AdminState::Up,
                    status: handle.bfd.clone(),
                    counters: Arc::clone(&handle.counters),
                };
                Some((Arc::clone(name), wish))
            })
            .collect();
        if self.bfd.is_none() && !wishes.is_empty() {
            match Engine::start() {
                Ok(engine) => self.bfd = Some(engine),
                Err(error) => tracing::error!(%error, "BFD cannot run: no thread"),
            }
        }
        if let Some(engine) = &self.bfd {
            engine.follow(wishes);
        }
    }

    async fn stop(&mut self, how: &Shutdown, last: &SpeakerConfig) {
        let halt = match how {
            Shutdown::Restart { wait } => Halt::Restart { wait: *wait },
            Shutdown::Drain { wait, reason } => Halt::Drain {
                wait: *wait,
                reason: reason.clone(),
            },
        };
        // Nobody new comes in; dropping the wish ends the listener's task.
        self.wish.send_replace(Arc::default());
        for handle in self.peers.values() {
            handle.halt.send_replace(Some(halt.clone()));
        }
        let (closed, _) = watch::channel(Arc::default());
        self.wish = closed;
        while self.tasks.join_next().await.is_some() {}
        // Only now: FRR and BIRD take even AdminDown for a loss of the peer, and
        // would end a session that drains or that they are to keep routes of.
        self.watch_paths(last, true);
        if self.bfd.is_some() {
            tokio::time::sleep(FAREWELL).await;
        }
    }
}
