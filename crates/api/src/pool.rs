//! A pool of addresses: an Eip as the address management sees it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::ResourceExt;

use crate::field::Errors;
use crate::keys;
use crate::range::{AddressRange, Family, WrittenRange};
use crate::v1alpha2::{Eip, EipSpec, OnAddressRemoved, Protocol, Sharing};
use crate::{FieldError, Invalid, Labels, RangeSet};

/// The most IPv4 addresses of a pool with `avoidBuggyIPs`: a /8, from which 131,072 addresses are left out one by one.
const AVOIDING_LIMIT: u128 = 1 << 24;

/// The addresses that the fields `address`, `exclude` and `avoidBuggyIPs` describe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolAddresses {
    /// What `address` names. An address in use moves only when it is not even here, or excluded.
    pub named: RangeSet,
    /// What `exclude` names, whether in the pool or not.
    pub excluded: RangeSet,
    /// What may be given: named, not excluded, and not avoided.
    pub assignable: RangeSet,
    /// What the user should hear: `path: what about it`.
    pub warnings: Vec<String>,
}

impl PoolAddresses {
    /// What `spec.address` names, as far as it can be read, and what is wrong with the rest: a part that is misspelt
    /// must not silence the others.
    #[must_use]
    pub fn named_by(spec: &EipSpec) -> (RangeSet, Vec<FieldError>) {
        let mut errors = Errors::default();
        let written = list("spec.address", &spec.address, &mut errors, &mut Vec::new());
        let ranges = written.iter().map(|written| written.range).collect();
        (ranges, errors.into_vec())
    }

    /// Reads the three fields. Errors name every part that is no range.
    pub fn read(spec: &EipSpec) -> Result<Self, Invalid> {
        let mut errors = Errors::default();
        let mut warnings = Vec::new();
        let named = list("spec.address", &spec.address, &mut errors, &mut warnings);
        let excluded: Vec<_> = spec
            .exclude
            .iter()
            .enumerate()
            .flat_map(|(index, text)| {
                let path = format!("spec.exclude[{index}]");
                list(&path, text, &mut errors, &mut warnings)
            })
            .collect();
        let ranges: RangeSet = named.iter().map(|written| written.range).collect();
        let left_out: RangeSet = excluded.iter().map(|written| written.range).collect();
        let written = named.iter().map(|written| written.range.size());
        if written.fold(0, u128::saturating_add) > ranges.size() {
            warnings.push("spec.address: names some addresses twice; they count once".to_owned());
        }
        for outside in left_out.ranges().filter(|range| !ranges.overlaps(range)) {
            warnings.push(format!(
                "spec.exclude: {outside} is not in spec.address, so it has no effect"
            ));
        }
        let mut assignable = ranges.without(&left_out);
        if spec.avoid_buggy_ips {
            if assignable.size_of(Family::V4) > AVOIDING_LIMIT {
                errors.push(FieldError::new(
                    "spec.avoidBuggyIPs",
                    true,
                    "works for at most 16777216 IPv4 addresses (a /8): make the pool smaller, or name what to leave out in spec.exclude",
                ));
            } else {
                assignable = assignable.without(&buggy(&named, &assignable));
            }
        }
        if assignable.is_empty() {
            warnings.push(
                "spec.exclude: leaves no address of spec.address that could be given".to_owned(),
            );
        }
        errors.finish(Some(Self {
            named: ranges,
            excluded: left_out,
            assignable,
            warnings,
        }))
    }
}

/// Reads a comma-separated list of ranges.
fn list(
    path: &str,
    text: &str,
    errors: &mut Errors,
    warnings: &mut Vec<String>,
) -> Vec<WrittenRange> {
    let mut ranges = Vec::new();
    for part in text.split(',') {
        match part.parse::<WrittenRange>() {
            Ok(written) => {
                if written.misaligned {
                    let range = written.range;
                    warnings.push(format!(
                        "{path}: {:?} is not the start of a network; the range that results is {}-{} ({range})",
                        part.trim(),
                        range.first(),
                        range.last(),
                    ));
                }
                ranges.push(written);
            }
            Err(reason) => errors.push(FieldError::new(path, part.trim(), reason)),
        }
    }
    ranges
}

