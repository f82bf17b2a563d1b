//! Ranges as users write them, and what is wrong with a text that is none.

use std::net::IpAddr;
use std::str::FromStr;

use super::{AddressRange, Family};

/// A range with what is worth saying about the way it was written.
///
/// Forms: an address, a CIDR, or `first-last`; spaces around the parts are ignored. An IPv4-mapped IPv6 address is the
/// IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenRange {
    /// The addresses meant.
    pub range: AddressRange,
    /// It was written as a CIDR.
    pub cidr: bool,
    /// It was written as a CIDR with host bits set, as in `192.0.2.1/24`. The range is the network's.
    pub misaligned: bool,
}

impl FromStr for WrittenRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RangeError::Empty);
        }
        if let Some((address, length)) = text.split_once('/') {
            return cidr(address.trim(), length.trim());
        }
        let range = match text.split_once('-') {
            Some((first, last)) => ends(address(first.trim())?, address(last.trim())?)?,
            None => address(text)?.into(),
        };
        Ok(Self {
            range,
            cidr: false,
            misaligned: false,
        })
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    /// Reads one of the forms of [`WrittenRange`], and forgets how it was written.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|written: WrittenRange| written.range)
    }
}

/// Reads an address.
fn address(text: &str) -> Result<IpAddr, RangeError> {
    text.parse()
        .map(|address: IpAddr| address.to_canonical())
        .map_err(|_| RangeError::Address(shorten(text)))
}

/// Makes a range of its ends.
fn ends(first: IpAddr, last: IpAddr) -> Result<AddressRange, RangeError> {
    AddressRange::new(first, last).ok_or_else(|| {
        if Family::of(first) == Family::of(last) {
            RangeError::Reversed { first, last }
        } else {
            RangeError::Mixed { first, last }
        }
    })
}

/// Reads a CIDR.
fn cidr(written: &str, length: &str) -> Result<WrittenRange, RangeError> {
    let raw: IpAddr = written
        .parse()
        .map_err(|_| RangeError::Address(shorten(written)))?;
    let bits = Family::of(raw).bits();
    let wrong = || RangeError::Length {
        length: shorten(length),
        bits,
    };
    // Only digits: Rust's parser would take a sign too.
    if !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let length = length.parse().map_err(|_| wrong())?;
    if length > bits {
        return Err(wrong());
    }
    let (start, length) = match (raw.to_canonical(), raw) {
        (mapped @ IpAddr::V4(_), IpAddr::V6(_)) if length >= 96 => (mapped, length - 96),
        _ => (raw, length),
    };
    let range = AddressRange::network(start, length);
    Ok(WrittenRange {
        range,
        cidr: true,
        misaligned: range.first() != start,
    })
}

/// At most 64 characters of a text, for messages.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Why a text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// There is nothing between two commas, or nothing at all.
    #[error("is empty where an address, a CIDR or a range first-last is expected")]
    Empty,
    /// A part is no IP address.
    #[error("contains {0:?}, which is no IP address")]
    Address(String),
    /// What follows the slash is no prefix length.
    #[error("has the prefix length {length:?}, allowed is 0 to {bits}")]
    Length {
        /// What was written.
        length: String,
        /// The longest of the family.
        bits: u8,
    },
    /// The range ends before it starts.
    #[error("ends below its start: write {last}-{first}")]
    Reversed {
        /// The start as written.
        first: IpAddr,
        /// The end as written.
        last: IpAddr,
    },
    /// The ends are of two families.
    #[error(
        "goes from {first} to {last}, which are of different families: write two ranges, separated by a comma"
    )]
    Mixed {
        /// The start as written.
        first: IpAddr,
        /// The end as written.
        last: IpAddr,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn the_forms_of_openelb_mean_what_they_did() {
        for (text, first, size) in [
            ("192.168.0.1", "192.168.0.1", 1),
            ("192.168.0.1/24", "192.168.0.0", 256),
            ("192.168.0.1-192.168.0.100", "192.168.0.1", 100),
            (" 192.168.0.1 - 192.168.0.100 ", "192.168.0.1", 100),
            ("192.168.0.1-192.168.0.1", "192.168.0.1", 1),
            ("2001:db8::/120", "2001:db8::", 256),
            ("0.0.0.0/0", "0.0.0.0", 1 << 32),
            ("::ffff:192.0.2.1", "192.0.2.1", 1),
            ("::ffff:192.0.2.0/120", "192.0.2.0", 256),
        ] {
            assert_eq!(range(text).first().to_string(), first, "{text}");
            assert_eq!(range(text).size(), size, "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_remedy() {
        for (text, message) in [
            (
                "192.168.0.100-192.168.0.1",
                "ends below its start: write 192.168.0.1-192.168.0.100",
            ),
            ("xxxx", "contains \"xxxx\", which is no IP address"),
            (
                "10.0.0.1-10.0.0.2-10.0.0.3",
                "contains \"10.0.0.2-10.0.0.3\", which is no IP address",
            ),
            (
                "10.0.0.0/33",
                "has the prefix length \"33\", allowed is 0 to 32",
            ),
            (
                "10.0.0.0/+8",
                "has the prefix length \"+8\", allowed is 0 to 32",
            ),
            (
                "10.0.0.0/",
                "has the prefix length \"\", allowed is 0 to 32",
            ),
            ("10.0.0/24", "contains \"10.0.0\", which is no IP address"),
            (
                "10.0.0.1-::1",
                "goes from 10.0.0.1 to ::1, which are of different families: write two ranges, separated by a comma",
            ),
            (
                " ",
                "is empty where an address, a CIDR or a range first-last is expected",
            ),
        ] {
            assert_eq!(
                text.parse::<AddressRange>().unwrap_err().to_string(),
                message
            );
        }
    }

    #[test]
    fn a_misaligned_cidr_is_noticed() {
        let written: WrittenRange = "192.0.2.1/24".parse().unwrap();
        assert!(written.misaligned);
        assert_eq!(written.range.to_string(), "192.0.2.0/24");
        assert!(!"192.0.2.0/24".parse::<WrittenRange>().unwrap().misaligned);
        assert!(
            !"::ffff:192.0.2.0/120"
                .parse::<WrittenRange>()
                .unwrap()
                .misaligned
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9a-f:./ -]{0,40}|.{0,40}") {
            let _ = text.parse::<AddressRange>();
        }
    }
}
