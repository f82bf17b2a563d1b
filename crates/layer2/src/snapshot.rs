//! What the node does and has seen: the responder's only output besides frames.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use openelb_net::MacAddr;

/// The state of every address of [`crate::Desired`], replaced as a whole when something changed
/// (at most every 20 ms).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By address.
    pub addresses: BTreeMap<IpAddr, VipState>,
}

impl Snapshot {
    /// Whether any address is answered here; `false` after all were handed over.
    #[must_use]
    pub fn answers_any(&self) -> bool {
        self.addresses
            .values()
            .any(|state| state.activity.answers())
    }
}

/// The state of one address on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipState {
    /// What is done for it.
    pub activity: Activity,
    /// The interface that its expression names now; `None` while none is usable.
    pub interface: Option<Arc<str>>,
    /// Whether the address lies in a subnet of that interface; if not, only a router that knows
    /// the way reaches it, and the user should be warned.
    pub in_subnet: bool,
    /// The result of the probe before the first use.
    pub probe: ProbeResult,
    /// The last claim on this address by somebody else than the elected node.
    pub conflict: Option<Conflict>,
    /// The speaker last heard announcing this address, and when.
    pub heard: Option<(Arc<str>, SystemTime)>,
}

/// What is done for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Nothing: it is led elsewhere or by nobody.
    Idle,
    /// It is ours, but the expression names no usable interface.
    NoInterface,
    /// The segment is probed before the first use.
    Probing,
    /// A foreign host holds it and the policy is to avoid it.
    SetAside,
    /// Announced and answered since this time.
    Answering(SystemTime),
    /// Still answered (since this time) until the new leader is heard.
    HandingOver(SystemTime),
    /// It is ours, but another speaker that outranks us announces it: silent while that one
    /// answers.
    Yielded,
}

impl Activity {
    /// Whether requests are answered.
    #[must_use]
    pub const fn answers(self) -> bool {
        matches!(self, Self::Answering(_) | Self::HandingOver(_))
    }
}

/// What the probe before the first use found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeResult {
    /// Not probed (yet).
    #[default]
    None,
    /// Nobody answered.
    Free,
    /// A foreign host with this hardware address holds it.
    Taken(MacAddr),
}

/// A claim on an address by somebody who should not claim it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who sent the frame.
    pub mac: MacAddr,
    /// The node, if it is one of our speakers.
    pub speaker: Option<Arc<str>>,
    /// When it was heard last. A conflict not heard for five minutes is dropped.
    pub at: SystemTime,
    /// How often it was heard.
    pub count: u64,
}

/// Something worth an event for the user; what cannot be delivered is counted and dropped, the
/// [`Snapshot`] has the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node began to announce and answer.
    Announced {
        /// The address.
        ip: IpAddr,
        /// Where.
        interface: Arc<str>,
    },
    /// This node stopped answering.
    Withdrawn {
        /// The address.
        ip: IpAddr,
        /// Why.
        reason: Withdrawal,
    },
    /// Somebody else claims an address (at most once per claimant and ten seconds).
    Conflict {
        /// The address.
        ip: IpAddr,
        /// Who sent the frame.
        mac: MacAddr,
        /// The node, if it is one of our speakers.
        speaker: Option<Arc<str>>,
    },
    /// The probe before the first use found a foreign host.
    Taken {
        /// The address.
        ip: IpAddr,
        /// The host that holds it.
        mac: MacAddr,
    },
}

/// Why a node stopped answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// The address is not served any more, or must be silent.
    Unwanted,
    /// The new leader was heard.
    HandedOver,
    /// The new leader was not heard in time.
    HandOverTimedOut,
    /// The interface is gone, lost its carrier, or the expression names another.
    InterfaceLost,
    /// Another speaker that outranks this one announces it.
    Outranked,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters for metrics; they only grow. Shared between the task and its readers.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            $($(#[$doc])* #[must_use] pub fn $name(&self) -> u64 {
                self.$name.load(Ordering::Relaxed)
            })*
        }
    };
}

counters! {
    /// Frames that passed the kernel's filter.
    frames,
    /// ARP requests for our addresses.
    arp_requests,
    /// Neighbour solicitations for our addresses.
    ndp_requests,
    /// ARP replies sent.
    arp_responses,
    /// Solicited neighbour advertisements sent.
    ndp_responses,
    /// Gratuitous ARP sent.
    arp_gratuitous,
    /// Unsolicited neighbour advertisements sent.
    ndp_gratuitous,
    /// Claims by somebody else, by ARP.
    arp_conflicts,
    /// Claims by somebody else, by neighbour advertisements.
    ndp_conflicts,
    /// How often an address began to be announced and answered.
    taken,
    /// How often an address ceased to be.
    given_up,
    /// Frames that passed the filter and could not be understood.
    malformed,
    /// Frames that could not be sent.
    send_errors,
    /// Events dropped because nobody took them.
    events_dropped,
}

impl Counters {
    /// The requests of the protocol that `ip` is asked for by.
    pub(crate) fn requests(&self, ip: IpAddr) -> &AtomicU64 {
        by_protocol(ip, &self.arp_requests, &self.ndp_requests)
    }

    /// The answers to them.
    pub(crate) fn responses(&self, ip: IpAddr) -> &AtomicU64 {
        by_protocol(ip, &self.arp_responses, &self.ndp_responses)
    }

    /// What is sent unasked.
    pub(crate) fn gratuitous(&self, ip: IpAddr) -> &AtomicU64 {
        by_protocol(ip, &self.arp_gratuitous, &self.ndp_gratuitous)
    }

    /// What others claim.
    pub(crate) fn conflicts(&self, ip: IpAddr) -> &AtomicU64 {
        by_protocol(ip, &self.arp_conflicts, &self.ndp_conflicts)
    }

    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// ARP is for IPv4, NDP for IPv6.
fn by_protocol<'a>(ip: IpAddr, arp: &'a AtomicU64, ndp: &'a AtomicU64) -> &'a AtomicU64 {
    if ip.is_ipv4() { arp } else { ndp }
}