/// The addresses that some devices refuse: the first and the last of each network as it was written, and every IPv4
/// address that ends in `.0` or `.255`.
fn buggy(named: &[WrittenRange], assignable: &RangeSet) -> RangeSet {
    let networks = named
        .iter()
        .filter(|written| written.cidr && written.range.distance() > 1)
        .flat_map(|written| [written.range.first(), written.range.last()])
        .map(AddressRange::from);
    let octets = assignable.family(Family::V4).iter().flat_map(|range| {
        let (first, last) = (bits(range.first()), bits(range.last()));
        (first >> 8..=last >> 8)
            .flat_map(|block| [block << 8, block << 8 | 255])
            .map(|bits| AddressRange::from(IpAddr::V4(bits.into())))
    });
    networks.chain(octets).collect()
}

/// An IPv4 address as a number.
fn bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(_) => 0,
    }
}

/// An Eip that was understood: its addresses, and who gets them.
///
/// Made by `TryFrom<&Eip>`, which fails only for what makes the pool unusable: ranges or selectors that cannot be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// The Eip's name.
    pub name: String,
    /// The protocol of its addresses.
    pub protocol: Protocol,
    /// The addresses.
    pub addresses: PoolAddresses,
    /// Gives nothing new: disabled by the user, or being deleted.
    pub closed: Option<Closed>,
    /// The pool for Services that nothing else fits.
    pub default: bool,
    /// Smaller is preferred.
    pub priority: i64,
    /// Whom the pool is for.
    pub binding: Binding,
    /// Serves Services that name no Eip although it is not bound to them.
    pub auto_assign: bool,
    /// Who may share an address.
    pub sharing: Sharing,
    /// Addresses wait for a Service of the same name after theirs was deleted.
    pub sticky: bool,
    /// What becomes of an address in use that leaves the pool.
    pub on_address_removed: OnAddressRemoved,
}

/// Why a pool gives no new addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// `spec.disable` is set.
    Disabled,
    /// The Eip is being deleted.
    Deleting,
}

/// Whom a pool is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// Namespaces by name.
    pub namespaces: Vec<String>,
    /// Labels that a namespace must have, all of them; nothing when empty.
    pub namespace_labels: BTreeMap<String, String>,
    /// What a Service must look like.
    pub services: Option<Labels>,
    /// Others get nothing, even when they name the Eip.
    pub strict: bool,
}

impl Binding {
    /// Whether the pool is bound to anything at all.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.by_namespace() || self.services.is_some()
    }

    /// Whether the pool is bound to this Service: its namespace is one of the pool's, by name or by labels, and where
    /// the pool selects Services, its labels fit too.
    #[must_use]
    pub fn fits(
        &self,
        namespace: &str,
        namespace_labels: &BTreeMap<String, String>,
        service_labels: &BTreeMap<String, String>,
    ) -> bool {
        let namespace_fits = !self.by_namespace()
            || self.namespaces.iter().any(|name| name == namespace)
            || (!self.namespace_labels.is_empty()
                && self
                    .namespace_labels
                    .iter()
                    .all(|(key, value)| namespace_labels.get(key) == Some(value)));
        let service_fits = self
            .services
            .as_ref()
            .is_none_or(|labels| labels.matches(service_labels));
        self.is_bound() && namespace_fits && service_fits
    }

    fn by_namespace(&self) -> bool {
        !self.namespaces.is_empty() || !self.namespace_labels.is_empty()
    }
}

impl Pool {
    /// Whether an address that a Service holds still belongs to the pool: it is named and not excluded. Avoided
    /// addresses that are in use belong to it.
    #[must_use]
    pub fn keeps(&self, address: IpAddr) -> bool {
        self.addresses.named.contains(address) && !self.addresses.excluded.contains(address)
    }

