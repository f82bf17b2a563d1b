//! One address and who holds it: what an `EipAddress` says.

use std::net::IpAddr;
use std::sync::Arc;

use crate::names::{ServiceKey, Uid, Version};
use crate::sharing::Terms;

/// One Service that holds the address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The Service.
    pub service: ServiceKey,
    /// Its uid: a Service re-created under the same name is another one.
    pub uid: Uid,
    /// What sharing was decided on.
    pub terms: Arc<Terms>,
}

/// What an `EipAddress` says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The address; the object is named after it.
    pub address: IpAddr,
    /// The Eip it came from.
    pub eip: Arc<str>,
    /// How it is announced: `bgp`, `layer2` or `vip`.
    pub protocol: Arc<str>,
    /// Who holds it; several where it is shared, in order of arrival.
    pub entries: Vec<Entry>,
    /// Never given out, except to a Service that asks for it by name where the record says so.
    pub reserved: bool,
    /// Who may have it although it is reserved: `namespace/name`, or `namespace/*`.
    pub reserved_for: Vec<String>,
    /// Whose it was, and for whom it is kept (the Eip is `sticky`).
    pub kept_for: Option<ServiceKey>,
    /// Raised by every writer, so that every write makes older versions of the record useless.
    pub revision: u64,
}

impl Record {
    /// The entry of the Service with this uid.
    #[must_use]
    pub fn entry(&self, uid: &Uid) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.uid == *uid)
    }

    /// Whether the Service with this uid holds the address.
    #[must_use]
    pub fn names(&self, uid: &Uid) -> bool {
        self.entry(uid).is_some()
    }

    /// Whether the reservation lets this Service have the address.
    #[must_use]
    pub fn is_reserved_for(&self, service: &ServiceKey) -> bool {
        self.reserved_for
            .iter()
            .any(|pattern| match pattern.split_once('/') {
                Some((namespace, "*")) => *namespace == *service.namespace,
                Some((namespace, name)) => {
                    *namespace == *service.namespace && *name == *service.name
                }
                None => false,
            })
    }

    /// The record without the Service of this uid.
    #[must_use]
    pub fn without(&self, uid: &Uid) -> Self {
        let mut record = self.clone();
        record.entries.retain(|entry| entry.uid != *uid);
        record.revision = record.revision.saturating_add(1);
        record
    }

    /// The record with `entry` in place of what the same uid had, and raised.
    #[must_use]
    pub fn with(&self, entry: &Entry) -> Self {
        let mut record = self.clone();
        record.revision = record.revision.saturating_add(1);
        match record
            .entries
            .iter_mut()
            .find(|known| known.uid == entry.uid)
        {
            Some(known) => *known = entry.clone(),
            None => record.entries.push(entry.clone()),
        }
        record
    }
}

/// A record as the API server stores it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    /// What it says.
    pub record: Record,
    /// The object's uid: one deleted and created again is another one.
    pub uid: Uid,
    /// The version that was read or written.
    pub version: Version,
}
