//! Events on Services, with OpenELB's reasons: bounded, one at a time, behind everything else.
//!
//! A storm of Services must not become a storm of events: they wait until addresses rest (under a load
//! that never rests, two go out in a second), a pause lies between any two, and when the queue is full
//! the newest are not said (the condition on the Service says it anyway).

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use openelb_ipam::News;
use openelb_ipam::ledger::Subject;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::calm::Calm;
use crate::process::Context;

/// OpenELB's name in events.
const COMPONENT: &str = "OpenELBController";
/// Events that may wait.
const QUEUE: usize = 16 * 1024;
/// The pause between two events: at most 25 in a second.
const PAUSE: Duration = Duration::from_millis(40);
/// How long an event waits at most for addresses to rest, after the one before it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Says things in events.
pub(crate) struct Reporter {
    queue: mpsc::Sender<(Subject, News)>,
}

impl Reporter {
    /// Starts the task that writes; it ends with `Context::shutdown`.
    pub(crate) fn start(context: &Context, identity: &str, mut calm: Calm) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(Subject, News)>(QUEUE);
        let client = context.client.clone();
        let identity = identity.to_owned();
        let work = async move {
            while let Some((subject, news)) = waiting.recv().await {
                calm.wait(Instant::now() + PATIENCE).await;
                let api: Api<Event> = Api::namespaced(client.clone(), &subject.key.namespace);
                let event = event(&subject, &news, &identity, jiff::Timestamp::now());
                let sent = timeout(
                    Duration::from_secs(5),
                    api.create(&PostParams::default(), &event),
                )
                .await;
                if let Ok(Err(error)) = sent {
                    tracing::debug!(service = %subject.key, %error, "an event was not written");
                }
                sleep(PAUSE).await;
            }
        };
        let work = context.pulses.of_task("the writer of events", work);
        tokio::spawn(context.shutdown.clone().run_until_cancelled_owned(work));
        Self { queue }
    }

    /// Says something, if there is room.
    pub(crate) fn say(&self, subject: &Subject, news: News) {
        if self.queue.try_send((subject.clone(), news)).is_err() {
            tracing::debug!(service = %subject.key, "too many events; one is not written");
        }
    }
}

fn event(subject: &Subject, news: &News, identity: &str, now: jiff::Timestamp) -> Event {
    let (kind, reason, note) = match news {
        News::Assigned(address) => (
            "Normal",
            "AssignIP",
            format!("success to assign ip: {address}"),
        ),
        News::Released(address) => (
            "Normal",
            "ReleaseIP",
            format!("success to release ip: {address}"),
        ),
        News::Failed(why) => ("Warning", "AssignIPFailed", why.to_string()),
        News::Warning(reason, what) => ("Warning", *reason, what.to_string()),
    };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", subject.key.name, now.as_nanosecond())),
            namespace: Some(subject.key.namespace.to_string()),
            ..ObjectMeta::default()
        },
        action: Some("Allocate".to_owned()),
        reason: Some(reason.to_owned()),
        note: Some(note.chars().take(1000).collect()),
        type_: Some(kind.to_owned()),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(COMPONENT.to_owned()),
        reporting_instance: Some(identity.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            name: Some(subject.key.name.to_string()),
            namespace: Some(subject.key.namespace.to_string()),
            uid: Some(subject.uid.0.to_string()),
            resource_version: subject
                .version
                .as_ref()
                .map(|version| version.0.to_string()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}
