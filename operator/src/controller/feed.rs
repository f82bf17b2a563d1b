//! What the cluster says: one watch per kind, trimmed to what the engine needs, into one bounded queue.
//!
//! What the judgement of announcements needs of the same kinds goes on to it from here, after the engine
//! had it, so that each object is sent and read once. A watch that breaks is begun again within half a
//! second, also when the API server was gone for long.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use openelb_api::Tolerant;
use openelb_api::v1alpha2::{Eip, EipAddress, address_of};
use openelb_ipam::ledger::Stored;
use openelb_ipam::{ServiceFacts, ServiceKey, Uid};
use openelb_process::patience;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use tokio::sync::mpsc;

use super::lean::{self, Lean};
use super::wire;
use crate::picture;
use crate::process::Context;

/// Changes that may wait for the engine; then the watches wait.
const QUEUE: usize = 1024;
/// Objects per page of a list.
const PAGE: u32 = 500;

/// A kind that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Service,
    Record,
    Eip,
    Namespace,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Service, Self::Record, Self::Eip, Self::Namespace];

    /// As Kubernetes calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Record => "EipAddress",
            Self::Eip => "Eip",
            Self::Namespace => "Namespace",
        }
    }
}

/// Something that a watch said.
#[derive(Debug)]
pub(crate) enum Change {
    /// A complete list of this kind begins; until `End` everything told of it belongs to the list.
    Begin(Kind),
    /// The list is complete: what was not in it is gone.
    End(Kind),
    Service(Box<ServiceFacts>),
    ServiceGone(ServiceKey, Uid),
    /// An address, and whether it is set aside because a foreign host has it.
    Record(Box<Stored>, bool),
    RecordGone(IpAddr, Uid),
    /// An object of this name says nothing usable.
    BadRecord(String, String),
    Eip(Box<Tolerant<Eip>>),
    EipGone(String),
    Namespace(String, BTreeMap<String, String>),
    NamespaceGone(String),
}

/// Starts the watches; they end with `Context::shutdown`. What they say goes to the engine by the first
/// queue, and of the kinds that announcements depend on to their judge by the second.
pub(crate) fn start(
    context: &Context,
) -> (mpsc::Receiver<Change>, mpsc::Receiver<picture::Change>) {
    let (engine, for_engine) = mpsc::channel(QUEUE);
    let (judge, for_judge) = mpsc::channel(QUEUE);
    let to = Queues { engine, judge };
    let client = &context.client;
    watch(
        context,
        to.clone(),
        Kind::Service,
        all::<Lean<Service>>(client),
        |service, gone| {
            let facts = ServiceFacts::read(&service.0)?;
            Some(if gone {
                Change::ServiceGone(facts.key, facts.uid)
            } else {
                Change::Service(Box::new(facts))
            })
        },
        Some(|event| picture::Change::Service(lean::map(event, |service| service.0))),
    );
    watch(
        context,
        to.clone(),
        Kind::Record,
        all::<Tolerant<EipAddress>>(client),
        record,
        Some(picture::Change::EipAddress),
    );
    watch(
        context,
        to.clone(),
        Kind::Eip,
        all::<Tolerant<Eip>>(client),
        |object, gone| {
            Some(if gone {
                Change::EipGone(object.name_any())
            } else {
                Change::Eip(Box::new(object.clone()))
            })
        },
        Some(picture::Change::Eip),
    );
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    watch(
        context,
        to,
        Kind::Namespace,
        namespaces,
        |object, gone| {
            let name = object.name_any();
            Some(if gone {
                Change::NamespaceGone(name)
            } else {
                Change::Namespace(name, object.metadata.labels.clone().unwrap_or_default())
            })
        },
        None,
    );
    (for_engine, for_judge)
}

fn all<K: Resource<DynamicType = ()>>(client: &Client) -> Api<K> {
    Api::all(client.clone())
}

fn record(object: &Tolerant<EipAddress>, gone: bool) -> Option<Change> {
    let name = object.name_any();
    if gone {
        return Some(Change::RecordGone(
            address_of(&name)?,
            object.uid()?.as_str().into(),
        ));
    }
    let parsed = match &object.parsed {
        Ok(parsed) => wire::stored(parsed).map(|stored| (stored, wire::is_aside(parsed))),
        Err(why) => Err(why.clone()),
    };
    Some(match parsed {
        Ok((stored, aside)) => Change::Record(Box::new(stored), aside),
        Err(why) => Change::BadRecord(name, why),
    })
}

/// Where changes go.
#[derive(Clone)]
struct Queues {
    engine: mpsc::Sender<Change>,
    judge: mpsc::Sender<picture::Change>,
}

fn watch<K>(
    context: &Context,
    to: Queues,
    kind: Kind,
    api: Api<K>,
    read: impl Fn(&K, bool) -> Option<Change> + Send + 'static,
    pass_on: Option<fn(Event<K>) -> picture::Change>,
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let shutdown = context.shutdown.clone();
    let stream = watcher::watcher(api, watcher::Config::default().page_size(PAGE));
    let watches = context.watches.clone();
    let name = kind.name();
    watches.begin(name);
    let work = async move {
        let mut stream = Box::pin(stream.backoff(patience()));
        loop {
            let event = match stream.try_next().await {
                Ok(None) => return,
                Err(error) => {
                    watches.failed(name);
                    tracing::warn!(?kind, %error, "a watch was interrupted; beginning again");
                    continue;
                }
                Ok(Some(event)) => event,
            };
            watches.heard(name);
            let change = match &event {
                Event::Init => Some(Change::Begin(kind)),
                Event::InitDone => Some(Change::End(kind)),
                Event::InitApply(object) | Event::Apply(object) => read(object, false),
                Event::Delete(object) => read(object, true),
            };
            if let Some(change) = change
                && to.engine.send(change).await.is_err()
            {
                return;
            }
            if let Some(pass_on) = pass_on
                && to.judge.send(pass_on(event)).await.is_err()
            {
                return;
            }
        }
    };
    let work = context
        .pulses
        .of_task(&format!("the watch of {name}"), work);
    tokio::spawn(shutdown.run_until_cancelled_owned(work));
}
