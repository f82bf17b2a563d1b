//! `EipAddress`: one address that is in use, reserved or remembered. The ledger.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Protocol, is_default};

/// One external address: who holds it, and who announces it. Named after the address, so that the API server's unique
/// names make it impossible to give it out twice. Written by the controller; a user makes one to reserve an address.
/// The column ANNOUNCER is of layer 2, and shows one of the two nodes during a hand-over; which nodes announce a route
/// by BGP is told by the Service's condition `Announced`.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "network.kubesphere.io",
    version = "v1alpha2",
    kind = "EipAddress",
    plural = "eipaddresses",
    singular = "eipaddress",
    shortname = "eipa",
    category = "networking",
    derive = "PartialEq",
    derive = "Default",
    status = "EipAddressStatus",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Eip", type_ = "string", json_path = ".spec.eip"),
    printcolumn(name = "Services", type_ = "string", json_path = ".spec.holders"),
    printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.protocol"),
    printcolumn(
        name = "Announcer",
        type_ = "string",
        json_path = ".status.announcers[*].node"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EipAddressSpec {
    /// The address in canonical text form.
    pub address: String,
    /// The Eip that the address was taken from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub eip: String,
    /// The Eip's protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The Services that hold the address: one, or several that share it. Empty for a reservation and for an address
    /// that is remembered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<AddressHolder>,
    /// The same Services for people: `namespace/name`, separated by commas. Columns of `kubectl get` show one entry of
    /// a list, so that a list would hide those that share.
    #[serde(default, skip_serializing_if = "is_default")]
    pub holders: String,
    /// Set by a user: the address is given to nobody but the Services that ask for it by name and are listed in
    /// `reservedFor`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reserved: bool,
    /// Set by a user: `namespace/name` of Services that may take the reserved address; `namespace/*` for all of a
    /// namespace. Nobody when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved_for: Vec<String>,
    /// The last holder of an address of a `sticky` Eip, for which the address is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remembered: Option<RememberedHolder>,
    /// Raised by every writer, so that no write is without effect on the object's resourceVersion.
    #[serde(default, skip_serializing_if = "is_default")]
    pub revision: i64,
}

/// What [`EipAddressSpec::holders`] says of these Services.
#[must_use]
pub fn holders(services: &[AddressHolder]) -> String {
    let names: Vec<String> = services
        .iter()
        .map(|service| format!("{}/{}", service.namespace, service.name))
        .collect();
    names.join(", ")
}

/// A Service that holds an address, with what sharing is decided on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressHolder {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// The Service's UID: a Service of the same name made later is another.
    pub uid: String,
    /// The Service's ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<HolderPort>,
    /// Whether the Service's `externalTrafficPolicy` is Local.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local: bool,
    /// The Service's selector; with the Local policy sharing Services must have the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// The Service asked for this address by name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub requested: bool,
}

/// A port of a Service that holds an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HolderPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port's number.
    pub port: i32,
}

/// The Service that an address of a sticky Eip is kept for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RememberedHolder {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// When the Service let go of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// Who announces the address, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EipAddressStatus {
    /// Layer 2: the node that answers for the address, written by that node. Two during a hand-over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announcers: Vec<Announcer>,
    /// `Conflict`, `Orphaned`, `Invalid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A node that answers ARP or NDP for an address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Announcer {
    /// The node's name.
    pub node: String,
    /// The interfaces that it answers on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// The object name of an address: IPv4 as it is, IPv6 with all its eight groups of four digits joined by `-`.
#[must_use]
pub fn name_for(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().map(|group| format!("{group:04x}")).join("-"),
    }
}

/// The address that an object name stands for, when it is one that [`name_for`] makes.
#[must_use]
pub fn address_of(name: &str) -> Option<IpAddr> {
    let text = if name.contains('-') {
        name.replace('-', ":")
    } else {
        name.to_owned()
    };
    let address = text.parse().ok()?;
    (name_for(address) == name).then_some(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_the_address_itself_or_its_expanded_groups() {
        assert_eq!(name_for("192.0.2.7".parse().unwrap()), "192.0.2.7");
        assert_eq!(
            name_for("2001:db8::a".parse().unwrap()),
            "2001-0db8-0000-0000-0000-0000-0000-000a"
        );
    }

    #[test]
    fn everybody_who_shares_an_address_is_named() {
        let holder = |name: &str| AddressHolder {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            ..AddressHolder::default()
        };
        assert_eq!(
            holders(&[holder("web"), holder("mail")]),
            "shop/web, shop/mail"
        );
        assert_eq!(holders(&[]), "");
    }

    #[test]
    fn a_name_that_is_not_canonical_stands_for_nothing() {
        assert_eq!(address_of("2001-db8-0-0-0-0-0-a"), None);
        assert_eq!(address_of("web"), None);
        assert_eq!(address_of("2001:0db8:0000:0000:0000:0000:0000:000a"), None);
    }

    proptest! {
        #[test]
        fn a_name_leads_back_to_its_address(address: IpAddr) {
            prop_assert_eq!(address_of(&name_for(address)), Some(address));
        }
    }
}
