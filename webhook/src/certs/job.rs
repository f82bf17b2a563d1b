//! The work of the chart's two jobs: make the Secret, put the CA bundle into the webhook
//! configurations. Both may run at any time and any number of times.

use jiff::Timestamp;
use tracing::info;

use super::{
    config::CertConfig,
    decide::{Reading, carry_out, decide},
    store::{Patching, Store},
    x509::CertError,
};

/// Attempts against other writers before giving up.
const ATTEMPTS: usize = 10;

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The API server refused, or cannot be reached.
    #[error("{action}: {source}")]
    Api {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: kube::Error,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Cert(#[from] CertError),
    /// The Secret is missing or cannot be used.
    #[error("the Secret cannot be used ({0}); run `openelb-webhook certs create` first")]
    NoSecret(String),
    /// There is nothing to patch.
    #[error("there is no webhook configuration of that name; install the chart's first")]
    NoConfiguration,
    /// Others kept writing at the same time.
    #[error("others kept changing the objects at the same time; run the job again")]
    Contended,
}

/// Makes sure that the Secret holds usable certificates; leaves good ones alone.
pub async fn create(store: &Store, config: &CertConfig) -> Result<(), JobError> {
    for _ in 0..ATTEMPTS {
        let stored = store.read().await.map_err(api("cannot read the Secret"))?;
        let now = Timestamp::now();
        let decision = decide(&stored.reading, None, now, config);
        let Some(bundle) = carry_out(decision.step, &stored.reading, None, now, config)? else {
            info!("the certificates in the Secret are good");
            return Ok(());
        };
        match store.write(&stored, &bundle).await {
            Ok(()) => {
                info!(step = ?decision.step, reason = decision.reason, "wrote the Secret");
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(source) => return Err(api("cannot write the Secret")(source)),
        }
    }
    Err(JobError::Contended)
}

/// Puts the Secret's CA bundle into the webhook configurations.
pub async fn patch(store: &Store, patching: &Patching) -> Result<(), JobError> {
    let stored = store.read().await.map_err(api("cannot read the Secret"))?;
    let bundle = match stored.reading {
        Reading::Found(bundle) => bundle,
        Reading::Absent => return Err(JobError::NoSecret("there is none".to_owned())),
        Reading::Broken(error) => return Err(JobError::NoSecret(error.to_string())),
    };
    for _ in 0..ATTEMPTS {
        match store.trust(&bundle, patching).await {
            Ok(patched) if patched.found == 0 => return Err(JobError::NoConfiguration),
            Ok(patched) => {
                info!(
                    patched.found,
                    patched.changed, "webhook configurations are right"
                );
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(source) => return Err(api("cannot patch the webhook configuration")(source)),
        }
    }
    Err(JobError::Contended)
}

fn api(action: &'static str) -> impl FnOnce(kube::Error) -> JobError {
    move |source| JobError::Api { action, source }
}
