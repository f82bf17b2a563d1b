//! The parts of a session: timers, distance, graceful restart, BFD.

use super::read::within;
use crate::field::Errors;
use crate::v1alpha2 as wire;
use crate::{FieldError, Invalid};

/// Session timers in seconds (RFC 4271 §10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// The hold time to ask for: 0 for none, else at least 3.
    pub hold: u16,
    /// The interval of KEEPALIVEs; a third of the hold time where `None`.
    pub keepalive: Option<u16>,
    /// The longest wait between attempts to connect.
    pub connect_retry: u16,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            hold: 90,
            keepalive: None,
            connect_retry: 120,
        }
    }
}

impl TryFrom<&wire::TimersConfig> for Timers {
    type Error = Invalid;

    fn try_from(config: &wire::TimersConfig) -> Result<Self, Self::Error> {
        let mut errors = Errors::default();
        let hold = errors
            .take(seconds("holdTime", &config.hold_time))
            .flatten();
        if let Some(hold @ 1..=2) = hold {
            errors.push(FieldError::new(
                "spec.timers.config.holdTime",
                hold,
                "must be 0 (off) or at least 3 seconds",
            ));
        }
        // GoBGP takes 0 of these two for "not given".
        let mut positive = |name: &str, text: &str| {
            let read = errors.take(seconds(name, text)).flatten();
            read.filter(|seconds| *seconds > 0)
        };
        let keepalive = positive("keepaliveInterval", &config.keepalive_interval);
        let connect_retry = positive("connectRetry", &config.connect_retry);
        let usual = Self::default();
        errors.finish(Some(Self {
            hold: hold.unwrap_or(usual.hold),
            keepalive,
            connect_retry: connect_retry.unwrap_or(usual.connect_retry),
        }))
    }
}

/// Seconds in a string, as protobuf's JSON has 64-bit integers; absent when empty.
fn seconds(name: &str, text: &str) -> Result<Option<u16>, FieldError> {
    let digits = text.trim();
    if digits.is_empty() {
        return Ok(None);
    }
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let read = is_number.then(|| digits.parse().ok()).flatten();
    read.map(Some).ok_or_else(|| {
        FieldError::new(
            format!("spec.timers.config.{name}"),
            text,
            "must be a whole number of seconds up to 65535, written as a string, such as \"90\"",
        )
    })
}

/// How far away the peer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hops {
    /// On the same link, where it is of another AS.
    #[default]
    Direct,
    /// Packets leave with this TTL.
    Multihop(u8),
    /// Packets from more hops away than this are dropped (RFC 5082).
    Security(u8),
}

impl TryFrom<&wire::BgpPeerSpec> for Hops {
    type Error = Invalid;

    fn try_from(spec: &wire::BgpPeerSpec) -> Result<Self, Self::Error> {
        let multihop = spec.ebgp_multihop.as_ref().filter(|part| part.enabled);
        let security = spec.ttl_security.filter(|hops| *hops != 0);
        match (multihop, security) {
            (None, None) => Ok(Self::Direct),
            (None, Some(hops)) => Ok(Self::Security(within(
                "spec.ttlSecurity",
                hops,
                1,
                254,
                " hops (0 means off)",
            )?)),
            (Some(multihop), None) => match multihop.multihop_ttl {
                None | Some(0) => Ok(Self::Multihop(255)),
                Some(ttl) => Ok(Self::Multihop(within(
                    "spec.ebgpMultihop.multihopTtl",
                    ttl,
                    1,
                    255,
                    "",
                )?)),
            },
            (Some(_), Some(hops)) => Err(FieldError::new(
                "spec.ttlSecurity",
                hops,
                "cannot be combined with ebgpMultihop: say the distance here alone",
            )
            .into()),
        }
    }
}

/// Graceful restart as the side that restarts (RFC 4724).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GracefulRestart {
    /// Seconds that the peer keeps our routes; the hold time where `None`.
    pub restart_time: Option<u16>,
    /// Also across NOTIFICATION and hold time expiry (RFC 8538).
    pub notification: bool,
    /// Offers the long-lived form (RFC 9494).
    pub long_lived: bool,
}

impl GracefulRestart {
    /// Reads the part at `spec.gracefulRestart`; `None` where it is off, or only to help others: no received route is
    /// used, so there is none to keep for a peer that restarts.
    pub fn read(spec: &wire::GracefulRestart) -> Result<Option<Self>, FieldError> {
        if !spec.enabled || spec.helper_only {
            return Ok(None);
        }
        let path = "spec.gracefulRestart.restartTime";
        let restart_time = match spec.restart_time {
            None | Some(0) => None,
            Some(seconds) => Some(within(path, seconds, 1, 4095, " seconds (RFC 4724)")?),
        };
        Ok(Some(Self {
            restart_time,
            notification: spec.notification_enabled,
            long_lived: spec.longlived_enabled,
        }))
    }
}

