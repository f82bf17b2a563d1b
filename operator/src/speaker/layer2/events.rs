//! Events on Services: their address is announced, has moved, or is claimed by a foreign host.
//!
//! A thousand addresses that move at once must not become a storm: events are written one after the
//! other with a pause, and when the queue is full the newest are not said; the status says it anyway.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as ApiEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use openelb_layer2::Event;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::announce::{ServiceKey, World};

/// Who says it.
const COMPONENT: &str = "openelb-speaker";
/// Events that may wait.
const QUEUE: usize = 1024;
/// The pause between two events: at most 25 in a second.
const PAUSE: Duration = Duration::from_millis(40);

/// What is said of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    service: ServiceKey,
    uid: String,
    warning: bool,
    reason: &'static str,
    text: String,
}

/// Says things in events.
pub(super) struct Reporter {
    node: String,
    queue: mpsc::Sender<Note>,
}

impl Reporter {
    /// Starts the task that writes; it ends when the reporter is dropped.
    pub(super) fn start(client: Client, node: &str) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Note>(QUEUE);
        let instance = node.to_owned();
        tokio::spawn(async move {
            while let Some(note) = waiting.recv().await {
                let api: Api<ApiEvent> = Api::namespaced(client.clone(), &note.service.namespace);
                let event = event(&note, &instance, jiff::Timestamp::now());
                let params = PostParams::default();
                let sent = timeout(Duration::from_secs(5), api.create(&params, &event)).await;
                if let Ok(Err(error)) = sent {
                    tracing::debug!(service = %note.service, %error, "an event was not written");
                }
                sleep(PAUSE).await;
            }
        });
        Self {
            node: node.to_owned(),
            queue,
        }
    }

    /// Says what happened to all Services that hold the address.
    pub(super) fn say(&self, world: &World, event: &Event) {
        for note in notes(&self.node, world, event) {
            if self.queue.try_send(note).is_err() {
                tracing::debug!("too many events; one is not written");
            }
        }
    }
}

/// What is to be said: pure.
fn notes(node: &str, world: &World, event: &Event) -> Vec<Note> {
    let (ip, warning, reason, text) = match event {
        Event::Announced { ip, interface } => {
            let shown = world.holdings.get(ip).map(|holding| &holding.announcers);
            let before = shown.into_iter().flatten().find(|one| one.node != node);
            let (reason, text) = if let Some(before) = before {
                let from = &before.node;
                (
                    "Moved",
                    format!("{ip} moved from {from} to {node} on {interface}"),
                )
            } else {
                (
                    "Announced",
                    format!("{ip} is announced by {node} on {interface}"),
                )
            };
            (ip, false, reason, text)
        }
        Event::Conflict {
            ip,
            mac,
            speaker: None,
        } => {
            let text = format!(
                "a host with hardware address {mac} claims {ip} as well; remove it there, or exclude the address from the Eip"
            );
            (ip, true, "ForeignClaim", text)
        }
        Event::Taken { ip, mac } => {
            let text = format!(
                "a host with hardware address {mac} had {ip} before it was announced; remove it there, or exclude the address from the Eip"
            );
            (ip, true, "AddressTaken", text)
        }
        // The election has decided, or the successor says it.
        Event::Conflict { .. } | Event::Withdrawn { .. } => return Vec::new(),
    };
    let holding = world.holdings.get(ip);
    let services = holding.into_iter().flat_map(|holding| &holding.holders);
    services
        .map(|holder| Note {
            service: holder.service.clone(),
            uid: holder.uid.to_string(),
            warning,
            reason,
            text: text.clone(),
        })
        .collect()
}

fn event(note: &Note, instance: &str, now: jiff::Timestamp) -> ApiEvent {
    let kind = if note.warning { "Warning" } else { "Normal" };
    ApiEvent {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}.{:x}.{:04x}",
                note.service.name,
                now.as_nanosecond(),
                rand::random::<u16>()
            )),
            namespace: Some(note.service.namespace.to_string()),
            ..ObjectMeta::default()
        },
        action: Some("Announce".to_owned()),
        reason: Some(note.reason.to_owned()),
        note: Some(note.text.chars().take(1000).collect()),
        type_: Some(kind.to_owned()),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(COMPONENT.to_owned()),
        reporting_instance: Some(instance.chars().take(128).collect()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            name: Some(note.service.name.to_string()),
            namespace: Some(note.service.namespace.to_string()),
            uid: Some(note.uid.clone()),
            ..ObjectReference::default()
        }),
        ..ApiEvent::default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use openelb_api::v1alpha2::Announcer;

    use super::*;
    use crate::announce::testing::{TestWorld, service};

    fn world(announcer: Option<&str>) -> World {
        let mut world = TestWorld::default().service(service("web")).build();
        for holding in world.holdings.values_mut() {
            holding.announcers = announcer
                .map(|node| Announcer {
                    node: node.to_owned(),
                    ..Announcer::default()
                })
                .into_iter()
                .collect();
        }
        world
    }

    fn ip() -> IpAddr {
        "203.0.113.1".parse().unwrap()
    }

    fn said(world: &World, event: &Event) -> Vec<(&'static str, bool, String)> {
        let notes = notes("a", world, event).into_iter();
        notes
            .map(|note| (note.reason, note.warning, note.text))
            .collect()
    }

    #[test]
    fn the_first_leader_announces_and_the_next_one_moves() {
        let event = Event::Announced {
            ip: ip(),
            interface: "eth0".into(),
        };
        let first = said(&world(None), &event);
        assert_eq!(
            first,
            [(
                "Announced",
                false,
                "203.0.113.1 is announced by a on eth0".to_owned()
            )]
        );
        let moved = said(&world(Some("b")), &event);
        assert_eq!(
            moved,
            [(
                "Moved",
                false,
                "203.0.113.1 moved from b to a on eth0".to_owned()
            )]
        );
        let again = said(&world(Some("a")), &event);
        assert_eq!(again, first, "a restarted leader has not moved it");
    }

    #[test]
    fn foreign_claims_are_warnings_and_quarrels_of_speakers_are_not_told() {
        let mac = "02:00:00:00:00:09".parse().unwrap();
        let conflict = |speaker| Event::Conflict {
            ip: ip(),
            mac,
            speaker,
        };
        let foreign = said(&world(None), &conflict(None));
        assert!(
            matches!(&*foreign, [("ForeignClaim", true, text)] if text.contains("02:00:00:00:00:09"))
        );
        assert!(said(&world(None), &conflict(Some("b".into()))).is_empty());
        let taken = said(&world(None), &Event::Taken { ip: ip(), mac });
        assert!(matches!(&*taken, [("AddressTaken", true, _)]));
    }

    #[test]
    fn an_event_names_the_service_by_its_uid() {
        let note = notes(
            "a",
            &world(None),
            &Event::Announced {
                ip: ip(),
                interface: "eth0".into(),
            },
        )
        .pop()
        .unwrap();
        let event = event(&note, "a", jiff::Timestamp::UNIX_EPOCH);
        let regarding = event.regarding.unwrap();
        assert_eq!(regarding.uid.as_deref(), Some("u1"));
        assert_eq!(regarding.name.as_deref(), Some("web"));
        assert_eq!(event.type_.as_deref(), Some("Normal"));
    }
}
