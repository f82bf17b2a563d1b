//! Labels and selectors, kept in ten thousands: as small as they can be.

use std::collections::BTreeMap;

/// Keys with their values, in order of the keys. Takes a tenth of the memory of a map of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pairs(Box<[(Box<str>, Box<str>)]>);

impl Pairs {
    /// The same as a map.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let pairs = self.0.iter();
        pairs
            .map(|(key, value)| ((**key).to_owned(), (**value).to_owned()))
            .collect()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Pairs {
    /// Of a key that comes twice the last value counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let map: BTreeMap<Box<str>, Box<str>> = pairs
            .into_iter()
            .map(|(key, value)| (key.as_ref().into(), value.as_ref().into()))
            .collect();
        Self(map.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_the_last_of_a_key_counts() {
        let one: Pairs = [("b", "2"), ("a", "1")].into_iter().collect();
        let other: Pairs = [("a", "0"), ("a", "1"), ("b", "2")].into_iter().collect();
        assert_eq!(one, other);
        assert_eq!(one.to_map().len(), 2);
    }
}
