//! Accepting connections, as many as there may be, until told to stop.

use std::{io, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection::{Shared, serve};

/// After `accept` failed: no file descriptors, most likely, and trying at once would spin.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Accepts until `shared.closing` is cancelled, then lets requests at work come to their end.
pub async fn run(listener: TcpListener, shared: Shared) {
    let slots = Arc::new(Semaphore::new(shared.limits.connections));
    let quarter = shared.limits.connections / 4;
    let connections = TaskTracker::new();
    loop {
        let slot = tokio::select! {
            () = shared.closing.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            () = shared.closing.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_the_clients(&error) {
                    warn!(%error, "cannot accept connections");
                    tokio::time::sleep(AFTER_ERROR).await;
                }
                continue;
            }
        };
        debug!(%peer, "connected");
        let (shared, slots) = (shared.clone(), Arc::clone(&slots));
        connections.spawn(async move {
            shared.metrics.connections.inc();
            let metrics = shared.metrics.clone();
            serve(stream, shared, move || slots.available_permits() < quarter).await;
            metrics.connections.dec();
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Errors of `accept` that say something about the peer, not about us.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
