//! The state of one address.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use openelb_net::MacAddr;

use crate::{Activity, Conflict, ProbeResult, Vip, VipState};

/// Where an address is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) link: u32,
    pub(crate) name: Arc<str>,
    pub(crate) mac: MacAddr,
    pub(crate) in_subnet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    NoInterface,
    Probing {
        sent: u8,
    },
    SetAside,
    Answering {
        since: SystemTime,
        step: usize,
        muted: Option<Instant>,
    },
    HandingOver {
        since: SystemTime,
        until: Instant,
    },
    Yielded {
        to: MacAddr,
        heard: Instant,
    },
}

impl Phase {
    pub(crate) const fn answers(self) -> bool {
        matches!(
            self,
            Self::Answering { muted: None, .. } | Self::HandingOver { .. }
        )
    }
}

/// The state of one address.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) vip: Vip,
    pub(crate) place: Option<Place>,
    pub(crate) phase: Phase,
    pub(crate) probe: ProbeResult,
    /// The segment was told of this node's answering since it began.
    pub(crate) told: bool,
    /// When the probe's result was found.
    pub(crate) probed: Option<Instant>,
    pub(crate) conflict: Option<(Conflict, Instant)>,
    /// The speaker last heard claiming the address.
    pub(crate) heard: Option<(Arc<str>, SystemTime, Instant)>,
    /// A winner's answer to a claim, due then.
    pub(crate) defend: Option<Instant>,
    pub(crate) defended: Option<Instant>,
    /// When [`Engine::expire`] has something to do for this address.
    pub(crate) timer: Option<Instant>,
}

impl State {
    /// What is told of it.
    pub(crate) fn show(&self) -> VipState {
        VipState {
            activity: match self.phase {
                Phase::Idle => Activity::Idle,
                Phase::NoInterface => Activity::NoInterface,
                Phase::Probing { .. } => Activity::Probing,
                Phase::SetAside => Activity::SetAside,
                Phase::Answering { since, .. } => Activity::Answering(since),
                Phase::HandingOver { since, .. } => Activity::HandingOver(since),
                Phase::Yielded { .. } => Activity::Yielded,
            },
            interface: self.place.as_ref().map(|place| Arc::clone(&place.name)),
            in_subnet: self.place.as_ref().is_some_and(|place| place.in_subnet),
            probe: self.probe,
            conflict: self.conflict.as_ref().map(|(conflict, _)| conflict.clone()),
            heard: self
                .heard
                .as_ref()
                .map(|(node, wall, _)| (Arc::clone(node), *wall)),
        }
    }
}
