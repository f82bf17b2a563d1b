//! What the cluster says: one watch per kind, trimmed to what the engine needs, into one bounded queue.
//!
//! A watch that breaks is begun again within half a second, also when the API server was gone for long.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use kube::{Api, Client, Resource, ResourceExt};
use openelb_api::Tolerant;
use openelb_api::v1alpha2::{Eip, EipAddress, address_of};
use openelb_ipam::ledger::Stored;
use openelb_ipam::{ServiceFacts, ServiceKey, Uid};
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use tokio::sync::mpsc;

use super::wire;
use crate::process::Context;

/// Changes that may wait for the engine; then the watches wait.
const QUEUE: usize = 1024;
/// Objects per page of a list.
const PAGE: u32 = 1000;

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
    Record(Box<Stored>),
    RecordGone(IpAddr, Uid),
    /// An object of this name says nothing usable.
    BadRecord(String, String),
    Eip(Box<Tolerant<Eip>>),
    EipGone(String),
    Namespace(String, BTreeMap<String, String>),
    NamespaceGone(String),
}

/// Starts the watches; they end with `Context::shutdown`.
pub(crate) fn start(context: &Context) -> mpsc::Receiver<Change> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let client = &context.client;
    watch(
        context,
        sender.clone(),
        Kind::Service,
        all::<Service>(client),
        |service, gone| {
            let facts = ServiceFacts::read(&service)?;
            Some(if gone {
                Change::ServiceGone(facts.key, facts.uid)
            } else {
                Change::Service(Box::new(facts))
            })
        },
    );
    watch(
        context,
        sender.clone(),
        Kind::Record,
        all::<Tolerant<EipAddress>>(client),
        |object, gone| record(&object, gone),
    );
    watch(
        context,
        sender.clone(),
        Kind::Eip,
        all::<Tolerant<Eip>>(client),
        |object, gone| {
            Some(if gone {
                Change::EipGone(object.name_any())
            } else {
                Change::Eip(Box::new(object))
            })
        },
    );
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    watch(
        context,
        sender,
        Kind::Namespace,
        namespaces,
        |object, gone| {
            let name = object.name_any();
            Some(if gone {
                Change::NamespaceGone(name)
            } else {
                Change::Namespace(name, object.metadata.labels.unwrap_or_default())
            })
        },
    );
    receiver
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
        Ok(parsed) => wire::stored(parsed),
        Err(why) => Err(why.clone()),
    };
    Some(match parsed {
        Ok(stored) => Change::Record(Box::new(stored)),
        Err(why) => Change::BadRecord(name, why),
    })
}

fn watch<K>(
    context: &Context,
    sender: mpsc::Sender<Change>,
    kind: Kind,
    api: Api<K>,
    read: impl Fn(K, bool) -> Option<Change> + Send + 'static,
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let shutdown = context.shutdown.clone();
    let stream = watcher::watcher(api, watcher::Config::default().page_size(PAGE));
    tokio::spawn(shutdown.run_until_cancelled_owned(async move {
        let mut stream = Box::pin(stream.backoff(patience()));
        loop {
            let change = match stream.try_next().await {
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(?kind, %error, "a watch was interrupted; beginning again");
                    continue;
                }
                Ok(Some(Event::Init)) => Some(Change::Begin(kind)),
                Ok(Some(Event::InitDone)) => Some(Change::End(kind)),
                Ok(Some(Event::InitApply(object) | Event::Apply(object))) => read(object, false),
                Ok(Some(Event::Delete(object))) => read(object, true),
            };
            if let Some(change) = change
                && sender.send(change).await.is_err()
            {
                return;
            }
        }
    }));
}

/// Short and bounded: an API server that is back shall be met at once.
pub(crate) fn patience() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_millis(250))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .into()
}
