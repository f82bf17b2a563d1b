//! Which of two connections with a peer stays (RFC 4271 §6.8, RFC 6286).

use std::net::Ipv4Addr;

/// One side of a session: identifier and AS number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Speaker {
    pub router_id: Ipv4Addr,
    pub asn: u32,
}

/// Whether the connection that the peer opened stays, rather than ours: the
/// side with the higher identifier keeps its own; with equal identifiers (of
/// different AS) the higher AS number decides. Both sides come to the same
/// connection.
pub(crate) fn inbound_stays(local: Speaker, remote: Speaker) -> bool {
    local < remote
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_sides_keep_the_same_connection(ids: (u32, u32), asns: (u32, u32)) {
            let a = Speaker { router_id: ids.0.into(), asn: asns.0 };
            let b = Speaker { router_id: ids.1.into(), asn: asns.1 };
            prop_assume!(a != b);
            // What is inbound for one is outgoing for the other.
            prop_assert_ne!(inbound_stays(a, b), inbound_stays(b, a));
        }
    }

    #[test]
    fn identifiers_compare_as_numbers() {
        let low = Speaker {
            router_id: Ipv4Addr::new(9, 0, 0, 1),
            asn: 1,
        };
        let high = Speaker {
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            asn: 1,
        };
        assert!(inbound_stays(low, high));
    }
}
