//! Messages between bytes and plain data: here they are written, in `read` they
//! are read.
//!
//! With `session` this is the seam: no other module names the codec crate.
//! Everything written is bounded by the limit given, and everything read is
//! checked by the codec before it is looked at.

mod read;
#[cfg(test)]
mod read_back;

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use rustbgpd_wire::attribute::{AsPath, AsPathSegment, MpReachNlri, MpUnreachNlri};
use rustbgpd_wire::{
    Afi, EncodeError, Ipv4UnicastMode, NlriEntry, PathAttribute, Prefix, RouteRefreshMessage,
    RouteRefreshSubtype, Safi, UpdateMessage,
};
use std::net::IpAddr;

use crate::community::Community;
use crate::export::Exported;
use crate::family::Family;
use crate::route::Origin;

pub(crate) use read::{explain, next_message, summarize};
#[cfg(test)]
pub(crate) use read_back::read_update;

/// A prefix with its path identifier (zero outside RFC 7911).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Nlri {
    pub prefix: IpNet,
    pub path_id: u32,
}

impl Nlri {
    pub(crate) fn family(&self) -> Family {
        Family::of(&self.prefix)
    }

    fn wire_len(&self, add_path: bool) -> usize {
        let octets = usize::from(self.prefix.prefix_len()).div_ceil(8);
        1 + octets + if add_path { 4 } else { 0 }
    }
}

/// How messages of a session are written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Style {
    /// The AS number that stands in AS_PATH.
    pub local_as: u32,
    /// The peer is in our AS.
    pub internal: bool,
    /// AS numbers have four octets.
    pub four_octet_as: bool,
    /// Families whose prefixes carry a path identifier.
    pub add_path: Vec<Family>,
    /// Longest message the peer takes.
    pub limit: usize,
}

impl Style {
    fn add_path(&self, family: Family) -> bool {
        self.add_path.contains(&family)
    }
}

/// Octets of an UPDATE that are neither attributes nor prefixes.
const UPDATE_FRAME: usize = 23;
/// Octets of MP_REACH_NLRI around next hop and prefixes, with its header.
const MP_REACH_FRAME: usize = 9;
/// Octets of MP_UNREACH_NLRI around the prefixes, with its header.
const MP_UNREACH_FRAME: usize = 7;

fn afi(family: Family) -> Afi {
    match family {
        Family::Ipv4 => Afi::Ipv4,
        Family::Ipv6 => Afi::Ipv6,
    }
}

fn entry(nlri: &Nlri) -> NlriEntry {
    NlriEntry {
        path_id: nlri.path_id,
        prefix: match nlri.prefix {
            IpNet::V4(net) => Prefix::V4(rustbgpd_wire::nlri::Ipv4Prefix::new(
                net.network(),
                net.prefix_len(),
            )),
            IpNet::V6(net) => Prefix::V6(rustbgpd_wire::nlri::Ipv6Prefix::new(
                net.network(),
                net.prefix_len(),
            )),
        },
    }
}

fn entry_v4(nlri: &Nlri) -> Option<rustbgpd_wire::nlri::Ipv4NlriEntry> {
    match nlri.prefix {
        IpNet::V4(net) => Some(rustbgpd_wire::nlri::Ipv4NlriEntry {
            path_id: nlri.path_id,
            prefix: rustbgpd_wire::nlri::Ipv4Prefix::new(net.network(), net.prefix_len()),
        }),
        IpNet::V6(_) => None,
    }
}

fn mp_reach(family: Family, exported: &Exported, nlri: &[Nlri]) -> PathAttribute {
    PathAttribute::MpReachNlri(Box::new(MpReachNlri {
        afi: afi(family),
        safi: Safi::Unicast,
        next_hop: exported.next_hop,
        link_local_next_hop: exported.link_local,
        announced: nlri.iter().map(entry).collect(),
        flowspec_announced: Vec::new(),
        evpn_announced: Vec::new(),
        bgpls_announced: Vec::new(),
        vpn_announced: Vec::new(),
        labeled_announced: Vec::new(),
        rtc_announced: Vec::new(),
    }))
}

