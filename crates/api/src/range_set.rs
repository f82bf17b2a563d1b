//! Sets of addresses as sorted, disjoint ranges.
//!
//! Questions about one address take time that grows with the logarithm of the number of ranges, whatever the number of
//! addresses. Every address has a *position*: how many addresses of its family in the set lie below it. Positions run
//! from 0 without a gap, so a set of positions describes which addresses are taken.

use std::fmt;
use std::net::IpAddr;

use crate::range::{AddressRange, Family};

/// A set of addresses of both families.
///
/// Its ranges are sorted (IPv4 first), disjoint, and never side by side, so equal sets have equal ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    v4: Ranges,
    v6: Ranges,
}

/// The ranges of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges {
    ranges: Vec<AddressRange>,
    /// The position of each range's first address. The sum of what lies before a range is below 2¹²⁸, for the range
    /// itself has at least one address, so this cannot overflow.
    starts: Vec<u128>,
}

impl Ranges {
    /// Indexes ranges that are sorted and apart.
    fn new(ranges: Vec<AddressRange>) -> Self {
        let mut below = 0_u128;
        let starts = ranges
            .iter()
            .map(|range| {
                let start = below;
                below = below.saturating_add(range.size());
                start
            })
            .collect();
        Self { ranges, starts }
    }

    /// The range with the highest first address that is not above the given one, and its position.
    fn at_or_below(&self, address: IpAddr) -> Option<(&AddressRange, u128)> {
        let after = self
            .ranges
            .partition_point(|range| range.first() <= address);
        let index = after.checked_sub(1)?;
        Some((self.ranges.get(index)?, *self.starts.get(index)?))
    }

    fn size(&self) -> u128 {
        match (self.ranges.last(), self.starts.last()) {
            (Some(range), Some(start)) => start.saturating_add(range.size()),
            _ => 0,
        }
    }
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The ranges of one family, from low to high.
    fn of(&self, family: Family) -> &Ranges {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The ranges from low to high, IPv4 first.
    #[must_use]
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = &AddressRange> {
        self.v4.ranges.iter().chain(&self.v6.ranges)
    }

    /// The ranges of one family, from low to high.
    #[must_use]
    pub fn family(&self, family: Family) -> &[AddressRange] {
        &self.of(family).ranges
    }

    /// Whether there is no address in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.ranges.is_empty() && self.v6.ranges.is_empty()
    }

    /// How many addresses of a family; saturates at the largest number.
    #[must_use]
    pub fn size_of(&self, family: Family) -> u128 {
        self.of(family).size()
    }

    /// How many addresses; saturates at the largest number.
    #[must_use]
    pub fn size(&self) -> u128 {
        self.v4.size().saturating_add(self.v6.size())
    }

    /// The lowest address, IPv4 first.
    #[must_use]
    pub fn first(&self) -> Option<IpAddr> {
        self.ranges().next().map(AddressRange::first)
    }

    /// The highest address, IPv6 last.
    #[must_use]
    pub fn last(&self) -> Option<IpAddr> {
        self.ranges().next_back().map(AddressRange::last)
    }

    /// Whether the address is in the set.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.position(address).is_some()
    }

    /// Whether any address of the range is in the set.
    #[must_use]
    pub fn overlaps(&self, range: &AddressRange) -> bool {
        self.next_from(range.first())
            .is_some_and(|next| next <= range.last())
    }

    /// The position of an address of the set: how many addresses of its family in the set lie below it (rank).
    #[must_use]
    pub fn position(&self, address: IpAddr) -> Option<u128> {
        let (range, start) = self.of(Family::of(address)).at_or_below(address)?;
        range.position(address).map(|within| start + within)
    }

    /// The address of a family at a position (select).
    #[must_use]
    pub fn at(&self, family: Family, position: u128) -> Option<IpAddr> {
        let ranges = self.of(family);
        let index = ranges
            .starts
            .partition_point(|start| *start <= position)
            .checked_sub(1)?;
        let within = position - ranges.starts.get(index)?;
        ranges.ranges.get(index)?.at(within)
    }

    /// The lowest address of the set that is not below the given one, in its family.
    #[must_use]
    pub fn next_from(&self, address: IpAddr) -> Option<IpAddr> {
        let ranges = self.family(Family::of(address));
        let index = ranges.partition_point(|range| range.last() < address);
        ranges.get(index)?.at_or_after(address)
    }

    /// The addresses from low to high, IPv4 first, made one at a time.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.ranges().flat_map(AddressRange::iter)
    }

    /// The addresses that are in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.ranges().chain(other.ranges()).copied().collect()
    }

    /// The addresses that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.without(&self.without(other))
    }

    /// The addresses that are in this set but not in the other. Takes time linear in the ranges of both.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let [v4, v6] = Family::ALL
            .map(|family| Ranges::new(subtract(self.family(family), other.family(family))));
        Self { v4, v6 }
    }
}

