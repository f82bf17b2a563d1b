//! How a speaker tells what a peer holds, and how the controller checks it.

use openelb_api::v1alpha2::AnnouncedDigest;
use openelb_bgp::{Digest, Family};

/// The digest of what a peer holds, over all families: equal exactly where the sets are.
pub(crate) fn digest(families: impl Iterator<Item = (Family, Digest)>) -> AnnouncedDigest {
    let mut prefixes = 0;
    let mut parts = Vec::new();
    for (family, digest) in families {
        prefixes += digest.count();
        parts.extend(part(family, digest));
    }
    parts.sort();
    AnnouncedDigest {
        prefixes: i64::try_from(prefixes).unwrap_or(i64::MAX),
        digest: parts.join(", "),
    }
}

/// Whether what a peer is reported to hold of one family is what it should. The families are told apart, so that
/// one that the router refuses, or that the session does not carry, casts no doubt on the other.
pub(crate) fn agrees(reported: &AnnouncedDigest, family: Family, expected: Digest) -> bool {
    let name = format!("{family} ");
    let mut parts = reported.digest.split(", ");
    parts.find(|part| part.starts_with(&name)) == part(family, expected).as_deref()
}

/// What is written of one family; nothing where it is empty.
fn part(family: Family, digest: Digest) -> Option<String> {
    (digest.count() > 0).then(|| format!("{family} {digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_compared_one_by_one() {
        let one: Digest = ["192.0.2.1/32".parse().unwrap()].into_iter().collect();
        let six: Digest = ["2001:db8::1/128".parse().unwrap()].into_iter().collect();
        let reported = digest([(Family::Ipv4, one)].into_iter());
        assert!(agrees(&reported, Family::Ipv4, one));
        assert!(!agrees(&reported, Family::Ipv6, six));
        assert!(agrees(&reported, Family::Ipv6, Digest::default()));
        assert!(!agrees(&reported, Family::Ipv4, Digest::default()));
        let both = digest([(Family::Ipv6, six), (Family::Ipv4, one)].into_iter());
        assert!(agrees(&both, Family::Ipv4, one) && agrees(&both, Family::Ipv6, six));
    }

    #[test]
    fn digests_differ_by_family_and_ignore_empty_ones() {
        let one: Digest = ["192.0.2.1/32".parse().unwrap()].into_iter().collect();
        let a = digest([(Family::Ipv4, one), (Family::Ipv6, Digest::default())].into_iter());
        assert_eq!(a, digest([(Family::Ipv4, one)].into_iter()));
        assert_ne!(a, digest([(Family::Ipv6, one)].into_iter()));
    }
}
