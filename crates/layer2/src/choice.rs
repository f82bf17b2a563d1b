//! Which interface an address is answered on.

use std::net::IpAddr;

/// Which interface an address is answered on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterfaceChoice {
    /// The interface whose subnet holds the address, else the default route's.
    #[default]
    Auto,
    /// The first usable interface that one of these names or globs (`eno*`, `ens?f0`) matches, in
    /// their order; of several that a glob matches, the first by name.
    Names(Vec<String>),
    /// The interface that the main routing table names for this address; never loopback.
    CanReach(IpAddr),
}

/// Whether `name` matches `pattern`, where `*` stands for any text and `?` for one character.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // `reach[n]`: the pattern read so far matches the first n characters of the name.
    let mut reach = vec![false; name.len() + 1];
    if let Some(first) = reach.first_mut() {
        *first = true;
    }
    for p in pattern {
        let mut next = vec![false; name.len() + 1];
        let mut any = false;
        for (n, slot) in next.iter_mut().enumerate() {
            let here = reach.get(n).copied().unwrap_or_default();
            any |= here;
            let before = n.checked_sub(1);
            *slot = match p {
                '*' => any,
                _ => before.is_some_and(|b| {
                    reach.get(b).copied().unwrap_or_default()
                        && (p == '?' || name.get(b) == Some(&p))
                }),
            };
        }
        reach = next;
    }
    reach.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs_match_whole_names() {
        assert!(matches("eno*", "eno1"));
        assert!(matches("eno*", "eno"));
        assert!(matches("e?h*", "eth0.100"));
        assert!(!matches("eno", "eno1"));
        assert!(!matches("?", ""));
        assert!(matches("*a*b*", "xxaxxbxx"));
    }

    proptest! {
        #[test]
        fn a_name_without_wildcards_matches_itself_only(a in "[a-z0-9]{1,8}", b in "[a-z0-9]{1,8}") {
            prop_assert_eq!(matches(&a, &b), a == b);
            prop_assert!(matches("*", &b));
            let prefix = format!("{}*", &b[..1]);
            prop_assert!(matches(&prefix, &b));
        }
    }
}
