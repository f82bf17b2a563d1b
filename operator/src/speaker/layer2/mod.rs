//! Layer 2: membership, election and responder put together.
//!
//! ```text
//! Picture ─┐
//! Members ─┼─> election::desired (pure) ─> Responder ─┬─> Snapshot ─> news ─> EipAddress
//! Links  ──┴─> Ability ─> Alive (told to all)         └─> Event ─> events, metrics
//! ```
//!
//! The engine starts when there is a usable membership key and never runs open; Leases need none. It
//! lives on without the API server: members and links are its own.

mod alive;
mod conditions;
mod election;
mod events;
mod host;
mod lease;
mod metrics;
mod news;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use openelb_api::keys;
use openelb_layer2::{Ability, Desired, Event, Responder, ResponderConfig, Snapshot};
use openelb_membership::{Key, Members, MembershipConfig, Profile, outranks};
use openelb_net::{Links, LinksWatch};
use tokio::sync::watch;

use crate::announce::{Able, Node, World};
use crate::picture::{Picture, Touched};
use crate::process::Context;
use alive::Alive;
use events::Reporter;
use host::Host;
use lease::LeaseMembership;
use metrics::Metrics;
pub(super) use news::{News, write};

/// Registers every metric of layer 2.
pub(super) fn example(metrics: &openelb_process::Metrics) {
    Metrics::register(metrics);
}

/// How long a stopping speaker waits for others to take its addresses.
const HAND_OVER: Duration = Duration::from_secs(5);

/// How often the kernel's settings are read again.
const HOST_EVERY: Duration = Duration::from_secs(10);

/// How speakers know of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// They talk to each other by UDP.
    #[default]
    Gossip,
    /// Each renews a Lease.
    Lease,
}

/// What does not change while the process runs.
pub(super) struct Settings {
    /// This node.
    pub(super) node: String,
    /// Where to listen for membership messages.
    pub(super) bind: SocketAddr,
    /// The key given by environment or flag; else the Secret's counts.
    pub(super) key: Option<String>,
    /// How speakers know of each other.
    pub(super) kind: Kind,
    /// How quickly death is noticed.
    pub(super) profile: Profile,
    /// Unasked frames per second.
    pub(super) pace: u32,
}

/// Owns everything of layer 2 on this node.
pub(super) struct Engine {
    settings: Settings,
    context: Context,
    reporter: Reporter,
    metrics: Metrics,
    host: Option<(Host, Instant)>,
    links: LinksWatch,
    link_changes: watch::Receiver<Arc<Links>>,
    running: Option<Running>,
    /// The last reason why it does not run, to say it once.
    obstacle: Option<String>,
}

struct Running {
    alive: Alive,
    /// What the others were told of this node.
    ability: Ability,
    members: watch::Receiver<Arc<Members>>,
    responder: Responder,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    desired: watch::Sender<Arc<Desired>>,
    /// The members that it was made of.
    electorate: Option<Arc<Members>>,
}

impl Running {
    /// Tells the others what this node can answer for.
    fn attach(&mut self, ability: Ability) {
        if let Err(error) = self.alive.attach(ability.encode()) {
            tracing::error!(%error, "the other speakers cannot be told of this node's interfaces");
        }
        self.ability = ability;
    }
}

/// What woke the engine.
pub(super) enum Woken {
    /// Members or links changed: the wish must be computed anew.
    Inputs,
    /// What is answered changed.
    Snapshot,
    /// Something worth telling happened.
    Event(Event),
}

const LINKS: &str = "the watch of the interfaces";
const MEMBERSHIP: &str = "the membership";
const RESPONDER: &str = "the responder";

