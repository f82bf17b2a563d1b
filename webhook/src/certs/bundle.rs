//! What the Secret holds, as values: keys and certificates that were checked to fit together.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use rustls::sign::CertifiedKey;

use super::x509::{Cert, CertError, certified_key, read_key, verify, vouched_for};

/// OpenELB's key for the authority.
pub const CA: &str = "ca";
/// OpenELB's key for the serving certificate.
pub const CERT: &str = "cert";
/// OpenELB's key for the serving certificate's private key.
pub const KEY: &str = "key";
/// Kubernetes' key for the serving certificate.
pub const TLS_CRT: &str = "tls.crt";
/// Kubernetes' key for its private key.
pub const TLS_KEY: &str = "tls.key";
/// The bundle of trusted authorities, the signing one first.
pub const CA_CRT: &str = "ca.crt";
/// The authority's private key; absent in a Secret that OpenELB or a person made.
pub const CA_KEY: &str = "ca.key";
/// Annotation: until when authorities other than the signing one stay in the bundle (RFC 3339).
pub const OVERLAP_UNTIL: &str = openelb_api::keys::CA_OVERLAP_UNTIL;

/// An authority that can sign.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its certificate.
    pub cert: Cert,
    /// Its private key, PKCS #8 in PEM.
    pub key_pem: String,
}

/// All certificate material of one Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The serving certificate and what lies between it and the authority.
    pub chain: Vec<Cert>,
    /// The serving certificate's private key in PEM.
    pub key_pem: String,
    /// The authority, if its key is there.
    pub authority: Option<Authority>,
    /// Authorities that clients shall trust; not empty.
    pub trust: Vec<Cert>,
    /// Until when authorities that no longer sign stay trusted.
    pub overlap_until: Option<Timestamp>,
}

// Keys never reach a log.
impl std::fmt::Debug for Bundle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let expires = self.chain.first().map(|cert| cert.not_after);
        formatter
            .debug_struct("Bundle")
            .field("expires", &expires)
            .field("authorities", &self.trust.len())
            .field("can_sign", &self.authority.is_some())
            .finish_non_exhaustive()
    }
}

impl Bundle {
    /// Reads a Secret. Only what does not depend on the time is checked here.
    pub fn from_secret(secret: &Secret) -> Result<Self, CertError> {
        let field = |names: [&str; 2]| {
            let data = secret.data.as_ref()?;
            names
                .iter()
                .find_map(|name| data.get(*name))
                .map(|bytes| bytes.0.as_slice())
        };
        let chain = Cert::read_pem(field([TLS_CRT, CERT]).unwrap_or_default(), "tls.crt")?;
        let key_text = field([TLS_KEY, KEY]).unwrap_or_default();
        let key = read_key(key_text, "tls.key")?;
        certified_key(&chain, key)?;
        let trust = Cert::read_pem(field([CA_CRT, CA]).unwrap_or_default(), "ca.crt")?;
        let overlap_until = secret
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(OVERLAP_UNTIL))
            .and_then(|text| text.parse().ok());
        let authority = field([CA_KEY, CA_KEY]).and_then(|pem| authority(&trust, pem));
        let key_pem = String::from_utf8_lossy(key_text).into_owned();
        Ok(Self {
            chain,
            key_pem,
            authority,
            trust,
            overlap_until,
        })
    }

    /// The Secret's data, under OpenELB's and Kubernetes' keys.
    #[must_use]
    pub fn to_data(&self) -> BTreeMap<String, ByteString> {
        let chain: String = self.chain.iter().map(Cert::to_pem).collect();
        let trust = self.trust_pem();
        let mut data: BTreeMap<String, ByteString> = [
            (CA, trust.clone()),
            (CA_CRT, trust),
            (CERT, chain.clone()),
            (TLS_CRT, chain),
            (KEY, self.key_pem.clone()),
            (TLS_KEY, self.key_pem.clone()),
        ]
        .into_iter()
        .map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())))
        .collect();
        if let Some(authority) = &self.authority {
            data.insert(
                CA_KEY.to_owned(),
                ByteString(authority.key_pem.clone().into_bytes()),
            );
        }
        data
    }

    /// The trusted authorities as PEM: the `caBundle` of the webhook configurations.
    #[must_use]
    pub fn trust_pem(&self) -> String {
        self.trust.iter().map(Cert::to_pem).collect()
    }

    /// The pair that TLS serves.
    pub fn certified_key(&self) -> Result<CertifiedKey, CertError> {
        certified_key(&self.chain, read_key(self.key_pem.as_bytes(), "tls.key")?)
    }

    /// Whether a client that trusts the bundle accepts the serving certificate for `names`.
    pub fn verify(&self, names: &[String], now: Timestamp) -> Result<(), CertError> {
        verify(&self.chain, &self.trust, names, now)
    }

    /// Whether clients that trust only `authorities` accept what this bundle serves, by the names
    /// that it is for.
    #[must_use]
    pub fn is_trusted_by(&self, authorities: &[Cert], now: Timestamp) -> bool {
        vouched_for(&self.chain, authorities, now).is_ok()
    }

    /// The authority among those trusted by which clients accept what this bundle serves.
    #[must_use]
    pub fn vouching(&self, now: Timestamp) -> Option<&Cert> {
        self.trust
            .iter()
            .find(|cert| self.is_trusted_by(std::slice::from_ref(cert), now))
    }
}

/// Pairs the key with the certificate among `trust` that it belongs to.
fn authority(trust: &[Cert], key_pem: &[u8]) -> Option<Authority> {
    trust
        .iter()
        .find(|cert| {
            read_key(key_pem, CA_KEY)
                .is_ok_and(|key| certified_key(std::slice::from_ref(cert), key).is_ok())
        })
        .map(|cert| Authority {
            cert: cert.clone(),
            key_pem: String::from_utf8_lossy(key_pem).into_owned(),
        })
}
