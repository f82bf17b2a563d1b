//! The BGP engine's life: started with the first usable configuration, told every new wish, stopped
//! when the BgpConf goes or the process ends.

use std::sync::Arc;
use std::time::Duration;

use openelb_bgp::{RouteSet, Shutdown, Snapshot, Speaker, SpeakerConfig};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::metrics::Source;

/// How long after a start peers are told that we restarted and that forwarding went on, so that they
/// keep the routes of the process before (RFC 4724).
const RESTART_WINDOW: Duration = Duration::from_mins(2);

/// Time that peers get to move traffic away before routes are withdrawn.
const DRAIN: Duration = Duration::from_secs(2);

/// Owns the running engine, if any. There is one at a time: a new one waits until the one before has closed its
/// sessions and sockets.
pub(super) struct Engine {
    /// Told which engine runs.
    metrics: Source,
    running: Option<Running>,
    /// The one before, while it drains.
    leaving: Option<JoinHandle<()>>,
    /// What is to start after that.
    next: Option<(SpeakerConfig, RouteSet)>,
    /// An engine ran before in this process: a new one continues nobody's life.
    ran: bool,
}

/// The engine has ended although nobody asked it to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the BGP engine has failed; the process ends, so that another one announces in its place")]
pub(super) struct Failed;

struct Running {
    speaker: Speaker,
    config: watch::Sender<Arc<SpeakerConfig>>,
    routes: watch::Sender<Arc<RouteSet>>,
    snapshot: watch::Receiver<Snapshot>,
    restart_window: Duration,
}

impl Engine {
    /// None runs yet.
    pub(super) fn new(metrics: Source) -> Self {
        Self {
            metrics,
            running: None,
            leaving: None,
            next: None,
            ran: false,
        }
    }

    /// Makes this configuration and these routes the wish. Without a configuration routes are
    /// withdrawn and sessions closed.
    pub(super) fn wish(&mut self, config: Option<SpeakerConfig>, routes: RouteSet) {
        self.next = None;
        let Some(mut config) = config else {
            if let Some(running) = self.running.take() {
                tracing::info!("no usable BgpConf: the sessions are closed");
                self.metrics.send_replace(None);
                let reason = "the BGP configuration was removed".to_owned();
                self.leaving = Some(tokio::spawn(running.speaker.shutdown(Shutdown::Drain {
                    wait: DRAIN,
                    reason,
                })));
            }
            return;
        };
        if let Some(running) = &self.running {
            config.restart_window = running.restart_window;
            replace(&running.config, config);
            replace(&running.routes, routes);
        } else if self.leaving.is_some() {
            self.next = Some((config, routes));
        } else {
            self.start(config, routes);
        }
    }

    fn start(&mut self, mut config: SpeakerConfig, routes: RouteSet) {
        let restart_window = if self.ran {
            Duration::ZERO
        } else {
            RESTART_WINDOW
        };
        config.restart_window = restart_window;
        tracing::info!(asn = config.asn, router_id = %config.router_id, peers = config.peers.len(), "BGP starts");
        let (config, config_rx) = watch::channel(Arc::new(config));
        let (routes, routes_rx) = watch::channel(Arc::new(routes));
        let speaker = Speaker::spawn(config_rx, routes_rx);
        let snapshot = speaker.snapshot();
        self.metrics.send_replace(Some(speaker.snapshot()));
        self.running = Some(Running {
            speaker,
            config,
            routes,
            snapshot,
            restart_window,
        });
        self.ran = true;
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Option<Arc<SpeakerConfig>> {
        self.running
            .as_ref()
            .map(|running| running.config.borrow().clone())
    }

    /// What the engine does now.
    pub(super) fn snapshot(&mut self) -> Option<Snapshot> {
        let running = self.running.as_mut()?;
        Some(running.snapshot.borrow_and_update().clone())
    }

    /// Waits until what the engine does has changed; for ever while none runs.
    ///
    /// # Errors
    /// The engine has ended although nobody asked it to: it has panicked.
    pub(super) async fn changed(&mut self) -> Result<(), Failed> {
        if let Some(leaving) = &mut self.leaving {
            // It ends well or not at all; either way it is gone.
            let _ = leaving.await;
            self.leaving = None;
            if let Some((config, routes)) = self.next.take() {
                self.start(config, routes);
            }
            return Ok(());
        }
        match &mut self.running {
            Some(running) => running.snapshot.changed().await.map_err(|_| Failed),
            None => std::future::pending().await,
        }
    }

    /// Ends the engine. Where the node stays, peers with graceful restart keep the routes.
    pub(super) async fn stop(self, node_leaves: bool) {
        if let Some(leaving) = self.leaving {
            // As above.
            let _ = leaving.await;
        }
        let Some(running) = self.running else { return };
        let how = if node_leaves {
            Shutdown::Drain {
                wait: DRAIN,
                reason: "the node leaves".to_owned(),
            }
        } else {
            Shutdown::Restart { wait: DRAIN }
        };
        running.speaker.shutdown(how).await;
    }
}

/// Sends a value where it differs.
fn replace<T: PartialEq>(sender: &watch::Sender<Arc<T>>, value: T) {
    sender.send_if_modified(|current| {
        let differs = **current != value;
        if differs {
            *current = Arc::new(value);
        }
        differs
    });
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn config(listen: SocketAddr) -> SpeakerConfig {
        let mut config = SpeakerConfig::new(65000, "10.0.0.1".parse().unwrap());
        config.listen = vec![listen];
        config
    }

    /// Waits until the engine of this wish listens, or says why it does not.
    async fn listening(engine: &mut Engine, at: SocketAddr) -> Result<(), String> {
        loop {
            let snapshot = engine.snapshot().unwrap_or_default();
            match snapshot.listeners.get(&at) {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => return Err(error.to_string()),
                None => engine.changed().await.map_err(|error| error.to_string())?,
            }
        }
    }

    #[tokio::test]
    async fn a_new_engine_waits_for_the_one_before() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = free.local_addr().unwrap();
        drop(free);
        let mut engine = Engine::new(Source::default());
        engine.wish(Some(config(at)), RouteSet::new());
        assert_eq!(listening(&mut engine, at).await, Ok(()));
        // Deleted and made anew at once, as `kubectl replace --force` does.
        engine.wish(None, RouteSet::new());
        engine.wish(Some(config(at)), RouteSet::new());
        assert!(engine.config().is_none(), "the one before is still there");
        engine.changed().await.unwrap();
        assert!(engine.config().is_some());
        assert_eq!(listening(&mut engine, at).await, Ok(()));
        // And what is taken back before its time never starts.
        engine.wish(None, RouteSet::new());
        engine.wish(Some(config(at)), RouteSet::new());
        engine.wish(None, RouteSet::new());
        engine.changed().await.unwrap();
        assert!(engine.config().is_none());
        engine.stop(false).await;
    }

    #[tokio::test]
    async fn an_engine_that_ends_by_itself_is_noticed() {
        let mut engine = Engine::new(Source::default());
        let at = SocketAddr::from(([127, 0, 0, 1], 0));
        engine.wish(Some(config(at)), RouteSet::new());
        // What is left of a task that has panicked.
        let (_, gone) = watch::channel(Snapshot::default());
        engine.running.as_mut().unwrap().snapshot = gone;
        assert_eq!(engine.changed().await, Err(Failed));
    }
}
