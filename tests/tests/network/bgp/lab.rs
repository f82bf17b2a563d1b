//! What the stories of this tier share: how one is told in a lab, whom the speaker talks to, and how one waits.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use openelb_bgp::{Attributes, PeerConfig, RemoteAs, RouteSet, SessionState, SpeakerConfig};
use openelb_tests::{Deadline, eventually, scenario_on};
use serde_json::Value;

pub(super) use openelb_tests::lab::{Bird, Frr, Lab, Us, Version, command};

/// Tells a story about a lab, in a world of its own.
pub(super) fn run(story: impl AsyncFnOnce(Lab) -> Result<()>) {
    scenario_on(Lab::new, story);
}

/// Asks until there is an answer, and says what stood in the way if there is
/// none in time.
pub(super) async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    eventually(what, Deadline::SHORT, probe).await
}

/// Waits until BFD has ended the session, and we have said so (RFC 9384).
pub(super) async fn ended_by_bfd(us: &Us) -> Result<()> {
    us.sees("BFD to end the session", "p0", |peer| {
        let said = peer.last_notification.as_ref();
        peer.state != SessionState::Established
            && said.is_some_and(|said| (said.code, said.subcode) == (6, 10))
    })
    .await?;
    Ok(())
}

/// Whether FRR keeps a path over the end of the session that told it.
pub(super) fn is_stale(path: &Value) -> bool {
    path["stale"] == true
}

/// Asks for a text until it contains all of `wanted`.
pub(super) async fn shows(
    what: &str,
    wanted: &[&str],
    mut ask: impl FnMut() -> Result<String>,
) -> Result<String> {
    until(what, async || {
        let text = ask()?;
        for part in wanted {
            ensure!(text.contains(part), "no {part:?} in:\n{text}");
        }
        Ok(text)
    })
    .await
}

/// A peer at `address` in AS 65000, with timers fit for tests.
pub(super) fn peer(address: &str) -> PeerConfig {
    let mut peer = PeerConfig::new(address.parse().unwrap(), RemoteAs::Exactly(65000));
    peer.timers.hold = Duration::from_secs(9);
    peer.timers.connect_retry = Duration::from_secs(1);
    peer
}

/// A speaker of AS 65001 with these peers, named `p0`, `p1`…
pub(super) fn config(peers: impl IntoIterator<Item = PeerConfig>) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(65001, "10.0.0.11".parse().unwrap());
    config.listen = vec!["0.0.0.0:179".parse().unwrap(), "[::]:179".parse().unwrap()];
    for (index, peer) in peers.into_iter().enumerate() {
        config = config.peer(format!("p{index}"), peer);
    }
    config
}

/// Prefixes with plain attributes.
pub(super) fn plain(prefixes: &[&str]) -> RouteSet {
    with(prefixes, Attributes::default())
}

/// Prefixes with these attributes.
pub(super) fn with(prefixes: &[&str], attributes: Attributes) -> RouteSet {
    let attributes = Arc::new(attributes);
    prefixes
        .iter()
        .map(|prefix| (prefix.parse().unwrap(), Arc::clone(&attributes)))
        .collect()
}
