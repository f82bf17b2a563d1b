//! What users read: why a Service has no address, and what to do about it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use openelb_api::Family;

use crate::service::Said;
use crate::sharing::Refusal;

/// Why a Service cannot have an address. Displays as a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// A rule that the webhook applies too, in its words.
    #[error("{0}")]
    Rule(Arc<str>),
    #[error("there is no Eip; create one")]
    NoEip,
    #[error("no Eip serves this Service: {0}")]
    NoneFits(Rejections),
    #[error(
        "Eip {0} does not exist; create it, or change the annotation eip.openelb.kubesphere.io/v1alpha2"
    )]
    UnknownEip(Arc<str>),
    #[error("Eip {0} cannot be used: {1}")]
    InvalidEip(Arc<str>, String),
    #[error(
        "every {1} address of Eip {0} is in use; add addresses to it, or another Eip, or delete a Service"
    )]
    Exhausted(Names, Family),
    #[error(
        "no Eip that serves this Service has {0} addresses ({1}); add some, or change spec.ipFamilies"
    )]
    FamilyMissing(Family, Names),
    #[error("{0} is {1}, and the Service has not that family in spec.ipFamilies")]
    OtherFamily(IpAddr, Family),
    #[error("{0} is in no Eip; add it to one, or ask for another address")]
    Outside(IpAddr),
    #[error(
        "{0} is not among the addresses that Eip {1} gives; ask for another, or for another Eip"
    )]
    OutsideEip(IpAddr, Arc<str>),
    #[error("{0} belongs to Eip {1}, which is {2}")]
    Closed(IpAddr, Arc<str>, &'static str),
    #[error("{0} cannot be had: {1}")]
    Held(IpAddr, Refusal),
    #[error("{0} cannot be had: {1} holds it, and Eip {2} forbids sharing")]
    NotShared(IpAddr, String, Arc<str>),
    #[error("{0} cannot be had: Service {1} shows it in its status")]
    Shown(IpAddr, String),
    #[error(
        "{0} is reserved; list this Service in spec.reservedFor of the EipAddress, or ask for another address"
    )]
    Reserved(IpAddr),
    #[error(
        "{0} is kept for {1}, which had it before (the Eip is sticky); delete the EipAddress to give it up"
    )]
    Kept(IpAddr, String),
}

/// Names, of which a message lists the first few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names(pub(super) Vec<Arc<str>>);

/// Eips, each with the reason why it was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejections(pub(super) Vec<(Arc<str>, &'static str)>);

/// How many names a message lists.
const LISTED: usize = 5;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed: Vec<_> = self.0.iter().take(LISTED).map(AsRef::as_ref).collect();
        f.write_str(&listed.join(", "))?;
        more(f, self.0.len())
    }
}

impl fmt::Display for Rejections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed: Vec<_> = self
            .0
            .iter()
            .take(LISTED)
            .map(|(name, why)| format!("{name} {why}"))
            .collect();
        f.write_str(&listed.join(", "))?;
        more(f, self.0.len())
    }
}

fn more(f: &mut fmt::Formatter<'_>, all: usize) -> fmt::Result {
    match all.checked_sub(LISTED) {
        Some(rest) if rest > 0 => write!(f, ", and {rest} more"),
        _ => Ok(()),
    }
}

impl Problem {
    /// The condition's reason.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Rule(_) => "InvalidRequest",
            Self::NoEip | Self::NoneFits(_) | Self::UnknownEip(_) => "NoEip",
            Self::InvalidEip(..) => "InvalidEip",
            Self::Exhausted(..) => "EipExhausted",
            Self::FamilyMissing(..) | Self::OtherFamily(..) => "FamilyMissing",
            Self::Outside(_) | Self::OutsideEip(..) => "AddressOutsideEip",
            Self::Closed(..) => "EipClosed",
            Self::Held(..) | Self::NotShared(..) | Self::Shown(..) => "AddressInUse",
            Self::Reserved(_) => "AddressReserved",
            Self::Kept(..) => "AddressKept",
        }
    }

    /// The condition on a Service that has this problem, and has `addresses` all the same.
    pub(super) fn said(&self, addresses: &[IpAddr]) -> Said {
        let message = if addresses.is_empty() {
            self.to_string()
        } else {
            let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            format!("{self}. Until then the Service has {}.", list.join(", "))
        };
        Said {
            holds: false,
            reason: self.reason().into(),
            message: message.into(),
        }
    }
}
