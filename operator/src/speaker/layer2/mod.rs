//! Layer 2: membership, election and responder put together.
//!
//! ```text
//! Picture ─┐
//! Members ─┼─> election::desired (pure) ─> Responder ─> Snapshot, Event ─> news ─> EipAddress
//! Links  ──┴─> Ability ─> Membership (told to all)
//! ```
//!
//! The engine starts when there is a usable membership key and never runs open. It lives on without
//! the API server: members and links are its own.

mod election;
mod news;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use openelb_api::keys;
use openelb_layer2::{Ability, Desired, Event, Responder, ResponderConfig, Snapshot};
use openelb_membership::{Key, Members, Membership, MembershipConfig, Profile, Seeds, outranks};
use openelb_net::{Links, LinksWatch};
use tokio::sync::watch;

use crate::announce::{Able, Node};
use crate::picture::Picture;
pub(super) use news::{News, write};

/// How long a stopping speaker waits for others to take its addresses.
const HAND_OVER: Duration = Duration::from_secs(5);

/// What does not change while the process runs.
pub(super) struct Settings {
    /// This node.
    pub(super) node: String,
    /// Where to listen for membership messages.
    pub(super) bind: SocketAddr,
    /// The key given by environment or flag; else the Secret's counts.
    pub(super) key: Option<String>,
    /// How quickly death is noticed.
    pub(super) profile: Profile,
}

/// Owns everything of layer 2 on this node.
pub(super) struct Engine {
    settings: Settings,
    links: LinksWatch,
    link_changes: watch::Receiver<Arc<Links>>,
    running: Option<Running>,
    /// The last reason why it does not run, to say it once.
    obstacle: Option<String>,
}

struct Running {
    membership: Membership,
    members: watch::Receiver<Arc<Members>>,
    seeds: watch::Sender<Seeds>,
    responder: Responder,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    desired: watch::Sender<Arc<Desired>>,
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

impl Engine {
    /// Prepares the engine; nothing is answered yet.
    pub(super) async fn new(settings: Settings) -> anyhow::Result<Self> {
        let links = LinksWatch::spawn().await?;
        let link_changes = links.subscribe();
        Ok(Self {
            settings,
            links,
            link_changes,
            running: None,
            obstacle: None,
        })
    }

    /// Computes the wish anew and hands it to the responder.
    pub(super) fn act(&mut self, picture: &Picture, able: &Able<'_>, own: Option<&Node>) {
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
        running.seeds.send_if_modified(|current| {
            let differs = **current != seeds;
            if differs {
                *current = Arc::new(seeds);
            }
            differs
        });
        let choices = election::choices(&picture.world);
        let ability = Ability::of(
            &self.link_changes.borrow(),
            choices.values().map(|choice| &**choice),
        );
        if let Err(error) = running.membership.attach(ability.encode()) {
            tracing::error!(%error, "the other speakers cannot be told of this node's interfaces");
        }
        let members = running.members.borrow().clone();
        let desired = election::desired(&picture.world, able, &members, &choices);
        running.desired.send_if_modified(|current| {
            let differs = **current != desired;
            if differs {
                *current = Arc::new(desired);
            }
            differs
        });
    }

    fn start(&mut self, picture: &Picture, own: Option<&Node>) -> Result<(), String> {
        let ip = own
            .and_then(|node| node.internal_ips.first().copied())
            .ok_or("the Node shows no InternalIP yet")?;
        let key = self.key(picture)?;
        let bind = match (self.settings.bind, ip) {
            (SocketAddr::V4(bind), IpAddr::V6(_)) if bind.ip().is_unspecified() => {
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, bind.port()))
            }
            (bind, _) => bind,
        };
        let config = MembershipConfig {
            node: self.settings.node.clone(),
            bind,
            advertise: SocketAddr::new(ip, bind.port()),
            key,
            profile: self.settings.profile,
        };
        let (seeds, seeds_rx) = watch::channel(Seeds::default());
        let membership = Membership::spawn(config, seeds_rx).map_err(|error| error.to_string())?;
        let (desired, desired_rx) = watch::channel(Arc::default());
        let config = ResponderConfig::new(&self.settings.node, outranks);
        let responder = Responder::spawn(config, desired_rx, self.links.subscribe())
            .map_err(|error| error.to_string())?;
        tracing::info!(%bind, advertise = %ip, "layer 2 runs");
        self.obstacle = None;
        self.running = Some(Running {
            members: membership.members(),
            membership,
            seeds,
            snapshot: responder.snapshot(),
            responder,
            desired,
        });
        Ok(())
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
    pub(super) async fn woken(&mut self) -> Woken {
        let Some(running) = &mut self.running else {
            // A node that gets an interface or address may be able to start.
            if self.link_changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            return Woken::Inputs;
        };
        tokio::select! {
            Ok(()) = running.members.changed() => Woken::Inputs,
            Ok(()) = self.link_changes.changed() => Woken::Inputs,
            Ok(()) = running.snapshot.changed() => Woken::Snapshot,
            Some(event) = running.responder.event() => Woken::Event(event),
            else => std::future::pending().await,
        }
    }

    /// What is answered now.
    pub(super) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.running
            .as_ref()
            .map(|running| running.snapshot.borrow().clone())
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
        running.membership.set_leaving(true);
        let hand_over = async {
            loop {
                let members = running.members.borrow_and_update().clone();
                running.desired.send_replace(Arc::new(able(&members)));
                if !running.snapshot.borrow_and_update().answers_any() {
                    return;
                }
                tokio::select! {
                    Ok(()) = running.members.changed() => {}
                    Ok(()) = running.snapshot.changed() => {}
                    else => return,
                }
            }
        };
        if tokio::time::timeout(HAND_OVER, hand_over).await.is_err() {
            tracing::warn!("some addresses were not taken over by another node in time");
        }
        running.membership.leave().await;
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