/// A BFD session beside the BGP session (RFC 5880).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bfd {
    /// Milliseconds between packets that we send, 10 to 60,000.
    pub transmit: u16,
    /// Milliseconds between packets that we can take, 10 to 60,000.
    pub receive: u16,
    /// How many packets may be missing, 2 to 255.
    pub multiplier: u8,
    /// Sends nothing until the peer does.
    pub passive: bool,
    /// Over several hops: the least TTL of packets that are looked at.
    pub minimum_ttl: u8,
}

impl Bfd {
    /// Reads the part at `spec.bfd`; `None` where it is off.
    pub fn read(spec: &wire::Bfd) -> Result<Option<Self>, FieldError> {
        if !spec.enabled {
            return Ok(None);
        }
        let interval = |name: &str, value: Option<i64>| {
            let path = format!("spec.bfd.{name}");
            within(&path, value.unwrap_or(300), 10, 60_000, " milliseconds")
        };
        let multiplier = spec.detect_multiplier.unwrap_or(3);
        let minimum_ttl = spec.minimum_ttl.unwrap_or(254);
        Ok(Some(Self {
            transmit: interval("transmitInterval", spec.transmit_interval)?,
            receive: interval("receiveInterval", spec.receive_interval)?,
            multiplier: within("spec.bfd.detectMultiplier", multiplier, 2, 255, "")?,
            passive: spec.passive_mode,
            minimum_ttl: within("spec.bfd.minimumTtl", minimum_ttl, 1, 254, "")?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn timers(spec: Value) -> Result<Timers, String> {
        let config: wire::TimersConfig = serde_json::from_value(spec).unwrap();
        Timers::try_from(&config).map_err(|error| error.to_string())
    }

    fn hops(spec: Value) -> Result<Hops, String> {
        let spec: wire::BgpPeerSpec = serde_json::from_value(spec).unwrap();
        Hops::try_from(&spec).map_err(|error| error.to_string())
    }

    #[test]
    fn timers_are_numbers_in_strings() {
        assert_eq!(timers(json!({})), Ok(Timers::default()));
        let given = json!({"holdTime": "9", "keepaliveInterval": "3", "connectRetry": "0"});
        let read = timers(given).unwrap();
        assert_eq!(
            (read.hold, read.keepalive, read.connect_retry),
            (9, Some(3), 120)
        );
        assert_eq!(timers(json!({"holdTime": "0"})).unwrap().hold, 0);
        assert_eq!(
            timers(json!({"holdTime": "2", "connectRetry": "10s"})).unwrap_err(),
            "spec.timers.config.holdTime: 2 must be 0 (off) or at least 3 seconds; \
             spec.timers.config.connectRetry: \"10s\" must be a whole number of seconds up to 65535, written as a \
             string, such as \"90\""
        );
    }

    #[test]
    fn a_peer_is_near_far_or_guarded() {
        assert_eq!(hops(json!({})), Ok(Hops::Direct));
        assert_eq!(
            hops(json!({"ebgpMultihop": {"enabled": true}})),
            Ok(Hops::Multihop(255))
        );
        assert_eq!(
            hops(json!({"ebgpMultihop": {"enabled": false, "multihopTtl": 3}})),
            Ok(Hops::Direct)
        );
        assert_eq!(hops(json!({"ttlSecurity": 1})), Ok(Hops::Security(1)));
        assert!(hops(json!({"ttlSecurity": 1, "ebgpMultihop": {"enabled": true}})).is_err());
        assert!(hops(json!({"ttlSecurity": -1})).is_err());
    }

    #[test]
    fn graceful_restart_and_bfd_are_off_unless_asked_for() {
        let restart = |spec| GracefulRestart::read(&serde_json::from_value(spec).unwrap());
        assert_eq!(restart(json!({"restartTime": 60})), Ok(None));
        assert_eq!(
            restart(json!({"enabled": true, "helperOnly": true})),
            Ok(None)
        );
        let on = restart(json!({"enabled": true, "restartTime": 60}))
            .unwrap()
            .unwrap();
        assert_eq!(on.restart_time, Some(60));
        assert!(restart(json!({"enabled": true, "restartTime": 4096})).is_err());
        let bfd = |spec| Bfd::read(&serde_json::from_value(spec).unwrap());
        assert_eq!(bfd(json!({"transmitInterval": 1})), Ok(None));
        let on = bfd(json!({"enabled": true, "receiveInterval": 50}))
            .unwrap()
            .unwrap();
        assert_eq!((on.transmit, on.receive, on.multiplier), (300, 50, 3));
        let error = bfd(json!({"enabled": true, "transmitInterval": 1})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "spec.bfd.transmitInterval: 1 must be between 10 and 60000 milliseconds"
        );
    }
}
