//! What the API server stores, and how the model's small numbers become the ledger's types.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use super::addresses::{Address, Addresses};
use crate::ledger::record::{Entry, Record, Stored};
use crate::ledger::transaction::Transaction;
use crate::names::{ServiceKey, Uid, Version};
use crate::sharing::{self, Port, Terms};

/// A Service as the API server stores it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Service {
    pub(super) uid: u8,
    pub(super) wanted: bool,
    pub(super) shown: Addresses,
    /// What of it a writer published.
    pub(super) published: Addresses,
    /// What a writer last published of each family; forgotten when the user lets go of it.
    pub(super) given: Addresses,
    /// The hint in the Service's metadata.
    pub(super) remembered: Addresses,
    /// It shows an address that no writer gave: it was found so, with others perhaps.
    pub(super) found: bool,
    pub(super) fence: u8,
}

/// The status a writer writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Status {
    pub(super) shown: Addresses,
    pub(super) fence: u8,
}

/// Every version of an object there has been; `None` where it did not exist.
pub(super) type History<T> = Vec<Option<T>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) services: Vec<History<Service>>,
    pub(super) records: Vec<History<Stored>>,
    pub(super) running: Vec<Option<(usize, Transaction<Status>)>>,
    pub(super) operations: u8,
    pub(super) edits: u8,
    pub(super) uids: u8,
    /// Who a user struck off which record; until a writer puts him there again, what he publishes
    /// rests on the user's word.
    pub(super) struck: Vec<(Uid, Address)>,
}

pub(super) fn number(n: usize) -> Arc<str> {
    static NAMES: OnceLock<Vec<Arc<str>>> = OnceLock::new();
    NAMES.get_or_init(|| (0..64).map(|n: usize| Arc::from(n.to_string())).collect())[n].clone()
}

pub(super) fn key(service: usize) -> ServiceKey {
    ServiceKey {
        namespace: number(0),
        name: number(service),
    }
}

pub(super) fn uid(n: u8) -> Uid {
    Uid(number(usize::from(n)))
}

pub(super) fn version(n: usize) -> Version {
    Version(number(n))
}

pub(super) fn address(a: Address) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, a).into()
}

pub(super) fn index(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => usize::from(address.octets()[3]),
        IpAddr::V6(_) => unreachable!("the model has IPv4 only"),
    }
}

/// What a Service asks for: without sharing any address, with it the first one by name.
pub(super) fn terms(service: usize, sharing: bool) -> Arc<Terms> {
    static TERMS: OnceLock<[Arc<Terms>; 3]> = OnceLock::new();
    let all = TERMS.get_or_init(|| {
        let port = |number| Terms {
            ports: vec![Port {
                protocol: "TCP".into(),
                number,
            }],
            by_name: true,
            ..Terms::default()
        };
        [Arc::default(), Arc::new(port(80)), Arc::new(port(81))]
    });
    all[if sharing { 1 + service % 2 } else { 0 }].clone()
}

pub(super) fn agree(one: &Entry, other: &Entry) -> bool {
    sharing::agree(
        (&one.service, &one.terms),
        (&other.service, &other.terms),
        false,
    )
    .is_ok()
}

pub(super) fn entry(service: usize, owner: u8, sharing: bool) -> Entry {
    Entry {
        service: key(service),
        uid: uid(owner),
        terms: terms(service, sharing),
    }
}

pub(super) fn record(a: Address, entries: Vec<Entry>) -> Record {
    Record {
        address: address(a),
        eip: number(0),
        protocol: number(0),
        entries,
        reserved: false,
        reserved_for: vec![],
        kept_for: None,
        revision: 1,
    }
}

pub(super) fn last<T>(history: &History<T>) -> Option<&T> {
    history.last().and_then(Option::as_ref)
}

pub(super) fn service_index(key: &ServiceKey) -> usize {
    key.name.parse().unwrap()
}
