//! The text of `Eip.spec.interface`.

use std::net::IpAddr;

/// Longest name of an interface in Linux (`IFNAMSIZ` less the final zero).
const LONGEST: usize = 15;

/// What is wrong with an `interface` text, if anything: a comma-separated list of interface names,
/// globs, and `can_reach:<ip>`.
pub(super) fn problem(text: &str) -> Option<String> {
    text.split(',').map(str::trim).find_map(part_problem)
}

fn part_problem(part: &str) -> Option<String> {
    if part.is_empty() {
        return Some("has an empty name; leave the field out to let the subnet decide".to_owned());
    }
    if let Some((prefix, address)) = part.split_once(':') {
        if prefix != "can_reach" {
            return Some(format!(
                "invalid interface string {part:?}, now only support can_reach:<ip>"
            ));
        }
        return match address.trim().parse::<IpAddr>() {
            Ok(ip) if ip.is_loopback() => {
                Some(format!("{part:?} leads to the invalid interface lo"))
            }
            Ok(_) => None,
            Err(_) => Some(format!(
                "invalid can_reach address {address:?}, give an IP address"
            )),
        };
    }
    if part == "lo" {
        return Some("invalid interface lo: nobody can reach it".to_owned());
    }
    let is_glob = part.contains(['*', '?', '[']);
    if part
        .chars()
        .any(|letter| letter == '/' || letter.is_whitespace() || letter.is_control())
    {
        return Some(format!(
            "{part:?} is no interface name: it has a slash or a space"
        ));
    }
    if !is_glob && part.len() > LONGEST {
        return Some(format!(
            "{part:?} is no interface name: it has more than {LONGEST} letters"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_globs_lists_and_can_reach_are_accepted() {
        for text in [
            "eth0",
            "eth0, eth1",
            "bond*",
            "en[op]?",
            "can_reach:192.0.2.1",
            "eth0.100",
        ] {
            assert_eq!(problem(text), None, "{text}");
        }
        assert_eq!(problem("eth0,can_reach:2001:db8::1"), None);
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "empty name"),
            ("eth0,,eth1", "empty name"),
            ("lo", "invalid interface lo"),
            ("can_reach:127.0.0.1", "invalid interface lo"),
            ("can_reach:hahah", "invalid can_reach address"),
            ("haha:hahah", "now only support can_reach"),
            ("a/b", "a slash or a space"),
            ("averyveryverylongname", "more than 15 letters"),
        ] {
            assert!(problem(text).unwrap().contains(reason), "{text}");
        }
    }
}
