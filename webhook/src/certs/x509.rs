//! Reading certificates: when they are valid, who may use them, whether they fit together.
//!
//! Whether a chain is good is asked of the verifier that a TLS client uses (rustls with webpki),
//! so that "good" here means that a client will agree.

use std::{net::IpAddr, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use rustls::{
    RootCertStore,
    client::{
        WebPkiServerVerifier, danger::ServerCertVerifier, verify_server_cert_signed_by_trust_anchor,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use x509_parser::extensions::GeneralName;

/// The one crypto provider of the product.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Why certificate material cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The text holds no certificate.
    #[error("{0} holds no PEM certificate")]
    NoCertificate(&'static str),
    /// The text holds no private key.
    #[error("{0} holds no PEM private key")]
    NoKey(&'static str),
    /// The bytes are no X.509 certificate.
    #[error("{what} is no X.509 certificate: {reason}")]
    Malformed {
        /// Which certificate.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// Key and certificate do not fit.
    #[error("the private key does not fit the serving certificate: {0}")]
    KeyMismatch(#[source] rustls::Error),
    /// The chain does not lead to the authority, or does not cover a name.
    #[error("the serving certificate is not good for {name}: {source}")]
    NotTrusted {
        /// The name that a client would ask for.
        name: String,
        /// What the verifier said.
        #[source]
        source: rustls::Error,
    },
    /// The chain does not lead to an authority that is trusted.
    #[error("no trusted authority vouches for the serving certificate: {0}")]
    NotVouchedFor(#[source] rustls::Error),
    /// A configured name is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    BadName(String),
    /// The verifier could not be made from the authorities.
    #[error("the authorities cannot be used for verification: {0}")]
    Authorities(String),
    /// Signing failed.
    #[error("cannot make a certificate: {0}")]
    Issue(#[from] rcgen::Error),
}

/// One certificate with what decisions need to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cert {
    /// The certificate itself.
    pub der: CertificateDer<'static>,
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
}

impl Cert {
    /// Reads the dates of a certificate; `what` names it in errors.
    pub fn read(der: CertificateDer<'static>, what: &'static str) -> Result<Self, CertError> {
        let malformed = |reason: String| CertError::Malformed { what, reason };
        let (_, parsed) = x509_parser::parse_x509_certificate(&der)
            .map_err(|error| malformed(error.to_string()))?;
        let validity = parsed.validity();
        let moment = |seconds: i64| {
            Timestamp::from_second(seconds).map_err(|error| malformed(error.to_string()))
        };
        let not_before = moment(validity.not_before.timestamp())?;
        let not_after = moment(validity.not_after.timestamp())?;
        Ok(Self {
            der,
            not_before,
            not_after,
        })
    }

    /// Every certificate in a PEM text, in order.
    pub fn read_pem(pem: &[u8], what: &'static str) -> Result<Vec<Self>, CertError> {
        let mut certs = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem) {
            let der = der.map_err(|error| CertError::Malformed {
                what,
                reason: error.to_string(),
            })?;
            certs.push(Self::read(der, what)?);
        }
        if certs.is_empty() {
            Err(CertError::NoCertificate(what))
        } else {
            Ok(certs)
        }
    }

    /// Whether `now` lies within the validity.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// The moment at which two thirds of the life have passed.
    #[must_use]
    pub fn renewal(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before).as_secs();
        let due = SignedDuration::from_secs(life.saturating_mul(2) / 3);
        self.not_before
            .saturating_add(due)
            .unwrap_or(self.not_after)
    }

    /// The alternative names that a client can ask for: DNS names and IP addresses, no patterns.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&self.der) else {
            return Vec::new();
        };
        let Ok(Some(names)) = parsed.subject_alternative_name() else {
            return Vec::new();
        };
        let names = names.value.general_names.iter();
        names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                GeneralName::IPAddress(bytes) => address(bytes).map(|ip| ip.to_string()),
                _ => None,
            })
            .filter(|name| ServerName::try_from(name.as_str()).is_ok())
            .collect()
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }
}

/// Reads the first private key of a PEM text.
pub fn read_key(text: &[u8], what: &'static str) -> Result<PrivateKeyDer<'static>, CertError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|_| CertError::NoKey(what))
}

/// The pair that TLS serves; fails if key and certificate do not belong together.
pub fn certified_key(
    chain: &[Cert],
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, CertError> {
    let ders = chain.iter().map(|cert| cert.der.clone()).collect();
    CertifiedKey::from_der(ders, key, &provider()).map_err(CertError::KeyMismatch)
}

/// Whether a client that trusts `authorities` accepts `chain` for each of `names` at `now`.
pub fn verify(
    chain: &[Cert],
    authorities: &[Cert],
    names: &[String],
    now: Timestamp,
) -> Result<(), CertError> {
    let roots = roots(authorities)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| CertError::Authorities(error.to_string()))?;
    let (leaf, intermediates) = parts(chain)?;
    for name in names {
        let server =
            ServerName::try_from(name.as_str()).map_err(|_| CertError::BadName(name.clone()))?;
        verifier
            .verify_server_cert(leaf, &intermediates, &server, &[], moment(now))
            .map_err(|source| CertError::NotTrusted {
                name: name.clone(),
                source,
            })?;
    }
    Ok(())
}

/// Whether one of `authorities` vouches for `chain` at `now`, whatever names it is for.
pub fn vouched_for(chain: &[Cert], authorities: &[Cert], now: Timestamp) -> Result<(), CertError> {
    let (leaf, intermediates) = parts(chain)?;
    let roots = roots(authorities)?;
    let algorithms = provider().signature_verification_algorithms.all;
    ParsedCertificate::try_from(leaf)
        .and_then(|leaf| {
            let now = moment(now);
            verify_server_cert_signed_by_trust_anchor(
                &leaf,
                &roots,
                &intermediates,
                now,
                algorithms,
            )
        })
        .map_err(CertError::NotVouchedFor)
}

fn roots(authorities: &[Cert]) -> Result<RootCertStore, CertError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots
            .add(authority.der.clone())
            .map_err(|error| CertError::Authorities(error.to_string()))?;
    }
    Ok(roots)
}

/// The serving certificate, and what lies between it and the authority.
fn parts(
    chain: &[Cert],
) -> Result<(&CertificateDer<'static>, Vec<CertificateDer<'static>>), CertError> {
    let (leaf, rest) = chain
        .split_first()
        .ok_or(CertError::NoCertificate("the chain"))?;
    Ok((
        &leaf.der,
        rest.iter().map(|cert| cert.der.clone()).collect(),
    ))
}

fn moment(now: Timestamp) -> UnixTime {
    let since_epoch = now.as_second().try_into().unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(since_epoch))
}

/// An IP address as certificates hold it: 4 or 16 bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// PEM with the usual 64 characters per line.
fn pem(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}
