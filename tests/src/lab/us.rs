//! Our side of a lab: the speaker, as a component would drive it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use openelb_bgp::{
    PeerConfig, PeerSnapshot, RouteSet, SessionState, Shutdown, Snapshot, Speaker, SpeakerConfig,
};
use tokio::sync::watch;

use crate::{Deadline, Record, inside};

/// A running speaker. Dropped, it closes its sessions, which means that the story has ended; [`Us::crash`] is what a
/// story does.
#[derive(Debug)]
pub struct Us {
    record: Option<Record>,
    /// What it is configured for, to be changed.
    pub config: watch::Sender<Arc<SpeakerConfig>>,
    /// What it announces, to be changed.
    pub routes: watch::Sender<Arc<RouteSet>>,
    /// The speaker itself.
    pub speaker: Speaker,
}

impl Us {
    /// Starts a speaker. What it knows of its peers at the end is written down in the world's folder.
    #[must_use]
    pub fn start(config: SpeakerConfig, routes: RouteSet) -> Self {
        let (config, follow) = watch::channel(Arc::new(config));
        let (routes, announced) = watch::channel(Arc::new(routes));
        let speaker = Speaker::spawn(follow, announced);
        let snapshots = speaker.snapshot();
        let told = move || format!("{:#?}", *snapshots.borrow());
        Self {
            record: inside().map(|folder| Record::of_text(folder.join("us.txt"), told)),
            config,
            routes,
            speaker,
        }
    }

    /// Ends it as a part of the story: nobody is told, and the kernel closes its connections.
    pub fn crash(self) {
        if let Some(record) = self.record {
            record.withdraw();
        }
    }

    /// Announces these from now on, and nothing else.
    pub fn announce(&self, routes: RouteSet) {
        self.routes.send_replace(Arc::new(routes));
    }

    /// Changes the configuration of a peer, where there is one of this name.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut PeerConfig)) {
        self.config.send_modify(|config| {
            let Some(mut peer) = config.peers.get(name).map(|peer| PeerConfig::clone(peer)) else {
                return;
            };
            change(&mut peer);
            *config = Arc::new(SpeakerConfig::clone(config).peer(name, peer));
        });
    }

    /// What it knows of itself and its peers.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.speaker.snapshot().borrow().clone()
    }

    /// Waits until the snapshot of a peer satisfies `wanted`.
    pub async fn sees(
        &self,
        what: &str,
        name: &str,
        mut wanted: impl FnMut(&PeerSnapshot) -> bool,
    ) -> Result<Arc<PeerSnapshot>> {
        let mut snapshots = self.speaker.snapshot();
        let result = tokio::time::timeout(
            Deadline::SHORT.duration(),
            snapshots.wait_for(|all| all.peers.get(name).is_some_and(|peer| wanted(peer))),
        )
        .await;
        let seen = match result {
            Ok(Ok(all)) => all.peers.get(name).map(Arc::clone),
            Ok(Err(error)) => bail!("{what}: {error}"),
            Err(_) => None,
        };
        let last = self.snapshot();
        seen.with_context(|| format!("{what}: last seen {:?}", last.peers.get(name)))
    }

    /// Waits until routes may flow to and from a peer.
    pub async fn established(&self, name: &str) -> Result<Arc<PeerSnapshot>> {
        self.sees("established", name, |peer| {
            peer.state == SessionState::Established
        })
        .await
    }

    /// Waits until a peer was told so many IPv4 prefixes.
    pub async fn told(&self, name: &str, prefixes: u64) -> Result<Arc<PeerSnapshot>> {
        self.sees("told", name, |peer| {
            peer.families
                .values()
                .map(|family| family.advertised.count())
                .sum::<u64>()
                == prefixes
        })
        .await
    }

    /// Ends it as a part of the story that went well: the peers are told.
    pub async fn drain(self) {
        if let Some(record) = self.record {
            record.withdraw();
        }
        self.speaker
            .shutdown(Shutdown::Drain {
                wait: Duration::ZERO,
                reason: "the test ends".to_owned(),
            })
            .await;
    }
}
