//! Which interface an address is answered on, as the user writes it.

use std::{fmt, net::IpAddr, str::FromStr};

/// A parsed interface expression.
///
/// Forms: empty or `auto` (automatic); `eth0`; a list `eth0,bond0` (the first usable one that is
/// present); a glob `eno*`, `ens?f0` (`*` and `?`; the first by name); `can_reach:192.0.2.1`
/// (the interface by which the host routes to that address, never loopback). List items may be
/// globs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterfaceChoice {
    /// The interface whose subnet holds the address, else the default route's.
    #[default]
    Auto,
    /// The first usable interface that one of these names or globs matches, in their order.
    Names(Vec<String>),
    /// The interface that the main routing table names for this address.
    CanReach(IpAddr),
}

/// The expression cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChoiceError {
    /// What follows `can_reach:` is no address.
    #[error("{0:?} after \"can_reach:\" is not an IP address")]
    Address(String),
    /// A name that no Linux interface can have.
    #[error("{0:?} is not an interface name: at most 15 characters, no space, slash or colon")]
    Name(String),
}

impl FromStr for InterfaceChoice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() || text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        if let Some(ip) = text.strip_prefix("can_reach:") {
            return ip
                .trim()
                .parse()
                .map(Self::CanReach)
                .map_err(|_| ChoiceError::Address(ip.to_owned()));
        }
        let names = text
            .split(',')
            .map(|name| {
                let name = name.trim();
                let fits = !name.is_empty()
                    && name.len() <= 15
                    && !name.contains(|c: char| c.is_whitespace() || c == '/' || c == ':');
                fits.then(|| name.to_owned())
                    .ok_or_else(|| ChoiceError::Name(name.to_owned()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self::Names(names))
    }
}

impl fmt::Display for InterfaceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Names(names) => f.write_str(&names.join(",")),
            Self::CanReach(ip) => write!(f, "can_reach:{ip}"),
        }
    }
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
    fn every_form_is_understood_and_written_back() {
        for text in [
            "auto",
            "eth0",
            "eth0,bond*",
            "can_reach:192.0.2.1",
            "can_reach:fd00::1",
        ] {
            assert_eq!(text.parse::<InterfaceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("".parse(), Ok(InterfaceChoice::Auto));
        assert_eq!(
            " eth0 , eth1 ".parse(),
            Ok(InterfaceChoice::Names(vec!["eth0".into(), "eth1".into()]))
        );
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for text in [
            "can_reach:hahah",
            "can_reach:",
            "haha:hahah",
            "eth0,",
            "a/b",
            "sixteencharacter",
        ] {
            assert!(text.parse::<InterfaceChoice>().is_err(), "{text}");
        }
    }

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