fn mp_unreach(family: Family, nlri: &[Nlri]) -> PathAttribute {
    PathAttribute::MpUnreachNlri(Box::new(MpUnreachNlri {
        afi: afi(family),
        safi: Safi::Unicast,
        withdrawn: nlri.iter().map(entry).collect(),
        flowspec_withdrawn: Vec::new(),
        evpn_withdrawn: Vec::new(),
        bgpls_withdrawn: Vec::new(),
        vpn_withdrawn: Vec::new(),
        labeled_withdrawn: Vec::new(),
        rtc_withdrawn: Vec::new(),
    }))
}

/// The attributes that all prefixes of a group share, in order of their type;
/// NEXT_HOP where the prefixes go into the body, MP_REACH_NLRI left out.
fn shared_attributes(exported: &Exported, in_body: bool, style: &Style) -> Vec<PathAttribute> {
    let wanted = &exported.attributes;
    let mut attributes = vec![PathAttribute::Origin(match wanted.origin {
        Origin::Igp => rustbgpd_wire::attribute::Origin::Igp,
        Origin::Egp => rustbgpd_wire::attribute::Origin::Egp,
        Origin::Incomplete => rustbgpd_wire::attribute::Origin::Incomplete,
    })];
    // An internal peer gets an empty path: our own number in it would be a
    // loop there, so prepending works towards external peers alone.
    let segments = if style.internal {
        Vec::new()
    } else {
        vec![AsPathSegment::AsSequence(vec![
            style.local_as;
            1 + usize::from(
                wanted.prepend
            )
        ])]
    };
    attributes.push(PathAttribute::AsPath(AsPath { segments }));
    if in_body && let IpAddr::V4(next_hop) = exported.next_hop {
        attributes.push(PathAttribute::NextHop(next_hop));
    }
    if let Some(med) = wanted.med {
        attributes.push(PathAttribute::Med(med));
    }
    if style.internal {
        // RFC 8326 §3.2: the lowest preference during a shutdown.
        let preference = if exported.shutting_down {
            0
        } else {
            wanted.local_pref.unwrap_or(100)
        };
        attributes.push(PathAttribute::LocalPref(preference));
    }
    let mut communities = wanted.communities.clone();
    if exported.shutting_down {
        communities.insert(Community::GRACEFUL_SHUTDOWN);
    }
    if !communities.is_empty() {
        attributes.push(PathAttribute::Communities(
            communities.iter().map(|community| community.0).collect(),
        ));
    }
    if !wanted.extended_communities.is_empty() {
        attributes.push(PathAttribute::ExtendedCommunities(
            wanted
                .extended_communities
                .iter()
                .map(|community| rustbgpd_wire::attribute::ExtendedCommunity::new(community.0))
                .collect(),
        ));
    }
    if !wanted.large_communities.is_empty() {
        attributes.push(PathAttribute::LargeCommunities(
            wanted
                .large_communities
                .iter()
                .map(|c| {
                    rustbgpd_wire::attribute::LargeCommunity::new(c.global, c.local1, c.local2)
                })
                .collect(),
        ));
    }
    attributes
}

/// Writes one UPDATE that announces as many of `nlri` (one family) as fit.
/// Returns how many; zero if the attributes alone fill a message.
pub(crate) fn announce(
    out: &mut BytesMut,
    exported: &Exported,
    nlri: &[Nlri],
    style: &Style,
) -> Result<usize, EncodeError> {
    let Some(family) = nlri.first().map(Nlri::family) else {
        return Ok(0);
    };
    let add_path = style.add_path(family);
    let in_body = family == Family::Ipv4 && exported.next_hop.is_ipv4();
    let mut attributes = shared_attributes(exported, in_body, style);
    let mut frame = UPDATE_FRAME + encoded_len(&attributes, style)?;
    if !in_body {
        let next_hops = if exported.link_local.is_some() {
            32
        } else {
            16
        };
        frame += MP_REACH_FRAME + next_hops;
    }
    let count = fitting(nlri, style.limit.saturating_sub(frame), add_path);
    let (chunk, _) = nlri.split_at(count);
    if chunk.is_empty() {
        return Ok(0);
    }
    let update = if in_body {
        let entries: Vec<_> = chunk.iter().filter_map(entry_v4).collect();
        UpdateMessage::try_build(
            &entries,
            &[],
            &attributes,
            style.four_octet_as,
            add_path,
            Ipv4UnicastMode::Body,
        )?
    } else {
        // RFC 7606 §5.1 wants MP_REACH_NLRI first, so that the prefixes are
        // known whatever follows.
        attributes.insert(0, mp_reach(family, exported, chunk));
        UpdateMessage::try_build(
            &[],
            &[],
            &attributes,
            style.four_octet_as,
            add_path,
            Ipv4UnicastMode::MpReach,
        )?
    };
    write(&update, out, style.limit)?;
    Ok(count)
}

