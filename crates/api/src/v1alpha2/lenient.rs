//! Fields without effect are read whatever is in them: they must not keep an object from being understood.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Reads a value of the right type; one of another type counts as absent.
pub(super) fn ignored<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::v1alpha2::{BgpConfSpec, BgpPeerSpec, EipSpec};

    #[test]
    fn odd_values_in_fields_without_effect_do_no_harm() {
        let eip: EipSpec =
            serde_json::from_value(json!({"address": "192.0.2.1", "usingKnownIPs": "yes"}))
                .unwrap();
        assert!(!eip.using_known_ips);
        let conf: BgpConfSpec = serde_json::from_value(json!({
            "as": -7,
            "useMultiplePaths": 1,
            "gracefulRestart": {"enabled": true, "mode": 3, "peerRestarting": "x", "staleRoutesTime": "60"},
        }))
        .unwrap();
        assert_eq!(conf.as_number, Some(-7));
        assert!(conf.graceful_restart.unwrap().enabled);
        let peer: BgpPeerSpec = serde_json::from_value(json!({
            "conf": {"peerAs": 1, "peerGroup": 7, "vrf": null, "sendCommunity": "both", "routeFlapDamping": 1},
            "transport": {"tcpMss": "1400", "mtuDiscovery": null, "remoteAddress": []},
            "timers": {"config": {"minimumAdvertisementInterval": 30}},
        }))
        .unwrap();
        assert_eq!(peer.conf.unwrap().peer_as, Some(1));
    }

    #[test]
    fn odd_values_in_fields_that_count_are_errors() {
        let read =
            serde_json::from_value::<EipSpec>(json!({"address": "192.0.2.1", "disable": "yes"}));
        assert!(read.is_err());
    }
}
