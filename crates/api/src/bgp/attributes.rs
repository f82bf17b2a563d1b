//! What an Eip adds to its routes.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::read::within;
use super::{Community, CommunityError, ExtendedCommunity, LargeCommunity};
use crate::field::Errors;
use crate::v1alpha2::EipBgp;
use crate::{FieldError, Invalid};

/// How an Eip's addresses are announced: `Eip.spec.bgp`, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathAttributes {
    /// The length of the IPv4 prefix announced for an address, 1 to 32.
    pub length_v4: u8,
    /// The length of the IPv6 prefix announced for an address, 1 to 128.
    pub length_v6: u8,
    /// Communities.
    pub communities: BTreeSet<Community>,
    /// Large communities.
    pub large_communities: BTreeSet<LargeCommunity>,
    /// Extended communities.
    pub extended_communities: BTreeSet<ExtendedCommunity>,
    /// LOCAL_PREF, where it is not left to its default.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// How many more times the own AS number stands in the path, up to 16.
    pub prepend: u8,
    /// The BgpPeers that hear of the routes; all when empty.
    pub peers: BTreeSet<String>,
}

impl Default for PathAttributes {
    fn default() -> Self {
        Self {
            length_v4: 32,
            length_v6: 128,
            communities: BTreeSet::new(),
            large_communities: BTreeSet::new(),
            extended_communities: BTreeSet::new(),
            local_pref: None,
            med: None,
            prepend: 0,
            peers: BTreeSet::new(),
        }
    }
}

impl PathAttributes {
    /// Reads what can be used, and says what is wrong with the rest, which counts as absent: one community that is
    /// misspelt must not silence a pool.
    #[must_use]
    pub fn read(spec: &EipBgp) -> (Self, Vec<FieldError>) {
        let mut errors = Errors::default();
        let mut number = |name: &str, value: Option<i64>, least: i64, most: i64| {
            let path = format!("spec.bgp.{name}");
            let read = value.map(|value| within::<u32>(&path, value, least, most, ""));
            errors.take(read.transpose()).flatten()
        };
        let length_v4 = number("aggregationLength", spec.aggregation_length, 1, 32);
        let length_v6 = number("aggregationLengthV6", spec.aggregation_length_v6, 1, 128);
        let local_pref = number("localPref", spec.local_pref, 0, u32::MAX.into());
        let med = number("med", spec.med, 0, u32::MAX.into());
        let prepend = number("asPathPrepend", spec.as_path_prepend, 0, 16);
        let short = |value: Option<u32>, absent: u8| {
            value.map_or(absent, |value| u8::try_from(value).unwrap_or(absent))
        };
        let attributes = Self {
            length_v4: short(length_v4, 32),
            length_v6: short(length_v6, 128),
            communities: all("communities", &spec.communities, &mut errors),
            large_communities: all("largeCommunities", &spec.large_communities, &mut errors),
            extended_communities: all(
                "extendedCommunities",
                &spec.extended_communities,
                &mut errors,
            ),
            local_pref,
            med,
            prepend: short(prepend, 0),
            peers: spec.peers.iter().cloned().collect(),
        };
        (attributes, errors.into_vec())
    }
}

impl TryFrom<&EipBgp> for PathAttributes {
    type Error = Invalid;

    fn try_from(spec: &EipBgp) -> Result<Self, Self::Error> {
        let (attributes, errors) = Self::read(spec);
        Invalid::unless_none(errors).map(|()| attributes)
    }
}

fn all<T: FromStr<Err = CommunityError> + Ord>(
    field: &str,
    texts: &[String],
    errors: &mut Errors,
) -> BTreeSet<T> {
    let mut values = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let path = || format!("spec.bgp.{field}[{index}]");
        let read = text
            .parse()
            .map_err(|reason| FieldError::new(path(), text.as_str(), reason));
        values.extend(errors.take(read));
    }
    values
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> Result<PathAttributes, String> {
        let spec: EipBgp = serde_json::from_value(spec).unwrap();
        PathAttributes::try_from(&spec).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_said_is_a_host_route_without_attributes() {
        assert_eq!(read(json!({})), Ok(PathAttributes::default()));
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let spec =
            json!({"aggregationLength": 33, "med": -1, "communities": ["no-export", "65536:1"]});
        assert_eq!(
            read(spec).unwrap_err(),
            "spec.bgp.aggregationLength: 33 must be between 1 and 32; \
             spec.bgp.med: -1 must be between 0 and 4294967295; \
             spec.bgp.communities[1]: \"65536:1\" must be two numbers up to 65535, such as 65000:100, or \
             graceful-shutdown, blackhole, no-export, no-advertise or local-as"
        );
    }
}
