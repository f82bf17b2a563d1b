//! The speakers' own side: `BgpConf`, understood.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::read::{address, as_number, within};
use super::{Families, GracefulRestart};
use crate::field::Errors;
use crate::v1alpha2::{BgpConf, BgpConfSpec};
use crate::{FieldError, Invalid};

/// The global configuration of the speakers, the same for every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// The AS number of nodes without a rack of their own; there is always this or a rack's.
    pub as_number: Option<u32>,
    /// Rack → AS number; `None` where racks do not count.
    pub as_per_rack: Option<BTreeMap<String, u32>>,
    /// The BGP identifier; each node's own where `None`.
    pub router_id: Option<Ipv4Addr>,
    /// The port to listen on; `None` for no listener.
    pub port: Option<u16>,
    /// The addresses to listen on; all when empty.
    pub listen: Vec<IpAddr>,
    /// The families that are announced at all.
    pub families: Families,
    /// Graceful restart for peers that do not say otherwise.
    pub graceful_restart: Option<GracefulRestart>,
    /// The ConfigMap with the policy.
    pub policy: Option<String>,
}

impl Speaker {
    /// The AS number of a node in this rack (`None` without one): the rack's where it has one, else the common one.
    #[must_use]
    pub fn as_number_in(&self, rack: Option<&str>) -> Option<u32> {
        let racks = self.as_per_rack.as_ref();
        let own = racks.zip(rack).and_then(|(racks, rack)| racks.get(rack));
        own.copied().or(self.as_number)
    }

    /// The AS number that is every node's; `None` where racks have numbers of their own.
    #[must_use]
    pub fn common_as_number(&self) -> Option<u32> {
        let has_racks = self
            .as_per_rack
            .as_ref()
            .is_some_and(|racks| !racks.is_empty());
        self.as_number.filter(|_| !has_racks)
    }
}

impl TryFrom<&BgpConf> for Speaker {
    type Error = Invalid;

    fn try_from(object: &BgpConf) -> Result<Self, Self::Error> {
        Self::try_from(&object.spec)
    }
}

impl TryFrom<&BgpConfSpec> for Speaker {
    type Error = Invalid;

    fn try_from(spec: &BgpConfSpec) -> Result<Self, Self::Error> {
        let mut errors = Errors::default();
        let own = errors.take(as_number("spec.as", spec.as_number)).flatten();
        let as_per_rack = spec.as_per_rack.as_ref().map(|racks| {
            let mut numbers = BTreeMap::new();
            for (rack, number) in racks {
                let read = as_number(&format!("spec.asPerRack.{rack}"), Some(*number));
                // 0 leaves a rack with the common number.
                if let Some(number) = errors.take(read).flatten() {
                    numbers.insert(rack.clone(), number);
                }
            }
            numbers
        });
        let has_rack = as_per_rack.as_ref().is_some_and(|racks| !racks.is_empty());
        if own.is_none() && !has_rack && matches!(spec.as_number, None | Some(0)) {
            errors.push(FieldError::new(
                "spec.as",
                spec.as_number,
                "must be the own AS number, between 1 and 4294967295",
            ));
        }
        let router_id = errors.take(router_id(&spec.router_id));
        let port = match spec.listen_port {
            None | Some(0) => Some(Some(179)),
            Some(-1) => Some(None),
            Some(port) => errors
                .take(within(
                    "spec.listenPort",
                    port,
                    1,
                    65_535,
                    ", 0 (179) or -1 (no listener)",
                ))
                .map(Some),
        };
        let listen: Vec<_> = spec
            .listen_addresses
            .iter()
            .enumerate()
            .filter_map(|(index, text)| {
                let path = format!("spec.listenAddresses[{index}]");
                errors.take(address(&path, text)).flatten()
            })
            .collect();
        let families = errors.take(Families::of_indexes(&spec.families));
        let restart = spec.graceful_restart.as_ref();
        let restart = errors.take(restart.map(GracefulRestart::read).transpose());
        let speaker = || {
            Some(Self {
                as_number: own,
                as_per_rack,
                router_id: router_id?,
                port: port?,
                listen,
                families: families?,
                graceful_restart: restart?.flatten(),
                policy: Some(spec.policy.clone()).filter(|name| !name.is_empty()),
            })
        };
        let speaker = speaker();
        errors.finish(speaker)
    }
}

fn router_id(text: &str) -> Result<Option<Ipv4Addr>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    let read = text.trim().parse::<Ipv4Addr>().ok();
    read.filter(|id| !id.is_unspecified())
        .map(Some)
        .ok_or_else(|| {
            FieldError::new(
                "spec.routerId",
                text,
                "must be an IPv4 address (BGP identifiers are 32 bits, also where routes are IPv6)",
            )
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> Result<Speaker, String> {
        let object = BgpConf::new("default", serde_json::from_value(spec).unwrap());
        Speaker::try_from(&object).map_err(|error| error.to_string())
    }

    #[test]
    fn openelbs_sample_is_understood() {
        let speaker =
            read(json!({"as": 50001, "listenPort": 17900, "routerId": "172.22.0.10"})).unwrap();
        assert_eq!(speaker.as_number, Some(50001));
        assert_eq!(speaker.port, Some(17900));
        assert_eq!(speaker.router_id, Some(Ipv4Addr::new(172, 22, 0, 10)));
    }

    #[test]
    fn the_port_may_be_absent_or_none() {
        assert_eq!(read(json!({"as": 1})).unwrap().port, Some(179));
        assert_eq!(
            read(json!({"as": 1, "listenPort": 0})).unwrap().port,
            Some(179)
        );
        assert_eq!(read(json!({"as": 1, "listenPort": -1})).unwrap().port, None);
        assert!(read(json!({"as": 1, "listenPort": -2})).is_err());
    }

    #[test]
    fn racks_have_numbers_of_their_own() {
        let speaker = read(json!({"as": 1, "asPerRack": {"a": 2, "b": 0}})).unwrap();
        assert_eq!(speaker.as_number_in(Some("a")), Some(2));
        assert_eq!(speaker.as_number_in(Some("b")), Some(1));
        assert_eq!(speaker.as_number_in(None), Some(1));
        assert!(read(json!({"asPerRack": {"a": 2}})).is_ok());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert_eq!(
            read(json!({})).unwrap_err(),
            "spec.as: must be the own AS number, between 1 and 4294967295"
        );
        let message = read(json!({
            "as": -1, "routerId": "::1", "listenAddresses": ["all"], "families": [77], "asPerRack": {"r": -5},
        }))
        .unwrap_err();
        for path in [
            "spec.as: -1",
            "spec.asPerRack.r: -5",
            "spec.routerId: \"::1\"",
            "spec.listenAddresses[0]: \"all\"",
            "spec.families[0]: 77",
        ] {
            assert!(message.contains(path), "{path} in {message}");
        }
    }
}
