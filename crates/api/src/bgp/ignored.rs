//! Fields that are accepted for OpenELB's sake and have no effect.

use crate::v1alpha2::{AfiSafi, BgpConfSpec, BgpPeerSpec, EipSpec, GracefulRestart};

/// The fields of an Eip that are set and have no effect.
#[must_use]
pub fn of_eip(spec: &EipSpec) -> Vec<&'static str> {
    let mut fields = Fields::default();
    fields.note(spec.using_known_ips, "usingKnownIPs");
    fields.0
}

/// The fields of a BgpConf that are set and have no effect.
#[must_use]
pub fn of_conf(spec: &BgpConfSpec) -> Vec<&'static str> {
    let mut fields = Fields::default();
    fields.note(spec.use_multiple_paths, "useMultiplePaths");
    fields.note(
        spec.families.iter().any(|index| !matches!(index, 0 | 1)),
        "families above 1",
    );
    if let Some(restart) = &spec.graceful_restart {
        fields.graceful_restart(restart);
    }
    fields.0
}

/// The fields of a BgpPeer that are set and have no effect.
#[must_use]
pub fn of_peer(spec: &BgpPeerSpec) -> Vec<&'static str> {
    let mut fields = Fields::default();
    if let Some(conf) = &spec.conf {
        fields.note(!conf.peer_group.is_empty(), "conf.peerGroup");
        fields.note(!conf.vrf.is_empty(), "conf.vrf");
        fields.note(
            conf.peer_type.is_some_and(|kind| kind != 0),
            "conf.peerType",
        );
        let remove = conf.remove_private_as.as_str();
        fields.note(!matches!(remove, "" | "NONE"), "conf.removePrivateAs");
        fields.note(conf.replace_peer_as, "conf.replacePeerAs");
        fields.note(conf.allow_own_as.is_some_and(|n| n != 0), "conf.allowOwnAs");
        let found = conf.neighbor_address.is_empty() && !conf.neighbor_interface.is_empty();
        fields.note(found && watched(spec), "bfd with conf.neighborInterface");
        fields.note(conf.route_flap_damping, "conf.routeFlapDamping");
        fields.note(
            conf.send_community.is_some_and(|n| n != 0),
            "conf.sendCommunity",
        );
    }
    if let Some(timers) = spec
        .timers
        .as_ref()
        .and_then(|timers| timers.config.as_ref())
    {
        let interval = &timers.minimum_advertisement_interval;
        fields.note(
            !interval.is_empty(),
            "timers.config.minimumAdvertisementInterval",
        );
    }
    if let Some(transport) = &spec.transport {
        fields.note(transport.mtu_discovery, "transport.mtuDiscovery");
        fields.note(
            !transport.remote_address.is_empty(),
            "transport.remoteAddress",
        );
        fields.note(
            transport.tcp_mss.is_some_and(|mss| mss != 0),
            "transport.tcpMss",
        );
    }
    fields.families(&spec.afi_safis, restarts(spec));
    if let Some(restart) = &spec.graceful_restart {
        fields.graceful_restart(restart);
    }
    fields.0
}

/// Nobody can be watched whose address is found anew for every session.
fn watched(spec: &BgpPeerSpec) -> bool {
    spec.bfd.as_ref().is_some_and(|bfd| bfd.enabled)
}

fn restarts(spec: &BgpPeerSpec) -> bool {
    spec.graceful_restart
        .as_ref()
        .is_some_and(|restart| restart.enabled)
}

