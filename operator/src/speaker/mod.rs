//! `speaker`: announces addresses from this node.
//!
//! One task owns the [`Picture`] of the cluster and turns it, whenever it changes, into the complete
//! wish for each engine; engines act on the difference. Nothing is announced before the picture is
//! complete, so that peers which kept the routes of the process before hear all of them at once and
//! then End-of-RIB; nor before this node's kube-proxy passes packets on. When the API server goes away the last wish
//! stays.
//!
//! ```text
//! kube-proxy ──────────┐
//! watches ──> Picture ─┬─> plan, routes ──> bgp::Engine ────> snapshot ──> report ──> status::write
//!                      └─> election ──────> layer2::Engine ─> snapshot ──> news ────> layer2::write
//! ```

mod args;
mod bgp;
mod kube_proxy;
mod layer2;
mod metrics;
mod report;
mod share;
mod status;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
pub(crate) use args::Args;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use openelb_bgp::{PeerAddress, RouteSet};
use tokio::sync::watch;

use crate::announce::Node;
use crate::peering::{LastGood, Plan};
use crate::picture::{Change, Kind, Picture, Touched, changes};
use crate::process::Context;
use bgp::Engine;
use kube_proxy::KubeProxy;
use layer2::{News, Woken};
use metrics::Metrics;
use share::Share;
use status::{Entries, Foreign, Own};

/// What a speaker watches.
const KINDS: [Kind; 10] = [
    Kind::Node,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Eip,
    Kind::EipAddress,
    Kind::BgpConf,
    Kind::BgpPeer,
    Kind::Secret,
    Kind::ConfigMap,
    Kind::Pod,
];

/// How long the last words in statuses may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// How many changes are taken in before the wish is computed anew.
const BATCH: usize = 10_000;

/// Registers every metric of the speaker, each with a value.
pub(crate) fn example(metrics: &openelb_process::Metrics) {
    let (_running, snapshot) = watch::channel(metrics::example());
    let own = Metrics::register(metrics);
    own.bgp.send_replace(Some(snapshot));
    own.planned(&Plan {
        peers: [("spine".to_owned(), Ok(()))].into(),
        ..Plan::default()
    });
    layer2::example(metrics);
}

