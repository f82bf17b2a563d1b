//! What speakers say to each other, inside the seal.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A run of a node's process, as SWIM knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) address: SocketAddr,
    pub(crate) node: String,
    /// Grows with every run of the process.
    pub(crate) run: u64,
    /// Grows whenever the others took this run for dead.
    pub(crate) life: u32,
}

impl Identity {
    /// Whether facts of this version are those of an earlier run or life, which say nothing of this one.
    pub(crate) fn voids(&self, version: Version) -> bool {
        (version.0, version.1) < (self.run, self.life)
    }
}

impl foca::Identity for Identity {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        Some(Self {
            life: self.life.checked_add(1)?,
            ..self.clone()
        })
    }

    fn addr(&self) -> SocketAddr {
        self.address
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        (self.run, self.life) > (other.run, other.life)
    }
}

/// What is inside a sealed datagram.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message<'a> {
    Swim(&'a [u8]),
    Facts(#[serde(borrow)] Told<'a>),
}

/// Which facts are newer: run and life of the node's identity, then the number of changes in this run.
pub(crate) type Version = (u64, u32, u64);

/// A node's facts on their way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Told<'a> {
    pub(crate) node: &'a str,
    pub(crate) version: Version,
    pub(crate) steady: bool,
    pub(crate) leaving: bool,
    pub(crate) intent: Intent,
    pub(crate) attachment: &'a [u8],
}

/// What facts are told for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Intent {
    /// To be known.
    Tell,
    /// The receiver shall tell its own facts in turn.
    Ask,
    /// The node is gone with this word.
    Leave,
}