#[derive(Default)]
struct Fields(Vec<&'static str>);

impl Fields {
    fn note(&mut self, set: bool, name: &'static str) {
        if set {
            self.0.push(name);
        }
    }

    /// Routes are not taken from peers, and other families carry no addresses of Services.
    fn families(&mut self, entries: &[AfiSafi], restarts: bool) {
        let receives = |entry: &AfiSafi| {
            let paths = entry.add_paths.as_ref();
            paths
                .and_then(|paths| paths.config.as_ref())
                .is_some_and(|config| config.receive)
        };
        self.note(
            entries.iter().any(receives),
            "afiSafis.addPaths.config.receive",
        );
        let other = |entry: &AfiSafi| {
            let family = entry.config.as_ref();
            family
                .and_then(|config| config.family.as_ref())
                .is_some_and(|family| {
                    !matches!(
                        (family.afi.as_str(), family.safi.as_str()),
                        ("", "") | ("AFI_IP" | "AFI_IP6", "SAFI_UNICAST")
                    )
                })
        };
        self.note(
            entries.iter().any(other),
            "afiSafis other than unicast of AFI_IP and AFI_IP6",
        );
        let alone = |entry: &AfiSafi| {
            let restart = entry.mp_graceful_restart.as_ref();
            !restarts
                && restart
                    .and_then(|restart| restart.config.as_ref())
                    .is_some_and(|config| config.enabled)
        };
        self.note(
            entries.iter().any(alone),
            "afiSafis.mpGracefulRestart without gracefulRestart.enabled",
        );
    }

    fn graceful_restart(&mut self, restart: &GracefulRestart) {
        let set = |value: Option<i64>| value.is_some_and(|value| value != 0);
        self.note(
            restart.enabled && restart.helper_only,
            "gracefulRestart with helperOnly",
        );
        self.note(set(restart.deferral_time), "gracefulRestart.deferralTime");
        self.note(
            set(restart.stale_routes_time),
            "gracefulRestart.staleRoutesTime",
        );
        self.note(
            set(restart.peer_restart_time),
            "gracefulRestart.peerRestartTime",
        );
        self.note(restart.peer_restarting, "gracefulRestart.peerRestarting");
        self.note(restart.local_restarting, "gracefulRestart.localRestarting");
        self.note(!restart.mode.is_empty(), "gracefulRestart.mode");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::v1alpha2::{BgpConf, BgpPeer, Eip};
    use crate::validate::{self, View};

    #[test]
    fn fields_without_effect_are_named_and_others_are_not() {
        let spec: BgpPeerSpec = serde_json::from_value(json!({
            "conf": {"neighborAddress": "10.0.0.1", "peerAs": 1, "peerGroup": "x", "removePrivateAs": "NONE"},
            "transport": {"passiveMode": true, "tcpMss": 1400},
            "gracefulRestart": {"enabled": true, "mode": "x"}
        }))
        .unwrap();
        assert_eq!(
            of_peer(&spec),
            ["conf.peerGroup", "transport.tcpMss", "gracefulRestart.mode"]
        );
        let spec: BgpConfSpec =
            serde_json::from_value(json!({"as": 1, "useMultiplePaths": true, "families": [0, 2]}))
                .unwrap();
        assert_eq!(of_conf(&spec), ["useMultiplePaths", "families above 1"]);
    }

    #[test]
    fn bfd_of_a_peer_without_address_and_help_with_nothing_are_named() {
        let spec = |conf| -> BgpPeerSpec {
            let restart = json!({"enabled": true, "helperOnly": true});
            let spec = json!({"conf": conf, "bfd": {"enabled": true}, "gracefulRestart": restart});
            serde_json::from_value(spec).unwrap()
        };
        assert_eq!(
            of_peer(&spec(json!({"neighborInterface": "eth0"}))),
            [
                "bfd with conf.neighborInterface",
                "gracefulRestart with helperOnly"
            ]
        );
        let known = json!({"neighborInterface": "eth0", "neighborAddress": "fe80::1"});
        assert_eq!(of_peer(&spec(known)), ["gracefulRestart with helperOnly"]);
    }

    #[test]
    fn every_field_that_openelb_ignored_or_that_concerns_received_routes_is_named() {
        let spec: BgpPeerSpec = serde_json::from_value(json!({
            "conf": {
                "neighborAddress": "10.0.0.1", "peerAs": 1, "peerGroup": "x", "vrf": "x", "peerType": 1,
                "removePrivateAs": "ALL", "replacePeerAs": true, "allowOwnAs": 1, "routeFlapDamping": true,
                "sendCommunity": 1
            },
            "timers": {"config": {"minimumAdvertisementInterval": "5"}},
            "transport": {"mtuDiscovery": true, "remoteAddress": "10.0.0.2", "tcpMss": 1400},
            "afiSafis": [{
                "config": {"family": {"afi": "AFI_L2VPN", "safi": "SAFI_EVPN"}},
                "addPaths": {"config": {"receive": true}},
                "mpGracefulRestart": {"config": {"enabled": true}}
            }],
            "gracefulRestart": {
                "deferralTime": 1, "staleRoutesTime": 1, "peerRestartTime": 1, "peerRestarting": true,
                "localRestarting": true, "mode": "x"
            }
        }))
        .unwrap();
        let named = of_peer(&spec);
        assert_eq!(
            named,
            [
                "conf.peerGroup",
                "conf.vrf",
                "conf.peerType",
                "conf.removePrivateAs",
                "conf.replacePeerAs",
                "conf.allowOwnAs",
                "conf.routeFlapDamping",
                "conf.sendCommunity",
                "timers.config.minimumAdvertisementInterval",
                "transport.mtuDiscovery",
                "transport.remoteAddress",
                "transport.tcpMss",
                "afiSafis.addPaths.config.receive",
                "afiSafis other than unicast of AFI_IP and AFI_IP6",
                "afiSafis.mpGracefulRestart without gracefulRestart.enabled",
                "gracefulRestart.deferralTime",
                "gracefulRestart.staleRoutesTime",
                "gracefulRestart.peerRestartTime",
                "gracefulRestart.peerRestarting",
                "gracefulRestart.localRestarting",
                "gracefulRestart.mode",
            ]
        );
        // The webhook says the same, whatever else it says.
        let object = BgpPeer::new("router", spec);
        let verdict = validate::bgp_peer(&object, None, &View::default());
        let warning = format!("spec: without effect: {}", named.join(", "));
        assert!(verdict.warnings.contains(&warning), "{verdict:?}");
        let spec: BgpConfSpec = serde_json::from_value(json!({
            "as": 1, "gracefulRestart": {"enabled": true, "staleRoutesTime": 1, "mode": "x"}, "policy": "bgp"
        }))
        .unwrap();
        let named = of_conf(&spec);
        assert_eq!(
            named,
            ["gracefulRestart.staleRoutesTime", "gracefulRestart.mode"]
        );
        let verdict = validate::bgp_conf(&BgpConf::new("default", spec), None);
        assert_eq!(
            verdict.warnings,
            [format!("spec: without effect: {}", named.join(", "))]
        );
    }

    #[test]
    fn an_eip_says_what_it_does_not_heed() {
        let spec: EipSpec =
            serde_json::from_value(json!({"address": "192.0.2.1", "usingKnownIPs": true})).unwrap();
        assert_eq!(of_eip(&spec), ["usingKnownIPs"]);
        let verdict = validate::eip(&Eip::new("lan", spec), None, &View::default());
        assert_eq!(verdict.warnings, ["spec: without effect: usingKnownIPs"]);
    }
}
