//! Where the endpoints of a Service are.

use std::borrow::Cow;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Where the endpoints of one Service and address family are, as kube-proxy would use them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Some endpoint is ready.
    any_ready: bool,
    /// Some endpoint serves while it terminates.
    any_serving: bool,
    /// Nodes with a ready endpoint, in order.
    ready: Vec<Box<str>>,
    /// Nodes with an endpoint that serves while it terminates, in order.
    serving: Vec<Box<str>>,
}

impl Placement {
    /// Whether traffic that arrives at any node finds an endpoint.
    pub(crate) fn any(&self) -> bool {
        self.any_ready || self.any_serving
    }

    /// The nodes whose own endpoints take traffic, in order: those with ready ones; those with serving
    /// and terminating ones while none is ready anywhere.
    pub(crate) fn nodes(&self) -> &[Box<str>] {
        if self.any_ready {
            &self.ready
        } else {
            &self.serving
        }
    }

    fn add(&mut self, other: &Self) {
        self.any_ready |= other.any_ready;
        self.any_serving |= other.any_serving;
        self.ready.extend(other.ready.iter().cloned());
        self.serving.extend(other.serving.iter().cloned());
        self.tidy();
    }

    /// Puts the nodes in order, each once, with no room to spare: there is one of this for each Service.
    fn tidy(&mut self) {
        for nodes in [&mut self.ready, &mut self.serving] {
            nodes.sort_unstable();
            nodes.dedup();
            nodes.shrink_to_fit();
        }
    }
}

/// The part of one EndpointSlice that matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SliceEndpoints {
    /// Whether the slice is of IPv6 addresses.
    pub(crate) v6: bool,
    /// Where its endpoints are.
    pub(crate) placement: Placement,
}

impl SliceEndpoints {
    /// Reads a slice; `None` for one of names instead of addresses.
    pub(crate) fn read(slice: &EndpointSlice) -> Option<Self> {
        let v6 = match slice.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            _ => return None,
        };
        let mut placement = Placement::default();
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.as_ref();
            // Unknown counts as ready; serving follows ready where it is not given.
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
            let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
            let (any, nodes) = if ready {
                (&mut placement.any_ready, &mut placement.ready)
            } else if serving && terminating {
                (&mut placement.any_serving, &mut placement.serving)
            } else {
                continue;
            };
            *any = true;
            nodes.extend(endpoint.node_name.as_deref().map(Box::from));
        }
        placement.tidy();
        Some(Self { v6, placement })
    }
}

/// The EndpointSlices of a Service, by name. Nearly always there is one of each family: a map would take a kilobyte.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slices(Vec<(Box<str>, SliceEndpoints)>);

impl Slices {
    /// Sets or removes a slice; says whether that made a difference.
    pub(crate) fn set(&mut self, name: &str, slice: Option<SliceEndpoints>) -> bool {
        let place = self.0.iter().position(|(known, _)| **known == *name);
        match (place.and_then(|place| self.0.get_mut(place)), slice) {
            (Some((_, known)), Some(slice)) => {
                let differs = *known != slice;
                *known = slice;
                differs
            }
            (None, Some(slice)) => {
                self.0.reserve_exact(1);
                self.0.push((name.into(), slice));
                true
            }
            (Some(_), None) => {
                self.0.retain(|(known, _)| **known != *name);
                true
            }
            (None, None) => false,
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &SliceEndpoints> {
        self.0.iter().map(|(_, slice)| slice)
    }
}

/// All slices of a Service for the family of an address, as one. Nearly always there is one, and nothing is copied.
pub(crate) fn combine<'a>(
    slices: impl Iterator<Item = &'a SliceEndpoints>,
    address: IpAddr,
) -> Cow<'a, Placement> {
    let mut found = slices
        .filter(|slice| slice.v6 == address.is_ipv6())
        .map(|slice| &slice.placement);
    let mut all = found.next().map_or_else(Cow::default, Cow::Borrowed);
    for more in found {
        all.to_mut().add(more);
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(endpoints: &serde_json::Value) -> SliceEndpoints {
        let slice = serde_json::from_value(json!({
            "metadata": {"name": "web-1"}, "addressType": "IPv4", "endpoints": endpoints
        }));
        SliceEndpoints::read(&slice.unwrap()).unwrap()
    }

    fn nodes(placement: &Placement) -> Vec<&str> {
        placement.nodes().iter().map(|name| &**name).collect()
    }

    #[test]
    fn the_slices_of_a_service_are_kept_by_name() {
        let on = |node: &str| slice(&json!([{"addresses": ["10.1.0.1"], "nodeName": node}]));
        let mut slices = Slices::default();
        assert!(slices.set("a", Some(on("x"))) && slices.set("b", Some(on("x"))));
        assert!(!slices.set("a", Some(on("x"))) && slices.set("a", Some(on("y"))));
        let all = combine(slices.iter(), "192.0.2.1".parse().unwrap());
        assert_eq!(nodes(&all), ["x", "y"]);
        assert!(slices.set("b", None) && !slices.set("b", None));
        assert!(slices.set("a", None) && slices.is_empty());
    }

    #[test]
    fn conditions_are_read_as_kube_proxy_reads_them() {
        let read = slice(&json!([
            {"addresses": ["10.1.0.1"], "nodeName": "unknown-is-ready"},
            {"addresses": ["10.1.0.2"], "nodeName": "ready", "conditions": {"ready": true}},
            {"addresses": ["10.1.0.3"], "nodeName": "down", "conditions": {"ready": false}},
            {"addresses": ["10.1.0.4"], "nodeName": "ending",
             "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.1.0.5"], "nodeName": "ended",
             "conditions": {"ready": false, "serving": false, "terminating": true}}
        ]));
        assert_eq!(nodes(&read.placement), ["ready", "unknown-is-ready"]);
    }

    #[test]
    fn a_terminating_endpoint_counts_only_while_none_is_ready() {
        let ending = slice(&json!([{"addresses": ["10.1.0.4"], "nodeName": "a",
            "conditions": {"ready": false, "serving": true, "terminating": true}}]));
        let ready = slice(&json!([{"addresses": ["10.1.0.2"], "nodeName": "b"}]));
        let v4 = "192.0.2.1".parse().unwrap();
        assert_eq!(nodes(&combine([&ending].into_iter(), v4)), ["a"]);
        let both = combine([&ending, &ready].into_iter(), v4);
        assert_eq!(nodes(&both), ["b"]);
        let v6 = "2001:db8::1".parse().unwrap();
        assert!(!combine([&ending, &ready].into_iter(), v6).any());
    }

    #[test]
    fn an_endpoint_without_a_node_serves_all_nodes_but_is_local_to_none() {
        let read = slice(&json!([{"addresses": ["192.0.2.9"]}]));
        assert!(read.placement.any());
        assert!(read.placement.nodes().is_empty());
    }
}
