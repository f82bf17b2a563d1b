//! BgpConf and BgpPeer in the terms of the BGP speaker: pure, and shared by speaker and controller.
//!
//! [`conf`] reads the speakers' own side, [`peer`] one peer; [`plan`] puts together what the speaker
//! of one node runs. A fault harms the object that has it and nothing else.

pub(crate) mod conf;
mod digest;
mod last_good;
pub(crate) mod peer;
mod plan;
pub(crate) mod policy;

pub(crate) use digest::{agrees, digest};
pub(crate) use last_good::LastGood;
#[cfg(test)]
pub(crate) use plan::Trouble;
pub(crate) use plan::{ConfObject, Credential, Credentials, PeerObject, Plan, rivals};
pub(crate) use policy::Policy;
