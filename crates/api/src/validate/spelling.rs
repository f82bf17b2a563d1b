//! One spelling for addresses and what is made of them. The form stays as it was written (a range
//! stays a range, a CIDR keeps its host bits), so that nothing changes its meaning.

use std::net::IpAddr;

use crate::WrittenRange;

/// The canonical spelling of an IP address; `None` for what is none, or is canonical already.
pub(super) fn address(text: &str) -> Option<String> {
    let address: IpAddr = text.trim().parse().ok()?;
    Some(address.to_canonical().to_string()).filter(|canonical| canonical != text)
}

/// The canonical spelling of a comma-separated list of addresses, CIDRs and ranges; `None` for what
/// cannot be read, or is canonical already.
pub(super) fn ranges(text: &str) -> Option<String> {
    let parts: Option<Vec<String>> = text.split(',').map(range).collect();
    Some(parts?.join(",")).filter(|canonical| canonical != text)
}

fn range(part: &str) -> Option<String> {
    // What the parser refuses is left as it is, for the rules to refuse.
    part.parse::<WrittenRange>().ok()?;
    let canonical = |text: &str| {
        let address: IpAddr = text.trim().parse().ok()?;
        Some(address)
    };
    if let Some((address, length)) = part.split_once('/') {
        // A mapped address stays: its prefix length counts from another place.
        return Some(format!(
            "{}/{}",
            canonical(address)?,
            length.trim().parse::<u8>().ok()?
        ));
    }
    let end = |text| canonical(text).map(|address| address.to_canonical());
    if let Some((first, last)) = part.split_once('-') {
        return Some(format!("{}-{}", end(first)?, end(last)?));
    }
    end(part).map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_become_canonical_and_forms_stay() {
        for (text, canonical) in [
            (
                "192.0.2.1 , 192.0.2.8 - 192.0.2.9",
                "192.0.2.1,192.0.2.8-192.0.2.9",
            ),
            ("2001:DB8:0::/64", "2001:db8::/64"),
            ("192.0.2.77/024", "192.0.2.77/24"),
            ("192.0.2.0-192.0.2.255 ", "192.0.2.0-192.0.2.255"),
            ("::FFFF:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(ranges(text).as_deref(), Some(canonical), "{text}");
        }
        assert_eq!(ranges("192.0.2.1"), None);
        assert_eq!(ranges("192.0.2.1,x"), None);
        assert_eq!(address(" 2001:DB8::1"), Some("2001:db8::1".to_owned()));
        assert_eq!(address("x"), None);
    }

    /// A range as somebody may write it: any spelling, any spaces.
    fn written() -> impl Strategy<Value = String> {
        let space = || prop::sample::select(vec!["", " ", "  "]);
        let spelled = |address: IpAddr, style: u8| match (address, style % 3) {
            (IpAddr::V6(v6), 0) => {
                let groups = v6.segments().map(|group| format!("{group:04X}"));
                groups.join(":")
            }
            (IpAddr::V6(v6), 1) => v6.to_string().to_uppercase(),
            (address, _) => address.to_string(),
        };
        let form = (any::<IpAddr>(), any::<u8>(), any::<u8>(), any::<u8>());
        (form, space(), space()).prop_map(move |((address, style, more, form), before, after)| {
            let one = spelled(address, style);
            match (form % 3, address) {
                (0, _) => format!("{before}{one}{after}"),
                (1, IpAddr::V4(_)) => format!("{before}{one}/{}{after}", more % 33),
                (1, IpAddr::V6(_)) => format!("{before}{one}/{}{after}", more % 129),
                (_, IpAddr::V4(v4)) => {
                    let last = u32::from(v4).saturating_add(more.into());
                    format!(
                        "{before}{one}{after}-{before}{}",
                        std::net::Ipv4Addr::from(last)
                    )
                }
                (_, IpAddr::V6(v6)) => {
                    let last = u128::from(v6).saturating_add(more.into());
                    let last = std::net::Ipv6Addr::from(last).into();
                    format!("{one}{before}-{after}{}", spelled(last, more))
                }
            }
        })
    }

    proptest! {
        /// A second pass changes nothing, and the meaning stays.
        #[test]
        fn canonical_is_canonical(parts in prop::collection::vec(written(), 1..4)) {
            let text = parts.join(" ,");
            prop_assert!(text.split(',').all(|part| part.parse::<WrittenRange>().is_ok()), "{}", text);
            if let Some(canonical) = ranges(&text) {
                prop_assert_eq!(ranges(&canonical), None);
                let read = |text: &str| -> Vec<WrittenRange> {
                    text.split(',').map(|part| part.parse().unwrap()).collect()
                };
                prop_assert_eq!(read(&canonical), read(&text));
            }
        }
    }
}
