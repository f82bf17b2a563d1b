//! Builders of worlds for tests.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use openelb_api::keys;
use openelb_api::v1alpha2::{Eip, EipSpec};
use serde_json::json;

use super::*;

/// A time, in seconds from the beginning of all.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// A holder of an address, by the name of the Service.
pub(crate) fn held_by(name: &str) -> pool::Holder {
    pool::Holder {
        service: ServiceKey::new("default", name),
        uid: "u1".into(),
    }
}

/// A node that may announce everything.
pub(crate) fn node(name: &str) -> TestNode {
    TestNode {
        name: name.to_owned(),
        node: Node::default(),
    }
}

#[derive(Clone)]
pub(crate) struct TestNode {
    name: String,
    node: Node,
}

impl TestNode {
    pub(crate) fn excluded(self) -> Self {
        self.label(keys::EXCLUDE_NODE, "")
    }

    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.node.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn network_unavailable(mut self) -> Self {
        self.node.network_unavailable = true;
        self
    }

    pub(crate) fn not_ready_since(mut self, seconds: i64) -> Self {
        self.node.not_ready_since = Some(at(seconds));
        self
    }
}

/// A Service in `default` that holds 203.0.113.1 of the Eip `pool`, without endpoints.
pub(crate) fn service(name: &str) -> TestService {
    TestService {
        key: ServiceKey::new("default", name),
        service: Service {
            addresses: vec!["203.0.113.1".parse().unwrap()],
            ..Service::default()
        },
        endpoints: Vec::new(),
    }
}

#[derive(Clone)]
pub(crate) struct TestService {
    key: ServiceKey,
    service: Service,
    endpoints: Vec<serde_json::Value>,
}

impl TestService {
    pub(crate) fn local(mut self) -> Self {
        self.service.policy = TrafficPolicy::Local;
        self
    }

    pub(crate) fn prefers(mut self, node: &str) -> Self {
        self.service.preferred_node = Some(node.to_owned());
        self
    }

    pub(crate) fn label(mut self, eip: &str) -> Self {
        self.service.eip_label = Some(eip.to_owned());
        self
    }

    pub(crate) fn addresses(mut self, addresses: &[&str]) -> Self {
        self.service.addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self
    }

    pub(crate) fn ready_on(self, node: &str) -> Self {
        self.endpoint(node, (true, true, false))
    }

    pub(crate) fn terminating_on(self, node: &str) -> Self {
        self.endpoint(node, (false, true, true))
    }

    pub(crate) fn down_on(self, node: &str) -> Self {
        self.endpoint(node, (false, false, false))
    }

    fn endpoint(mut self, node: &str, (ready, serving, terminating): (bool, bool, bool)) -> Self {
        self.endpoints.push(json!({
            "addresses": ["10.1.0.1"],
            "nodeName": node,
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating}
        }));
        self
    }
}

#[derive(Clone, Default)]
pub(crate) struct TestWorld {
    nodes: Vec<TestNode>,
    services: Vec<TestService>,
    pool: Option<Pool>,
}

impl TestWorld {
    pub(crate) fn node(mut self, node: TestNode) -> Self {
        self.nodes.push(node);
        self
    }

    pub(crate) fn service(mut self, service: TestService) -> Self {
        self.services.push(service);
        self
    }

    /// Edits the Eip `pool`, which has 203.0.113.0/24 and 2001:db8::/64.
    pub(crate) fn pool(mut self, edit: impl FnOnce(&mut Pool)) -> Self {
        let pool = self.pool.get_or_insert_with(plain_pool);
        edit(pool);
        self
    }

    pub(crate) fn build(&self) -> World {
        let mut world = World::default();
        for TestNode { name, node } in &self.nodes {
            world.nodes.insert(name.clone(), node.clone());
        }
        let pool = self.pool.clone().unwrap_or_else(plain_pool);
        world.pools.insert("pool".to_owned(), Arc::new(pool));
        for TestService {
            key,
            service,
            endpoints,
        } in &self.services
        {
            world.set_service(key, Some(service.clone()));
            for address in &service.addresses {
                let holding: &mut Holding = world.holdings.entry(*address).or_default();
                holding.eip = "pool".to_owned();
                holding.holders.push(held_by(&key.name));
            }
            for family in ["IPv4", "IPv6"] {
                let slice = serde_json::from_value(json!({
                    "metadata": {"name": family}, "addressType": family, "endpoints": endpoints
                }));
                let read = SliceEndpoints::read(&slice.unwrap()).unwrap();
                let slices = world.slices.entry(key.clone()).or_default();
                slices.set(family, Some(read));
            }
        }
        world
    }
}

fn plain_pool() -> Pool {
    let spec = EipSpec {
        address: "203.0.113.0/24, 2001:db8::/64".to_owned(),
        ..EipSpec::default()
    };
    let (pool, faults) = Pool::read(&Eip::new("pool", spec));
    assert!(faults.is_empty());
    assert!(pool.contains(IpAddr::from([203, 0, 113, 255])));
    pool
}
