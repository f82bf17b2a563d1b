//! Ranges of addresses: arithmetic on them, and their text; `written` reads what users write.
//!
//! All arithmetic is in 128 bits for both families; nothing is materialised, so a range may be as large as `::/0`.

mod written;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use written::{RangeError, WrittenRange};

/// An address family. IPv4 sorts before IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The families, in their order.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The length of an address in bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The name in a Service's `spec.ipFamilies`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The highest number of the family.
    fn max(self) -> u128 {
        match self {
            Self::V4 => u128::from(u32::MAX),
            Self::V6 => u128::MAX,
        }
    }

    /// The address that is a number of the family. IPv4 takes the lower 32 bits.
    fn address(self, number: u128) -> IpAddr {
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "numbers of IPv4 fit")]
            Self::V4 => Ipv4Addr::from_bits(number as u32).into(),
            Self::V6 => Ipv6Addr::from_bits(number).into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An address as a number; comparable within its family.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Addresses of one family from a first to a last, both included; never empty.
///
/// Ranges sort by family, first address, last address. The text form is canonical: one address as itself, a CIDR where
/// the range is one, else `first-last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

impl AddressRange {
    /// The range of the given ends; `None` when they are of two families or the last lies below the first.
    #[must_use]
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        let family = Family::of(first);
        let (low, high) = (number(first), number(last));
        (family == Family::of(last) && low <= high).then_some(Self {
            family,
            first: low,
            last: high,
        })
    }

    /// All addresses of a family.
    #[must_use]
    pub fn whole(family: Family) -> Self {
        Self {
            family,
            first: 0,
            last: family.max(),
        }
    }

    /// The network of `length` bits that holds the address; lengths above the family's count as it.
    #[must_use]
    pub fn network(address: IpAddr, length: u8) -> Self {
        let family = Family::of(address);
        let hosts = host_mask(family, length);
        let first = number(address) & !hosts;
        Self {
            family,
            first,
            last: first | hosts,
        }
    }

    /// The family of all its addresses.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// The lowest address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.family.address(self.first)
    }

    /// The highest address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.family.address(self.last)
    }

    /// How many addresses; `::/0` saturates at the largest number.
    #[must_use]
    pub fn size(&self) -> u128 {
        self.distance().saturating_add(1)
    }

    /// How far the last address is from the first.
    pub(crate) fn distance(&self) -> u128 {
        self.last - self.first
    }

    /// Whether the address lies in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.position(address).is_some()
    }

    /// Whether all of the other range lies in this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.intersection(other).as_ref() == Some(other)
    }

    /// Whether the ranges have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.intersection(other).is_some()
    }

    /// The addresses that both ranges have.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        (self.family == other.family && first <= last).then_some(Self {
            family: self.family,
            first,
            last,
        })
    }

    /// How many addresses of the range lie below this one, which must be in the range.
    #[must_use]
    pub fn position(&self, address: IpAddr) -> Option<u128> {
        let at = number(address);
        (Family::of(address) == self.family && at <= self.last)
            .then(|| at.checked_sub(self.first))
            .flatten()
    }

    /// The address that has `position` addresses of the range below it.
    #[must_use]
    pub fn at(&self, position: u128) -> Option<IpAddr> {
        (position <= self.distance()).then(|| self.family.address(self.first + position))
    }

    /// The address after a given one, in the range or at its start.
    pub(crate) fn at_or_after(&self, address: IpAddr) -> Option<IpAddr> {
        let at = number(address).max(self.first);
        (Family::of(address) == self.family && at <= self.last).then(|| self.family.address(at))
    }

    /// The two ranges as one when they overlap or stand side by side.
    pub(crate) fn join(&self, other: &Self) -> Option<Self> {
        let (low, high) = if self <= other {
            (self, other)
        } else {
            (other, self)
        };
        let touches = low.last >= high.first || low.last + 1 == high.first;
        (low.family == high.family && touches).then(|| Self {
            family: low.family,
            first: low.first,
            last: low.last.max(high.last),
        })
    }

    /// What is left of the range below and above the other.
    pub(crate) fn without(&self, other: &Self) -> [Option<Self>; 2] {
        let Some(hole) = self.intersection(other) else {
            return [Some(*self), None];
        };
        let below = (self.first < hole.first).then(|| Self {
            last: hole.first - 1,
            ..*self
        });
        let above = (hole.last < self.last).then(|| Self {
            first: hole.last + 1,
            ..*self
        });
        [below, above]
    }

    /// The addresses from low to high, made one at a time.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let family = self.family;
        (self.first..=self.last).map(move |number| family.address(number))
    }

    /// The length of the prefix that is exactly this range, when it is one.
    #[must_use]
    pub fn prefix_length(&self) -> Option<u8> {
        let span = self.distance();
        let aligned = span & span.wrapping_add(1) == 0 && self.first & span == 0;
        #[expect(clippy::cast_possible_truncation, reason = "at most 128")]
        aligned.then(|| self.family.bits() - span.count_ones() as u8)
    }
}

