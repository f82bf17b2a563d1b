//! The task that keeps the certificates: reads, decides, writes, tells TLS what to serve.
//!
//! It owns the bundle that is served. Watches only wake it; every pass reads the objects afresh,
//! so a late or lost event costs time and never correctness.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    bundle::Bundle,
    config::CertConfig,
    decide::{Reading, Step, carry_out, decide},
    issue,
    pace::Pace,
    resolver::{Served, ServingCert},
    store::{Patching, Store},
    swap::{self, Progress},
    x509::CertError,
};
use crate::metrics::Metrics;

/// The longest time between two looks at the clock and at the objects.
const LONGEST_TICK: Duration = Duration::from_secs(30);
/// Between two attempts that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the certificates of one process.
pub struct Keeper {
    store: Store,
    config: CertConfig,
    patching: Patching,
    serving: Arc<ServingCert>,
    metrics: Metrics,
    pace: Pace,
    served: Option<Bundle>,
    candidate: Option<Candidate>,
}

/// A bundle that was read and is not served yet.
struct Candidate {
    bundle: Bundle,
    since: Instant,
    trusted: Option<Instant>,
}

/// Why a pass did not come to its end.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error("{action}: {source}")]
    Api {
        action: &'static str,
        source: kube::Error,
    },
    #[error(transparent)]
    Cert(#[from] CertError),
}

impl Keeper {
    /// Keeps the certificates in `store` and serves them through `serving`.
    #[must_use]
    pub fn new(
        store: Store,
        config: CertConfig,
        serving: Arc<ServingCert>,
        metrics: Metrics,
    ) -> Self {
        let patching = Patching {
            validating: true,
            mutating: true,
            failure_policy: None,
        };
        Self {
            pace: Pace::new(config.serving_life),
            store,
            config,
            patching,
            serving,
            metrics,
            served: None,
            candidate: None,
        }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let wake = Notify::new();
        let changes = self.store.changes();
        let watching = changes.for_each(|()| {
            wake.notify_one();
            std::future::ready(())
        });
        tokio::pin!(watching);
        loop {
            let pause = match self.pass(Timestamp::now(), Instant::now()).await {
                Ok(pause) => pause.min(self.tick()),
                Err(error) => {
                    warn!(%error, "certificates: trying again");
                    self.metrics.certificate_errors.inc();
                    self.bridge(Timestamp::now());
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = &mut watching => {}
            }
        }
    }

    /// How often to look although nothing woke us.
    fn tick(&self) -> Duration {
        (self.config.serving_life / 20).clamp(Duration::from_millis(100), LONGEST_TICK)
    }

    /// One pass; returns how soon the next is due.
    async fn pass(&mut self, now: Timestamp, instant: Instant) -> Result<Duration, PassError> {
        let api = |action| move |source| PassError::Api { action, source };
        let stored = self
            .store
            .read()
            .await
            .map_err(api("cannot read the Secret"))?;
        let decision = decide(&stored.reading, self.served.as_ref(), now, &self.config);
        let changed = carry_out(
            decision.step,
            &stored.reading,
            self.served.as_ref(),
            now,
            &self.config,
        )?;
        if let Some(bundle) = changed {
            // The next pass may decide otherwise, or another replica does it meanwhile.
            let held_back = self.pace.wait(instant);
            if !held_back.is_zero() {
                debug!(step = ?decision.step, ?held_back, "too many writes in a row");
                return Ok(held_back);
            }
            return match self.store.write(&stored, &bundle).await {
                Ok(()) => {
                    self.pace.wrote(instant);
                    info!(step = ?decision.step, reason = decision.reason, "certificates changed");
                    self.metrics.certificate_changes.inc();
                    Ok(Duration::ZERO)
                }
                // Another replica was first; what it wrote is read next.
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    debug!(step = ?decision.step, "another replica changed the certificates");
                    Ok(Duration::from_millis(20))
                }
                Err(error) => Err(api("cannot write the Secret")(error)),
            };
        }
        let Reading::Found(bundle) = stored.reading else {
            return Ok(RETRY);
        };
        debug_assert_eq!(decision.step, Step::Keep);
        let trusted = match self.store.trust(&bundle, &self.patching).await {
            Ok(patched) => {
                if patched.changed > 0 {
                    info!(
                        patched.changed,
                        "put the CA bundle into webhook configurations"
                    );
                    self.metrics
                        .ca_bundle_patches
                        .inc_by(patched.changed as u64);
                }
                true
            }
            // A conflict means that it was just edited: look again at once.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                return Ok(Duration::from_millis(20));
            }
            Err(error) => {
                warn!(%error, "cannot put the CA bundle into the webhook configurations");
                self.metrics.certificate_errors.inc();
                false
            }
        };
        self.consider(bundle, trusted, now, instant)
    }

    /// Serves `bundle` now or says how long it has to wait.
    fn consider(
        &mut self,
        bundle: Bundle,
        trusted: bool,
        now: Timestamp,
        instant: Instant,
    ) -> Result<Duration, PassError> {
        let same_leaf = self
            .served
            .as_ref()
            .is_some_and(|served| served.chain == bundle.chain);
        if same_leaf {
            self.candidate = None;
            self.served = Some(bundle);
            return Ok(LONGEST_TICK);
        }
        let candidate = match self.candidate.take() {
            Some(candidate) if candidate.bundle.chain == bundle.chain => Candidate {
                bundle,
                trusted: if trusted {
                    candidate.trusted.or(Some(instant))
                } else {
                    None
                },
                ..candidate
            },
            _ => Candidate {
                bundle,
                since: instant,
                trusted: trusted.then_some(instant),
            },
        };
        let progress = Progress {
            waiting: instant.duration_since(candidate.since),
            trusted: candidate.trusted.map(|since| instant.duration_since(since)),
        };
        let wait = swap::wait(
            self.served.as_ref(),
            &candidate.bundle,
            progress,
            now,
            &self.config,
        );
        if wait.is_zero() {
            self.serve(candidate.bundle)?;
            return Ok(LONGEST_TICK);
        }
        self.candidate = Some(candidate);
        Ok(wait)
    }

    /// Hands the bundle to TLS.
    fn serve(&mut self, bundle: Bundle) -> Result<(), CertError> {
        let key = Arc::new(bundle.certified_key()?);
        let leaf = bundle
            .chain
            .first()
            .ok_or(CertError::NoCertificate("tls.crt"))?;
        info!(not_before = %leaf.not_before, not_after = %leaf.not_after, "serving certificate");
        self.metrics
            .certificate_expiry
            .set(leaf.not_after.as_second());
        self.serving.set(Served {
            key,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        });
        self.served = Some(bundle);
        Ok(())
    }

    /// Where the Secret cannot be renewed and what is served is about to expire: a certificate of
    /// the same authority, in this process only.
    fn bridge(&mut self, now: Timestamp) {
        let Some(served) = &self.served else { return };
        let ending = served.chain.first().is_some_and(|leaf| {
            let tenth = self.config.serving_life / 10;
            leaf.not_after
                .checked_sub(tenth)
                .is_ok_and(|edge| edge <= now)
        });
        if !ending || served.authority.is_none() {
            return;
        }
        match issue::renewed(served, &self.config.names, &self.config, now) {
            Ok(bundle) => {
                warn!("renewed the serving certificate for this process alone");
                if let Err(error) = self.serve(bundle) {
                    warn!(%error, "cannot serve it");
                }
            }
            Err(error) => warn!(%error, "cannot renew the serving certificate"),
        }
    }
}
