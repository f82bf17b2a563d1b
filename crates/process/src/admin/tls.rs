//! The certificate of the port of `/metrics`: one from a directory, or one of our own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Between two looks at the directory. A mounted Secret changes by swapping a symbolic link, which file events
/// report unreliably; reading two small files is cheap.
const INTERVAL: Duration = Duration::from_secs(5);
/// Life of a certificate of our own. It lives in memory, and a process does not live so long.
const LIFE: Duration = Duration::from_hours(10 * 365 * 24);
/// Start of its validity before now, for clocks that are behind.
const BACKDATE: Duration = Duration::from_hours(1);

/// The certificate in service.
struct Served(ArcSwap<CertifiedKey>);

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// An acceptor with the certificate in `directory`, looked after until `stop`, or with one of our own.
pub(super) fn acceptor(directory: Option<&Path>, stop: &CancellationToken) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let served = match directory {
        None => Arc::new(Served(ArcSwap::from_pointee(own(&provider)?))),
        Some(path) => {
            let files = Files::read(path)?;
            let key = files.certified(&provider)?;
            let served = Arc::new(Served(ArcSwap::from_pointee(key)));
            let look = look_after(
                path.to_owned(),
                files,
                Arc::clone(&served),
                Arc::clone(&provider),
            );
            tokio::spawn(stop.clone().run_until_cancelled_owned(look));
            served
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The two files of a certificate.
#[derive(PartialEq, Eq)]
struct Files {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(directory: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Self {
            chain: read("tls.crt")?,
            key: read("tls.key")?,
        })
    }

    fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey> {
        let chain = CertificateDer::pem_slice_iter(&self.chain)
            .collect::<Result<Vec<_>, _>>()
            .context("tls.crt is no PEM")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).context("tls.key holds no key")?;
        CertifiedKey::from_der(chain, key, provider)
            .context("tls.crt and tls.key do not belong together")
    }
}

/// Serves what is in the directory whenever it changes. What cannot be used is reported once, and the last good
/// certificate stays.
async fn look_after(
    path: PathBuf,
    mut seen: Files,
    served: Arc<Served>,
    provider: Arc<CryptoProvider>,
) {
    let mut unreadable = false;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let files = match Files::read(&path) {
            Ok(files) => files,
            Err(error) => {
                if !unreadable {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "keeping the last good certificate of /metrics"
                    );
                }
                unreadable = true;
                continue;
            }
        };
        unreadable = false;
        if files == seen {
            continue;
        }
        match files.certified(&provider) {
            Ok(key) => {
                served.0.store(Arc::new(key));
                tracing::info!(path = %path.display(), "serving another certificate for /metrics");
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "keeping the last good certificate of /metrics"
                );
            }
        }
        seen = files;
    }
}

/// A certificate that signs itself.
fn own(provider: &CryptoProvider) -> Result<CertifiedKey> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(["openelb".to_owned(), "localhost".to_owned()])?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + now + LIFE;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok(CertifiedKey::from_der(
        vec![certificate.der().clone()],
        key,
        provider,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_our_own_can_be_served() {
        let provider = rustls::crypto::ring::default_provider();
        own(&provider).unwrap().keys_match().unwrap();
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let provider = rustls::crypto::ring::default_provider();
        let make = || {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(["a".to_owned()]).unwrap();
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let (chain, key) = make();
        let files = |key: String| Files {
            chain: chain.clone().into_bytes(),
            key: key.into_bytes(),
        };
        files(key).certified(&provider).unwrap();
        assert!(files(make().1).certified(&provider).is_err());
        assert!(files("none".to_owned()).certified(&provider).is_err());
    }
}
