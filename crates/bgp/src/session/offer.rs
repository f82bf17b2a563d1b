//! What we offer in an OPEN, and what comes of both sides' offers.

use std::time::Duration;

use bytes::BytesMut;
use rustbgpd_wire::constants::{EXTENDED_MAX_MESSAGE_LEN, MAX_MESSAGE_LEN};
use rustbgpd_wire::{Afi, Capability, ExtendedNextHopFamily, OpenMessage, Safi};

use super::keepalive_interval;
use super::terms::{Agreement, SessionConfig};
use crate::config::RemoteAs;
use crate::family::Family;
use crate::message::Style;
use crate::snapshot::Negotiated;

/// What the state machine is to offer and to accept.
pub(super) fn fsm_config(config: &SessionConfig) -> rustbgpd_fsm::PeerConfig {
    let peer = &config.peer;
    let families = peer.offered_families();
    let mut fsm = rustbgpd_fsm::PeerConfig::new(config.local_as, 0, config.router_id);
    match peer.remote_as {
        RemoteAs::Exactly(asn) => fsm.remote_asn = asn,
        RemoteAs::Internal => fsm.remote_asn = config.local_as,
        RemoteAs::External => fsm.remote_asn_external = true,
        RemoteAs::Any => fsm.remote_asn = 0,
    }
    fsm.hold_time = u16::try_from(peer.timers.hold.as_secs()).unwrap_or(u16::MAX);
    fsm.disable_ipv4_unicast = !families.contains(&Family::Ipv4);
    fsm.families = families.into_iter().map(wire_family).collect();
    if let Some(restart) = peer.graceful_restart {
        fsm.graceful_restart = true;
        fsm.gr_restart_time = u16::try_from(restart.restart_time.as_secs()).unwrap_or(u16::MAX);
        fsm.llgr_stale_time = u32::try_from(restart.long_lived.as_secs()).unwrap_or(u32::MAX);
    }
    fsm.add_path_send = peer.add_path_send;
    fsm
}

/// Makes the machine's OPEN ours: it knows no restart of its own, always sets
/// the N bit, and offers RFC 8950 by families alone.
///
/// The F bits are always set: it is the kernel that forwards, whatever becomes
/// of a connection or of this process. Without them a peer that lost the
/// connection would drop the routes it kept as soon as it is back (RFC 4724
/// §4.2), and a lost connection is no restart of ours (the R bit).
pub(super) fn offer(open: &mut OpenMessage, config: &SessionConfig) {
    let peer = &config.peer;
    for capability in &mut open.capabilities {
        match capability {
            Capability::GracefulRestart {
                restart_state,
                notification,
                families,
                ..
            } => {
                *restart_state = config.restarting;
                *notification = peer
                    .graceful_restart
                    .is_some_and(|restart| restart.notification);
                for family in families {
                    family.forwarding_preserved = true;
                }
            }
            Capability::LongLivedGracefulRestart(families) => {
                for family in families {
                    family.forwarding_preserved = true;
                }
            }
            _ => {}
        }
    }
    open.capabilities
        .retain(|capability| !matches!(capability, Capability::ExtendedNextHop(_)));
    if peer.extended_next_hop && peer.offered_families().contains(&Family::Ipv4) {
        open.capabilities
            .push(Capability::ExtendedNextHop(vec![ipv4_with_ipv6_next_hop()]));
    }
}

/// What comes of both offers.
pub(super) fn agree(config: &SessionConfig, agreed: &rustbgpd_fsm::NegotiatedSession) -> Agreement {
    let families: Vec<Family> = agreed
        .negotiated_families
        .iter()
        .filter_map(|family| match family {
            (Afi::Ipv4, Safi::Unicast) => Some(Family::Ipv4),
            (Afi::Ipv6, Safi::Unicast) => Some(Family::Ipv6),
            _ => None,
        })
        .collect();
    let peer = &config.peer;
    let mut add_path: Vec<Family> = Family::ALL
        .into_iter()
        .filter(|family| {
            agreed
                .add_path_families
                .get(&wire_family(*family))
                .is_some_and(|mode| {
                    use rustbgpd_wire::AddPathMode::{Both, Send};
                    matches!(mode, Send | Both)
                })
        })
        .collect();
    add_path.retain(|family| peer.add_path_send && families.contains(family));
    let peer_takes_v6_next_hops = agreed.peer_capabilities.iter().any(|capability| {
        matches!(capability, Capability::ExtendedNextHop(list)
            if list.contains(&ipv4_with_ipv6_next_hop()))
    });
    let restart = agreed
        .peer_capabilities
        .iter()
        .any(|capability| matches!(capability, Capability::GracefulRestart { .. }));
    let hold = Duration::from_secs(u64::from(agreed.hold_time));
    let internal = agreed.peer_asn == config.local_as;
    let limit = if agreed.peer_extended_message {
        EXTENDED_MAX_MESSAGE_LEN
    } else {
        MAX_MESSAGE_LEN
    };
    Agreement {
        negotiated: Negotiated {
            local_as: config.local_as,
            peer_as: agreed.peer_asn,
            peer_router_id: agreed.peer_router_id,
            local_address: config.local,
            peer_address: config.remote,
            inbound: config.inbound,
            hold_time: hold,
            keepalive: if hold.is_zero() {
                Duration::ZERO
            } else {
                keepalive_interval(peer.timers.keepalive, hold)
            },
            four_octet_as: agreed.four_octet_as,
            route_refresh: agreed.peer_route_refresh,
            enhanced_route_refresh: agreed.peer_enhanced_route_refresh,
            extended_messages: agreed.peer_extended_message,
            extended_next_hop: peer.extended_next_hop && peer_takes_v6_next_hops,
            // What counts is that the peer has the capability at all: one
            // that lists no family of its own still keeps ours.
            graceful_restart: peer
                .graceful_restart
                .filter(|_| restart)
                .map(|ours| ours.restart_time),
            notification_restart: peer
                .graceful_restart
                .is_some_and(|ours| ours.notification && agreed.peer_notification_gr),
            long_lived_restart: agreed.peer_llgr_capable,
            add_path_send: add_path.clone(),
            peer_capabilities: agreed
                .peer_capabilities
                .iter()
                .map(capability_code)
                .collect(),
        },
        families,
        style: Style {
            local_as: config.local_as,
            internal,
            four_octet_as: agreed.four_octet_as,
            add_path,
            limit: usize::from(limit),
        },
    }
}

fn capability_code(capability: &Capability) -> u8 {
    let mut octets = BytesMut::new();
    // Code and length come first; a value that cannot be written is unknown.
    match capability.encode(&mut octets) {
        Ok(()) => octets.first().copied().unwrap_or(0),
        Err(_) => 0,
    }
}

fn wire_family(family: Family) -> (Afi, Safi) {
    match family {
        Family::Ipv4 => (Afi::Ipv4, Safi::Unicast),
        Family::Ipv6 => (Afi::Ipv6, Safi::Unicast),
    }
}

fn ipv4_with_ipv6_next_hop() -> ExtendedNextHopFamily {
    ExtendedNextHopFamily {
        nlri_afi: Afi::Ipv4,
        nlri_safi: Safi::Unicast,
        next_hop_afi: Afi::Ipv6,
    }
}
