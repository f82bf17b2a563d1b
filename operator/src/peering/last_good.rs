//! What runs on where an object becomes unusable: what it said before.
//!
//! A slip in an edit must not take every address off the network. A speaker remembers the last BgpConf and the last
//! of each BgpPeer that could be used; while the object as it is cannot, those stay in force, and the fault is told.

use std::borrow::Cow;
use std::collections::BTreeMap;

use openelb_api::Invalid;

use super::plan::{ConfObject, Credentials, PeerObject, Plan, plan};
use crate::announce::Node;

/// The last usable objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastGood {
    conf: Option<ConfObject>,
    peers: BTreeMap<String, PeerObject>,
}

impl LastGood {
    /// As [`plan`], with what was usable before in the place of what is not now.
    pub(crate) fn plan(
        &mut self,
        conf: Option<&ConfObject>,
        peers: &BTreeMap<String, PeerObject>,
        secrets: &Credentials,
        node: (&str, &Node),
    ) -> Plan {
        let fault = conf.and_then(|conf| conf.speaker.as_ref().err());
        if fault.is_none() {
            self.conf = conf.cloned();
        }
        self.peers.retain(|name, _| peers.contains_key(name));
        let mut faults: BTreeMap<&String, &Invalid> = BTreeMap::new();
        let mut in_force = Cow::Borrowed(peers);
        for (name, object) in peers {
            match (&object.peer, self.peers.get(name)) {
                (Ok(_), known) if known == Some(object) => {}
                (Ok(_), _) => {
                    self.peers.insert(name.clone(), object.clone());
                }
                // The label says hands off, whatever the rest says.
                (Err(_), _) if object.foreign => {}
                (Err(fault), Some(before)) => {
                    faults.insert(name, fault);
                    in_force.to_mut().insert(name.clone(), before.clone());
                }
                (Err(_), None) => {}
            }
        }
        let known = fault.is_some().then_some(self.conf.as_ref()).flatten();
        let mut plan = plan(known.or(conf), &in_force, secrets, node);
        if let Some(fault) = fault {
            plan.conf_fault = Some(fault.clone());
        }
        for (name, fault) in faults {
            if let Some(outcome) = plan.peers.get_mut(name) {
                *outcome = Err(fault.clone().into());
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use openelb_api::v1alpha2::{BgpConf, BgpPeer};
    use serde_json::{Value, json};

    use super::*;
    use crate::peering::Trouble;

    fn conf(spec: Value) -> ConfObject {
        ConfObject::read(&BgpConf::new(
            "default",
            serde_json::from_value(spec).unwrap(),
        ))
    }

    fn peer(address: &str) -> BTreeMap<String, PeerObject> {
        let spec = json!({"conf": {"neighborAddress": address, "peerAs": 65001}});
        let object = BgpPeer::new("r", serde_json::from_value(spec).unwrap());
        [("r".to_owned(), PeerObject::read(&object))].into()
    }

    fn planned(
        last: &mut LastGood,
        conf: Option<&ConfObject>,
        peers: &BTreeMap<String, PeerObject>,
    ) -> Plan {
        let node = Node::default();
        last.plan(conf, peers, &Credentials::default(), ("worker", &node))
    }

    #[test]
    fn a_slip_in_the_bgpconf_ends_no_session() {
        let mut last = LastGood::default();
        let (good, bad) = (conf(json!({"as": 65000})), conf(json!({"as": -1})));
        let peers = peer("10.0.0.254");
        let plan = planned(&mut last, Some(&bad), &peers);
        assert!(plan.config.is_none() && plan.conf_fault.is_some());
        let before = planned(&mut last, Some(&good), &peers);
        let plan = planned(&mut last, Some(&bad), &peers);
        assert_eq!(plan.config, before.config);
        assert!(plan.conf_fault.is_some());
        let plan = planned(&mut last, Some(&conf(json!({"as": 65009}))), &peers);
        assert_eq!(plan.config.unwrap().asn, 65009);
        assert!(plan.conf_fault.is_none());
        let plan = planned(&mut last, None, &peers);
        assert!(plan.config.is_none(), "deleted is no slip");
        let plan = planned(&mut last, Some(&bad), &peers);
        assert!(plan.config.is_none(), "and nothing is left of it");
    }

    #[test]
    fn a_slip_in_a_peer_does_not_end_its_session() {
        let mut last = LastGood::default();
        let conf = conf(json!({"as": 65000}));
        planned(&mut last, Some(&conf), &peer("10.0.0.254"));
        let plan = planned(&mut last, Some(&conf), &peer("10.0.0"));
        assert!(matches!(plan.peers["r"], Err(Trouble::Invalid(_))));
        assert!(plan.config.unwrap().peers.contains_key("r"));
        planned(&mut last, Some(&conf), &BTreeMap::new());
        let plan = planned(&mut last, Some(&conf), &peer("10.0.0"));
        assert!(!plan.config.unwrap().peers.contains_key("r"), "another one");
    }
}
