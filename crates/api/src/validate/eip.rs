//! Rules for Eips.

use std::{collections::BTreeMap, net::IpAddr};

use kube::ResourceExt;

use super::{Change, EipFacts, Verdict, View, fields, spelling};
use crate::{
    AddressRange, Interface, Labels, RangeSet,
    bgp::{PathAttributes, ignored},
    is_default, keys,
    v1alpha2::{Eip, EipSpec, OnAddressRemoved, Protocol},
};

/// Examples of a kind that one message lists.
const EXAMPLES: usize = 5;

/// Checks an Eip that shall be stored.
///
/// An Eip that is being deleted, and a change that touches neither the spec nor whether it is the
/// default, are never refused: finalizers and metadata must always be writable.
#[must_use]
pub fn eip(new: &Eip, old: Option<&Eip>, view: &View) -> Verdict {
    let mut verdict = Verdict::default();
    if new.metadata.deletion_timestamp.is_some() {
        return verdict;
    }
    let becomes_default = is_default(new) && !old.is_some_and(is_default);
    if becomes_default {
        one_default(new, view, &mut verdict);
    }
    if old.is_some_and(|old| old.spec == new.spec) {
        return verdict;
    }
    fields::check(&new.spec, &mut verdict);
    syntax(&new.spec, &mut verdict);
    match EipFacts::try_from(new) {
        Ok(facts) => {
            let before = old
                .and_then(|old| EipFacts::try_from(old).ok())
                .map(|old| old.kept);
            let added = match &before {
                Some(before) => facts.kept.without(before),
                None => facts.kept.clone(),
            };
            overlap(new, &added, view, &mut verdict);
            if let Some(old) = old {
                still_in_use(old, &facts, view, &mut verdict);
            }
            verdict
                .warnings
                .extend(facts.pool.addresses.warnings.iter().cloned());
            own_nodes(&added, view, &mut verdict);
        }
        Err(invalid) => {
            let errors = invalid.errors().iter().map(ToString::to_string);
            // The length rule says the same of an empty address.
            verdict
                .denials
                .extend(errors.filter(|_| !new.spec.address.is_empty()));
        }
    }
    remarks(&new.spec, &mut verdict);
    verdict
}

/// Checks whether an Eip may be deleted: not while Services have its addresses, unless it is
/// annotated with [`keys::FORCE_DELETE`].
#[must_use]
pub fn eip_deletion(eip: &Eip, view: &View) -> Verdict {
    let mut verdict = Verdict::default();
    let used = in_use(eip, view);
    if used.is_empty() || is_forced(eip) {
        return verdict;
    }
    verdict.deny_in_use(format!(
        "Eip {} is in use: {}; delete these Services or move them to another Eip first, or annotate the Eip with \
         {}=true to delete it all the same",
        eip.name_any(),
        examples(&used),
        keys::FORCE_DELETE,
    ));
    verdict
}

/// Completes an Eip: the protocol that is in force anyway, addresses in their canonical spelling.
#[must_use]
pub fn complete_eip(new: &Eip, old: Option<&Eip>) -> Vec<Change> {
    let mut changes = Vec::new();
    if new.metadata.deletion_timestamp.is_some() || old.is_some_and(|old| old.spec == new.spec) {
        return changes;
    }
    if new.spec.protocol.is_none() {
        let protocol = new.spec.effective_protocol().as_str();
        changes.push(Change::new(&["spec", "protocol"], protocol));
    }
    if let Some(canonical) = spelling::ranges(&new.spec.address) {
        changes.push(Change::new(&["spec", "address"], canonical));
    }
    let respelled = |text: &String| spelling::ranges(text).unwrap_or_else(|| text.clone());
    let exclude: Vec<String> = new.spec.exclude.iter().map(respelled).collect();
    if exclude != new.spec.exclude {
        changes.push(Change::new(&["spec", "exclude"], exclude));
    }
    changes
}

/// Whether an object is annotated to be deleted although it is in use.
pub(super) fn is_forced(object: &impl ResourceExt) -> bool {
    object
        .annotations()
        .get(keys::FORCE_DELETE)
        .is_some_and(|value| value == "true")
}

fn one_default(new: &Eip, view: &View, verdict: &mut Verdict) {
    let name = new.name_any();
    let other = view
        .eips()
        .find(|eip| eip.pool.default && eip.pool.name != name);
    if let Some(other) = other {
        verdict.denials.push(second_default(&other.pool.name));
    }
}

/// Why an Eip cannot be the default where `other` is.
#[must_use]
pub fn second_default(other: &str) -> String {
    format!(
        "metadata.annotations[{}]: already exists a default EIP: {other}; take its annotation off first",
        keys::DEFAULT_EIP
    )
}

/// What the spec says, taken by itself, beyond what the field rules and the pool look at.
fn syntax(spec: &EipSpec, verdict: &mut Verdict) {
    let interface = spec.interface.as_deref().map(str::parse::<Interface>);
    if let Some(Err(problem)) = interface {
        verdict.deny("spec.interface", problem);
    }
    if let Some(selector) = &spec.node_selector
        && let Err(error) = Labels::read("spec.nodeSelector", selector)
    {
        verdict.denials.push(error.to_string());
    }
    if let Some(Err(invalid)) = spec.bgp.as_ref().map(PathAttributes::try_from) {
        // The items of lists: numbers have field rules of their own.
        let items = invalid
            .errors()
            .iter()
            .filter(|error| error.path.ends_with(']'));
        verdict.denials.extend(items.map(ToString::to_string));
    }
    for (index, namespace) in spec.namespaces.iter().enumerate() {
        if !is_dns_label(namespace) {
            verdict.deny(
                &format!("spec.namespaces[{index}]"),
                format!("{namespace:?} is no namespace name (lower-case letters, digits and '-')"),
            );
        }
    }
}

