//! The BGP engine's life: started with the first usable configuration, told every new wish, stopped
//! when the BgpConf goes or the process ends.

use std::sync::Arc;
use std::time::Duration;

use openelb_bgp::{RouteSet, Shutdown, Snapshot, Speaker, SpeakerConfig};
use tokio::sync::watch;

use super::metrics::Source;

/// How long after a start peers are told that we restarted and that forwarding went on, so that they
/// keep the routes of the process before (RFC 4724).
const RESTART_WINDOW: Duration = Duration::from_mins(2);

/// Time that peers get to move traffic away before routes are withdrawn.
const DRAIN: Duration = Duration::from_secs(2);

/// Owns the running engine, if any.
pub(super) struct Engine {
    /// Told which engine runs.
    metrics: Source,
    running: Option<Running>,
    /// An engine ran before in this process: a new one continues nobody's life.
    ran: bool,
}

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
            ran: false,
        }
    }

    /// Makes this configuration and these routes the wish. Without a configuration routes are
    /// withdrawn and sessions closed.
    pub(super) fn wish(&mut self, config: Option<SpeakerConfig>, routes: RouteSet) {
        let Some(mut config) = config else {
            if let Some(running) = self.running.take() {
                tracing::info!("no usable BgpConf: the sessions are closed");
                self.metrics.send_replace(None);
                let reason = "the BGP configuration was removed".to_owned();
                tokio::spawn(running.speaker.shutdown(Shutdown::Drain {
                    wait: DRAIN,
                    reason,
                }));
            }
            return;
        };
        if let Some(running) = &self.running {
            config.restart_window = running.restart_window;
            replace(&running.config, config);
            replace(&running.routes, routes);
        } else {
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
    pub(super) async fn changed(&mut self) {
        let gone = match &mut self.running {
            Some(running) => running.snapshot.changed().await.is_err(),
            None => true,
        };
        if gone {
            std::future::pending::<()>().await;
        }
    }

    /// Ends the engine. Where the node stays, peers with graceful restart keep the routes.
    pub(super) async fn stop(self, node_leaves: bool) {
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
