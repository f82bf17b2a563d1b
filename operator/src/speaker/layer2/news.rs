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
use openelb_api::keys::conditions::CONFLICT;
use openelb_api::v1alpha2::{Announcer, EipAddress, name_for};
use openelb_layer2::{Activity, ProbeResult, Snapshot, VipState};
use serde_json::json;
use tokio::sync::watch;

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
    pub(in crate::speaker) fn new(
        node: &str,
        world: &World,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Self {
        let mut news = BTreeMap::new();
        for (ip, holding) in &world.holdings {
            let state = snapshot.addresses.get(ip);
            let announcers = announcers(node, &holding.announcers, state);
            let conditions = conditions(&holding.conditions, state, now);
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

fn conditions(shown: &[Condition], state: Option<&VipState>, now: Timestamp) -> Vec<Condition> {
    let Some(state) = state.filter(|state| !matches!(state.activity, Activity::Idle)) else {
        return shown.to_vec();
    };
    let foreign = state
        .conflict
        .as_ref()
        .filter(|conflict| conflict.speaker.is_none());
    let trouble = match (foreign, state.probe, state.activity) {
        (_, ProbeResult::Taken(mac), Activity::SetAside) => Some((
            "SetAside",
            format!(
                "a host with hardware address {mac} has this address; it is not announced. Remove it there, or exclude the address from the Eip"
            ),
        )),
        (Some(conflict), _, _) => Some((
            "ForeignClaim",
            format!(
                "a host with hardware address {} claims this address; remove it there, or exclude the address from the Eip",
                conflict.mac
            ),
        )),
        (None, ProbeResult::Taken(mac), _) => Some((
            "TakenBefore",
            format!(
                "a host with hardware address {mac} had this address before it was announced; remove it there"
            ),
        )),
        _ => None,
    };
    let mut conditions = shown.to_vec();
    let old = conditions
        .iter()
        .position(|condition| condition.type_ == CONFLICT);
    let (status, reason, message) = match trouble {
        Some((reason, message)) => ("True", reason, message),
        None if old.is_none() => return conditions,
        None => (
            "False",
            "NoConflict",
            "nobody else claims this address".to_owned(),
        ),
    };
    let mut new = Condition {
        type_: CONFLICT.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: None,
        last_transition_time: Time(now.round(jiff::Unit::Second).unwrap_or(now)),
    };
    match old.and_then(|index| conditions.get_mut(index)) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
    conditions
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
        let News(mut news) = News::new("a", &world(shown), &snapshot, at(0));
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

    #[test]
    fn a_foreign_claim_is_a_condition_that_goes_with_it() {
        let mut claimed = state(Activity::Answering(SystemTime::UNIX_EPOCH));
        claimed.conflict = Some(openelb_layer2::Conflict {
            mac: "02:00:00:00:00:09".parse().unwrap(),
            speaker: None,
            at: SystemTime::UNIX_EPOCH,
            count: 1,
        });
        let with = conditions(&[], Some(&claimed), at(5));
        assert_eq!(
            (with[0].status.as_str(), with[0].reason.as_str()),
            ("True", "ForeignClaim")
        );
        assert!(with[0].message.contains("02:00:00:00:00:09"));
        assert_eq!(
            conditions(&with, Some(&claimed), at(9)),
            with,
            "nothing new is no change"
        );
        claimed.conflict = None;
        let without = conditions(&with, Some(&claimed), at(9));
        assert_eq!(without[0].status, "False");
        assert!(conditions(&[], Some(&claimed), at(9)).is_empty());
    }
}
