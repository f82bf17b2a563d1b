//! What this node may announce, and its routes: worked out anew for what has changed and for nothing else, so that a
//! change of one Service costs the same beside ten others and beside ten thousand.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use openelb_bgp::RouteSet;

use super::kube_proxy::KubeProxy;
use crate::announce::{Able, Candidates, Routes, World};
use crate::picture::Touched;

/// This node's share of what is announced.
pub(super) struct Share {
    node: String,
    candidates: Candidates,
    /// The addresses that this node may announce as far as the API says.
    may: BTreeSet<IpAddr>,
    /// Those of them that kube-proxy does not pass on yet.
    held: BTreeSet<IpAddr>,
    routes: Routes,
}

impl Share {
    /// Nothing is known yet; begin with [`Touched::Everything`].
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            candidates: Candidates::default(),
            may: BTreeSet::new(),
            held: BTreeSet::new(),
            routes: Routes::default(),
        }
    }

    /// Takes in what has changed in the world, in kube-proxy, and by the passing of time. Returns what it concerns,
    /// kube-proxy included.
    pub(super) fn update(
        &mut self,
        world: &World,
        touched: Touched,
        kube_proxy: &mut KubeProxy,
        now: Timestamp,
    ) -> Touched {
        let everything = touched == Touched::Everything;
        let mut addresses = match touched {
            Touched::Nothing | Touched::Settings => BTreeSet::new(),
            Touched::Addresses(addresses) => addresses,
            Touched::Everything => {
                self.candidates = Candidates::new(world, now);
                self.routes = Routes::default();
                world.shown().chain(self.may.iter().copied()).collect()
            }
        };
        let able = Able::new(world, &self.candidates);
        for ip in &addresses {
            let address = world.address(*ip);
            if address.is_some_and(|address| able.nodes(&address).contains(&*self.node)) {
                self.may.insert(*ip);
            } else {
                self.may.remove(ip);
            }
        }
        let held = kube_proxy.held(&self.may, &addresses);
        addresses.extend(held.symmetric_difference(&self.held).copied());
        self.held = held;
        let able = Able::new(world, &self.candidates).without(&self.node, &self.held);
        self.routes.update(world, &able, &self.node, &addresses);
        if everything {
            Touched::Everything
        } else {
            addresses.into()
        }
    }

    /// Who may announce what, as far as this node knows, after [`Self::update`] with the same world.
    pub(super) fn able<'s>(&'s self, world: &'s World) -> Able<'s> {
        Able::new(world, &self.candidates).without(&self.node, &self.held)
    }

    /// The routes to announce by BGP.
    pub(super) fn routes(&self) -> &RouteSet {
        self.routes.set()
    }

    /// When time alone may change something.
    pub(super) fn recheck_at(&self) -> Option<Timestamp> {
        self.candidates.recheck_at()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::announce::testing::{TestWorld, at, node, service};
    use crate::announce::{ServiceKey, routes};

    fn kube_proxy() -> KubeProxy {
        let readiness = openelb_process::Readiness::default();
        KubeProxy::new(None, readiness.gate("kube-proxy"), Gauge::default())
    }

    #[test]
    fn a_change_concerns_its_addresses_and_leaves_the_others() {
        let mut world = TestWorld::default()
            .node(node("a"))
            .node(node("b"))
            .service(service("web").ready_on("a"))
            .service(service("dns").addresses(&["203.0.113.2"]).ready_on("b"))
            .build();
        let (mut share, mut kube_proxy) = (Share::new("a"), kube_proxy());
        let mut update = |share: &mut Share, world: &World, touched| {
            let touched = share.update(world, touched, &mut kube_proxy, at(100));
            let able = Able::new(world, &share.candidates);
            assert_eq!(*share.routes(), routes(world, &able, "a"));
            touched
        };
        let all = update(&mut share, &world, Touched::Everything);
        assert_eq!((all, share.routes().len()), (Touched::Everything, 2));
        let nothing = update(&mut share, &world, Touched::Settings);
        assert_eq!((nothing, share.routes().len()), (Touched::Nothing, 2));

        let gone = world.set_service(&ServiceKey::new("default", "web"), None);
        let concerned = update(&mut share, &world, gone.clone().into());
        assert_eq!(concerned, Touched::Addresses(gone));
        assert_eq!(share.may, ["203.0.113.2".parse().unwrap()].into());

        let now = TestWorld::default().node(node("a").excluded()).build();
        world.nodes = now.nodes;
        update(&mut share, &world, Touched::Everything);
        assert!(share.may.is_empty() && share.routes().is_empty());
    }
}
