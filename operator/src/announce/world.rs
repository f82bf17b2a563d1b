//! What the API says, trimmed to what matters for announcing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use openelb_api::v1alpha2::Protocol;

use super::endpoints::{self, Placement, Slices};
use super::node::Node;
use super::pool::{Holding, Pool};
use super::service::{Service, ServiceKey};

/// Everything that decides who announces what.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// Nodes by name.
    pub(crate) nodes: BTreeMap<String, Node>,
    /// Services that show addresses.
    services: BTreeMap<ServiceKey, Service>,
    /// Who shows an address, in order.
    shown: BTreeMap<IpAddr, Vec<ServiceKey>>,
    /// The EndpointSlices of Services.
    pub(crate) slices: BTreeMap<ServiceKey, Slices>,
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
    /// The addresses that Services show, in use or not, in order.
    pub(crate) fn shown(&self) -> impl Iterator<Item = IpAddr> {
        self.shown.keys().copied()
    }

    /// The addresses in use, in order.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Address<'_>> {
        self.shown().filter_map(|ip| self.address(ip))
    }

    /// This address, if it is in use.
    ///
    /// An address is in use where a Service shows it and its EipAddress names that Service: neither
    /// a status that somebody wrote nor a reservation is enough. Until an address has an EipAddress
    /// (just taken over from OpenELB) the Service's label and the Eip it names stand in for it.
    pub(crate) fn address(&self, ip: IpAddr) -> Option<Address<'_>> {
        let mut address: Option<Address<'_>> = None;
        for key in self.shown.get(&ip)? {
            let Some((key, service)) = self.services.get_key_value(key) else {
                continue;
            };
            let Some((eip, recorded)) = self.origin(key, service, ip) else {
                continue;
            };
            let address = address.get_or_insert_with(|| {
                let pool = self.pools.get(eip);
                Address {
                    ip,
                    eip,
                    pool,
                    protocol: pool.map_or(recorded, |pool| pool.protocol),
                    services: Vec::new(),
                }
            });
            address.services.push((key, service));
        }
        address
    }

    /// Takes in what a Service is now. Returns the addresses that it concerns; none where nothing differs.
    pub(crate) fn set_service(
        &mut self,
        key: &ServiceKey,
        service: Option<Service>,
    ) -> BTreeSet<IpAddr> {
        let old = self.services.get(key);
        if old == service.as_ref() {
            return BTreeSet::new();
        }
        let before = self.shown_by(key);
        for ip in &before {
            if let Some(keys) = self.shown.get_mut(ip) {
                keys.retain(|other| other != key);
                if keys.is_empty() {
                    self.shown.remove(ip);
                }
            }
        }
        for ip in service.iter().flat_map(|service| &service.addresses) {
            let keys = self
                .shown
                .entry(*ip)
                .or_insert_with(|| Vec::with_capacity(1));
            if let Err(place) = keys.binary_search(key) {
                keys.insert(place, key.clone());
            }
        }
        match service {
            Some(service) => drop(self.services.insert(key.clone(), service)),
            None => drop(self.services.remove(key)),
        }
        &before | &self.shown_by(key)
    }

    /// The addresses that a Service shows.
    pub(crate) fn shown_by(&self, key: &ServiceKey) -> BTreeSet<IpAddr> {
        let service = self.services.get(key).into_iter();
        service
            .flat_map(|service| service.addresses.iter().copied())
            .collect()
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
            self.slices.get(service).into_iter().flat_map(Slices::iter),
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
        world.set_service(&ServiceKey::new("default", "web"), None);
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
        let mut service = world.services[&key].clone();
        service.eip_label = None;
        world.set_service(&key, Some(service.clone()));
        assert!(in_use(&world).is_empty(), "no label");
        service.eip_label = Some("pool".to_owned());
        service.addresses = vec!["198.51.100.1".parse().unwrap()];
        world.set_service(&key, Some(service));
        assert!(in_use(&world).is_empty(), "outside the pool");
    }

    #[test]
    fn the_pools_protocol_wins_over_the_recorded_one() {
        let world = TestWorld::default()
            .pool(|pool| pool.protocol = Protocol::Layer2)
            .service(service("web"));
        let protocol = |world: &World| world.addresses().next().unwrap().protocol;
        assert_eq!(protocol(&world.build()), Protocol::Layer2);
        let mut orphan = world.build();
        orphan.pools.clear();
        assert_eq!(protocol(&orphan), Protocol::Bgp);
    }

    #[test]
    fn a_service_that_changes_concerns_the_addresses_it_had_and_has() {
        let ips = |ips: &[&str]| -> BTreeSet<IpAddr> {
            ips.iter().map(|ip| ip.parse().unwrap()).collect()
        };
        let showing = |ips: &[&str]| Service {
            addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ..Service::default()
        };
        let (web, dns) = (
            ServiceKey::new("default", "web"),
            ServiceKey::new("default", "dns"),
        );
        let mut world = World::default();
        let mut set = |key: &ServiceKey, service| world.set_service(key, service);
        assert_eq!(
            set(&web, Some(showing(&["192.0.2.1"]))),
            ips(&["192.0.2.1"])
        );
        assert_eq!(set(&web, Some(showing(&["192.0.2.1"]))), ips(&[]));
        assert_eq!(
            set(&dns, Some(showing(&["192.0.2.1"]))),
            ips(&["192.0.2.1"])
        );
        let moved = set(&web, Some(showing(&["192.0.2.2", "2001:db8::2"])));
        assert_eq!(moved, ips(&["192.0.2.1", "192.0.2.2", "2001:db8::2"]));
        assert_eq!(set(&dns, None), ips(&["192.0.2.1"]));
        assert_eq!(set(&dns, None), ips(&[]));
        let left: Vec<_> = world.shown.keys().copied().collect();
        assert_eq!(left, Vec::from_iter(ips(&["192.0.2.2", "2001:db8::2"])));
    }
}
