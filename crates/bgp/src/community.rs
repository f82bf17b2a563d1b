//! Communities: plain, large and extended.

use std::fmt;
use std::str::FromStr;

/// A community (RFC 1997), written `65000:100` or by its well-known name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Planned maintenance: prefer other paths (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
    /// Drop traffic for the prefix (RFC 7999).
    pub const BLACKHOLE: Self = Self(0xffff_029a);
    /// Do not announce beyond the AS (RFC 1997).
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// Do not announce to any peer (RFC 1997).
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// Do not announce to external peers (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);
}

const WELL_KNOWN: [(Community, &str); 5] = [
    (Community::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
    (Community::BLACKHOLE, "blackhole"),
    (Community::NO_EXPORT, "no-export"),
    (Community::NO_ADVERTISE, "no-advertise"),
    (Community::NO_EXPORT_SUBCONFED, "local-as"),
];

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

/// A large community (RFC 8092), written `65000:1:2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// Global administrator: an AS number.
    pub global: u32,
    /// First local part.
    pub local1: u32,
    /// Second local part.
    pub local2: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

/// An extended community (RFC 4360), as its eight octets in network order;
/// read from `rt:65000:100`, `soo:65000:100` (RFC 4360, RFC 5668, RFC 4360
/// §3.2 for an IPv4 administrator) or `0x` with 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub u64);

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// Text that is no community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}: write it as {form}")]
pub struct CommunityError {
    text: String,
    kind: &'static str,
    form: &'static str,
}

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((community, _)) = WELL_KNOWN
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text))
        {
            return Ok(*community);
        }
        let parts = text.split_once(':').and_then(|(high, low)| {
            let (high, low): (u16, u16) = (high.parse().ok()?, low.parse().ok()?);
            Some(u32::from(high) << 16 | u32::from(low))
        });
        parts.map(Self).ok_or_else(|| CommunityError {
            text: text.to_owned(),
            kind: "community",
            form: "0-65535:0-65535 or a well-known name such as no-export",
        })
    }
}

impl FromStr for LargeCommunity {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':').map(|part| part.parse::<u32>().ok());
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(global)), Some(Some(local1)), Some(Some(local2)), None) => Ok(Self {
                global,
                local1,
                local2,
            }),
            _ => Err(CommunityError {
                text: text.to_owned(),
                kind: "large community",
                form: "three numbers up to 4294967295, such as 65000:1:2",
            }),
        }
    }
}

impl FromStr for ExtendedCommunity {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_extended(text)
            .map(Self)
            .ok_or_else(|| CommunityError {
                text: text.to_owned(),
                kind: "extended community",
                form: "rt:ADMIN:NUMBER, soo:ADMIN:NUMBER or 0x with 16 hexadecimal digits",
            })
    }
}

fn parse_extended(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x") {
        return (digits.len() == 16)
            .then(|| u64::from_str_radix(digits, 16).ok())
            .flatten();
    }
    let mut parts = text.split(':');
    // Routers and GoBGP's policies write them in both cases.
    let subtype: u64 = match parts.next()?.to_ascii_lowercase().as_str() {
        "rt" => 2,
        "soo" => 3,
        _ => return None,
    };
    let (admin, number) = (parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    // The type octet says how the six value octets are shared: 0 is a 2-byte
    // AS and 4 bytes, 1 an IPv4 address and 2 bytes, 2 a 4-byte AS and 2.
    if let Ok(admin) = admin.parse::<std::net::Ipv4Addr>() {
        let number: u16 = number.parse().ok()?;
        let value = u64::from(u32::from(admin)) << 16 | u64::from(number);
        return Some(1 << 56 | subtype << 48 | value);
    }
    if let Ok(admin) = admin.parse::<u16>() {
        let number: u32 = number.parse().ok()?;
        return Some(subtype << 48 | u64::from(admin) << 32 | u64::from(number));
    }
    let admin: u32 = admin.parse().ok()?;
    let number: u16 = number.parse().ok()?;
    Some(2 << 56 | subtype << 48 | u64::from(admin) << 16 | u64::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_communities_parse_by_number_and_name() {
        assert_eq!("65000:100".parse(), Ok(Community(0xfde8_0064)));
        assert_eq!("no-export".parse(), Ok(Community::NO_EXPORT));
        assert_eq!(
            "GRACEFUL-SHUTDOWN".parse(),
            Ok(Community::GRACEFUL_SHUTDOWN)
        );
        for text in ["", "1", "65536:1", "1:65536", "1:2:3", "a:b"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
        assert_eq!(Community(0xfde8_0064).to_string(), "65000:100");
    }

    #[test]
    fn large_communities_need_three_numbers() {
        let large = LargeCommunity {
            global: 4_200_000_000,
            local1: 1,
            local2: 2,
        };
        assert_eq!("4200000000:1:2".parse(), Ok(large));
        assert_eq!(large.to_string(), "4200000000:1:2");
        for text in ["", "1:2", "1:2:3:4", "1:2:4294967296"] {
            assert!(text.parse::<LargeCommunity>().is_err(), "{text}");
        }
    }

    #[test]
    fn extended_communities_take_the_form_their_administrator_needs() {
        for (text, octets) in [
            ("rt:65000:100", 0x0002_fde8_0000_0064),
            ("rt:192.0.2.1:7", 0x0102_c000_0201_0007),
            ("RT:65000:100", 0x0002_fde8_0000_0064),
            ("soo:4200000000:7", 0x0203_fa56_ea00_0007),
            ("0x0002fde800000064", 0x0002_fde8_0000_0064),
        ] {
            assert_eq!(text.parse(), Ok(ExtendedCommunity(octets)), "{text}");
        }
        for text in ["rt:1", "x:1:2", "rt:4200000000:65536", "0x12", "rt:1:2:3"] {
            assert!(text.parse::<ExtendedCommunity>().is_err(), "{text}");
        }
    }
}