/// What is left of sorted, disjoint ranges without others.
fn subtract(ranges: &[AddressRange], holes: &[AddressRange]) -> Vec<AddressRange> {
    let mut left = Vec::with_capacity(ranges.len());
    let mut holes = holes.iter().peekable();
    for range in ranges {
        let mut rest = Some(*range);
        while let (Some(piece), Some(hole)) = (rest, holes.peek()) {
            if hole.first() > piece.last() {
                break;
            }
            let [below, above] = piece.without(hole);
            if hole.last() < piece.first() {
                holes.next();
                continue;
            }
            left.extend(below);
            rest = above;
            // A hole that reaches beyond this range may cut the next one too.
            if above.is_some() {
                holes.next();
            }
        }
        left.extend(rest);
    }
    left
}

impl FromIterator<AddressRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = AddressRange>>(ranges: I) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<AddressRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) => match last.join(&range) {
                    Some(joined) => *last = joined,
                    None => merged.push(range),
                },
                None => merged.push(range),
            }
        }
        let split = merged.partition_point(|range| range.family() == Family::V4);
        let v6 = merged.split_off(split);
        Self {
            v4: Ranges::new(merged),
            v6: Ranges::new(v6),
        }
    }
}

impl From<AddressRange> for RangeSet {
    fn from(range: AddressRange) -> Self {
        std::iter::once(range).collect()
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{range}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> RangeSet {
        text.split(',').map(|part| part.parse().unwrap()).collect()
    }

    #[test]
    fn neighbours_and_overlaps_merge() {
        let merged = set("10.0.0.128/25,::1,10.0.0.0/25,10.0.0.7,10.0.2.0,::2-::3");
        assert_eq!(merged.to_string(), "10.0.0.0/24,10.0.2.0,::1-::3");
        assert_eq!(merged.size(), 260);
    }

    #[test]
    fn whole_families_stand_side_by_side_with_exact_positions() {
        let all = set("0.0.0.0/0,::/0");
        assert_eq!(all.size(), u128::MAX);
        assert_eq!(all.size_of(Family::V4), 1 << 32);
        let last: IpAddr = Ipv6Addr::from_bits(u128::MAX).into();
        assert_eq!(all.position(last), Some(u128::MAX));
        assert_eq!(all.at(Family::V6, u128::MAX), Some(last));
        assert_eq!(all.at(Family::V4, 1 << 32), None);
        assert_eq!(all.without(&all), RangeSet::new());
    }

    /// Addresses of a small universe, so that ranges meet often.
    fn small(v6: bool, number: u8) -> IpAddr {
        if v6 {
            Ipv6Addr::from_bits(u128::MAX - 255 + u128::from(number)).into()
        } else {
            Ipv4Addr::from_bits(u32::from(number)).into()
        }
    }

    prop_compose! {
        fn small_range()(v6: bool, a: u8, b in 0_u8..40) -> AddressRange {
            AddressRange::new(small(v6, a), small(v6, a.saturating_add(b))).unwrap()
        }
    }

    fn ranges() -> impl Strategy<Value = Vec<AddressRange>> {
        prop::collection::vec(small_range(), 0..12)
    }

    fn model(ranges: &[AddressRange]) -> BTreeSet<IpAddr> {
        ranges.iter().flat_map(AddressRange::iter).collect()
    }

    proptest! {
        #[test]
        fn a_set_is_what_a_naive_set_is(parts in ranges(), v6: bool, probe: u8, length in 0_u8..60) {
            let set: RangeSet = parts.iter().copied().collect();
            let naive = model(&parts);
            prop_assert!(set.iter().eq(naive.iter().copied()));
            prop_assert_eq!(set.size(), naive.len() as u128);
            let address = small(v6, probe);
            let family = Family::of(address);
            prop_assert_eq!(set.contains(address), naive.contains(&address));
            prop_assert_eq!(set.size_of(family), naive.iter().filter(|a| Family::of(**a) == family).count() as u128);
            let next = naive.range(address..).next().copied().filter(|a| Family::of(*a) == family);
            prop_assert_eq!(set.next_from(address), next);
            let span = AddressRange::new(address, small(v6, probe.saturating_add(length))).unwrap();
            prop_assert_eq!(set.overlaps(&span), span.iter().any(|a| naive.contains(&a)));
        }

        #[test]
        fn positions_count_from_nought_without_a_gap(parts in ranges()) {
            let set: RangeSet = parts.iter().copied().collect();
            for family in Family::ALL {
                let members: Vec<_> = set.iter().filter(|a| Family::of(*a) == family).collect();
                for (position, address) in members.iter().enumerate() {
                    prop_assert_eq!(set.position(*address), Some(position as u128));
                    prop_assert_eq!(set.at(family, position as u128), Some(*address));
                }
                prop_assert_eq!(set.at(family, members.len() as u128), None);
            }
        }

        #[test]
        fn the_algebra_is_that_of_naive_sets(a in ranges(), b in ranges()) {
            let (one, two): (RangeSet, RangeSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            let (left, right) = (model(&a), model(&b));
            prop_assert!(one.union(&two).iter().eq(left.union(&right).copied()));
            prop_assert!(one.intersection(&two).iter().eq(left.intersection(&right).copied()));
            prop_assert!(one.without(&two).iter().eq(left.difference(&right).copied()));
            // Equal sets have equal ranges, however they were made.
            prop_assert_eq!(one.without(&two).union(&one.intersection(&two)), one);
        }
    }
}
