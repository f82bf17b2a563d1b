//! Tells the API what happened in layer 2: who announces, and who else claims an address.
//!
//! The announcing speaker writes itself into the EipAddress's status; one that stopped removes
//! itself, unless its successor has written already. Every write names the version it was decided
//! on, so that two speakers never undo each other's word. Writing comes after acting and is paced:
//! a thousand addresses that move at once do not flood the API server.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use openelb_api::v1alpha2::{Announcer, EipAddress, name_for};
use openelb_layer2::{Activity, Snapshot, VipState};
use serde_json::json;
use tokio::sync::watch;

use super::conditions::conditions;
use super::host::Host;
use crate::announce::World;

/// The least time between two writes.
const PACE: Duration = Duration::from_millis(20);

/// What the EipAddresses should say of this node, where they say something else.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::speaker) struct News(BTreeMap<IpAddr, Item>);

#[derive(Clone, Debug, PartialEq)]
struct Item {
    version: String,
    announcers: Vec<Announcer>,
    conditions: Vec<Condition>,
}

impl News {
    /// Compares what this node does with what the API shows: pure.
    pub(super) fn new(
        node: &str,
        world: &World,
        snapshot: &Snapshot,
        (host, others): (&Host, &[String]),
        now: Timestamp,
    ) -> Self {
        let mut news = BTreeMap::new();
        for (ip, holding) in &world.holdings {
            let state = snapshot.addresses.get(ip);
            let announcers = announcers(node, &holding.announcers, state);
            let conditions = conditions(&holding.conditions, state, *ip, (host, others), now);
            if announcers != holding.announcers || conditions != holding.conditions {
                let version = holding.version.clone();
                news.insert(
                    *ip,
                    Item {
                        version,
                        announcers,
                        conditions,
                    },
                );
            }
        }
        Self(news)
    }
}

fn announcers(node: &str, shown: &[Announcer], state: Option<&VipState>) -> Vec<Announcer> {
    let since = match state.map(|state| state.activity) {
        Some(Activity::Answering(since)) => Some(since),
        // Its successor writes.
        Some(Activity::HandingOver(_)) => return shown.to_vec(),
        _ => None,
    };
    let Some(since) = since else {
        return shown
            .iter()
            .filter(|announcer| announcer.node != node)
            .cloned()
            .collect();
    };
    let interface = state
        .and_then(|state| state.interface.as_deref())
        .map(str::to_owned);
    let since = Timestamp::try_from(since)
        .ok()
        .and_then(|time| time.round(jiff::Unit::Second).ok());
    vec![Announcer {
        node: node.to_owned(),
        interfaces: interface.into_iter().collect(),
        since: since.map(Time),
    }]
}

/// Follows `news` until its sender is gone.
pub(in crate::speaker) async fn write(client: Client, mut news: watch::Receiver<News>) {
    let api: Api<EipAddress> = Api::all(client);
    let params = PatchParams {
        field_manager: Some("openelb-speaker".to_owned()),
        ..PatchParams::default()
    };
    // The version that was written over, by address: until the watch shows a newer one, it is done.
    let mut done: BTreeMap<IpAddr, String> = BTreeMap::new();
    while news.changed().await.is_ok() {
        loop {
            let News(wish) = news.borrow_and_update().clone();
            done.retain(|ip, version| wish.get(ip).is_some_and(|item| item.version == *version));
            let Some((ip, item)) = wish.iter().find(|(ip, _)| !done.contains_key(*ip)) else {
                break;
            };
            let body = json!({
                "metadata": {"resourceVersion": item.version},
                "status": {"announcers": item.announcers, "conditions": item.conditions}
            });
            match api
                .patch_status(&name_for(*ip), &params, &Patch::Merge(&body))
                .await
            {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(%ip, %error, "cannot write who announces; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            }
            done.insert(*ip, item.version.clone());
            tokio::time::sleep(PACE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use openelb_layer2::ProbeResult;

    use super::*;
    use crate::announce::testing::{TestWorld, at, service};

    fn state(activity: Activity) -> VipState {
        VipState {
            activity,
            interface: Some("eth0".into()),
            in_subnet: true,
            probe: ProbeResult::None,
            conflict: None,
            heard: None,
        }
    }

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

    fn told(shown: Option<&str>, state: VipState) -> Option<Vec<String>> {
        let snapshot = Snapshot {
            addresses: [("203.0.113.1".parse().unwrap(), state)].into(),
        };
        let News(mut news) = News::new(
            "a",
            &world(shown),
            &snapshot,
            (&Host::default(), &[]),
            at(0),
        );
        let item = news.pop_first()?.1;
        Some(
            item.announcers
                .into_iter()
                .map(|announcer| announcer.node)
                .collect(),
        )
    }

    #[test]
    fn the_answering_node_writes_itself_and_one_that_stopped_removes_only_itself() {
        let answering = || state(Activity::Answering(SystemTime::UNIX_EPOCH));
        assert_eq!(told(None, answering()), Some(vec!["a".to_owned()]));
        assert_eq!(told(Some("b"), answering()), Some(vec!["a".to_owned()]));
        assert_eq!(told(Some("a"), state(Activity::Idle)), Some(vec![]));
        assert_eq!(told(Some("b"), state(Activity::Idle)), None);
        let leaving = state(Activity::HandingOver(SystemTime::UNIX_EPOCH));
        assert_eq!(told(Some("a"), leaving), None, "the successor writes");
    }
}
