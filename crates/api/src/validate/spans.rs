//! Ranges of addresses, found by overlap without looking at all of them.

use std::net::IpAddr;

/// An inclusive range of one family that belongs to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span<T> {
    /// First address.
    pub first: IpAddr,
    /// Last address, of the same family, not before `first`.
    pub last: IpAddr,
    /// Whose it is.
    pub owner: T,
}

/// Spans in order, each with the greatest end among it and those before.
///
/// A look-up goes to the last span that begins at or before the end of what is asked for, and from
/// there back until no earlier span reaches far enough. Where spans do not overlap each other (the
/// normal case) that is the spans found and one more, whatever the number of spans.
#[derive(Clone, Debug)]
pub struct Spans<T> {
    entries: Vec<(Span<T>, IpAddr)>,
}

impl<T> Default for Spans<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
        }
    }
}

impl<T> FromIterator<Span<T>> for Spans<T> {
    fn from_iter<I: IntoIterator<Item = Span<T>>>(spans: I) -> Self {
        let mut spans: Vec<Span<T>> = spans.into_iter().collect();
        // IPv4 sorts before IPv6, so the families do not meet.
        spans.sort_by_key(|span| span.first);
        let mut furthest: Option<IpAddr> = None;
        let entries = spans
            .into_iter()
            .map(|span| {
                let reach = furthest.map_or(span.last, |furthest| furthest.max(span.last));
                furthest = Some(reach);
                (span, reach)
            })
            .collect();
        Self { entries }
    }
}

impl<T> Spans<T> {
    /// Spans that share an address with `first..=last`, later ones first.
    pub fn overlapping(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = &Span<T>> {
        self.looked_at(first, last)
            .filter(move |span| span.last >= first)
    }

    /// The spans that a look-up visits after its binary search.
    fn looked_at(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = &Span<T>> {
        let begun = self.entries.partition_point(|(span, _)| span.first <= last);
        self.entries
            .get(..begun)
            .unwrap_or_default()
            .iter()
            .rev()
            .take_while(move |(_, reach)| *reach >= first)
            .map(|(span, _)| span)
    }

    /// Spans that hold an address.
    pub fn holding(&self, address: IpAddr) -> impl Iterator<Item = &Span<T>> {
        self.overlapping(address, address)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn address(v6: bool, low: u8) -> IpAddr {
        if v6 {
            IpAddr::V6(Ipv6Addr::from(u128::from(low)))
        } else {
            IpAddr::V4(Ipv4Addr::from(u32::from(low)))
        }
    }

    prop_compose! {
        fn range()(v6 in any::<bool>(), one in any::<u8>(), length in 0_u8..40) -> (IpAddr, IpAddr) {
            (address(v6, one), address(v6, one.saturating_add(length)))
        }
    }

    /// However many there are, a look-up visits those that it finds and no others.
    #[test]
    fn a_look_up_visits_what_it_finds_and_not_the_rest() {
        let at = |number: u32| IpAddr::V4(Ipv4Addr::from(number));
        let spans: Spans<u32> = (0..10_000)
            .map(|owner| Span {
                first: at(owner * 256),
                last: at(owner * 256 + 127),
                owner,
            })
            .collect();
        for (first, last, found) in [
            (5_000 * 256, 5_000 * 256 + 5, 1),
            (5_000 * 256 + 128, 5_000 * 256 + 255, 0),
            (5_000 * 256, 5_003 * 256, 4),
            (0, 0, 1),
            (u32::MAX, u32::MAX, 0),
        ] {
            let (first, last) = (at(first), at(last));
            assert_eq!(spans.overlapping(first, last).count(), found);
            assert_eq!(spans.looked_at(first, last).count(), found);
        }
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            ranges in prop::collection::vec(range(), 0..40),
            (first, last) in range(),
        ) {
            let spans: Spans<usize> = ranges
                .iter()
                .enumerate()
                .map(|(owner, &(first, last))| Span { first, last, owner })
                .collect();
            let mut found: Vec<usize> =
                spans.overlapping(first, last).map(|span| span.owner).collect();
            found.sort_unstable();
            let scanned: Vec<usize> = ranges
                .iter()
                .enumerate()
                .filter(|(_, range)| range.0 <= last && range.1 >= first)
                .map(|(owner, _)| owner)
                .collect();
            prop_assert_eq!(found, scanned);
        }
    }
}
