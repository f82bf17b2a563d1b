//! The keys of a control plane: one authority, certificates signed by it, and the key that signs ServiceAccount tokens.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::folder::Folder;

/// A certificate and its key, in PEM and on disk.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) certificate_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

/// The authority that every component trusts.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) own: Pair,
}

impl Authority {
    pub(crate) fn new(folder: &Folder) -> Result<Self> {
        let key = KeyPair::generate().context("no key for the authority")?;
        let mut params = named("openelb-world-ca", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params
            .self_signed(&key)
            .context("the authority cannot sign itself")?;
        let own = save(folder, "ca", certificate.pem(), &key)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            own,
        })
    }

    /// A client certificate: the common name is the user, the organizations are the groups.
    pub(crate) fn client(
        &self,
        folder: &Folder,
        file: &str,
        user: &str,
        groups: &[&str],
    ) -> Result<Pair> {
        let mut params = named(user, groups);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(folder, file, params)
    }

    /// A server certificate for these names and addresses; good for a client too, as some components need.
    pub(crate) fn server(
        &self,
        folder: &Folder,
        file: &str,
        (user, groups): (&str, &[&str]),
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Pair> {
        let mut params = named(user, groups);
        for name in names {
            params
                .subject_alt_names
                .push(SanType::DnsName((*name).try_into()?));
        }
        params
            .subject_alt_names
            .extend(addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.sign(folder, file, params)
    }

    fn sign(&self, folder: &Folder, file: &str, mut params: CertificateParams) -> Result<Pair> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().with_context(|| format!("no key for {file}"))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("cannot sign the certificate of {file}"))?;
        save(folder, file, certificate.pem(), &key)
    }
}

/// The key pair that signs ServiceAccount tokens: the files of the private and the public half.
pub(crate) fn token_key(folder: &Folder) -> Result<(PathBuf, PathBuf)> {
    let key = KeyPair::generate().context("no key for tokens")?;
    Ok((
        folder.write("pki/tokens.key", key.serialize_pem())?,
        folder.write("pki/tokens.pub", key.public_key_pem())?,
    ))
}

fn named(user: &str, groups: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user);
    for group in groups {
        params
            .distinguished_name
            .push(DnType::OrganizationName, *group);
    }
    params
}

fn save(folder: &Folder, file: &str, certificate: String, key: &KeyPair) -> Result<Pair> {
    Ok(Pair {
        certificate_file: folder.write(format!("pki/{file}.crt"), &certificate)?,
        key_file: folder.write(format!("pki/{file}.key"), key.serialize_pem())?,
        certificate,
    })
}
