//! ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861) frames: bytes to meaning and back.
//!
//! Pure. Parsing never panics, allocates nothing and refuses what the RFCs tell a receiver to
//! refuse: hop limits other than 255, wrong checksums, group addresses as senders.

mod read;
mod write;

use std::net::{IpAddr, Ipv6Addr};

use openelb_net::MacAddr;

pub(crate) use read::parse;
pub(crate) use write::{announcement, answer, any_ndp, probe};

/// What a frame says. A single ARP request both claims its sender's address and asks for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// "`ip` is at `mac`".
    pub(crate) claim: Option<(IpAddr, MacAddr)>,
    /// "Who has `ip`?"
    pub(crate) ask: Option<Ask>,
}

/// A request for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The address asked for.
    pub(crate) ip: IpAddr,
    /// Who asks.
    pub(crate) mac: MacAddr,
    /// The address it asks from; `None` for a probe (RFC 5227 §2.1.1, RFC 4862 §5.4.2), which
    /// wants the address for itself.
    pub(crate) from: Option<IpAddr>,
}

/// The frame is neither ARP nor neighbour discovery, or violates them.
#[derive(Debug, thiserror::Error)]
#[error("no valid ARP or neighbour discovery frame")]
pub(crate) struct FrameError;

/// Which operation a gratuitous ARP uses; some devices heed only one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// RFC 5227's ARP Announcement.
    Request,
    /// The gratuitous reply.
    Reply,
}

/// The solicited-node multicast address of `ip` (RFC 4291 §2.7.1).
pub(crate) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = ip.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

