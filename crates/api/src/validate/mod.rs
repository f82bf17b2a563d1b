//! The rules: what an object may say, given what it said before and what else is in the cluster.
//!
//! Every rule is a plain function of (object, old object, [`View`]). The webhook calls them before
//! an object is stored; the controller calls the same ones on what got past a webhook that was
//! down, and shows the denials as conditions. So a rule lives once.

mod address;
mod bgp_conf;
mod bgp_peer;
mod complete;
mod eip;
mod fields;
mod service;
mod spans;
mod spelling;
mod verdict;
mod view;

pub use address::{address, address_deletion, complete_address};
pub use bgp_conf::{bgp_conf, complete_bgp_conf};
pub use bgp_peer::{bgp_peer, complete_bgp_peer};
pub use complete::{Change, complete_service};
pub use eip::{complete_eip, eip, eip_deletion, second_default};
pub use service::{Requested, asks_anew, is_ours, requested, service};
pub use spans::{Span, Spans};
pub use verdict::Verdict;
pub use view::{EipFacts, Holding, NodeFacts, PeerFacts, View};
