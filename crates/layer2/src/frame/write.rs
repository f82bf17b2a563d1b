//! Meaning to frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header, Icmpv6Type, IpNumber, Ipv6Header,
    icmpv6::NeighborAdvertisementHeader,
};
use openelb_net::MacAddr;

use super::{Ask, Form, group_mac, solicited_node};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

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

pub(super) fn ndp(
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
