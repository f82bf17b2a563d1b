//! The TTL (hop limit) of what leaves, the smallest of what may arrive (RFC 5082), and what is said where the two
//! sides do not agree on them. The kernel drops what came too far without a word, so each side sees only silence.

use crate::config::Hops;
use crate::peer::Setup;

/// TTL of what leaves and the smallest of what may arrive.
pub(crate) fn limits(setup: &Setup) -> (Option<u8>, Option<u8>) {
    match setup.peer.hops {
        // RFC 4271 says nothing; external peers one hop away are the custom.
        Hops::Direct if setup.internal() == Some(false) => (Some(1), None),
        Hops::Direct => (None, None),
        Hops::Multihop(ttl) => (Some(ttl), None),
        Hops::Security(hops) => (Some(u8::MAX), Some(least(hops))),
    }
}

/// The smallest TTL of what comes from a peer at most so many hops away and left there with 255.
fn least(hops: u8) -> u8 {
    u8::MAX - hops.saturating_sub(1)
}

/// Why a connection is not let in whose first packet arrived with this TTL, if it is not.
pub(crate) fn refusal(hops: Hops, first: u8) -> Option<String> {
    let Hops::Security(hops) = hops else {
        return None;
    };
    let least = least(hops);
    (first < least).then(|| {
        format!(
            "refused a connection from the peer: its packets arrive with TTL {first}, and TTL security asks for \
             {least} at least: has the peer TTL security too, and is it at most {hops} hops away?"
        )
    })
}

/// What may be wrong where a connection is open and no OPEN arrives.
pub(crate) fn nothing_heard(hops: Hops) -> Option<String> {
    let Hops::Security(hops) = hops else {
        return None;
    };
    Some(format!(
        "nothing arrived with TTL {} or more, as TTL security asks for: has the peer TTL security too, and is it at \
         most {hops} hops away?",
        least(hops)
    ))
}

/// What may be wrong where the peer's OPEN arrives, but no answer to ours.
pub(crate) fn not_heard(hops: Hops) -> &'static str {
    match hops {
        Hops::Direct => {
            "the peer seems not to hear us: does it ask for TTL security, or is it more than one hop away?"
        }
        Hops::Multihop(_) => {
            "the peer seems not to hear us: does it ask for TTL security, or is it more hops away?"
        }
        Hops::Security(_) => {
            "the peer seems not to hear us: does it allow for as many hops as there are?"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_packet_from_too_far_is_refused_with_what_it_had() {
        assert_eq!(refusal(Hops::Security(1), 255), None);
        assert_eq!(refusal(Hops::Security(2), 254), None);
        let text = refusal(Hops::Security(1), 254).unwrap();
        assert!(text.contains("TTL 254") && text.contains("255"), "{text}");
    }

    #[test]
    fn without_ttl_security_nothing_is_refused() {
        for hops in [Hops::Direct, Hops::Multihop(3)] {
            assert_eq!(refusal(hops, 0), None);
        }
    }
}
