//! The hardware address of an Ethernet interface.

use std::{fmt, str::FromStr};

/// A 48-bit Ethernet address (EUI-48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The broadcast address, `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether this is a group (multicast or broadcast) address: it can receive, never send.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether every bit is zero, as on an interface without a hardware address.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, octet) in self.0.iter().enumerate() {
            let colon = if n == 0 { "" } else { ":" };
            write!(f, "{colon}{octet:02x}")?;
        }
        Ok(())
    }
}

/// The text is not six hexadecimal octets joined by colons.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a hardware address such as 02:00:5e:10:00:01")]
pub struct ParseMacError(String);

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseMacError(text.chars().take(40).collect());
        let octets = text
            .split(':')
            .map(|octet| (octet.len() == 2).then(|| u8::from_str_radix(octet, 16).ok())?)
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(wrong)?;
        octets.try_into().map(Self).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let mac: MacAddr = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        assert!(!mac.is_group());
        assert!(MacAddr::BROADCAST.is_group());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:1",
            "02:00:5e:10:00:zz",
            "é2:00:5e:10:00:01",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