/// The bits of an address beyond a prefix.
fn host_mask(family: Family, length: u8) -> u128 {
    let hosts = family.bits().saturating_sub(length);
    match hosts {
        0 => 0,
        hosts => u128::MAX >> (128 - u32::from(hosts)),
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        Self {
            family: Family::of(address),
            first: number(address),
            last: number(address),
        }
    }
}

impl From<ipnet::IpNet> for AddressRange {
    fn from(net: ipnet::IpNet) -> Self {
        Self::network(net.addr(), net.prefix_len())
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_length() {
            Some(length) if length == self.family.bits() => write!(f, "{}", self.first()),
            Some(length) => write!(f, "{}/{length}", self.first()),
            None => write!(f, "{}-{}", self.first(), self.last()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn text_is_canonical() {
        for (text, canonical) in [
            ("192.0.2.0-192.0.2.255", "192.0.2.0/24"),
            ("192.0.2.1-192.0.2.2", "192.0.2.1-192.0.2.2"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("2001:DB8:0:0::/64", "2001:db8::/64"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(range(text).to_string(), canonical);
        }
    }

    #[test]
    fn the_largest_range_saturates_and_is_walked_lazily() {
        let all = AddressRange::whole(Family::V6);
        assert_eq!(all.size(), u128::MAX);
        assert_eq!(all.at(u128::MAX), Some(all.last()));
        assert_eq!(all.iter().nth(3).unwrap().to_string(), "::3");
    }

    #[test]
    fn openelbs_cases_of_position_overlap_and_containment_hold() {
        let pool = range("192.168.0.1-192.168.0.100");
        assert_eq!(pool.position("192.168.0.2".parse().unwrap()), Some(1));
        assert_eq!(pool.position("192.168.0.0".parse().unwrap()), None);
        assert_eq!(pool.position("192.168.0.101".parse().unwrap()), None);
        let pool = range("192.168.0.100-192.168.0.200");
        assert!(!pool.overlaps(&range("192.168.0.1-192.168.0.99")));
        assert!(!pool.overlaps(&range("192.168.0.201-192.168.0.250")));
        assert!(pool.overlaps(&range("192.168.0.1-192.168.0.100")));
        assert!(pool.overlaps(&range("192.168.0.200-192.168.0.250")));
        assert!(!pool.contains("192.168.0.201".parse().unwrap()));
    }

    prop_compose! {
        fn any_range()(a in any::<IpAddr>().prop_map(|a| a.to_canonical()), length in 0_u8..=128, b: u16, as_net: bool) -> AddressRange {
            let first = AddressRange::from(a);
            if as_net {
                AddressRange::network(a, length)
            } else {
                let last = first.family.address(first.first.saturating_add(b.into()).min(first.family.max()));
                AddressRange::new(a, last).unwrap()
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(one in any_range()) {
            // Ends that are IPv4-mapped are read as IPv4.
            prop_assume!(one.last().to_canonical() == one.last());
            prop_assert_eq!(range(&one.to_string()), one);
        }

        #[test]
        fn position_and_address_are_inverse(one in any_range(), at: u128) {
            match one.at(at) {
                Some(address) => prop_assert_eq!(one.position(address), Some(at)),
                None => prop_assert!(at >= one.size()),
            }
        }
    }
}