/// The Ethernet address of an IPv6 group (RFC 2464 §7).
pub(crate) fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use etherparse::Icmpv6Type;
    use proptest::prelude::*;

    use super::{write::ndp, *};

    const ME: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const YOU: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: String = hex.split_whitespace().collect();
        (0..hex.len())
            .step_by(2)
            .map(|n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn an_arp_request_is_answered_byte_for_byte() {
        let request = bytes(
            "ffffffffffff 020000000002 0806 0001 0800 06 04 0001
             020000000002 0a000001 000000000000 0a000064 000000000000000000000000000000000000",
        );
        let message = parse(&request).unwrap();
        assert_eq!(message.claim, Some(("10.0.0.1".parse().unwrap(), YOU)));
        let ask = message.ask.unwrap();
        assert_eq!(ask.ip, "10.0.0.100".parse::<IpAddr>().unwrap());
        assert_eq!(
            answer(ME, &ask),
            bytes(
                "020000000002 020000000001 0806 0001 0800 06 04 0002
                 020000000001 0a000064 020000000002 0a000001"
            )
        );
    }

    #[test]
    fn an_arp_probe_claims_nothing_and_is_answered_to_its_sender() {
        let ip = "10.0.0.100".parse().unwrap();
        let message = parse(&probe(YOU, ip)).unwrap();
        assert_eq!(message.claim, None);
        let ask = message.ask.unwrap();
        assert_eq!(
            ask,
            Ask {
                ip,
                mac: YOU,
                from: None
            }
        );
        assert_eq!(
            answer(ME, &ask),
            bytes(
                "020000000002 020000000001 0806 0001 0800 06 04 0002
                 020000000001 0a000064 020000000002 00000000"
            )
        );
    }

    #[test]
    fn gratuitous_arp_has_both_forms() {
        let ip = "10.0.0.100".parse().unwrap();
        assert_eq!(
            announcement(ME, ip, Form::Request),
            bytes(
                "ffffffffffff 020000000001 0806 0001 0800 06 04 0001
                 020000000001 0a000064 000000000000 0a000064"
            )
        );
        assert_eq!(
            announcement(ME, ip, Form::Reply),
            bytes(
                "ffffffffffff 020000000001 0806 0001 0800 06 04 0002
                 020000000001 0a000064 ffffffffffff 0a000064"
            )
        );
        for form in [Form::Request, Form::Reply] {
            let message = parse(&announcement(ME, ip, form)).unwrap();
            assert_eq!(
                message,
                Message {
                    claim: Some((ip, ME)),
                    ask: None
                }
            );
        }
    }

    /// A solicitation as a Linux kernel sends it, with the source link-layer option.
    fn solicitation(source: &str, with_option: bool) -> Vec<u8> {
        let ip: Ipv6Addr = "fd00:10::100".parse().unwrap();
        let mut body = ip.octets().to_vec();
        if with_option {
            body.extend_from_slice(&[1, 1]);
            body.extend_from_slice(&YOU.0);
        }
        let group = solicited_node(ip);
        let kind = Icmpv6Type::NeighborSolicitation;
        ndp(
            YOU,
            group_mac(group),
            source.parse().unwrap(),
            group,
            kind,
            &body,
        )
    }

    #[test]
    fn a_solicitation_is_answered_with_and_without_its_option() {
        for with_option in [true, false] {
            let ask = parse(&solicitation("fd00:10::1", with_option))
                .unwrap()
                .ask
                .unwrap();
            assert_eq!(ask.mac, YOU);
            let reply = answer(ME, &ask);
            // Solicited and Override set, Router not; to the asker alone, hop limit 255.
            assert_eq!(reply[..6], YOU.0);
            assert_eq!(reply[21], 255);
            assert_eq!(reply[54], 136);
            assert_eq!(reply[58], 0b0110_0000);
            assert_eq!(parse(&reply).unwrap().claim, Some((ask.ip, ME)));
        }
    }

    #[test]
    fn the_answer_to_duplicate_address_detection_goes_to_all_nodes_unsolicited() {
        let ask = parse(&solicitation("::", false)).unwrap().ask.unwrap();
        assert_eq!(ask.from, None);
        let reply = answer(ME, &ask);
        assert_eq!(reply[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(reply[58], 0b0010_0000, "override without solicited");
    }

    #[test]
    fn what_the_rfcs_refuse_is_refused() {
        assert!(
            parse(&solicitation("::", true)).is_err(),
            "a probe with a source option"
        );
        let mut routed = solicitation("fd00:10::1", true);
        routed[21] = 254;
        assert!(
            parse(&routed).is_err(),
            "a solicitation from beyond a router"
        );
        let mut wrong = solicitation("fd00:10::1", true);
        wrong[57] ^= 1;
        assert!(parse(&wrong).is_err(), "a wrong checksum");
        let mut group = announcement(ME, "10.0.0.100".parse().unwrap(), Form::Request);
        group[22] |= 1;
        assert!(parse(&group).is_err(), "a group address as sender");
    }

    #[test]
    fn the_solicited_node_group_has_the_last_24_bits() {
        let group = solicited_node("2001:db8::12ab:cdef".parse().unwrap());
        assert_eq!(group, "ff02::1:ffab:cdef".parse::<Ipv6Addr>().unwrap());
        assert_eq!(
            group_mac(group),
            MacAddr([0x33, 0x33, 0xff, 0xab, 0xcd, 0xef])
        );
    }

    proptest! {
        #[test]
        fn own_frames_are_understood(v4 in 1..u32::MAX, v6 in 1..(0xff_u128 << 120)) {
            for ip in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                let claim = parse(&announcement(ME, ip, Form::Reply)).unwrap().claim;
                prop_assert_eq!(claim, Some((ip, ME)));
                let ask = parse(&probe(ME, ip)).unwrap().ask;
                prop_assert_eq!(ask, Some(Ask { ip, mac: ME, from: None }));
            }
        }

        #[test]
        fn damaged_frames_never_panic(at in 0_usize..90, bit in 0_u8..8, cut in 0_usize..90) {
            let frames = [
                solicitation("fd00:10::1", true),
                announcement(ME, "10.0.0.1".parse().unwrap(), Form::Request),
            ];
            for mut frame in frames {
                let at = at % frame.len();
                frame[at] ^= 1 << bit;
                frame.truncate(cut);
                let _ = parse(&frame);
            }
        }
    }
}
