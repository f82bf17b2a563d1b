//! What the API says, trimmed to what matters for announcing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use openelb_api::v1alpha2::Protocol;

use super::endpoints::{self, Placement, SliceEndpoints};
use super::node::Node;
use super::pool::{Holding, Pool};
use super::service::{Service, ServiceKey};

/// Everything that decides who announces what.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// Nodes by name.
    pub(crate) nodes: BTreeMap<String, Node>,
    /// Services that show addresses.
    pub(crate) services: BTreeMap<ServiceKey, Service>,
    /// EndpointSlices: Service → slice name → what is in it.
    pub(crate) slices: BTreeMap<ServiceKey, BTreeMap<String, SliceEndpoints>>,
    /// Eips by name.
    pub(crate) pools: BTreeMap<String, Arc<Pool>>,
    /// EipAddresses by address.
    pub(crate) holdings: BTreeMap<IpAddr, Holding>,
}

/// An address in use: held by Services that show it.
#[derive(Clone, Debug)]
pub(crate) struct Address<'w> {
    /// The address.
    pub(crate) ip: IpAddr,
    /// The Eip it comes from, by name.
    pub(crate) eip: &'w str,
    /// The Eip, while there is one.
    pub(crate) pool: Option<&'w Arc<Pool>>,
    /// How it is announced.
    pub(crate) protocol: Protocol,
    /// The Services that hold it and show it; never empty.
    pub(crate) services: Vec<(&'w ServiceKey, &'w Service)>,
}

impl World {
    /// The addresses in use, in order.
    ///
    /// An address is in use where a Service shows it and its EipAddress names that Service: neither
    /// a status that somebody wrote nor a reservation is enough. Until an address has an EipAddress
    /// (just taken over from OpenELB) the Service's label and the Eip it names stand in for it.
    pub(crate) fn addresses(&self) -> Vec<Address<'_>> {
        let mut addresses: BTreeMap<IpAddr, Address<'_>> = BTreeMap::new();
        for (key, service) in &self.services {
            for ip in &service.addresses {
                let Some((eip, recorded)) = self.origin(key, service, *ip) else {
                    continue;
                };
                let pool = self.pools.get(eip);
                addresses
                    .entry(*ip)
                    .or_insert_with(|| Address {
                        ip: *ip,
                        eip,
                        pool,
                        protocol: pool.map_or(recorded, |pool| pool.protocol),
                        services: Vec::new(),
                    })
                    .services
                    .push((key, service));
            }
        }
        addresses.into_values().collect()
    }

    /// The Eip and protocol by which this Service has the address, if it does.
    fn origin<'w>(
        &'w self,
        key: &ServiceKey,
        service: &'w Service,
        ip: IpAddr,
    ) -> Option<(&'w str, Protocol)> {
        if let Some(holding) = self.holdings.get(&ip) {
            return holding
                .is_held_by(key)
                .then_some((holding.eip.as_str(), holding.protocol));
        }
        let eip = service.eip_label.as_deref()?;
        let pool = self.pools.get(eip)?;
        pool.contains(ip).then_some((eip, pool.protocol))
    }

    /// Where the endpoints of a Service are, for the family of the address.
    pub(crate) fn placement(&self, service: &ServiceKey, address: IpAddr) -> Cow<'_, Placement> {
        endpoints::combine(
            self.slices
                .get(service)
                .into_iter()
                .flat_map(BTreeMap::values),
            address,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::testing::{TestWorld, held_by, service};

    fn in_use(world: &World) -> Vec<String> {
        world
            .addresses()
            .iter()
            .map(|address| address.ip.to_string())
            .collect()
    }

    #[test]
    fn an_address_counts_where_its_eipaddress_names_the_service() {
        let mut world = TestWorld::default().service(service("web")).build();
        assert_eq!(in_use(&world), ["203.0.113.1"]);
        for holding in world.holdings.values_mut() {
            holding.holders = vec![held_by("other")];
        }
        assert!(in_use(&world).is_empty(), "a status is not enough");
    }

    #[test]
    fn a_reservation_alone_is_not_announced() {
        let mut world = TestWorld::default().service(service("web")).build();
        world.services.clear();
        assert!(in_use(&world).is_empty());
    }

    #[test]
    fn before_the_ledger_knows_it_the_label_and_the_pool_vouch_for_an_address() {
        let mut world = TestWorld::default()
            .service(service("web").label("pool"))
            .build();
        world.holdings.clear();
        assert_eq!(in_use(&world), ["203.0.113.1"]);
        let key = ServiceKey::new("default", "web");
        world.services.get_mut(&key).unwrap().addresses = vec!["198.51.100.1".parse().unwrap()];
        assert!(in_use(&world).is_empty(), "outside the pool");
        world.services.get_mut(&key).unwrap().eip_label = None;
        assert!(in_use(&world).is_empty());
    }

    #[test]
    fn the_pools_protocol_wins_over_the_recorded_one() {
        let world = TestWorld::default()
            .pool(|pool| pool.protocol = Protocol::Layer2)
            .service(service("web"));
        assert_eq!(world.build().addresses()[0].protocol, Protocol::Layer2);
        let mut orphan = world.build();
        orphan.pools.clear();
        assert_eq!(orphan.addresses()[0].protocol, Protocol::Bgp);
    }
}
