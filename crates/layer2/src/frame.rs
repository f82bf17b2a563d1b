//! ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861) frames: bytes to meaning and back.
//!
//! Pure. Parsing never panics, allocates nothing and refuses what the RFCs tell a receiver to
//! refuse: hop limits other than 255, wrong checksums, group addresses as senders.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header, Icmpv6Type, IpNumber, Ipv6Header,
    NetSlice, SlicedPacket, TransportSlice,
    icmpv6::{Icmpv6PayloadSlice, NdpOptionSlice, NeighborAdvertisementHeader},
};
use openelb_net::MacAddr;

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

/// Reads a whole Ethernet frame.
pub(crate) fn parse(frame: &[u8]) -> Result<Message, FrameError> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|_| FrameError)?;
    match (&packet.net, &packet.transport) {
        (Some(NetSlice::Arp(arp)), _) => {
            let arp = arp.to_packet().try_eth_ipv4().map_err(|_| FrameError)?;
            parse_arp(&arp)
        }
        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
            let header = ip.header();
            let (source, target) = (header.source(), header.destination());
            let genuine = header.hop_limit() == 255
                && icmp.code_u8() == 0
                && icmp.is_checksum_valid(source, target);
            let sender = match &packet.link {
                Some(etherparse::LinkSlice::Ethernet2(link)) => sender(link.source())?,
                _ => return Err(FrameError),
            };
            if !genuine {
                return Err(FrameError);
            }
            let payload = icmp.payload_slice().map_err(|_| FrameError)?;
            parse_ndp(&payload, source.into(), sender)
        }
        _ => Err(FrameError),
    }
}

fn parse_arp(arp: &ArpEthIpv4Packet) -> Result<Message, FrameError> {
    let mac = sender(arp.sender_mac)?;
    let (from, target) = (arp.sender_ipv4_addr(), arp.target_ipv4_addr());
    let probe = from.is_unspecified();
    let claim = (!probe).then_some((IpAddr::V4(from), mac));
    let ask = match arp.operation {
        ArpOperation::REQUEST if from != target => Some(Ask {
            ip: target.into(),
            mac,
            from: (!probe).then_some(from.into()),
        }),
        ArpOperation::REQUEST | ArpOperation::REPLY => None,
        _ => return Err(FrameError),
    };
    Ok(Message { claim, ask })
}

fn parse_ndp(
    payload: &Icmpv6PayloadSlice<'_>,
    source: Ipv6Addr,
    sender: MacAddr,
) -> Result<Message, FrameError> {
    match payload {
        Icmpv6PayloadSlice::NeighborSolicitation(solicitation) => {
            let mut mac = None;
            for option in solicitation.options_iterator() {
                if let NdpOptionSlice::SourceLinkLayerAddress(o) = option.map_err(|_| FrameError)? {
                    mac = o.link_layer_address().try_into().ok().map(MacAddr);
                }
            }
            let probe = source.is_unspecified();
            // A probe must not carry the option (RFC 4861 §7.1.1).
            if probe && mac.is_some() {
                return Err(FrameError);
            }
            let mac = mac
                .filter(|mac| !mac.is_group() && !mac.is_zero())
                .unwrap_or(sender);
            let target = solicitation.target_address();
            if target.is_multicast() {
                return Err(FrameError);
            }
            let from = (!probe).then_some(IpAddr::V6(source));
            let claim = from.map(|ip| (ip, mac));
            Ok(Message {
                claim,
                ask: Some(Ask {
                    ip: target.into(),
                    mac,
                    from,
                }),
            })
        }
        Icmpv6PayloadSlice::NeighborAdvertisement(advertisement) => {
            let mut mac = None;
            for option in advertisement.options_iterator() {
                if let NdpOptionSlice::TargetLinkLayerAddress(o) = option.map_err(|_| FrameError)? {
                    mac = o.link_layer_address().try_into().ok().map(MacAddr);
                }
            }
            let mac = mac
                .filter(|mac| !mac.is_group() && !mac.is_zero())
                .unwrap_or(sender);
            let claim = Some((IpAddr::V6(advertisement.target_address()), mac));
            Ok(Message { claim, ask: None })
        }
        _ => Err(FrameError),
    }
}

fn sender(mac: [u8; 6]) -> Result<MacAddr, FrameError> {
    let mac = MacAddr(mac);
    if mac.is_group() || mac.is_zero() {
        Err(FrameError)
    } else {
        Ok(mac)
    }
}

/// Which operation a gratuitous ARP uses; some devices heed only one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// RFC 5227's ARP Announcement.
    Request,
    /// The gratuitous reply.
    Reply,
}