/// A part of layer 2 has ended although nobody asked it to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} of layer 2 has failed; the process ends so that other nodes take over")]
pub(super) struct Failed(&'static str);

/// Waits for a change. A sender that is gone is a task that has panicked.
async fn changed<T>(receiver: &mut watch::Receiver<T>, part: &'static str) -> Result<(), Failed> {
    receiver.changed().await.map_err(|_| Failed(part))
}

impl Engine {
    /// Prepares the engine; nothing is answered yet.
    pub(super) async fn new(settings: Settings, context: &Context) -> anyhow::Result<Self> {
        let links = LinksWatch::spawn().await?;
        let link_changes = links.subscribe();
        let metrics = Metrics::register(&context.metrics);
        let told = metrics.clone();
        context.state.add("layer2", move || told.state());
        Ok(Self {
            reporter: Reporter::start(context.client.clone(), &settings.node),
            metrics,
            context: context.clone(),
            host: None,
            settings,
            links,
            link_changes,
            running: None,
            obstacle: None,
        })
    }

    /// Brings the wish up to date with what has changed, or with [`Touched::Everything`] makes it anew, and hands it to
    /// the responder.
    pub(super) fn act(
        &mut self,
        picture: &Picture,
        able: &Able<'_>,
        own: Option<&Node>,
        touched: &Touched,
    ) {
        if self.running.is_none()
            && let Err(reason) = self.start(picture, own)
            && self.obstacle.as_ref() != Some(&reason)
        {
            tracing::error!(reason, "layer 2 does not run");
            self.obstacle = Some(reason);
        }
        let Some(running) = &mut self.running else {
            return;
        };
        let port = self.settings.bind.port();
        let seeds: BTreeSet<SocketAddr> = picture
            .speakers
            .values()
            .map(|ip| SocketAddr::new(*ip, port))
            .collect();
        running.alive.meet(seeds);
        let choices = election::choices(&picture.world);
        let mut ability = Ability::of(
            &self.link_changes.borrow(),
            choices.values().map(|choice| &**choice),
            &election::ranges(&picture.world),
        );
        ability.kernel_answers = self
            .host
            .as_ref()
            .is_some_and(|(host, _)| host.answers_for_all());
        running.attach(ability);
        let members = running.members.borrow().clone();
        self.metrics.members(members.alive.len());
        let known = running.electorate.as_ref();
        let same = known.is_some_and(|known| Arc::ptr_eq(known, &members));
        let world = &picture.world;
        let current = running.desired.borrow().clone();
        let desired = match touched {
            Touched::Nothing | Touched::Settings if same => None,
            Touched::Addresses(addresses) if same => {
                election::amended(&current, world, able, &members, &choices, addresses)
            }
            _ => {
                let desired = election::desired(world, able, &members, &choices);
                (desired != *current).then_some(desired)
            }
        };
        running.electorate = Some(members);
        if let Some(desired) = desired {
            running.desired.send_replace(Arc::new(desired));
        }
    }

    fn start(&mut self, picture: &Picture, own: Option<&Node>) -> Result<(), String> {
        let ip = own
            .and_then(|node| node.internal_ips.first().copied())
            .ok_or("the Node shows no InternalIP yet")?;
        let alive = self.alive(picture, ip)?;
        let (desired, desired_rx) = watch::channel(Arc::default());
        let config = ResponderConfig {
            pace: self.settings.pace,
            ..ResponderConfig::new(&self.settings.node, outranks)
        };
        let responder = Responder::spawn(config, desired_rx, self.links.subscribe())
            .map_err(|error| error.to_string())?;
        tracing::info!(membership = ?self.settings.kind, address = %ip, "layer 2 runs");
        self.metrics.responder(responder.counters());
        if let Some(counts) = alive.counts() {
            self.metrics.gossip(counts);
        }
        self.obstacle = None;
        self.running = Some(Running {
            members: alive.members(),
            alive,
            ability: Ability::default(),
            snapshot: responder.snapshot(),
            responder,
            desired,
            electorate: None,
        });
        Ok(())
    }

    /// Starts the membership.
    fn alive(&self, picture: &Picture, ip: IpAddr) -> Result<Alive, String> {
        let bind = match (self.settings.bind, ip) {
            (SocketAddr::V4(bind), IpAddr::V6(_)) if bind.ip().is_unspecified() => {
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, bind.port()))
            }
            (bind, _) => bind,
        };
        let advertise = SocketAddr::new(ip, bind.port());
        let node = self.settings.node.clone();
        let profile = self.settings.profile;
        match self.settings.kind {
            Kind::Gossip => Alive::gossip(MembershipConfig {
                node,
                bind,
                advertise,
                key: self.key(picture)?,
                profile,
            })
            .map_err(|error| error.to_string()),
            Kind::Lease => Ok(Alive::Lease(LeaseMembership::spawn(lease::Config {
                client: self.context.client.clone(),
                namespace: self.context.namespace.clone(),
                node,
                address: advertise,
                timing: profile.lease_timing(),
            }))),
        }
    }

    /// The key, from the environment or the Secret.
    fn key(&self, picture: &Picture) -> Result<Key, String> {
        if let Some(key) = &self.settings.key {
            return Key::new(key.as_bytes()).map_err(|error| error.to_string());
        }
        let secret = picture.secrets.0.get(keys::MEMBERLIST_SECRET);
        let value = secret.and_then(|secret| secret.values.get(keys::MEMBERLIST_KEY).cloned());
        match value {
            Some(Some(value)) => Key::new(value.as_bytes()).map_err(|error| error.to_string()),
            _ => Err("there is no key for the membership: put 32 random characters into the Secret `memberlist`, key `key`".to_owned()),
        }
    }

    /// Waits for something that concerns layer 2.
    ///
    /// # Errors
    /// A part of it has ended by itself. The process must end then: it would be elected and not answer.
    pub(super) async fn woken(&mut self) -> Result<Woken, Failed> {
        let Some(running) = &mut self.running else {
            // A node that gets an interface or address may be able to start.
            changed(&mut self.link_changes, LINKS).await?;
            return Ok(Woken::Inputs);
        };
        let look = self.host.as_ref().map(|(_, read)| *read + HOST_EVERY);
        let look = async {
            match look {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The kernel's settings are looked at again.
            () = look => Ok(Woken::Snapshot),
            done = changed(&mut running.members, MEMBERSHIP) => done.map(|()| Woken::Inputs),
            done = changed(&mut self.link_changes, LINKS) => done.map(|()| Woken::Inputs),
            done = changed(&mut running.snapshot, RESPONDER) => done.map(|()| Woken::Snapshot),
            event = running.responder.event() => event.map(Woken::Event).ok_or(Failed(RESPONDER)),
        }
    }

    /// What the API should say of what is answered now, where it says something else.
    pub(super) fn news(&mut self, world: &World) -> Option<News> {
        let running = self.running.as_mut()?;
        let snapshot = running.snapshot.borrow().clone();
        let answering = snapshot.addresses.values();
        let answering = answering.filter(|state| state.activity.answers());
        self.metrics.answering(answering.count());
        let now = Instant::now();
        let host = match &self.host {
            Some((host, read)) if now.saturating_duration_since(*read) < HOST_EVERY => host,
            old => {
                let host = Host::read(&self.link_changes.borrow());
                host.report(old.as_ref().map(|(old, _)| old));
                &self.host.insert((host, now)).0
            }
        };
        if running.ability.kernel_answers != host.answers_for_all() {
            let mut ability = running.ability.clone();
            ability.kernel_answers = host.answers_for_all();
            running.attach(ability);
        }
        let node = &self.settings.node;
        let others = election::kernels_that_answer(&running.members.borrow());
        let now = Timestamp::now();
        Some(News::new(node, world, &snapshot, (host, &others), now))
    }

    /// Tells what happened.
    pub(super) fn tell(&self, world: &World, event: &Event) {
        tracing::info!(?event, "layer 2");
        self.reporter.say(world, event);
    }

    /// Whether the engine runs.
    pub(super) fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Hands every address over, then says goodbye.
    pub(super) async fn stop(self, able: impl Fn(&Members) -> Desired) {
        let Some(mut running) = self.running else {
            return;
        };
        running.alive.set_leaving();
        let hand_over = async {
            loop {
                let members = running.members.borrow_and_update().clone();
                running.desired.send_replace(Arc::new(able(&members)));
                if !running.snapshot.borrow_and_update().answers_any() {
                    return;
                }
                let news = async {
                    tokio::select! {
                        done = changed(&mut running.members, MEMBERSHIP) => done,
                        done = changed(&mut running.snapshot, RESPONDER) => done,
                    }
                };
                if let Err(failed) = news.await {
                    tracing::error!(%failed, "nothing can be handed over");
                    return;
                }
            }
        };
        if tokio::time::timeout(HAND_OVER, hand_over).await.is_err() {
            tracing::warn!("some addresses were not taken over by another node in time");
        }
        running.alive.leave().await;
    }
}

/// The wish of a node that is about to leave, for [`Engine::stop`].
pub(super) fn wish(picture: &Picture, able: &Able<'_>, members: &Members) -> Desired {
    election::desired(
        &picture.world,
        able,
        members,
        &election::choices(&picture.world),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_by_itself_is_a_failure_and_no_silence() {
        let (sender, mut receiver) = watch::channel(0);
        sender.send_replace(1);
        assert_eq!(changed(&mut receiver, RESPONDER).await, Ok(()));
        drop(sender);
        let failed = changed(&mut receiver, RESPONDER).await.unwrap_err();
        assert_eq!(failed, Failed(RESPONDER));
        assert!(
            failed
                .to_string()
                .contains("the responder of layer 2 has failed")
        );
    }
}