    /// Whether the address may be given to a Service.
    #[must_use]
    pub fn gives(&self, address: IpAddr) -> bool {
        self.addresses.assignable.contains(address)
    }

    /// How many addresses may be given, as `status.poolSize` has it; the largest integer where there are more.
    #[must_use]
    pub fn size(&self) -> i64 {
        i64::try_from(self.addresses.assignable.size()).unwrap_or(i64::MAX)
    }
}

impl TryFrom<&Eip> for Pool {
    type Error = Invalid;

    fn try_from(eip: &Eip) -> Result<Self, Self::Error> {
        let spec = &eip.spec;
        let addresses = PoolAddresses::read(spec)?;
        let services = spec
            .service_selector
            .as_ref()
            .map(|selector| Labels::read("spec.serviceSelector", selector))
            .transpose()?;
        let closed = if eip.metadata.deletion_timestamp.is_some() {
            Some(Closed::Deleting)
        } else {
            spec.disable.then_some(Closed::Disabled)
        };
        Ok(Self {
            name: eip.name_any(),
            protocol: spec.effective_protocol(),
            addresses,
            closed,
            default: is_default(eip),
            priority: spec.priority,
            binding: Binding {
                namespaces: spec.namespaces.clone(),
                namespace_labels: spec.namespace_selector.clone(),
                services,
                strict: spec.strict_binding,
            },
            auto_assign: spec.auto_assigns(),
            sharing: spec.sharing.unwrap_or_default(),
            sticky: spec.sticky,
            on_address_removed: spec.on_address_removed.unwrap_or_default(),
        })
    }
}

