//! A certificate that somebody else keeps (cert-manager, a mounted Secret): read from a
//! directory, and again whenever its content changes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    resolver::{Served, ServingCert},
    x509::{Cert, CertError, certified_key, read_key},
};
use crate::metrics::Metrics;

/// Between two looks. A mounted Secret changes by swapping a symbolic link, which file events
/// report unreliably; reading two small files is cheap.
const INTERVAL: Duration = Duration::from_secs(2);

/// Why the directory's content cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The files hold no usable certificate.
    #[error(transparent)]
    Cert(#[from] CertError),
}

/// Reads `tls.crt` and `tls.key` from a directory and serves them.
pub struct Directory {
    path: PathBuf,
    serving: Arc<ServingCert>,
    metrics: Metrics,
    last: Option<[Vec<u8>; 2]>,
}

impl Directory {
    /// Serves what lies in `path`.
    #[must_use]
    pub fn new(path: &Path, serving: Arc<ServingCert>, metrics: Metrics) -> Self {
        Self {
            path: path.to_owned(),
            serving,
            metrics,
            last: None,
        }
    }

    /// Looks until `stop`. What is broken is reported and the last good certificate stays.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            match self.reload() {
                Ok(true) => info!(path = %self.path.display(), "serving the mounted certificate"),
                Ok(false) => {}
                Err(error) => {
                    warn!(%error, "keeping the last good certificate");
                    self.metrics.certificate_errors.inc();
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Reads the files; true if they changed and are served now.
    pub fn reload(&mut self) -> Result<bool, DirectoryError> {
        let read = |name: &str| {
            let path = self.path.join(name);
            std::fs::read(&path).map_err(|source| DirectoryError::Read { path, source })
        };
        let content = [read("tls.crt")?, read("tls.key")?];
        if self.last.as_ref() == Some(&content) {
            return Ok(false);
        }
        let [chain, key] = &content;
        let chain = Cert::read_pem(chain, "tls.crt")?;
        let key = Arc::new(certified_key(&chain, read_key(key, "tls.key")?)?);
        let leaf = chain.first().ok_or(CertError::NoCertificate("tls.crt"))?;
        self.metrics
            .certificate_expiry
            .set(leaf.not_after.as_second());
        self.serving.set(Served {
            key,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        });
        self.last = Some(content);
        Ok(true)
    }
}
