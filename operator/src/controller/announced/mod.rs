//! Whether the network knows: the `Announced` condition of Services, and the conditions and summaries
//! of BgpConf and BgpPeers.
//!
//! What should be follows from the same pure functions that the speakers use; what is, from what
//! they report: for each node and peer the digest of the routes really sent, and for layer 2 the
//! announcer in the EipAddress. Only the leader writes. A write says something new or is not made,
//! goes out one at a time, paced, and when the work on addresses rests: nothing here may delay it.
//! For the same reason what the watches say is always taken in at once, also while a write is under way.

mod bgp;
mod condition;
mod orphaned;
mod reserved;
mod silent;
mod verdict;

use std::collections::VecDeque;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service as ApiService;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use openelb_api::keys;
use openelb_api::v1alpha2::{BgpConf, BgpPeer, EipAddress};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::calm::Calm;
use super::execute::REQUEST;
use crate::announce::ServiceKey;
use crate::picture::{Change, Kind, Picture, changes};
use crate::process::Context;
use silent::Watchman;
use verdict::{Agreed, Verdict, Verdicts};

/// Kinds that the picture is made of: watched for it alone, and seen by address management too.
const WATCHED: [Kind; 4] = [
    Kind::Node,
    Kind::EndpointSlice,
    Kind::BgpConf,
    Kind::BgpPeer,
];
/// The speakers' pods, and policies: without them (they may not be ours to see) there is a picture all the same.
const BESIDES: [Kind; 2] = [Kind::Pod, Kind::ConfigMap];
const SHARED: [Kind; 3] = [Kind::Service, Kind::Eip, Kind::EipAddress];

/// Changes settle for this long before they are judged.
const SETTLE: Duration = Duration::from_millis(500);
/// Judging takes no more than this part of the time: with ten thousand Services each judgement takes a while.
const SHARE: u32 = 20;
/// How much longer they may go unjudged while addresses are worked on.
const UNJUDGED: Duration = Duration::from_secs(5);
/// The least time between two writes: at most 50 in a second.
const PACE: Duration = Duration::from_millis(20);
/// How long a write waits at most for addresses to rest, after the one before it.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many Services' writes may wait; the others are found again when these are made.
const WAITING: usize = 256;
/// The pause after a write that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Starts the task; it ends with `Context::shutdown`. `seen` says what address management sees.
pub(crate) fn start(
    context: &Context,
    leading: watch::Receiver<bool>,
    calm: Calm,
    seen: mpsc::Receiver<Change>,
) {
    let task = Task {
        context: context.clone(),
        leading,
        calm,
        picture: Picture::new(&[&WATCHED[..], &SHARED].concat(), None),
        agreed: Agreed::default(),
        watchman: Watchman::default(),
        waiting: VecDeque::new(),
        more: false,
        settle: SETTLE,
        writing: JoinSet::new(),
        free_at: Instant::now(),
    };
    let work = context
        .pulses
        .of_task("the task of announcements", task.run(seen));
    tokio::spawn(context.shutdown.clone().run_until_cancelled_owned(work));
}

/// One write that is due.
#[derive(Clone, Debug, PartialEq)]
enum Write {
    Service(ServiceKey, Option<Verdict>),
    Conf(Value),
    Peer(String, Value),
    Address(String, Value),
}

struct Task {
    context: Context,
    leading: watch::Receiver<bool>,
    calm: Calm,
    picture: Picture,
    agreed: Agreed,
    watchman: Watchman,
    waiting: VecDeque<Write>,
    /// Whether there is more to write than waits.
    more: bool,
    /// How long changes settle, after the time that the last judgement took.
    settle: Duration,
    /// The write that is under way; what is left of it where it failed.
    writing: JoinSet<Option<Write>>,
    /// When the next write may begin.
    free_at: Instant,
}

