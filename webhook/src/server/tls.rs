//! TLS: 1.2 and 1.3, HTTP/2 and HTTP/1.1, whatever certificate is in service.

use std::sync::Arc;

use rustls::{ServerConfig, server::ResolvesServerCert, version};

use crate::certs::x509::provider;

/// The TLS configuration; `certificates` is asked at every handshake.
pub fn config(certificates: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
