//! Frames to meaning.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, NetSlice, SlicedPacket, TransportSlice,
    icmpv6::{Icmpv6PayloadSlice, NdpOptionSlice},
};
use openelb_net::MacAddr;

use super::{Ask, FrameError, Message};

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