/// The answer to a request.
pub(crate) fn answer(mac: MacAddr, ask: &Ask) -> Vec<u8> {
    match ask.ip {
        IpAddr::V4(ip) => {
            let to = match ask.from {
                Some(IpAddr::V4(to)) => to,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            arp(ArpOperation::REPLY, (mac, ip), (ask.mac, to), ask.mac)
        }
        IpAddr::V6(ip) => match ask.from {
            Some(IpAddr::V6(to)) => advertisement(mac, ip, to, ask.mac, true),
            // The answer to a probe goes to everybody (RFC 4861 §7.2.4).
            _ => announcement(mac, IpAddr::V6(ip), Form::Reply),
        },
    }
}

/// Gratuitous ARP of the given form, or an unsolicited neighbour advertisement.
pub(crate) fn announcement(mac: MacAddr, ip: IpAddr, form: Form) -> Vec<u8> {
    match (ip, form) {
        // An announcement's target hardware address is ignored; zero is what RFC 5227 has.
        (IpAddr::V4(ip), Form::Request) => {
            let target = (MacAddr::default(), ip);
            arp(ArpOperation::REQUEST, (mac, ip), target, MacAddr::BROADCAST)
        }
        (IpAddr::V4(ip), Form::Reply) => {
            let target = (MacAddr::BROADCAST, ip);
            arp(ArpOperation::REPLY, (mac, ip), target, MacAddr::BROADCAST)
        }
        (IpAddr::V6(ip), _) => advertisement(mac, ip, ALL_NODES, group_mac(ALL_NODES), false),
    }
}

/// ARP Probe (RFC 5227 §2.1.1), or the solicitation of duplicate address detection (RFC 4862).
pub(crate) fn probe(mac: MacAddr, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => {
            let (sender, target) = ((mac, Ipv4Addr::UNSPECIFIED), (MacAddr::default(), ip));
            arp(ArpOperation::REQUEST, sender, target, MacAddr::BROADCAST)
        }
        IpAddr::V6(ip) => {
            let group = solicited_node(ip);
            let body = ip.octets();
            let kind = Icmpv6Type::NeighborSolicitation;
            ndp(
                mac,
                group_mac(group),
                Ipv6Addr::UNSPECIFIED,
                group,
                kind,
                &body,
            )
        }
    }
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

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

fn arp(
    operation: ArpOperation,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
    destination: MacAddr,
) -> Vec<u8> {
    let ethernet = Ethernet2Header {
        source: sender.0.0,
        destination: destination.0,
        ether_type: EtherType::ARP,
    };
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: sender.0.0,
        sender_ipv4: sender.1.octets(),
        target_mac: target.0.0,
        target_ipv4: target.1.octets(),
    };
    let mut frame = ethernet.to_bytes().to_vec();
    frame.extend_from_slice(&packet.to_bytes());
    frame
}

fn advertisement(
    mac: MacAddr,
    ip: Ipv6Addr,
    to: Ipv6Addr,
    to_mac: MacAddr,
    solicited: bool,
) -> Vec<u8> {
    // Target, then the option "target link-layer address": type 2, length 1 (in 8 octets).
    let mut body = ip.octets().to_vec();
    body.extend_from_slice(&[2, 1]);
    body.extend_from_slice(&mac.0);
    let flags = NeighborAdvertisementHeader {
        router: false,
        solicited,
        r#override: true,
    };
    // From the address itself, as a kernel that owns it does; some tools accept no other source.
    ndp(
        mac,
        to_mac,
        ip,
        to,
        Icmpv6Type::NeighborAdvertisement(flags),
        &body,
    )
}

fn ndp(
    mac: MacAddr,
    to_mac: MacAddr,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    kind: Icmpv6Type,
    body: &[u8],
) -> Vec<u8> {
    let ethernet = Ethernet2Header {
        source: mac.0,
        destination: to_mac.0,
        ether_type: EtherType::IPV6,
    };
    // The checksum fails only for bodies beyond 4 GiB; a body here has at most 24 bytes.
    let icmp = kind
        .to_header(source.octets(), destination.octets(), body)
        .map(|header| header.to_bytes().to_vec())
        .unwrap_or_default();
    let ip = Ipv6Header {
        payload_length: u16::try_from(icmp.len() + body.len()).unwrap_or_default(),
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: 255,
        source: source.octets(),
        destination: destination.octets(),
        ..Ipv6Header::default()
    };
    let mut frame = ethernet.to_bytes().to_vec();
    frame.extend_from_slice(&ip.to_bytes());
    frame.extend_from_slice(&icmp);
    frame.extend_from_slice(body);
    frame
}

/// A solicitation or advertisement with any body and the right checksum, for fuzzers.
pub(crate) fn any_ndp(solicit: bool, source: Ipv6Addr, body: &[u8]) -> Vec<u8> {
    let flags = NeighborAdvertisementHeader {
        router: false,
        solicited: false,
        r#override: true,
    };
    let kind = if solicit {
        Icmpv6Type::NeighborSolicitation
    } else {
        Icmpv6Type::NeighborAdvertisement(flags)
    };
    let mac = MacAddr([2, 0, 0, 0, 0, 9]);
    ndp(mac, group_mac(ALL_NODES), source, ALL_NODES, kind, body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
