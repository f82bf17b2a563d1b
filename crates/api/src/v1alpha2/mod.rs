//! The kinds of `network.kubesphere.io/v1alpha2` as they are stored.
//!
//! Field names, types and string forms are OpenELB's wherever it had the field. Zero values are left out when an object
//! is written, as OpenELB does.

// The stored JSON is the contract: its booleans cannot become enums, and each printer column is an attribute of its own.
#![allow(clippy::struct_excessive_bools, clippy::duplicated_attributes)]

mod bgpconf;
mod bgppeer;
mod eip;
mod eipaddress;
mod lenient;

pub use bgpconf::*;
pub use bgppeer::*;
pub use eip::*;
pub use eipaddress::*;

/// Whether a value is the one that is left out when writing.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