/// Writes one UPDATE that withdraws as many of `nlri` (one family) as fit, and
/// returns how many.
pub(crate) fn withdraw(
    out: &mut BytesMut,
    nlri: &[Nlri],
    style: &Style,
) -> Result<usize, EncodeError> {
    let Some(family) = nlri.first().map(Nlri::family) else {
        return Ok(0);
    };
    let add_path = style.add_path(family);
    let frame = UPDATE_FRAME + MP_UNREACH_FRAME;
    let count = fitting(nlri, style.limit.saturating_sub(frame), add_path);
    let (chunk, _) = nlri.split_at(count);
    let update = match family {
        Family::Ipv4 => {
            let entries: Vec<_> = chunk.iter().filter_map(entry_v4).collect();
            UpdateMessage::try_build(
                &[],
                &entries,
                &[],
                style.four_octet_as,
                add_path,
                Ipv4UnicastMode::Body,
            )?
        }
        Family::Ipv6 => UpdateMessage::try_build(
            &[],
            &[],
            &[mp_unreach(family, chunk)],
            style.four_octet_as,
            add_path,
            Ipv4UnicastMode::MpReach,
        )?,
    };
    write(&update, out, style.limit)?;
    Ok(count)
}

/// Writes the End-of-RIB marker of a family (RFC 4724 §2).
pub(crate) fn end_of_rib(
    out: &mut BytesMut,
    family: Family,
    style: &Style,
) -> Result<(), EncodeError> {
    let attributes = match family {
        Family::Ipv4 => Vec::new(),
        Family::Ipv6 => vec![mp_unreach(family, &[])],
    };
    let update = UpdateMessage::try_build(
        &[],
        &[],
        &attributes,
        style.four_octet_as,
        false,
        Ipv4UnicastMode::Body,
    )?;
    write(&update, out, style.limit)
}

/// Which end of a refresh a marker stands for (RFC 7313).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    Begin,
    End,
}

/// Writes a ROUTE-REFRESH that marks the begin or end of a refresh.
pub(crate) fn refresh_marker(
    out: &mut BytesMut,
    family: Family,
    marker: Marker,
) -> Result<(), EncodeError> {
    let subtype = match marker {
        Marker::Begin => RouteRefreshSubtype::BoRR,
        Marker::End => RouteRefreshSubtype::EoRR,
    };
    RouteRefreshMessage::new_with_subtype(afi(family), Safi::Unicast, subtype).encode(out)
}

fn write(update: &UpdateMessage, out: &mut BytesMut, limit: usize) -> Result<(), EncodeError> {
    let limit = u16::try_from(limit).unwrap_or(u16::MAX);
    out.reserve(update.encoded_len());
    update.encode_with_limit(out, limit)
}

fn encoded_len(attributes: &[PathAttribute], style: &Style) -> Result<usize, EncodeError> {
    let mut scratch = Vec::new();
    rustbgpd_wire::attribute::encode_path_attributes(
        attributes,
        &mut scratch,
        style.four_octet_as,
        false,
    )?;
    Ok(scratch.len())
}

/// How many of the first prefixes fit into `room` octets.
fn fitting(nlri: &[Nlri], room: usize, add_path: bool) -> usize {
    let mut used = 0;
    nlri.iter()
        .take_while(|nlri| {
            used += nlri.wire_len(add_path);
            used <= room
        })
        .count()
}

/// Data of an administrative shutdown (RFC 9003 §2), cut at 255 octets.
pub(crate) fn shutdown_data(text: &str) -> Bytes {
    let mut end = text.len().min(usize::from(u8::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = text.get(..end).unwrap_or_default();
    let mut data = BytesMut::with_capacity(1 + text.len());
    data.extend_from_slice(&[u8::try_from(text.len()).unwrap_or(u8::MAX)]);
    data.extend_from_slice(text.as_bytes());
    data.freeze()
}

#[cfg(test)]
mod tests;
