//! Which addresses are taken: runs of neighbouring addresses, so that the lowest free one is found
//! with one look-up, whatever the size of the pool and however full it is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openelb_api::{AddressRange, Family};

/// A set of addresses that is asked for its gaps. Every operation takes time that grows with the
/// logarithm of the number of runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    v4: BTreeMap<u128, u128>,
    v6: BTreeMap<u128, u128>,
}

impl Taken {
    /// Adds an address; false when it was there.
    pub fn insert(&mut self, address: IpAddr) -> bool {
        let at = number(address);
        let runs = self.runs_mut(Family::of(address));
        let before = runs
            .range(..=at)
            .next_back()
            .map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= at) {
            return false;
        }
        let first = match before {
            Some((first, last)) if last.checked_add(1) == Some(at) => first,
            _ => at,
        };
        let last = match at.checked_add(1).and_then(|next| runs.remove(&next)) {
            Some(last) => last,
            None => at,
        };
        runs.insert(first, last);
        true
    }

    /// Takes an address out; false when it was not there.
    pub fn remove(&mut self, address: IpAddr) -> bool {
        let at = number(address);
        let runs = self.runs_mut(Family::of(address));
        let Some((first, last)) = runs
            .range(..=at)
            .next_back()
            .map(|(first, last)| (*first, *last))
        else {
            return false;
        };
        if last < at {
            return false;
        }
        runs.remove(&first);
        if first < at {
            runs.insert(first, at - 1);
        }
        if at < last {
            runs.insert(at + 1, last);
        }
        true
    }

    /// Whether the address is in the set.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let at = number(address);
        self.runs(Family::of(address))
            .range(..=at)
            .next_back()
            .is_some_and(|(_, last)| *last >= at)
    }

    /// The lowest address of the ranges, which ascend and are of one family, that is not in the set.
    #[must_use]
    pub fn lowest_free(&self, ranges: &[AddressRange]) -> Option<IpAddr> {
        ranges.iter().find_map(|range| {
            let (first, last) = (number(range.first()), number(range.last()));
            let run = self.runs(range.family()).range(..=first).next_back();
            let free = match run {
                Some((_, end)) if *end >= first => end.checked_add(1)?,
                _ => first,
            };
            (free <= last).then(|| address(range.family(), free))
        })
    }

    fn runs(&self, family: Family) -> &BTreeMap<u128, u128> {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn runs_mut(&mut self, family: Family) -> &mut BTreeMap<u128, u128> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        #[expect(clippy::cast_possible_truncation, reason = "numbers of IPv4 fit")]
        Family::V4 => Ipv4Addr::from_bits(number as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(v6: bool, n: u8) -> IpAddr {
        address(if v6 { Family::V6 } else { Family::V4 }, n.into())
    }

    #[test]
    fn the_last_address_of_all_can_be_taken() {
        let mut taken = Taken::default();
        let last = IpAddr::from(Ipv6Addr::from_bits(u128::MAX));
        assert!(taken.insert(last));
        assert_eq!(taken.lowest_free(&[last.into()]), None);
        assert!(taken.remove(last));
        assert_eq!(taken.lowest_free(&[last.into()]), Some(last));
    }

    proptest! {
        #[test]
        fn a_set_does_what_a_naive_set_does(
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0_u8..40), 0..200),
            v6: bool, first in 0_u8..40, length in 0_u8..20,
        ) {
            let (mut taken, mut naive) = (Taken::default(), BTreeSet::new());
            for (add, v6, n) in steps {
                let address = at(v6, n);
                if add {
                    prop_assert_eq!(taken.insert(address), naive.insert(address));
                } else {
                    prop_assert_eq!(taken.remove(address), naive.remove(&address));
                }
                prop_assert_eq!(taken.contains(address), naive.contains(&address));
            }
            let range = AddressRange::new(at(v6, first), at(v6, first + length)).unwrap();
            let free = range.iter().find(|address| !naive.contains(address));
            prop_assert_eq!(taken.lowest_free(&[range]), free);
        }
    }
}