/// Runs until `context.shutdown` is cancelled.
pub(crate) async fn run(args: Args, context: Context) -> anyhow::Result<()> {
    let node = args.node()?;
    args.say_what_is_ignored();
    let picture_gate = context.readiness.gate("complete picture of the cluster");
    let engines_gate = context.readiness.gate("engines");
    let mut watches = changes(
        &context.client,
        &context.namespace,
        &KINDS,
        &context.watches,
    );
    let (entries, entries_rx) = watch::channel(Entries::default());
    let pulses = &context.pulses;
    let writer = status::write(context.client.clone(), node.clone(), entries_rx);
    let writer = tokio::spawn(pulses.of_task("the writer of statuses", writer));
    let (news, news_rx) = watch::channel(News::default());
    let news_writer = layer2::write(context.client.clone(), news_rx);
    let news_writer = tokio::spawn(pulses.of_task("the writer of announcers", news_writer));
    let layer2 = match args.layer2(&node) {
        Some(settings) => Some(layer2::Engine::new(settings, &context).await?),
        None => None,
    };
    let metrics = observed(&context);
    let mut speaker = Speaker {
        picture: Picture::new(&KINDS, Some(node.clone())),
        touched: Touched::Everything,
        share: Share::new(&node),
        layer2,
        news,
        node,
        last_node: None,
        plan: Plan::default(),
        last_good: LastGood::default(),
        own: Own::default(),
        engine: Engine::new(metrics.bgp.clone()),
        metrics: metrics.clone(),
        kube_proxy: KubeProxy::new(
            args.kube_proxy()?,
            context.readiness.gate("kube-proxy of this node"),
            metrics.waiting.clone(),
        ),
        entries,
    };
    let pulse = pulses.of_loop("the speaker's loop");
    let mut recheck: Option<Timestamp> = None;
    loop {
        pulse.beat();
        let timer = async {
            match recheck {
                Some(at) => tokio::time::sleep(until(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = context.shutdown.cancelled() => break,
            () = pulse.due() => {}
            change = watches.next() => {
                let change = change.context("the watches ended")?;
                let heard = Instant::now();
                let mut changed = speaker.take_in(change);
                for _ in 1..BATCH {
                    let Some(Some(change)) = watches.next().now_or_never() else { break };
                    changed |= speaker.take_in(change);
                }
                if changed && speaker.picture.complete() {
                    picture_gate.open();
                    recheck = speaker.act();
                    metrics.reaction.observe(heard.elapsed().as_secs_f64());
                }
            }
            () = timer => recheck = speaker.act_on_time(),
            () = speaker.kube_proxy.changed() => recheck = speaker.act(),
            changed = speaker.engine.changed() => {
                changed?;
                speaker.report();
            }
            woken = woken(&mut speaker.layer2) => speaker.layer2_woken(woken?),
        }
        // Whatever made it so: a watch, a link that came up, a timer.
        if speaker.picture.complete() && speaker.layer2.as_ref().is_none_or(layer2::Engine::runs) {
            engines_gate.open();
        }
    }
    drop(pulse);
    let leaves = speaker.node_leaves();
    tracing::info!(leaves, "the speaker stops");
    let farewell = speaker.farewell(leaves);
    let entries = speaker.entries.clone();
    speaker.stop(leaves).await;
    // Sessions that are closed for good are said to be; who looks after them else is gone.
    entries.send_replace(farewell);
    drop(entries);
    let mut writer = writer;
    if tokio::time::timeout(FAREWELL, &mut writer).await.is_err() {
        writer.abort();
    }
    news_writer.abort();
    Ok(())
}

/// Registers what is shown of BGP.
fn observed(context: &Context) -> Metrics {
    let metrics = Metrics::register(&context.metrics);
    let told = metrics.clone();
    context.state.add("bgp", move || told.state());
    let looked = metrics.clone();
    context.readiness.check("BGP", move || looked.works());
    metrics
}

/// Waits for layer 2; for ever where it is not enabled.
async fn woken(layer2: &mut Option<layer2::Engine>) -> Result<Woken, layer2::Failed> {
    match layer2 {
        Some(engine) => engine.woken().await,
        None => std::future::pending().await,
    }
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
    /// What has changed in it since the last [`Self::act`].
    touched: Touched,
    share: Share,
    /// This node as it was last seen: a Node object that vanishes does not change its addresses.
    last_node: Option<Node>,
    plan: Plan,
    last_good: LastGood,
    /// The entries in statuses that are this process's.
    own: Own,
    engine: Engine,
    metrics: Metrics,
    layer2: Option<layer2::Engine>,
    kube_proxy: KubeProxy,
    entries: watch::Sender<Entries>,
    news: watch::Sender<News>,
}

impl Speaker {
    fn take_in(&mut self, change: Change) -> bool {
        let touched = self.picture.apply(change, Timestamp::now());
        let any = touched.any();
        self.touched |= touched;
        any
    }

    /// Looks at everything again: time alone has changed something.
    fn act_on_time(&mut self) -> Option<Timestamp> {
        self.touched = Touched::Everything;
        self.act()
    }

    /// Brings the wish up to date and hands it to the engines. Returns when time alone may change it.
    fn act(&mut self) -> Option<Timestamp> {
        if !self.kube_proxy.started() || !self.picture.complete() {
            return None;
        }
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
        let touched = std::mem::take(&mut self.touched);
        let now = Timestamp::now();
        let touched = self.share.update(world, touched, &mut self.kube_proxy, now);
        self.plan = match &self.last_node {
            Some(node) => self.last_good.plan(
                self.picture.conf.as_ref(),
                &self.picture.peers,
                &self.picture.secrets,
                (&self.node, node),
            ),
            None => Plan::default(),
        };
        if let Some(layer2) = &mut self.layer2 {
            let able = self.share.able(world);
            layer2.act(&self.picture, &able, self.last_node.as_ref(), &touched);
        }
        let routes = self.with_policy(self.share.routes());
        self.engine.wish(self.plan.config.clone(), routes);
        self.metrics.planned(&self.plan);
        self.report();
        self.tell();
        self.share.recheck_at()
    }

    /// The routes as the policy, if there is one, lets each peer have them.
    fn with_policy(&self, routes: &RouteSet) -> RouteSet {
        let named = self.plan.policy.as_ref();
        let policy = named.and_then(|name| self.picture.policies.get(name)?.policy.as_ref());
        let (Some(policy), Some(config)) = (policy, &self.plan.config) else {
            return routes.clone();
        };
        let peers = config.peers.iter().map(|(name, peer)| {
            let address = match &peer.address {
                PeerAddress::Ip(ip) => Some(*ip),
                PeerAddress::LinkLocal(ip, _) => Some(IpAddr::V6(*ip)),
                PeerAddress::Interface(_) => None,
            };
            (name.clone(), address)
        });
        policy.apply(routes, &peers.collect(), config.asn)
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
        let mut entries = Entries::new(&report, conf, peers.collect());
        let theirs = self.picture.peers.iter().filter(|(_, peer)| peer.foreign);
        let foreign = Foreign {
            conf: self.picture.conf.is_none(),
            peers: theirs.map(|(name, _)| name.as_str()).collect(),
        };
        self.own.keep(&mut entries, &foreign);
        self.entries.send_if_modified(|current| {
            let differs = *current != entries;
            *current = entries;
            differs
        });
    }

    fn layer2_woken(&mut self, woken: Woken) {
        match woken {
            Woken::Inputs => {
                if let Some(layer2) = &mut self.layer2
                    && self.picture.complete()
                    && self.kube_proxy.started()
                {
                    let able = self.share.able(&self.picture.world);
                    let node = self.last_node.as_ref();
                    layer2.act(&self.picture, &able, node, &Touched::Everything);
                }
            }
            Woken::Snapshot => self.tell(),
            Woken::Event(event) => {
                if let Some(layer2) = &self.layer2 {
                    layer2.tell(&self.picture.world, &event);
                }
            }
        }
    }

    /// Tells what layer 2 does.
    fn tell(&mut self) {
        let world = &self.picture.world;
        let Some(news) = self.layer2.as_mut().and_then(|layer2| layer2.news(world)) else {
            return;
        };
        self.news.send_if_modified(|current| {
            let differs = *current != news;
            *current = news;
            differs
        });
    }

    /// What the statuses are to say once the speaker has stopped. Peers that keep the routes until the next speaker
    /// is there are left out: nothing changes for them.
    fn farewell(&mut self, leaves: bool) -> Entries {
        let snapshot = self.engine.snapshot().unwrap_or_default();
        let kept = |name: &str| {
            let peer = snapshot.peers.get(name);
            let agreed = peer.and_then(|peer| peer.negotiated.as_ref());
            !leaves && agreed.is_some_and(|agreed| agreed.graceful_restart.is_some())
        };
        let mut entries = self.entries.borrow().clone();
        entries.conf = None;
        entries
            .peers
            .retain(|name, entry| entry.wanted.is_some() && !kept(name));
        for entry in entries.peers.values_mut() {
            entry.wanted = Some(report::failed(
                "the speaker of this node was stopped".to_owned(),
            ));
        }
        entries
    }

    /// Ends the engines, each in its order, at the same time.
    async fn stop(self, leaves: bool) {
        let (picture, share) = (&self.picture, &self.share);
        let layer2 = async {
            if let Some(layer2) = self.layer2 {
                let able = share.able(&picture.world);
                layer2
                    .stop(|members| layer2::wish(picture, &able, members))
                    .await;
            }
        };
        futures::join!(self.engine.stop(leaves), layer2);
    }

    /// Whether this node will not be back soon: deleted, excluded, or shutting down.
    fn node_leaves(&self) -> bool {
        let node = self.picture.world.nodes.get(&self.node);
        self.picture.complete() && node.is_none_or(|node| node.leaving || node.excluded())
    }
}