impl Task {
    async fn run(mut self, mut seen: mpsc::Receiver<Change>) {
        let kinds = [&WATCHED[..], &BESIDES].concat();
        let mut watches = changes(
            &self.context.client,
            &self.context.namespace,
            &kinds,
            &self.context.watches,
        );
        let pulse = self.context.pulses.of_loop("the judge of announcements");
        let mut judge_at: Option<Instant> = None;
        let (mut calm_to_judge, mut calm_to_write) = (self.calm.clone(), self.calm.clone());
        loop {
            pulse.beat();
            let free_at = self.free_at;
            tokio::select! {
                () = pulse.due() => {}
                change = watches.next() => {
                    let Some(change) = change else { return };
                    let mut changed = self.picture.apply(change, Timestamp::now());
                    while let Some(Some(change)) = watches.next().now_or_never() {
                        changed |= self.picture.apply(change, Timestamp::now());
                    }
                    if changed.any() {
                        judge_at.get_or_insert_with(|| Instant::now() + self.settle);
                    }
                }
                change = seen.recv() => {
                    let Some(change) = change else { return };
                    if self.picture.apply(change, Timestamp::now()).any() {
                        judge_at.get_or_insert_with(|| Instant::now() + self.settle);
                    }
                }
                // Without an election nobody says that this changes; whoever leads then always does.
                Ok(()) = self.leading.changed() => judge_at = Some(Instant::now()),
                () = when_calm(judge_at, UNJUDGED, &mut calm_to_judge) => {
                    let began = Instant::now();
                    judge_at = self.judge();
                    self.settle = SETTLE.max(began.elapsed() * SHARE);
                }
                () = when_calm(Some(free_at), PATIENCE, &mut calm_to_write),
                    if !self.waiting.is_empty() && self.writing.is_empty() => self.write_next(),
                Some(done) = self.writing.join_next() => {
                    self.written(done.ok().flatten());
                    if self.more && self.waiting.is_empty() {
                        judge_at.get_or_insert_with(Instant::now);
                    }
                }
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
        let silent = self.watchman.look(&self.picture, now);
        let Verdicts {
            services: verdicts,
            recheck_at,
        } = verdict::verdicts(&self.picture, &silent, &mut self.agreed, now);
        if !*self.leading.borrow() {
            return None;
        }
        self.waiting
            .extend(
                bgp::writes(&self.picture, &silent, now).into_iter().map(
                    |(name, body)| match name {
                        Some(name) => Write::Peer(name, body),
                        None => Write::Conf(body),
                    },
                ),
            );
        self.waiting.extend(
            reserved::writes(&self.picture, now)
                .into_iter()
                .chain(orphaned::writes(&self.picture, now))
                .map(|(name, body)| Write::Address(name, body)),
        );
        let announced = &self.picture.announced;
        let differs = |key: &ServiceKey, verdict: &Verdict| {
            let shown = announced.get(key);
            shown.is_none_or(|shown| !verdict.is_shown_by(shown))
        };
        let gone = announced.keys().filter(|key| !verdicts.contains_key(*key));
        let mut due = verdicts
            .iter()
            .filter(|(key, verdict)| differs(key, verdict))
            .map(|(key, verdict)| Write::Service(key.clone(), Some(verdict.clone())))
            .chain(gone.map(|key| Write::Service(key.clone(), None)));
        self.waiting.extend(due.by_ref().take(WAITING));
        self.more = due.next().is_some();
        let left = recheck_at?.duration_since(now);
        Some(Instant::now() + Duration::try_from(left).unwrap_or_default())
    }

    fn write_next(&mut self) {
        let Some(write) = self.waiting.pop_front() else {
            return;
        };
        let shown = match &write {
            Write::Service(key, _) => self.picture.announced.get(key).cloned(),
            Write::Conf(_) | Write::Peer(..) | Write::Address(..) => None,
        };
        let client = self.context.client.clone();
        self.writing.spawn(carry_out(client, write, shown));
    }

    fn written(&mut self, failed: Option<Write>) {
        let pause = match failed {
            None => PACE,
            Some(write) => {
                self.waiting.push_back(write);
                AFTER_FAILURE
            }
        };
        self.free_at = Instant::now() + pause;
    }
}

/// Waits for a time, and from then on for addresses to rest, no longer than `patience`.
async fn when_calm(at: Option<Instant>, patience: Duration, calm: &mut Calm) {
    let Some(at) = at else {
        return std::future::pending().await;
    };
    sleep_until(at).await;
    calm.wait(at + patience).await;
}

/// Makes a write; returns it where it is to be made again.
async fn carry_out(client: Client, write: Write, shown: Option<Condition>) -> Option<Write> {
    let params = PatchParams {
        field_manager: Some("openelb-controller".to_owned()),
        ..PatchParams::default()
    };
    let request = async {
        match &write {
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
            Write::Address(name, body) => {
                let api: Api<EipAddress> = Api::all(client);
                api.patch_status(name, &params, &Patch::Merge(body))
                    .await
                    .map(drop)
            }
            Write::Service(key, verdict) => {
                let api: Api<ApiService> = Api::namespaced(client.clone(), &key.namespace);
                let condition = match verdict {
                    Some(verdict) => verdict.condition(shown.as_ref(), Timestamp::now()),
                    None => json!({"$patch": "delete", "type": keys::conditions::ANNOUNCED}),
                };
                let body = json!({"status": {"conditions": [condition]}});
                let done = api
                    .patch_status(&key.name, &params, &Patch::Strategic(&body))
                    .await;
                if let Ok(service) = &done {
                    say(client, service, verdict.as_ref()).await;
                }
                done.map(drop)
            }
        }
    };
    match timeout(REQUEST, request).await {
        Ok(Ok(())) => None,
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => None,
        // It was written meanwhile: what is to be said is worked out again when that is seen.
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() => None,
        Ok(Err(error)) => {
            tracing::debug!(?write, %error, "cannot write; trying again");
            Some(write)
        }
        Err(_) => Some(write),
    }
}

/// The event that goes with a changed condition, in OpenELB's words.
async fn say(client: Client, service: &ApiService, verdict: Option<&Verdict>) {
    use kube::Resource as _;
    use kube::runtime::events::{Event, EventType, Recorder, Reporter};
    let recorder = Recorder::new(client, Reporter::from("OpenELBController"));
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
