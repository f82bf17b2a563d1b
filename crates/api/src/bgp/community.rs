//! Communities: plain (RFC 1997), large (RFC 8092) and extended (RFC 4360).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The well-known communities and their names (RFC 1997, RFC 7999, RFC 8326).
const WELL_KNOWN: [(u32, &str); 5] = [
    (0xffff_0000, "graceful-shutdown"),
    (0xffff_029a, "blackhole"),
    (0xffff_ff01, "no-export"),
    (0xffff_ff02, "no-advertise"),
    (0xffff_ff03, "local-as"),
];

/// A community, written `65000:100` or by its well-known name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

/// A large community, written `65000:1:2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// The AS that gives the others a meaning.
    pub administrator: u32,
    /// First local part.
    pub first: u32,
    /// Second local part.
    pub second: u32,
}

/// An extended community as its eight octets; written `rt:65000:100`, `soo:192.0.2.1:100`, or `0x` with 16 hexadecimal
/// digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub u64);

/// The text is no community of its sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {0}")]
pub struct CommunityError(&'static str);

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = WELL_KNOWN
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text));
        let parts = || {
            let (high, low) = text.split_once(':')?;
            Some(u32::from(number::<u16>(high)?) << 16 | u32::from(number::<u16>(low)?))
        };
        known
            .map(|(bits, _)| *bits)
            .or_else(parts)
            .map(Self)
            .ok_or(CommunityError(
                "two numbers up to 65535, such as 65000:100, or graceful-shutdown, blackhole, no-export, no-advertise or local-as",
            ))
    }
}

impl FromStr for LargeCommunity {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':').map(number);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(administrator)), Some(Some(first)), Some(Some(second)), None) => Ok(Self {
                administrator,
                first,
                second,
            }),
            _ => Err(CommunityError(
                "three numbers up to 4294967295, such as 65000:1:2",
            )),
        }
    }
}

impl FromStr for ExtendedCommunity {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        extended(text).map(Self).ok_or(CommunityError(
            "rt:ADMIN:NUMBER or soo:ADMIN:NUMBER, with an AS number or IPv4 address as ADMIN, or 0x with 16 hexadecimal digits",
        ))
    }
}

/// Only digits: Rust's own parser would take a sign too.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn extended(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x") {
        let is_hex = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        return is_hex
            .then(|| u64::from_str_radix(digits, 16).ok())
            .flatten();
    }
    let (sort, rest) = text.split_once(':')?;
    let subtype: u64 = match sort {
        "rt" => 2,
        "soo" => 3,
        _ => return None,
    };
    let (administrator, local) = rest.split_once(':')?;
    // The type octet says how the six value octets are shared: 0 is a 2-octet AS and 4 octets, 1 an IPv4 address and 2,
    // 2 a 4-octet AS and 2 (RFC 4360 §3, RFC 5668).
    let (kind, value) = if let Ok(address) = administrator.parse::<Ipv4Addr>() {
        (
            1,
            u64::from(address.to_bits()) << 16 | u64::from(number::<u16>(local)?),
        )
    } else if let Some(short) = number::<u16>(administrator) {
        (0, u64::from(short) << 32 | u64::from(number::<u32>(local)?))
    } else {
        let long = u64::from(number::<u32>(administrator)?);
        (2, long << 16 | u64::from(number::<u16>(local)?))
    };
    Some(kind << 56 | subtype << 48 | value)
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match WELL_KNOWN.iter().find(|(bits, _)| *bits == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.administrator, self.first, self.second)
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn communities_are_the_octets_on_the_wire() {
        let bits = |text: &str| text.parse::<Community>().map(|one| one.0);
        assert_eq!(bits("65000:100"), Ok(0xfde8_0064));
        assert_eq!(bits("NO-EXPORT"), Ok(0xffff_ff01));
        for wrong in ["65536:1", "1:65536", "+1:2", "1", "1:2:3", "", "no-exports"] {
            assert!(bits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn extended_communities_have_the_type_that_fits_their_administrator() {
        let bits = |text: &str| text.parse::<ExtendedCommunity>().map(|one| one.0);
        assert_eq!(bits("rt:65000:100"), Ok(0x0002_fde8_0000_0064));
        assert_eq!(bits("soo:192.0.2.1:100"), Ok(0x0103_c000_0201_0064));
        assert_eq!(bits("rt:4200000000:100"), Ok(0x0202_fa56_ea00_0064));
        assert_eq!(bits("0x0002fde800000064"), Ok(0x0002_fde8_0000_0064));
        for wrong in [
            "rt:4200000000:65536",
            "rt:1",
            "red:1:2",
            "0x12",
            "0x+002fde800000064",
            "rt:1:2:3",
        ] {
            assert!(bits(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(bits: u32, large: (u32, u32, u32), octets: u64) {
            let community = Community(bits);
            prop_assert_eq!(community.to_string().parse(), Ok(community));
            let (administrator, first, second) = large;
            let large = LargeCommunity { administrator, first, second };
            prop_assert_eq!(large.to_string().parse(), Ok(large));
            let extended = ExtendedCommunity(octets);
            prop_assert_eq!(extended.to_string().parse(), Ok(extended));
        }
    }
}
