//! What the node is asked to do: always complete, never a stream of additions and removals.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use openelb_net::MacAddr;

use crate::InterfaceChoice;

/// The complete wish for one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Every address that the cluster serves in layer 2, whoever leads it. Those led elsewhere are
    /// listed too, with [`Role::Follow`], so that hand-overs and conflicts are understood.
    pub addresses: HashMap<IpAddr, Vip>,
    /// The pools as prefixes: the kernel drops every request for an address outside of them. An
    /// address in `addresses` that lies in no range is added to the filter.
    pub ranges: Vec<IpNet>,
    /// The other speakers by the hardware addresses of their interfaces (`Ability::macs`), those
    /// that died lately included: whether a claim comes from one of ours is decided by this.
    pub peers: BTreeMap<MacAddr, Arc<str>>,
    /// No new address is taken while this is set (the membership is not settled, or the process
    /// was paused); what is answered already stays.
    pub hold: bool,
}

/// One virtual address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Where to answer; evaluated live against the node's interfaces.
    pub choice: Arc<InterfaceChoice>,
    /// This node's part.
    pub role: Role,
    /// What happens before the first use.
    pub probe: ProbePolicy,
    /// The node that the election was told to prefer, if it may lead; it also goes first when two nodes
    /// claim the address.
    pub preferred: Option<Arc<str>>,
    /// The address was adopted or announced before, by any node: it is never probed.
    pub proven: bool,
    /// Pace of the endless refresh; each is jittered by ±25 %. `None` turns it off.
    pub refresh: Option<Duration>,
}

impl Vip {
    /// The default pace of the refresh.
    pub const REFRESH: Duration = Duration::from_mins(1);
}

/// The part of this node for one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Announce and answer.
    Lead,
    /// Another node leads. If this node answers now, it goes on until it has heard the other
    /// announce, or for [`crate::ResponderConfig::hand_over`] at most.
    Follow,
    /// Nobody may answer here: fall silent at once. The same happens to an address that is not
    /// listed any more.
    Silent,
}

/// What to do about a foreign host that holds an address before its first use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbePolicy {
    /// Probe, report what is found, announce all the same.
    #[default]
    Report,
    /// Probe, and do not announce an address that a foreign host holds.
    Avoid,
    /// Do not probe.
    Off,
}
