//! What a responder is started with.

use std::{net::IpAddr, sync::Arc, time::Duration};

/// The order of two speakers for an address: whether the first node outranks the second.
///
/// `openelb_membership::outranks` is the one that fits the election.
pub type Outranks = fn(IpAddr, &str, &str) -> bool;

/// Constants of a responder; what changes while it runs is in [`crate::Desired`].
#[derive(Clone, Debug)]
pub struct ResponderConfig {
    /// This node's name.
    pub node: Arc<str>,
    /// Who gives way when two speakers claim one address.
    pub outranks: Outranks,
    /// How long at most a former leader goes on answering without having heard the new one.
    pub hand_over: Duration,
    /// Announcement frames per second, all addresses together; bursts up to a tenth of it.
    ///
    /// Switches with an address of their own in the segment let some 500 to 3,000 ARP frames per second
    /// through to their CPU, with bursts of about a second's worth. At [`Self::PACE`] the first
    /// announcements of a thousand addresses fit such a burst and are out in half a second; those that
    /// follow are repetitions.
    pub pace: u32,
}

impl ResponderConfig {
    /// The usual pace.
    pub const PACE: u32 = 2_000;

    /// The usual constants for this node.
    #[must_use]
    pub fn new(node: &str, outranks: Outranks) -> Self {
        Self {
            node: node.into(),
            outranks,
            hand_over: Duration::from_secs(5),
            pace: Self::PACE,
        }
    }
}