/// RFC 1123 label, as Kubernetes wants it for the names of namespaces.
pub(super) fn is_dns_label(text: &str) -> bool {
    let inner = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|letter| inner(*letter) || *letter == b'-')
        && bytes.first().is_some_and(|letter| inner(*letter))
        && bytes.last().is_some_and(|letter| inner(*letter))
}

fn overlap(new: &Eip, added: &RangeSet, view: &View, verdict: &mut Verdict) {
    let name = new.name_any();
    let mut found: Vec<(&str, AddressRange)> = Vec::new();
    for range in added.ranges() {
        for span in view.overlapping(range.first(), range.last()) {
            let other = span.owner.pool.name.as_str();
            let shared =
                AddressRange::new(range.first().max(span.first), range.last().min(span.last));
            if let Some(shared) = shared
                && other != name
                && found.len() < EXAMPLES
                && !found.iter().any(|(known, _)| *known == other)
            {
                found.push((other, shared));
            }
        }
    }
    for (other, shared) in found {
        verdict.deny(
            "spec.address",
            format!("eip address overlap with {other}: both have {shared}; an address can belong to one Eip only"),
        );
    }
}

/// Addresses in use must stay, unless the Eip says that their Services shall move.
fn still_in_use(old: &Eip, new: &EipFacts, view: &View, verdict: &mut Verdict) {
    let mut lost = in_use(old, view);
    lost.retain(|(address, _)| !new.pool.keeps(*address));
    if lost.is_empty() {
        return;
    }
    if new.pool.on_address_removed == OnAddressRemoved::Reassign {
        verdict.warn(
            "spec.address",
            format!("these get another address: {}", examples(&lost)),
        );
        return;
    }
    verdict.deny(
        "spec.address",
        format!(
            "these addresses are in use and would fall out: {}; keep them, move the Services first, or set \
             spec.onAddressRemoved to Reassign to have them moved",
            examples(&lost)
        ),
    );
    verdict.in_use = true;
}

/// The addresses of an Eip that Services have, with the Services. What OpenELB wrote into the
/// status counts beside the ledger, until our controller has made a status from the ledger: it
/// writes conditions, OpenELB never does.
fn in_use(eip: &Eip, view: &View) -> Vec<(IpAddr, String)> {
    let name = eip.name_any();
    let ledger = view
        .holdings_of(&name)
        .filter(|(_, holding)| !holding.services.is_empty())
        .map(|(address, holding)| (address, holding.holders()));
    let mut used: BTreeMap<IpAddr, String> = ledger.collect();
    let status = eip.status.as_ref();
    for (address, holders) in status
        .filter(|status| status.conditions.is_empty())
        .into_iter()
        .flat_map(|status| &status.used)
    {
        if let Ok(address) = address.parse() {
            used.entry(address)
                .or_insert_with(|| holders.replace(';', ", "));
        }
    }
    used.into_iter().collect()
}

fn examples(used: &[(IpAddr, String)]) -> String {
    let shown: Vec<String> = used
        .iter()
        .take(EXAMPLES)
        .map(|(address, holders)| format!("{address} by {holders}"))
        .collect();
    match used.len().saturating_sub(EXAMPLES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn own_nodes(added: &RangeSet, view: &View, verdict: &mut Verdict) {
    let node = added
        .ranges()
        .find_map(|range| view.node_within(range.first(), range.last()));
    if let Some((address, node)) = node {
        verdict.warn(
            "spec.address",
            format!("{address} is the address of node {node}; list it in spec.exclude"),
        );
    }
}

fn remarks(spec: &EipSpec, verdict: &mut Verdict) {
    let protocol = spec.effective_protocol();
    let is_bound = !spec.namespaces.is_empty()
        || !spec.namespace_selector.is_empty()
        || spec.service_selector.is_some();
    verdict.warn_without_effect(&ignored::of_eip(spec));
    if spec.priority != 0 && !is_bound && !spec.auto_assigns() {
        verdict.warn(
            "spec.priority",
            "has no effect: the Eip is bound to no namespace and no Service, and autoAssign is false",
        );
    } else if spec.priority != 0 && !is_bound {
        verdict.warn(
            "spec.priority",
            "the Eip is bound to no namespace and no Service, so it counts only where there is no default Eip",
        );
    }
    if spec.strict_binding && !is_bound {
        verdict.warn(
            "spec.strictBinding",
            "the Eip is bound to no namespace and no Service, so no Service gets an address from it",
        );
    }
    match protocol {
        Protocol::Vip => verdict.warn(
            "spec.protocol",
            "vip is accepted and its addresses are given, but they are not announced yet; use layer2",
        ),
        Protocol::Bgp if spec.interface.is_some() => {
            verdict.warn("spec.interface", "has no effect with protocol bgp");
        }
        Protocol::Layer2 if spec.bgp.is_some() => {
            verdict.warn("spec.bgp", "has no effect with protocol layer2");
        }
        Protocol::Bgp | Protocol::Layer2 => {}
    }
}

#[cfg(test)]
mod tests;
