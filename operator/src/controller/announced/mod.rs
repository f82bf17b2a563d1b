//! Whether the network knows: the `Announced` condition of Services, and the conditions and summaries
//! of BgpConf and BgpPeers.
//!
//! What should be follows from the same pure functions that the speakers use; what is, from what
//! they report: for each node and peer the digest of the routes really sent, and for layer 2 the
//! announcer in the EipAddress. Only the leader writes. A write says something new or is not made,
//! and is paced: nothing here may delay the work on addresses.

mod bgp;
mod verdict;

use std::collections::VecDeque;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service as ApiService;
use kube::api::{Api, Patch, PatchParams};
use openelb_api::keys;
use openelb_api::v1alpha2::{BgpConf, BgpPeer};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::announce::ServiceKey;
use crate::picture::{Kind, Picture, changes};
use crate::process::Context;
use verdict::{Agreed, Verdict};

const KINDS: [Kind; 7] = [
    Kind::Node,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Eip,
    Kind::EipAddress,
    Kind::BgpConf,
    Kind::BgpPeer,
];

/// Changes settle for this long before they are judged.
const SETTLE: Duration = Duration::from_millis(500);
/// The least time between two writes: at most 50 in a second.
const PACE: Duration = Duration::from_millis(20);

/// Starts the task; it ends with `Context::shutdown`.
pub(crate) fn start(context: &Context, leading: watch::Receiver<bool>) {
    let task = Task {
        context: context.clone(),
        leading,
        picture: Picture::new(&KINDS, None),
        agreed: Agreed::default(),
        waiting: VecDeque::new(),
    };
    tokio::spawn(
        context
            .shutdown
            .clone()
            .run_until_cancelled_owned(task.run()),
    );
}

/// One write that is due.
#[derive(Clone, Debug, PartialEq)]
enum Write {
    Service(ServiceKey, Option<Verdict>),
    Conf(Value),
    Peer(String, Value),
}

struct Task {
    context: Context,
    leading: watch::Receiver<bool>,
    picture: Picture,
    agreed: Agreed,
    waiting: VecDeque<Write>,
}

impl Task {
    async fn run(mut self) {
        let mut watches = changes(&self.context.client, &self.context.namespace, &KINDS);
        let mut judge_at: Option<Instant> = None;
        loop {
            let timer = async {
                match judge_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                change = watches.next() => {
                    let Some(change) = change else { return };
                    let mut changed = self.picture.apply(change, Timestamp::now());
                    while let Some(Some(change)) = watches.next().now_or_never() {
                        changed |= self.picture.apply(change, Timestamp::now());
                    }
                    if changed && judge_at.is_none() {
                        judge_at = Some(Instant::now() + SETTLE);
                    }
                }
                // Without an election nobody says that this changes; whoever leads then always does.
                Ok(()) = self.leading.changed() => judge_at = Some(Instant::now()),
                () = timer => judge_at = self.judge(),
                () = sleep(PACE), if !self.waiting.is_empty() => self.write_next().await,
            }
        }
    }

    /// Works out what is to be written. Returns when it may change by time alone.
    fn judge(&mut self) -> Option<Instant> {
        self.waiting.clear();
        if !self.picture.complete() {
            return None;
        }
        let now = Timestamp::now();
        let verdicts = verdict::verdicts(&self.picture, &mut self.agreed, now);
        if !*self.leading.borrow() {
            return None;
        }
        self.waiting.extend(
            bgp::writes(&self.picture, now)
                .into_iter()
                .map(|(name, body)| match name {
                    Some(name) => Write::Peer(name, body),
                    None => Write::Conf(body),
                }),
        );
        for (key, verdict) in &verdicts {
            if self
                .picture
                .announced
                .get(key)
                .is_none_or(|shown| !verdict.is_shown_by(shown))
            {
                self.waiting
                    .push_back(Write::Service(key.clone(), Some(verdict.clone())));
            }
        }
        for key in self
            .picture
            .announced
            .keys()
            .filter(|key| !verdicts.contains_key(*key))
        {
            self.waiting.push_back(Write::Service(key.clone(), None));
        }
        let able = crate::announce::Able::new(&self.picture.world, now);
        let left = able.recheck_at()?.duration_since(now);
        Some(Instant::now() + Duration::try_from(left).unwrap_or_default())
    }

    async fn write_next(&mut self) {
        let Some(write) = self.waiting.pop_front() else {
            return;
        };
        let client = self.context.client.clone();
        let params = PatchParams {
            field_manager: Some("openelb-controller".to_owned()),
            ..PatchParams::default()
        };
        let done = match &write {
            Write::Conf(body) => {
                let api: Api<BgpConf> = Api::all(client);
                api.patch_status(keys::BGP_CONF, &params, &Patch::Merge(body))
                    .await
                    .map(drop)
            }
            Write::Peer(name, body) => {
                let api: Api<BgpPeer> = Api::all(client);
                api.patch_status(name, &params, &Patch::Merge(body))
                    .await
                    .map(drop)
            }
            Write::Service(key, verdict) => {
                let api: Api<ApiService> = Api::namespaced(client, &key.namespace);
                let condition = match verdict {
                    Some(verdict) => {
                        verdict.condition(self.picture.announced.get(key), Timestamp::now())
                    }
                    None => json!({"$patch": "delete", "type": keys::conditions::ANNOUNCED}),
                };
                let body = json!({"status": {"conditions": [condition]}});
                let done = api
                    .patch_status(&key.name, &params, &Patch::Strategic(&body))
                    .await;
                if let Ok(service) = &done {
                    self.say(service, verdict.as_ref()).await;
                }
                done.map(drop)
            }
        };
        match done {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => {
                tracing::debug!(?write, %error, "cannot write; trying again");
                self.waiting.push_back(write);
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// The event that goes with a changed condition, in OpenELB's words.
    async fn say(&self, service: &ApiService, verdict: Option<&Verdict>) {
        use kube::Resource as _;
        use kube::runtime::events::{Event, EventType, Recorder, Reporter};
        let recorder = Recorder::new(
            self.context.client.clone(),
            Reporter::from("OpenELBController"),
        );
        let (type_, reason, note) = match verdict {
            None => (
                EventType::Normal,
                "DelBalancer",
                "success to withdraw announcement for service".to_owned(),
            ),
            Some(verdict) if verdict.status == "True" => (
                EventType::Normal,
                "SetBalancer",
                format!("success to add nexthops [{}]", verdict.nodes.join(", ")),
            ),
            Some(verdict) if verdict.status == "False" => {
                (EventType::Warning, "SetBalancer", verdict.message.clone())
            }
            // Not known yet: the next word follows.
            Some(_) => return,
        };
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: "Announce".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &service.object_ref(&())).await {
            tracing::debug!(%error, "an event was not written");
        }
    }
}
