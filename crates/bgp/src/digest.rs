//! A fingerprint of a set of prefixes, to compare sets on two machines
//! without sending them.
//!
//! Order does not matter, members can be added and removed in constant time,
//! and the value is the same in every build: it depends on the prefixes alone.

use std::fmt;

use ipnet::IpNet;

/// Count and fingerprint of a set of prefixes.
///
/// Two different sets of the same size agree with a probability of about
/// 2⁻⁶⁴. It guards against mistakes, not against an adversary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest {
    count: u64,
    sum: u64,
}

impl Digest {
    /// Number of prefixes in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The fingerprint alone.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.sum
    }

    /// Adds a prefix that is not in the set.
    pub fn add(&mut self, prefix: IpNet) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(fingerprint(prefix));
    }

    /// Removes a prefix that is in the set.
    pub fn remove(&mut self, prefix: IpNet) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(fingerprint(prefix));
    }
}

impl FromIterator<IpNet> for Digest {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let mut digest = Self::default();
        for prefix in prefixes {
            digest.add(prefix);
        }
        digest
    }
}

/// `count-fingerprint`, the latter as 16 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.count, self.sum)
    }
}

/// FNV-1a over family, length and network, finished by SplitMix64 so that
/// sums of neighbouring prefixes do not cancel out.
fn fingerprint(prefix: IpNet) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |byte: u8| {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    };
    match prefix {
        IpNet::V4(net) => {
            eat(4);
            eat(net.prefix_len());
            net.network().octets().into_iter().for_each(&mut eat);
        }
        IpNet::V6(net) => {
            eat(6);
            eat(net.prefix_len());
            net.network().octets().into_iter().for_each(&mut eat);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(text: &[&str]) -> Vec<IpNet> {
        text.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn order_does_not_matter_and_removal_undoes_addition() {
        let some = prefixes(&["192.0.2.1/32", "2001:db8::/64", "10.0.0.0/8"]);
        let forward: Digest = some.iter().copied().collect();
        let mut backward: Digest = some.iter().rev().copied().collect();
        assert_eq!(forward, backward);
        let extra = "198.51.100.0/24".parse().unwrap();
        backward.add(extra);
        assert_ne!(forward, backward);
        backward.remove(extra);
        assert_eq!(forward, backward);
    }

    #[test]
    fn length_and_family_count() {
        let digests: Vec<Digest> = ["10.0.0.0/8", "10.0.0.0/9", "::/8", "0.0.0.0/8"]
            .iter()
            .map(|text| prefixes(&[text]).into_iter().collect())
            .collect();
        for (i, a) in digests.iter().enumerate() {
            assert!(digests.iter().skip(i + 1).all(|b| a != b));
        }
    }

    #[test]
    fn the_value_never_changes_between_builds() {
        let digest: Digest = prefixes(&["192.0.2.1/32", "2001:db8::1/128"])
            .into_iter()
            .collect();
        assert_eq!(digest.to_string(), "2-ceb1a3f1181a6534");
    }
}
