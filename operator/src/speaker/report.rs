//! What this node says about itself in the statuses of BgpConf and BgpPeers: pure.
//!
//! Counters are not part of it, and the states in which a session is only being tried for are one
//! (`ACTIVE`): an entry changes when something happened, not while nothing does.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;
use openelb_api::v1alpha2::{NodeConfStatus, NodePeerStatus, PeerState, TimersState};
use openelb_bgp::{
    AdminState, PeerAddress, PeerConfig, PeerSnapshot, SessionState, Snapshot, SpeakerConfig,
};

use crate::peering::{Plan, digest};

/// This node's entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Report {
    /// In `nodesConfStatus`; none where there is no BgpConf.
    pub(super) conf: Option<NodeConfStatus>,
    /// In `nodesPeerStatus`, by BgpPeer; absent where this node is not meant.
    pub(super) peers: BTreeMap<String, NodePeerStatus>,
}

/// Makes the report from what is planned, what is in force and what really happens.
pub(super) fn report(
    plan: &Plan,
    config: Option<&SpeakerConfig>,
    snapshot: Option<&Snapshot>,
) -> Report {
    let mut report = Report::default();
    let fault = plan.conf_fault.as_ref().map(ToString::to_string);
    let Some(config) = config else {
        report.conf = fault.map(|message| NodeConfStatus {
            message,
            ..NodeConfStatus::default()
        });
        return report;
    };
    let message = match fault {
        Some(fault) => format!("what was set before stays in force: {fault}"),
        None => snapshot.map(listening_trouble).unwrap_or_default(),
    };
    report.conf = Some(NodeConfStatus {
        router_id: config.router_id.to_string(),
        as_number: config.asn.into(),
        message,
    });
    for (name, outcome) in &plan.peers {
        let peer = config.peers.get(name.as_str());
        let seen = snapshot.and_then(|snapshot| snapshot.peers.get(name.as_str()));
        let entry = match (outcome, peer, seen) {
            // What was set before the object became unusable goes on.
            (Err(trouble), Some(peer), Some(seen)) => NodePeerStatus {
                message: format!("what was set before stays in force: {trouble}"),
                ..entry(config, peer, seen)
            },
            (Err(trouble), _, _) => failed(trouble.to_string()),
            (Ok(()), Some(peer), Some(seen)) => entry(config, peer, seen),
            (Ok(()), _, _) => failed(String::new()),
        };
        report.peers.insert(name.clone(), entry);
    }
    report
}

/// What keeps peers from connecting to us.
fn listening_trouble(snapshot: &Snapshot) -> String {
    let errors: Vec<String> = snapshot
        .listeners
        .iter()
        .filter_map(|(address, bound)| {
            let error = bound.as_ref().err()?;
            Some(format!("{address}: {error}"))
        })
        .chain(snapshot.error.iter().map(ToString::to_string))
        .collect();
    if errors.is_empty() {
        return String::new();
    }
    format!("only outgoing sessions; {}", errors.join("; "))
}

/// An entry without a session.
pub(super) fn failed(message: String) -> NodePeerStatus {
    let peer_state = PeerState {
        session_state: "IDLE".to_owned(),
        ..PeerState::default()
    };
    NodePeerStatus {
        peer_state,
        message,
        ..NodePeerStatus::default()
    }
}

fn entry(config: &SpeakerConfig, peer: &PeerConfig, seen: &PeerSnapshot) -> NodePeerStatus {
    let agreed = seen.negotiated.as_ref();
    let local_as = agreed.map_or(peer.local_as.unwrap_or(config.asn), |agreed| {
        agreed.local_as
    });
    let down = matches!(peer.admin, AdminState::Down(_));
    let established = seen.state == SessionState::Established;
    let peer_as = match (agreed, peer.remote_as) {
        (Some(agreed), _) => i64::from(agreed.peer_as),
        (None, openelb_bgp::RemoteAs::Exactly(asn)) => i64::from(asn),
        (None, _) => 0,
    };
    let since = rfc3339(seen.since);
    NodePeerStatus {
        peer_state: PeerState {
            description: peer.description.clone(),
            local_as: local_as.into(),
            neighbor_address: match &peer.address {
                PeerAddress::Ip(ip) => ip.to_string(),
                PeerAddress::LinkLocal(ip, interface) => format!("{ip}%{interface}"),
                PeerAddress::Interface(interface) => interface.clone(),
            },
            peer_as,
            peer_type: i64::from(peer_as != i64::from(local_as)),
            session_state: match (established, down) {
                (true, _) => "ESTABLISHED",
                (false, true) => "IDLE",
                (false, false) => "ACTIVE",
            }
            .to_owned(),
            admin_state: if down {
                "DOWN".to_owned()
            } else {
                String::new()
            },
            flops: i64::try_from(seen.counters.read().dropped).unwrap_or(i64::MAX),
            router_id: agreed
                .map(|agreed| agreed.peer_router_id.to_string())
                .unwrap_or_default(),
            ..PeerState::default()
        },
        timers_state: TimersState {
            connect_retry: peer.timers.connect_retry.as_secs().to_string(),
            hold_time: peer.timers.hold.as_secs().to_string(),
            keepalive_interval: agreed
                .map(|agreed| agreed.keepalive.as_secs().to_string())
                .unwrap_or_default(),
            negotiated_hold_time: agreed
                .map(|agreed| agreed.hold_time.as_secs().to_string())
                .unwrap_or_default(),
            uptime: if established {
                since.clone()
            } else {
                String::new()
            },
            downtime: if established || seen.counters.read().dropped == 0 {
                String::new()
            } else {
                since
            },
            ..TimersState::default()
        },
        announced: established.then(|| {
            digest(
                seen.families
                    .iter()
                    .map(|(family, sent)| (*family, sent.advertised)),
            )
        }),
        message: if established {
            String::new()
        } else {
            reason(seen)
        },
    }
}