/// Whether the Eip is marked as the default pool. The case of `true` does not matter.
#[must_use]
pub fn is_default(eip: &Eip) -> bool {
    eip.metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(keys::DEFAULT_EIP))
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool(spec: Value) -> Result<Pool, String> {
        let eip = Eip::new("lan", serde_json::from_value(spec).unwrap());
        Pool::try_from(&eip).map_err(|error| error.to_string())
    }

    fn assignable(spec: Value) -> String {
        pool(spec).unwrap().addresses.assignable.to_string()
    }

    #[test]
    fn lists_of_both_families_make_one_pool() {
        let pool =
            pool(json!({"address": "192.0.2.10-192.0.2.11, 2001:db8::/126,192.0.2.20"})).unwrap();
        assert_eq!(
            pool.addresses.assignable.to_string(),
            "192.0.2.10/31,192.0.2.20,2001:db8::/126"
        );
        assert_eq!(pool.size(), 7);
        assert!(pool.addresses.warnings.is_empty());
    }

    #[test]
    fn exclusions_are_not_given_and_not_kept() {
        let pool = pool(json!({
            "address": "192.0.2.0/24",
            "exclude": ["192.0.2.0-192.0.2.9,192.0.2.255", "192.0.2.100"],
        }))
        .unwrap();
        assert_eq!(
            pool.addresses.assignable.to_string(),
            "192.0.2.10-192.0.2.99,192.0.2.101-192.0.2.254"
        );
        assert!(!pool.keeps("192.0.2.100".parse().unwrap()));
    }

    #[test]
    fn avoided_addresses_are_not_given_but_kept() {
        assert_eq!(
            assignable(json!({"address": "10.0.0.0/23", "avoidBuggyIPs": true})),
            "10.0.0.1-10.0.0.254,10.0.1.1-10.0.1.254"
        );
        assert_eq!(
            assignable(json!({"address": "10.0.0.16/28,2001:db8::/120", "avoidBuggyIPs": true})),
            "10.0.0.17-10.0.0.30,2001:db8::1-2001:db8::fe"
        );
        // Ranges, pairs and single addresses have no network and broadcast address.
        assert_eq!(
            assignable(
                json!({"address": "10.0.0.4-10.0.0.7,10.0.0.12/31,10.0.0.20", "avoidBuggyIPs": true})
            ),
            "10.0.0.4/30,10.0.0.12/31,10.0.0.20"
        );
        let pool = pool(json!({"address": "10.0.0.0/24", "avoidBuggyIPs": true})).unwrap();
        assert!(
            pool.keeps("10.0.0.0".parse().unwrap()) && !pool.gives("10.0.0.0".parse().unwrap())
        );
    }

    #[test]
    fn avoiding_is_bounded() {
        let message = pool(json!({"address": "0.0.0.0/0", "avoidBuggyIPs": true})).unwrap_err();
        assert!(message.starts_with("spec.avoidBuggyIPs: true works for at most 16777216"));
        assert_eq!(
            pool(json!({"address": "10.0.0.0/8", "avoidBuggyIPs": true}))
                .unwrap()
                .size(),
            (1 << 24) - (1 << 17)
        );
    }

    #[test]
    fn what_a_user_may_not_expect_is_said() {
        let warnings = |spec| pool(spec).unwrap().addresses.warnings;
        assert_eq!(
            warnings(json!({"address": "192.0.2.77/24"})),
            [
                "spec.address: \"192.0.2.77/24\" is not the start of a network; the range that results is 192.0.2.0-192.0.2.255 (192.0.2.0/24)"
            ]
        );
        assert_eq!(
            warnings(json!({"address": "192.0.2.0/24,192.0.2.7"})),
            ["spec.address: names some addresses twice; they count once"]
        );
        assert_eq!(
            warnings(json!({"address": "192.0.2.1", "exclude": ["192.0.2.2"]})),
            ["spec.exclude: 192.0.2.2 is not in spec.address, so it has no effect"]
        );
        assert_eq!(
            warnings(json!({"address": "192.0.2.1", "exclude": ["192.0.2.0/24"]})),
            ["spec.exclude: leaves no address of spec.address that could be given"]
        );
    }

    #[test]
    fn all_errors_are_told_at_once() {
        assert_eq!(
            pool(json!({"address": "192.0.2.1,nonsense", "exclude": ["10.0.0.9-10.0.0.1"]}))
                .unwrap_err(),
            "spec.address: \"nonsense\" contains \"nonsense\", which is no IP address; \
             spec.exclude[0]: \"10.0.0.9-10.0.0.1\" ends below its start: write 10.0.0.1-10.0.0.9"
        );
    }

    #[test]
    fn sizes_beyond_the_integer_saturate() {
        assert_eq!(
            pool(json!({"address": "2001:db8::/64"})).unwrap().size(),
            i64::MAX
        );
        assert_eq!(
            pool(json!({"address": "2001:db8::/66"})).unwrap().size(),
            1 << 62
        );
        assert_eq!(
            pool(json!({"address": "::/0,0.0.0.0/0"})).unwrap().size(),
            i64::MAX
        );
    }

    #[test]
    fn a_pool_is_bound_by_namespace_and_narrowed_by_services() {
        let none = BTreeMap::new();
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let free = pool(json!({"address": "192.0.2.1"})).unwrap().binding;
        assert!(!free.is_bound() && !free.fits("shop", &none, &none));
        let named = pool(json!({
            "address": "192.0.2.1",
            "namespaces": ["shop"],
            "namespaceSelector": {"team": "a"},
            "serviceSelector": {"matchLabels": {"tier": "web"}},
        }))
        .unwrap()
        .binding;
        assert!(named.fits("shop", &none, &map("tier", "web")));
        assert!(named.fits("other", &map("team", "a"), &map("tier", "web")));
        assert!(!named.fits("other", &none, &map("tier", "web")));
        assert!(!named.fits("shop", &none, &none));
    }

    #[test]
    fn deletion_closes_a_pool_whether_disabled_or_not() {
        assert_eq!(pool(json!({"address": "192.0.2.1"})).unwrap().closed, None);
        assert_eq!(
            pool(json!({"address": "192.0.2.1", "disable": true}))
                .unwrap()
                .closed,
            Some(Closed::Disabled)
        );
    }
}
