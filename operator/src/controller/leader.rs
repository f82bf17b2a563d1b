//! Which process works: the holder of the Lease `openelb-controller`, which is OpenELB's own, so that the
//! two never allocate side by side.
//!
//! The Lease only keeps two processes from doing the same work. What keeps them from harm is the ledger.

use std::time::Duration;

use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use openelb_api::keys;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::execute::FIELD_MANAGER;
use crate::process::Context;

/// How long giving the Lease back may take at the end.
const RESIGNATION: Duration = Duration::from_secs(3);
/// Between attempts to reach the Lease at the start.
const RETRY: Duration = Duration::from_millis(250);

/// What the election is told.
enum Step {
    Manager(Box<kube_lease_manager::Result<LeaseManager>>),
    State(kube_lease_manager::Result<bool>),
    Doubt,
}

/// Taking part in the election.
pub(crate) struct Election {
    leading: watch::Receiver<bool>,
    resign: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// A name that no other process has: the host's (in a pod, the pod's).
pub(crate) fn default_identity() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("controller-{:08x}", rand::random::<u32>()))
}

fn announce(sender: &watch::Sender<bool>, leads: bool) {
    if sender.send_replace(leads) != leads {
        tracing::info!(leads, "leadership changed");
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Election {
    /// Without an election: this process always works.
    pub(crate) fn won() -> Self {
        Self {
            leading: watch::channel(true).1,
            resign: CancellationToken::new(),
            task: None,
        }
    }

    /// Takes part until [`resign`](Self::resign).
    pub(crate) fn join(context: &Context, identity: &str, seconds: u64) -> Self {
        let (sender, leading) = watch::channel(false);
        let resign = CancellationToken::new();
        let builder = {
            let (client, namespace, identity) = (
                context.client.clone(),
                context.namespace.clone(),
                identity.to_owned(),
            );
            move || {
                LeaseManagerBuilder::new(client.clone(), keys::CONTROLLER_LEASE)
                    .with_namespace(namespace.clone())
                    .with_identity(identity.clone())
                    .with_field_manager(format!("{FIELD_MANAGER}-{identity}"))
                    .with_duration(seconds)
                    .with_grace((seconds / 2).max(1))
            }
        };
        let stop = resign.clone();
        let grace = Duration::from_secs(seconds.saturating_mul(2));
        let task = tokio::spawn(async move {
            let mut manager: Option<LeaseManager> = None;
            let mut doubtful = None;
            loop {
                let told = async {
                    let Some(manager) = &manager else {
                        return Step::Manager(Box::new(builder().build().await));
                    };
                    tokio::select! {
                        state = manager.changed() => Step::State(state),
                        () = sleep_until(doubtful) => Step::Doubt,
                    }
                };
                match stop.run_until_cancelled(told).await {
                    None => break,
                    Some(Step::Manager(built)) => match *built {
                        Ok(built) => {
                            // A new manager knows nothing; it says so if we lead, and is silent if not.
                            doubtful = sender.borrow().then(|| Instant::now() + grace);
                            manager = Some(built);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "cannot read or create the Lease; trying again");
                            sleep(RETRY).await;
                        }
                    },
                    Some(Step::State(Ok(leads))) => {
                        doubtful = None;
                        announce(&sender, leads);
                    }
                    Some(Step::Doubt) => {
                        doubtful = None;
                        announce(&sender, false);
                    }
                    Some(Step::State(Err(error))) => {
                        tracing::warn!(%error, "cannot read or write the Lease; trying again");
                        // The Lease itself may be gone: a new manager creates it.
                        manager = None;
                        sleep(RETRY).await;
                    }
                }
            }
            sender.send_replace(false);
            if let Some(manager) = manager
                && !matches!(timeout(RESIGNATION, manager.release()).await, Ok(Ok(())))
            {
                tracing::warn!("could not give the Lease back; the next leader waits for its end");
            }
        });
        Self {
            leading,
            resign,
            task: Some(task),
        }
    }

    /// Whether this process leads.
    pub(crate) fn leading(&self) -> watch::Receiver<bool> {
        self.leading.clone()
    }

    /// Gives the Lease back, so that a standby takes over at once.
    pub(crate) async fn resign(self) {
        self.resign.cancel();
        if let Some(task) = self.task {
            drop(task.await);
        }
    }
}
