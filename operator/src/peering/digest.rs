//! How a speaker tells what a peer holds, and how the controller checks it.

use openelb_api::v1alpha2::AnnouncedDigest;
use openelb_bgp::{Digest, Family};

/// The digest of what a peer holds, over all families: equal exactly where the sets are.
pub(crate) fn digest(families: impl Iterator<Item = (Family, Digest)>) -> AnnouncedDigest {
    let mut prefixes = 0;
    let mut parts = Vec::new();
    for (family, digest) in families {
        if digest.count() > 0 {
            prefixes += digest.count();
            parts.push(format!("{family} {digest}"));
        }
    }
    parts.sort();
    AnnouncedDigest {
        prefixes: i64::try_from(prefixes).unwrap_or(i64::MAX),
        digest: parts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_differ_by_family_and_ignore_empty_ones() {
        let one: Digest = ["192.0.2.1/32".parse().unwrap()].into_iter().collect();
        let a = digest([(Family::Ipv4, one), (Family::Ipv6, Digest::default())].into_iter());
        assert_eq!(a, digest([(Family::Ipv4, one)].into_iter()));
        assert_ne!(a, digest([(Family::Ipv6, one)].into_iter()));
    }
}
