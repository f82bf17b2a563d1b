//! `speaker`: announces addresses from this node.
//!
//! One task owns the [`Picture`] of the cluster and turns it, whenever it changes, into the complete
//! wish for each engine; engines act on the difference. Nothing is announced before the picture is
//! complete, so that peers which kept the routes of the process before hear all of them at once and
//! then End-of-RIB. When the API server goes away the last wish stays.
//!
//! ```text
//! watches ──> Picture ──> plan, routes ──> bgp::Engine ──> snapshot ──> report ──> status::write
//! ```

mod args;
mod bgp;
mod report;
mod status;

use std::time::Duration;

use anyhow::Context as _;
pub(crate) use args::Args;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::announce::{Able, Node, routes};
use crate::peering::{Plan, plan};
use crate::picture::{Change, Kind, Picture, changes};
use crate::process::Context;
use bgp::Engine;
use status::Entries;

/// What a speaker watches.
const KINDS: [Kind; 8] = [
    Kind::Node,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Eip,
    Kind::EipAddress,
    Kind::BgpConf,
    Kind::BgpPeer,
    Kind::Secret,
];

/// How many changes are taken in before the wish is computed anew.
const BATCH: usize = 10_000;

/// Runs until `context.shutdown` is cancelled.
pub(crate) async fn run(args: Args, context: Context) -> anyhow::Result<()> {
    let node = args.node()?;
    args.say_what_is_ignored();
    let picture_gate = context.readiness.gate("complete picture of the cluster");
    let engines_gate = context.readiness.gate("engines");
    let mut watches = changes(&context.client, &context.namespace, &KINDS);
    let (entries, entries_rx) = watch::channel(Entries::default());
    let writer = tokio::spawn(status::write(
        context.client.clone(),
        node.clone(),
        entries_rx,
    ));
    let mut speaker = Speaker {
        picture: Picture::new(&KINDS, Some(node.clone())),
        node,
        last_node: None,
        plan: Plan::default(),
        engine: Engine::default(),
        entries,
    };
    let mut recheck: Option<Timestamp> = None;
    loop {
        let timer = async {
            match recheck {
                Some(at) => tokio::time::sleep(until(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = context.shutdown.cancelled() => break,
            change = watches.next() => {
                let change = change.context("the watches ended")?;
                let mut changed = speaker.take_in(change);
                for _ in 1..BATCH {
                    let Some(Some(change)) = watches.next().now_or_never() else { break };
                    changed |= speaker.take_in(change);
                }
                if changed && speaker.picture.complete() {
                    picture_gate.open();
                    recheck = speaker.act();
                    engines_gate.open();
                }
            }
            () = timer => recheck = speaker.act(),
            () = speaker.engine.changed() => speaker.report(),
        }
    }
    let leaves = speaker.node_leaves();
    tracing::info!(leaves, "the speaker stops");
    speaker.engine.stop(leaves).await;
    writer.abort();
    Ok(())
}

/// Time left until then; a moment more, so that the time has come when the timer fires.
fn until(at: Timestamp) -> Duration {
    let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
    left + Duration::from_millis(1)
}

/// Everything the speaker's task owns.
struct Speaker {
    node: String,
    picture: Picture,
    /// This node as it was last seen: a Node object that vanishes does not change its addresses.
    last_node: Option<Node>,
    plan: Plan,
    engine: Engine,
    entries: watch::Sender<Entries>,
}

impl Speaker {
    fn take_in(&mut self, change: Change) -> bool {
        self.picture.apply(change, Timestamp::now())
    }

    /// Computes the wish anew and hands it to the engines. Returns when time alone may change it.
    fn act(&mut self) -> Option<Timestamp> {
        let world = &self.picture.world;
        match world.nodes.get(&self.node) {
            Some(node) => self.last_node = Some(node.clone()),
            None if self.last_node.is_none() => {
                tracing::error!(
                    node = self.node,
                    "there is no Node of this name, so nothing is announced; set --node-name or NODE_NAME"
                );
            }
            None => {}
        }
        let able = Able::new(world, Timestamp::now());
        let routes = routes(world, &able, &self.node);
        let recheck = able.recheck_at();
        self.plan = match &self.last_node {
            Some(node) => plan(
                self.picture.conf.as_deref(),
                &self.picture.peers,
                &self.picture.secrets,
                (&self.node, node),
            ),
            None => Plan::default(),
        };
        self.engine.wish(self.plan.config.clone(), routes);
        self.report();
        recheck
    }

    /// Says what is really done.
    fn report(&mut self) {
        let snapshot = self.engine.snapshot();
        let config = self.engine.config();
        let report = report::report(&self.plan, config.as_deref(), snapshot.as_ref());
        let conf = self.picture.conf_status.as_ref();
        let conf = conf.map(|status| status.nodes_conf_status.get(&self.node).cloned());
        let peers = self.picture.peer_statuses.iter();
        let peers = peers.map(|(name, status)| {
            (
                name.clone(),
                status.nodes_peer_status.get(&self.node).cloned(),
            )
        });
        let entries = Entries::new(&report, conf, peers.collect());
        self.entries.send_if_modified(|current| {
            let differs = *current != entries;
            *current = entries;
            differs
        });
    }

    /// Whether this node will not be back soon: deleted, excluded, or shutting down.
    fn node_leaves(&self) -> bool {
        let node = self.picture.world.nodes.get(&self.node);
        self.picture.complete() && node.is_none_or(|node| node.leaving || node.excluded())
    }
}
