//! Rules for EipAddresses that somebody writes by hand: reservations.
//!
//! The controller keeps the ledger and is not asked. A person may set an address aside, change
//! whom it is for, and take the reservation back.

use std::net::IpAddr;

use kube::ResourceExt;

use super::{
    Change, Verdict, View,
    eip::{is_dns_label, is_forced},
};
use crate::{
    keys,
    v1alpha2::{EipAddress, name_for},
};

/// Checks an EipAddress that a person wants to store.
#[must_use]
pub fn address(new: &EipAddress, old: Option<&EipAddress>, view: &View) -> Verdict {
    let mut verdict = Verdict::default();
    if new.metadata.deletion_timestamp.is_some() || old.is_some_and(|old| old.spec == new.spec) {
        return verdict;
    }
    if let Some(old) = old {
        change(new, old, &mut verdict);
    } else {
        creation(new, view, &mut verdict);
    }
    for (index, entry) in new.spec.reserved_for.iter().enumerate() {
        let is_readable = entry.split_once('/').is_some_and(|(namespace, name)| {
            is_dns_label(namespace) && (name == "*" || is_dns_label(name))
        });
        if !is_readable {
            verdict.deny(
                &format!("spec.reservedFor[{index}]"),
                format!("{entry:?} must be namespace/name of a Service, or namespace/* for all of a namespace"),
            );
        }
    }
    if new.spec.reserved_for.is_empty() && new.spec.reserved {
        verdict.warn(
            "spec.reservedFor",
            "is empty, so no Service gets the address",
        );
    }
    verdict
}

/// Checks whether a person may delete an EipAddress: not while a Service has it, unless it is
/// annotated with [`keys::FORCE_DELETE`].
#[must_use]
pub fn address_deletion(address: &EipAddress) -> Verdict {
    let mut verdict = Verdict::default();
    let services = &address.spec.services;
    if services.is_empty() || is_forced(address) {
        return verdict;
    }
    let holders: Vec<String> = services
        .iter()
        .map(|service| format!("{}/{}", service.namespace, service.name))
        .collect();
    verdict.deny_in_use(format!(
        "{} is in use by {}; delete the Service or have it ask for another address, or annotate the EipAddress with \
         {}=true to delete it all the same",
        address.spec.address,
        holders.join(", "),
        keys::FORCE_DELETE,
    ));
    verdict
}

/// Completes a reservation: its address in canonical spelling, the Eip that the address is of, and
/// that Eip's protocol.
#[must_use]
pub fn complete_address(new: &EipAddress, view: &View) -> Vec<Change> {
    let Ok(address) = new.spec.address.trim().parse::<IpAddr>() else {
        return Vec::new();
    };
    let address = address.to_canonical();
    let mut changes = Vec::new();
    if new.spec.address != address.to_string() {
        changes.push(Change::new(&["spec", "address"], address.to_string()));
    }
    let owner = match new.spec.eip.as_str() {
        "" => view
            .overlapping(address, address)
            .next()
            .map(|span| span.owner.as_ref()),
        name => view.eip(name),
    };
    if let Some(owner) = owner {
        if new.spec.eip.is_empty() {
            changes.push(Change::new(&["spec", "eip"], owner.pool.name.as_str()));
        }
        if new.spec.protocol.is_none() {
            changes.push(Change::new(
                &["spec", "protocol"],
                owner.pool.protocol.as_str(),
            ));
        }
    }
    changes
}

fn creation(new: &EipAddress, view: &View, verdict: &mut Verdict) {
    let spec = &new.spec;
    if !spec.reserved || !spec.services.is_empty() || spec.remembered.is_some() {
        verdict.deny(
            "spec.reserved",
            "EipAddresses are made by the controller; by hand, only a reservation can be made: reserved true, and \
             neither services nor remembered",
        );
        return;
    }
    let Ok(address) = spec.address.parse::<IpAddr>() else {
        verdict.deny(
            "spec.address",
            format!("{:?} is no IP address", spec.address),
        );
        return;
    };
    if spec.address != address.to_canonical().to_string() {
        verdict.deny(
            "spec.address",
            format!(
                "{:?} must be written as {}",
                spec.address,
                address.to_canonical()
            ),
        );
        return;
    }
    let name = name_for(address);
    if new.name_any() != name {
        verdict.deny(
            "metadata.name",
            format!("must be {name}, the name of the address {address}"),
        );
    }
    match view.eip(&spec.eip) {
        Some(eip) if eip.pool.keeps(address) => {}
        Some(eip) => verdict.deny(
            "spec.eip",
            format!("{address} is not in Eip {} ({})", spec.eip, eip.address),
        ),
        None if spec.eip.is_empty() => verdict.deny(
            "spec.address",
            format!("{address} is in no Eip; make the Eip first"),
        ),
        None => verdict.deny("spec.eip", format!("there is no Eip {:?}", spec.eip)),
    }
    if let Some(holding) = view.holding(address)
        && !holding.services.is_empty()
    {
        verdict.deny_in_use(format!(
            "spec.address: {address} is in use by {}",
            holding.holders()
        ));
    }
}

fn change(new: &EipAddress, old: &EipAddress, verdict: &mut Verdict) {
    if !old.spec.services.is_empty() {
        verdict.deny_in_use(
            "spec: the address is in use; only the controller changes the EipAddress of a Service",
        );
        return;
    }
    if (&new.spec.address, &new.spec.eip) != (&old.spec.address, &old.spec.eip) {
        verdict.deny(
            "spec.address",
            "address and eip cannot be changed; delete the reservation and make another",
        );
    }
    if !new.spec.reserved || !new.spec.services.is_empty() {
        verdict.deny(
            "spec.reserved",
            "only a reservation can be kept by hand: reserved true and no services; delete the object to end it",
        );
    }
}

#[cfg(test)]
mod tests;
