//! Address families: GoBGP's indexes in BgpConf, its protobuf names in BgpPeer.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::v1alpha2::AfiSafi;
use crate::{Family, FieldError};

/// GoBGP's names of the families, in the order of its `AfiSafiType` indexes.
const GOBGP: [&str; 24] = [
    "ipv4-unicast",
    "ipv6-unicast",
    "ipv4-labelled-unicast",
    "ipv6-labelled-unicast",
    "l3vpn-ipv4-unicast",
    "l3vpn-ipv6-unicast",
    "l3vpn-ipv4-multicast",
    "l3vpn-ipv6-multicast",
    "l2vpn-vpls",
    "l2vpn-evpn",
    "ipv4-multicast",
    "ipv6-multicast",
    "rtc",
    "ipv4-encap",
    "ipv6-encap",
    "ipv4-flowspec",
    "l3vpn-ipv4-flowspec",
    "ipv6-flowspec",
    "l3vpn-ipv6-flowspec",
    "l2vpn-flowspec",
    "ipv4-srpolicy",
    "ipv6-srpolicy",
    "opaque",
    "ls",
];

/// A family that is listed but never carries an address of a Service.
pub type Unannounced = String;

/// The families that are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Families {
    /// Those whose addresses are announced.
    pub announced: BTreeSet<Family>,
    /// The others, by name: accepted, without effect.
    pub without_effect: Vec<Unannounced>,
}

impl Families {
    /// Reads `BgpConf.spec.families`; both families when it is empty.
    pub fn of_indexes(indexes: &[i64]) -> Result<Self, FieldError> {
        let mut families = Self::default();
        for (position, index) in indexes.iter().enumerate() {
            let name = usize::try_from(*index)
                .ok()
                .and_then(|index| GOBGP.get(index));
            let name = name.ok_or_else(|| {
                let path = format!("spec.families[{position}]");
                FieldError::new(
                    path,
                    *index,
                    "must be GoBGP's index of a family: 0 for IPv4 unicast, 1 for IPv6 unicast",
                )
            })?;
            families.add(index_family(*index), name);
        }
        if indexes.is_empty() {
            families.announced.extend(Family::ALL);
        }
        families.unless_silent(
            "spec.families",
            indexes,
            "must hold 0 (IPv4 unicast), 1 (IPv6 unicast) or both: no other family is announced",
        )
    }

    /// Reads `BgpPeer.spec.afiSafis`; the family of the peer's address when it is empty or an entry names none.
    pub fn of_entries(entries: &[AfiSafi], own: Family) -> Result<Self, FieldError> {
        let mut families = Self::default();
        for (position, entry) in entries.iter().enumerate() {
            let named = entry
                .config
                .as_ref()
                .and_then(|config| config.family.as_ref());
            let path = |field: &str| format!("spec.afiSafis[{position}].config.family.{field}");
            let (afi, safi) = named.map_or(("", ""), |family| {
                (family.afi.as_str(), family.safi.as_str())
            });
            if !afi.is_empty() && !afi.starts_with("AFI_") {
                return Err(FieldError::new(
                    path("afi"),
                    afi,
                    "must be AFI_IP or AFI_IP6",
                ));
            }
            if !safi.is_empty() && !safi.starts_with("SAFI_") {
                return Err(FieldError::new(path("safi"), safi, "must be SAFI_UNICAST"));
            }
            let family = match (afi, safi) {
                ("", "") => Some(own),
                ("AFI_IP", "SAFI_UNICAST") => Some(Family::V4),
                ("AFI_IP6", "SAFI_UNICAST") => Some(Family::V6),
                _ => None,
            };
            families.add(family, &format!("{afi}/{safi}"));
        }
        if entries.is_empty() {
            families.announced.insert(own);
        }
        let names: Vec<&str> = families.without_effect.iter().map(String::as_str).collect();
        let names = Value::from(names);
        families.unless_silent(
            "spec.afiSafis",
            names,
            "must list AFI_IP or AFI_IP6 with SAFI_UNICAST: no other family is announced",
        )
    }

    /// The families, unless nothing would be announced.
    fn unless_silent(
        self,
        path: &str,
        value: impl Into<Value>,
        reason: &str,
    ) -> Result<Self, FieldError> {
        if self.announced.is_empty() {
            return Err(FieldError::new(path, value, reason));
        }
        Ok(self)
    }

    fn add(&mut self, family: Option<Family>, name: &str) {
        match family {
            Some(family) => {
                self.announced.insert(family);
            }
            None => self.without_effect.push(name.to_owned()),
        }
    }
}

fn index_family(index: i64) -> Option<Family> {
    match index {
        0 => Some(Family::V4),
        1 => Some(Family::V6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries(families: &[(&str, &str)]) -> Vec<AfiSafi> {
        families
            .iter()
            .map(|(afi, safi)| {
                serde_json::from_value(json!({"config": {"family": {"afi": afi, "safi": safi}}}))
                    .unwrap()
            })
            .collect()
    }

    #[test]
    fn the_api_server_takes_the_indexes_that_have_a_name() {
        let rule = crate::crd::RULES
            .iter()
            .find(|rule| rule.path == "spec.families[]")
            .unwrap();
        assert_eq!(
            rule.rule,
            format!("self >= 0 && self <= {}", GOBGP.len() - 1)
        );
    }

    #[test]
    fn indexes_are_gobgps() {
        let read = |indexes: &[i64]| Families::of_indexes(indexes).unwrap();
        assert_eq!(read(&[]).announced, Family::ALL.into());
        assert_eq!(read(&[1]).announced, [Family::V6].into());
        let more = read(&[0, 9, 2]);
        assert_eq!(more.announced, [Family::V4].into());
        assert_eq!(more.without_effect, ["l2vpn-evpn", "ipv4-labelled-unicast"]);
        let last = read(&[0, 20, 21, 22, 23]);
        assert_eq!(
            last.without_effect,
            ["ipv4-srpolicy", "ipv6-srpolicy", "opaque", "ls"]
        );
        let error = Families::of_indexes(&[2]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("spec.families: [2] must hold 0")
        );
        let error = Families::of_indexes(&[0, 99]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("spec.families[1]: 99 must be")
        );
    }

    #[test]
    fn names_are_protobufs() {
        let read = |list: &[(&str, &str)]| Families::of_entries(&entries(list), Family::V6);
        assert_eq!(read(&[]).unwrap().announced, [Family::V6].into());
        assert_eq!(read(&[("", "")]).unwrap().announced, [Family::V6].into());
        let both = read(&[("AFI_IP", "SAFI_UNICAST"), ("AFI_IP6", "SAFI_UNICAST")]).unwrap();
        assert_eq!(both.announced, Family::ALL.into());
        let evpn = read(&[("AFI_L2VPN", "SAFI_EVPN"), ("", "")]).unwrap();
        assert_eq!(evpn.announced, [Family::V6].into());
        assert_eq!(evpn.without_effect, ["AFI_L2VPN/SAFI_EVPN"]);
        let error = read(&[("AFI_L2VPN", "SAFI_EVPN")]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("spec.afiSafis: [\"AFI_L2VPN/SAFI_EVPN\"] must list")
        );
        let error = read(&[("ipv4", "unicast")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "spec.afiSafis[0].config.family.afi: \"ipv4\" must be AFI_IP or AFI_IP6"
        );
    }
}
