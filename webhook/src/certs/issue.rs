//! Making authorities and serving certificates.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use super::{
    bundle::{Authority, Bundle},
    config::CertConfig,
    x509::{Cert, CertError},
};

/// Start of validity before the moment of issue, so that a peer whose clock is a little behind
/// accepts the certificate at once. At most a tenth of the life.
const BACKDATE: Duration = Duration::from_mins(5);

/// Authorities trusted side by side, at most: a bundle must not grow when somebody keeps breaking
/// the Secret.
const MOST_AUTHORITIES: usize = 4;

/// A new authority, a certificate signed by it, and a bundle that trusts `also` for the overlap.
pub fn everything(also: &[Cert], config: &CertConfig, now: Timestamp) -> Result<Bundle, CertError> {
    let authority = authority(config, now)?;
    let trust = trust(std::iter::once(&authority.cert).chain(also), now);
    let overlap_until = overlap_end(config, now);
    serving(
        authority,
        trust,
        overlap_until,
        &config.names,
        config.serving_life,
        now,
    )
}

/// A new serving certificate for `names` under the same authority, nothing else changed.
pub fn renewed(
    bundle: &Bundle,
    names: &[String],
    config: &CertConfig,
    now: Timestamp,
) -> Result<Bundle, CertError> {
    let authority = bundle.authority.clone().ok_or(CertError::NoKey("ca.key"))?;
    serving(
        authority,
        bundle.trust.clone(),
        bundle.overlap_until,
        names,
        config.serving_life,
        now,
    )
}

/// The same certificates, with `trusted` trusted for the overlap; the first of them are the ones
/// that matter most.
#[must_use]
pub fn extended(bundle: &Bundle, trusted: &[Cert], config: &CertConfig, now: Timestamp) -> Bundle {
    Bundle {
        trust: trust(trusted, now),
        overlap_until: overlap_end(config, now),
        ..bundle.clone()
    }
}

/// The same certificates, with only the authority of the serving certificate trusted.
#[must_use]
pub fn pruned(bundle: &Bundle, now: Timestamp) -> Bundle {
    let mut trust = bundle.trust.clone();
    trust.retain(|cert| bundle.is_trusted_by(std::slice::from_ref(cert), now));
    Bundle {
        trust,
        overlap_until: None,
        ..bundle.clone()
    }
}

fn overlap_end(config: &CertConfig, now: Timestamp) -> Option<Timestamp> {
    now.checked_add(config.overlap).ok()
}

/// What of `certs` has not expired, each once and not more than a few: the first ones.
fn trust<'a>(certs: impl IntoIterator<Item = &'a Cert>, now: Timestamp) -> Vec<Cert> {
    let mut trust = Vec::new();
    for cert in certs {
        if trust.len() < MOST_AUTHORITIES && !trust.contains(cert) && now <= cert.not_after {
            trust.push(cert.clone());
        }
    }
    trust
}

fn authority(config: &CertConfig, now: Timestamp) -> Result<Authority, CertError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    // The moment in the name keeps two authorities apart that are trusted side by side.
    params.distinguished_name = named(&format!("openelb-admission-ca {now:.0}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, config.authority_life, now, None);
    let cert = params.self_signed(&key)?;
    Ok(Authority {
        cert: Cert::read(cert.der().clone(), "the new authority")?,
        key_pem: key.serialize_pem(),
    })
}

fn serving(
    authority: Authority,
    trust: Vec<Cert>,
    overlap_until: Option<Timestamp>,
    names: &[String],
    life: Duration,
    now: Timestamp,
) -> Result<Bundle, CertError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    // Names the first Service; clients look at the alternative names only. At most 64 characters.
    let name = names
        .iter()
        .find(|name| name.len() <= 64 && name.parse::<IpAddr>().is_err());
    params.distinguished_name = named(name.map_or("openelb-webhook", String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, life, now, Some(&authority.cert));
    let signer = KeyPair::from_pem(&authority.key_pem)?;
    let issuer = Issuer::from_ca_cert_der(&authority.cert.der, signer)?;
    let cert = params.signed_by(&key, &issuer)?;
    Ok(Bundle {
        chain: vec![Cert::read(
            cert.der().clone(),
            "the new serving certificate",
        )?],
        key_pem: key.serialize_pem(),
        authority: Some(authority),
        trust,
        overlap_until,
    })
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Sets the dates (rcgen's own default is 1975 to 4096), within those of the authority.
fn set_validity(
    params: &mut CertificateParams,
    life: Duration,
    now: Timestamp,
    within: Option<&Cert>,
) {
    let backdate = BACKDATE.min(life / 10);
    let mut from = now.checked_sub(backdate).unwrap_or(now).as_second();
    let mut until = now.checked_add(life).unwrap_or(now).as_second();
    if let Some(authority) = within {
        from = from.max(authority.not_before.as_second());
        until = until.min(authority.not_after.as_second());
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let seconds = |moment: i64| Duration::from_secs(moment.try_into().unwrap_or(0));
    params.not_before = epoch + seconds(from);
    params.not_after = epoch + seconds(until);
}
