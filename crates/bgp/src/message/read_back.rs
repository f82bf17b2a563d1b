//! An UPDATE of ours read back, for tests.

use std::net::IpAddr;

use bytes::Bytes;
use rustbgpd_wire::attribute::AsPathSegment;
use rustbgpd_wire::{Message, NlriEntry, PathAttribute, Prefix, Safi};

use super::{Nlri, Style, afi};
use crate::family::Family;

/// What an UPDATE says: withdrawn prefixes, announced prefixes with
/// their next hop, and the communities.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Read {
    pub withdrawn: Vec<Nlri>,
    pub announced: Vec<Nlri>,
    pub next_hop: Option<IpAddr>,
    pub communities: Vec<u32>,
    pub local_pref: Option<u32>,
    pub as_path: Vec<u32>,
}

pub(crate) fn read_update(frame: &[u8], style: &Style) -> Read {
    let mut octets = Bytes::copy_from_slice(frame);
    let Ok(Message::Update(update)) = rustbgpd_wire::decode_message(&mut octets, u16::MAX) else {
        panic!("no UPDATE: {frame:02x?}");
    };
    let families: Vec<_> = style
        .add_path
        .iter()
        .map(|family| (afi(*family), Safi::Unicast))
        .collect();
    let parsed = update
        .parse(style.four_octet_as, style.add_path(Family::Ipv4), &families)
        .unwrap();
    let of_v4 = |entry: &rustbgpd_wire::nlri::Ipv4NlriEntry| Nlri {
        prefix: ipnet::Ipv4Net::new(entry.prefix.addr, entry.prefix.len)
            .unwrap()
            .into(),
        path_id: entry.path_id,
    };
    let of_any = |entry: &NlriEntry| Nlri {
        prefix: match entry.prefix {
            Prefix::V4(p) => ipnet::Ipv4Net::new(p.addr, p.len).unwrap().into(),
            Prefix::V6(p) => ipnet::Ipv6Net::new(p.addr, p.len).unwrap().into(),
        },
        path_id: entry.path_id,
    };
    let mut read = Read {
        withdrawn: parsed.withdrawn.iter().map(of_v4).collect(),
        announced: parsed.announced.iter().map(of_v4).collect(),
        ..Read::default()
    };
    for attribute in &parsed.attributes {
        match attribute {
            PathAttribute::NextHop(ip) => read.next_hop = Some((*ip).into()),
            PathAttribute::LocalPref(value) => read.local_pref = Some(*value),
            PathAttribute::Communities(list) => read.communities.clone_from(list),
            PathAttribute::AsPath(path) => {
                for segment in &path.segments {
                    if let AsPathSegment::AsSequence(list) = segment {
                        read.as_path.extend(list);
                    }
                }
            }
            PathAttribute::MpReachNlri(reach) => {
                read.next_hop = Some(reach.next_hop);
                read.announced.extend(reach.announced.iter().map(of_any));
            }
            PathAttribute::MpUnreachNlri(unreach) => {
                read.withdrawn.extend(unreach.withdrawn.iter().map(of_any));
            }
            _ => {}
        }
    }
    read
}