fn reason(seen: &PeerSnapshot) -> String {
    let error = seen.last_error.as_ref().map(|error| error.message.clone());
    error.unwrap_or_default()
}

fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time)
        .ok()
        .and_then(|time| time.round(jiff::Unit::Second).ok())
        .map(|time| time.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use openelb_bgp::{Family, FamilySnapshot, Negotiated, PeerError, RemoteAs};

    use super::*;

    fn seen(state: SessionState) -> PeerSnapshot {
        let ip: std::net::IpAddr = "10.0.0.254".parse().unwrap();
        PeerSnapshot {
            state,
            since: SystemTime::UNIX_EPOCH + Duration::from_mins(1),
            negotiated: (state == SessionState::Established).then(|| Negotiated {
                local_as: 65000,
                peer_as: 65001,
                peer_router_id: "9.9.9.9".parse().unwrap(),
                local_address: (ip, 1).into(),
                peer_address: (ip, 179).into(),
                inbound: false,
                hold_time: Duration::from_secs(9),
                keepalive: Duration::from_secs(3),
                four_octet_as: true,
                route_refresh: true,
                enhanced_route_refresh: true,
                extended_messages: true,
                extended_next_hop: true,
                graceful_restart: None,
                notification_restart: false,
                long_lived_restart: false,
                add_path_send: Vec::new(),
                peer_capabilities: Vec::new(),
            }),
            families: [(
                Family::Ipv4,
                FamilySnapshot {
                    advertised: ["192.0.2.1/32".parse().unwrap()].into_iter().collect(),
                    unsendable: 0,
                    end_of_rib: true,
                },
            )]
            .into(),
            last_error: Some(PeerError {
                at: SystemTime::UNIX_EPOCH,
                label: "connect",
                message: "connection refused".to_owned(),
            }),
            last_notification: None,
            bfd: None,
            counters: Arc::default(),
            description: String::new(),
        }
    }

    fn of(state: SessionState, outcome: Result<(), crate::peering::Trouble>) -> NodePeerStatus {
        let peer = PeerConfig::new("10.0.0.254".parse().unwrap(), RemoteAs::Exactly(65001));
        let config = SpeakerConfig::new(65000, "10.0.0.1".parse().unwrap()).peer("r", peer);
        let plan = Plan {
            peers: [("r".to_owned(), outcome)].into(),
            ..Plan::default()
        };
        let mut snapshot = Snapshot::default();
        snapshot.peers.insert("r".into(), Arc::new(seen(state)));
        report(&plan, Some(&config), Some(&snapshot))
            .peers
            .remove("r")
            .unwrap()
    }

    #[test]
    fn an_established_session_shows_what_was_agreed_and_what_is_announced() {
        let entry = of(SessionState::Established, Ok(()));
        assert_eq!(entry.peer_state.session_state, "ESTABLISHED");
        assert_eq!(entry.peer_state.router_id, "9.9.9.9");
        assert_eq!(entry.peer_state.peer_type, 1);
        assert_eq!(entry.timers_state.negotiated_hold_time, "9");
        assert_eq!(entry.timers_state.uptime, "1970-01-01T00:01:00Z");
        assert_eq!(entry.announced.unwrap().prefixes, 1);
        assert!(entry.message.is_empty());
    }

    #[test]
    fn attempts_to_connect_are_one_state() {
        let connect = of(SessionState::Connect, Ok(()));
        assert_eq!(connect, of(SessionState::OpenSent, Ok(())));
        assert_eq!(connect.peer_state.session_state, "ACTIVE");
        assert_eq!(connect.message, "connection refused");
        assert!(connect.announced.is_none());
    }

    fn no_secret() -> crate::peering::Trouble {
        crate::peering::Trouble::Password("there is no Secret x".to_owned())
    }

    #[test]
    fn what_cannot_be_set_up_says_why() {
        let config = SpeakerConfig::new(65000, "10.0.0.1".parse().unwrap());
        let plan = Plan {
            peers: [("r".to_owned(), Err(no_secret()))].into(),
            ..Plan::default()
        };
        let report = report(&plan, Some(&config), Some(&Snapshot::default()));
        assert_eq!(report.peers["r"].peer_state.session_state, "IDLE");
        assert!(report.peers["r"].message.contains("no Secret x"));
    }

    #[test]
    fn a_session_that_goes_on_in_spite_of_its_object_says_both() {
        let entry = of(SessionState::Established, Err(no_secret()));
        assert_eq!(entry.peer_state.session_state, "ESTABLISHED");
        assert!(entry.announced.is_some());
        assert!(entry.message.starts_with("what was set before stays"));
    }
}
