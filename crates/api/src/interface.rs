//! The text of `Eip.spec.interface`: on which interface of a node an address is answered.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Longest name of an interface in Linux (`IFNAMSIZ` less the final zero).
const LONGEST: usize = 15;

/// An interface expression that was understood.
///
/// Forms: nothing or `auto`; names and globs, separated by commas (`eth0`, `eth0,bond0`, `en*`, `ens?f0`);
/// `can_reach:192.0.2.1`. The text form is canonical.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interface {
    /// The interface whose subnet holds the address, else the default route's.
    #[default]
    Auto,
    /// The first usable interface that one of these names or globs (`*`, `?`) matches, in their order; never empty.
    Names(Vec<String>),
    /// The interface by which the node routes to this address, which is not a loopback one.
    CanReach(IpAddr),
}

/// Why a text is no interface expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceError {
    /// There is nothing between two commas.
    #[error("has an empty name; leave the field out to let the subnet decide")]
    Empty,
    /// Something else than `can_reach` stands before a colon, or `can_reach` stands in a list.
    #[error(
        "invalid interface string {0:?}, now only support can_reach:<ip>, alone, or names and globs separated by commas"
    )]
    Prefix(String),
    /// What follows `can_reach:` is no address.
    #[error("invalid can_reach address {0:?}, give an IP address")]
    Address(String),
    /// The loopback interface.
    #[error("invalid interface lo: nobody can reach it")]
    Loopback,
    /// A name that no Linux interface has.
    #[error("{0:?} is no interface name: it has a slash, a space or more than {LONGEST} letters")]
    Name(String),
}

impl FromStr for Interface {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() || text == "auto" {
            return Ok(Self::Auto);
        }
        if let Some(address) = text.strip_prefix("can_reach:") {
            let address = address.trim();
            let read: Result<IpAddr, _> = address.parse();
            return match read {
                Ok(ip) if ip.to_canonical().is_loopback() => Err(InterfaceError::Loopback),
                Ok(ip) => Ok(Self::CanReach(ip.to_canonical())),
                Err(_) if address.contains(',') => Err(InterfaceError::Prefix(shorten(text))),
                Err(_) => Err(InterfaceError::Address(shorten(address))),
            };
        }
        let names: Result<_, _> = text.split(',').map(|name| pattern(name.trim())).collect();
        names.map(Self::Names)
    }
}

/// A name or a glob.
fn pattern(text: &str) -> Result<String, InterfaceError> {
    let is_odd = |letter: char| letter == '/' || letter.is_whitespace() || letter.is_control();
    // A star may stand for nothing.
    let length = text.bytes().filter(|letter| *letter != b'*').count();
    if text.is_empty() {
        Err(InterfaceError::Empty)
    } else if text.contains(':') {
        Err(InterfaceError::Prefix(shorten(text)))
    } else if text == "lo" {
        Err(InterfaceError::Loopback)
    } else if length > LONGEST || text.contains(is_odd) {
        Err(InterfaceError::Name(shorten(text)))
    } else {
        Ok(text.to_owned())
    }
}

/// At most 64 characters of a text, for messages.
fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Names(names) => f.write_str(&names.join(",")),
            Self::CanReach(ip) => write!(f, "can_reach:{ip}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Interface, String> {
        text.parse()
            .map_err(|error: InterfaceError| error.to_string())
    }

    #[test]
    fn every_form_is_understood() {
        let names = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned());
            Ok(Interface::Names(names.collect()))
        };
        assert_eq!(read(""), Ok(Interface::Auto));
        assert_eq!(read(" auto "), Ok(Interface::Auto));
        assert_eq!(read("eth0.100"), names(&["eth0.100"]));
        assert_eq!(read("eth0, bond*"), names(&["eth0", "bond*"]));
        assert_eq!(read("*abcdefghijklmno"), names(&["*abcdefghijklmno"]));
        let reach = |ip: &str| Ok(Interface::CanReach(ip.parse().unwrap()));
        assert_eq!(read("can_reach:192.0.2.1"), reach("192.0.2.1"));
        assert_eq!(read("can_reach:2001:db8::1"), reach("2001:db8::1"));
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        for (text, reason) in [
            (",", "empty name"),
            ("eth0,,eth1", "empty name"),
            ("lo", "invalid interface lo"),
            ("eth0,lo", "invalid interface lo"),
            ("can_reach:127.0.0.1", "invalid interface lo"),
            ("can_reach:hahah", "invalid can_reach address"),
            ("can_reach:", "invalid can_reach address"),
            ("haha:hahah", "now only support can_reach"),
            ("eth0,can_reach:192.0.2.1", "now only support can_reach"),
            ("can_reach:192.0.2.1,eth0", "now only support can_reach"),
            ("a/b", "is no interface name"),
            ("a b", "is no interface name"),
            ("sixteencharacter", "more than 15 letters"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(text in "(auto|can_reach:)?[a-z0-9*?:., /]{0,24}") {
            if let Ok(interface) = text.parse::<Interface>() {
                prop_assert_eq!(interface.to_string().parse(), Ok(interface));
            }
        }

        #[test]
        fn no_text_is_too_much(text in ".{0,200}") {
            let _ = text.parse::<Interface>();
        }
    }
}
