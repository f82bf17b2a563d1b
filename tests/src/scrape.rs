//! A scraper of guarded metrics: by HTTPS, with a bearer token or without.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Deadline;
use crate::webhook::exchange;

/// Where to scrape, and what certificates are good.
#[derive(Clone)]
pub struct Scraper {
    address: SocketAddr,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Scraper {
    /// One that takes any certificate, as Prometheus with `insecureSkipVerify`.
    ///
    /// # Errors
    /// There is no TLS.
    pub fn careless(address: SocketAddr) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let any = Arc::new(Any(Arc::clone(&provider)));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(any)
            .with_no_client_auth();
        Self::with(address, "localhost", config)
    }

    /// One that trusts these authorities (PEM) for this name.
    ///
    /// # Errors
    /// They are no certificates.
    pub fn trusting(address: SocketAddr, authorities: &str, name: &str) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority?)?;
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        Self::with(address, name, config)
    }

    fn with(address: SocketAddr, name: &str, config: ClientConfig) -> Result<Self> {
        Ok(Self {
            address,
            name: ServerName::try_from(name.to_owned())?,
            config: Arc::new(config),
        })
    }

    /// The whole answer to a GET, head included.
    ///
    /// # Errors
    /// Nobody answers, or by another certificate than is trusted.
    pub async fn get(&self, path: &str, token: Option<&str>) -> Result<String> {
        let authorization = token.map_or_else(String::new, |token| {
            format!("authorization: Bearer {token}\r\n")
        });
        let asking = async {
            let stream = TcpStream::connect(self.address).await?;
            let connector = TlsConnector::from(Arc::clone(&self.config));
            let stream = connector.connect(self.name.clone(), stream).await?;
            exchange(stream, path, &authorization).await
        };
        tokio::time::timeout(Deadline::SHORT.duration(), asking)
            .await
            .with_context(|| format!("{} did not answer", self.address))?
    }
}

/// Takes any certificate.
#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
