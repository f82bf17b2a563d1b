//! The contract with users: the `network.kubesphere.io/v1alpha2` kinds, the well-known keys, address ranges and the
//! validation rules.
//!
//! Everything here is plain data and plain functions. The crate reaches no client, no socket and no clock, so the
//! webhook, the controller, the speaker and `crd-gen` share one meaning of every field.
//!
//! Wire types (`v1alpha2`) mirror the stored JSON and are read leniently; [`Tolerant`] keeps an object that cannot be
//! read at all from stopping the others. Domain types are made from them by `TryFrom`, with errors a user can act on.
//!
//! ```
//! use openelb_api::v1alpha2::{Eip, EipSpec};
//! use openelb_api::Pool;
//!
//! let spec = EipSpec {
//!     address: "192.0.2.10-192.0.2.19, 2001:db8::/64".to_owned(),
//!     exclude: vec!["192.0.2.11".to_owned()],
//!     ..EipSpec::default()
//! };
//! let pool = Pool::try_from(&Eip::new("lan", spec))?;
//! let given = &pool.addresses.assignable;
//! assert_eq!(given.to_string(), "192.0.2.10,192.0.2.12-192.0.2.19,2001:db8::/64");
//! assert_eq!(given.position("192.0.2.12".parse()?), Some(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod bgp;
pub mod crd;
mod field;
mod interface;
pub mod keys;
mod pool;
mod range;
mod range_set;
mod selector;
mod tolerant;
pub mod v1alpha2;
pub mod validate;

pub use field::{FieldError, Invalid};
pub use interface::{Interface, InterfaceError};
pub use pool::{Binding, Closed, Pool, PoolAddresses, is_default};
pub use range::{AddressRange, Family, RangeError, WrittenRange};
pub use range_set::RangeSet;
pub use selector::Labels;
pub use tolerant::{Tolerant, read};
