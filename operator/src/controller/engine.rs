//! The one task that owns the index: takes in what happens, decides, starts work, takes in its end.
//!
//! Services are worked on in parallel, never one Service twice at the same time. What a user just did
//! goes before what is found at the start or put right in the background. Nothing is decided before
//! every kind was listed once, and nothing is written unless this process leads.

mod intake;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use openelb_ipam::ledger::{Outcome, Plan};
use openelb_ipam::{Index, Millis, News, ServiceKey, ServiceStatus};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::backoff::{Backoff, Why};
use super::calm::Activity;
use super::eips::Statuses;
use super::execute::{self, Fresh, Job, Report};
use super::feed::{Change, Kind};
use super::finalizers;
use super::leftovers::Leftovers;
use super::metrics::Metrics;
use super::news::Reporter;
use super::queue::{Queue, Rank};
use crate::process::Context;
use intake::Listing;
use openelb_process::Gate;

/// How many changes are taken in before work is started again.
const BATCH: usize = 256;

/// A Service that is worked on.
struct Busy {
    /// The rank at which its turn came.
    rank: Rank,
    /// The best rank at which it was asked for meanwhile.
    again: Option<Rank>,
    news: Vec<News>,
}

pub(crate) struct Engine {
    context: Context,
    workers: usize,
    news: Reporter,
    metrics: Metrics,
    activity: Activity,
    index: Index,
    queue: Queue,
    busy: HashMap<ServiceKey, Busy>,
    running: JoinSet<Report>,
    backoff: Backoff,
    statuses: Statuses,
    finalizers: finalizers::Services,
    leftovers: Leftovers,
    /// When somebody last asked for something for a Service that has not been done yet.
    arrived: HashMap<ServiceKey, Instant>,
    listings: BTreeMap<Kind, Listing>,
    namespaces: BTreeSet<String>,
    began: Instant,
    leads: bool,
}

impl Engine {
    pub(crate) fn new(
        context: Context,
        workers: usize,
        news: Reporter,
        metrics: Metrics,
        activity: Activity,
    ) -> Self {
        Self {
            context,
            workers,
            news,
            activity,
            index: Index::default(),
            queue: Queue::default(),
            busy: HashMap::new(),
            running: JoinSet::new(),
            backoff: Backoff::default(),
            statuses: Statuses::new(metrics.clone()),
            metrics,
            finalizers: finalizers::Services::default(),
            leftovers: Leftovers::default(),
            arrived: HashMap::new(),
            listings: Kind::ALL
                .into_iter()
                .map(|kind| (kind, Listing::default()))
                .collect(),
            namespaces: BTreeSet::new(),
            began: Instant::now(),
            leads: false,
        }
    }

    /// Runs until shutdown; work that is under way is brought to its end.
    pub(crate) async fn run(
        mut self,
        mut feed: mpsc::Receiver<Change>,
        mut leading: watch::Receiver<bool>,
        synced: Gate,
    ) {
        let shutdown = self.context.shutdown.clone();
        let mut changes = Vec::with_capacity(BATCH);
        let mut was_complete = false;
        let pulse = self.context.pulses.of_loop("the controller's loop");
        loop {
            pulse.beat();
            if self.is_complete() && !was_complete {
                was_complete = true;
                synced.open();
                tracing::info!(addresses = self.index.counts().1, "everything is known");
                self.review();
            }
            self.work();
            if self.running.is_empty() {
                self.activity.rests();
            } else {
                self.activity.works();
            }
            let wake = self.next_wake();
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = pulse.due() => {}
                Ok(()) = leading.changed() => {
                    self.leads = *leading.borrow_and_update();
                    self.metrics.leads(self.leads);
                    self.review();
                }
                Some(ended) = self.running.join_next() => match ended {
                    Ok(report) => self.ended(report),
                    Err(error) => tracing::error!(%error, "an executor ended unexpectedly"),
                },
                () = self.statuses.ended(|| millis(self.began)) => {}
                () = self.finalizers.ended(self.began) => {}
                ended = self.leftovers.ended() => {
                    let now = self.now();
                    ended.tell(&mut self.index, now);
                }
                count = feed.recv_many(&mut changes, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    for change in changes.drain(..) {
                        self.take_in(change);
                    }
                }
                () = sleep_until(wake) => {}
            }
            if !self.leads && *leading.borrow() {
                self.leads = true;
                self.metrics.leads(true);
                self.review();
            }
        }
        drop(pulse);
        let finish = async {
            while let Some(ended) = self.running.join_next().await {
                if let Ok(report) = ended {
                    self.ended(report);
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(5), finish)
            .await
            .is_err()
        {
            tracing::warn!("some work was not finished; the next leader finishes it");
        }
    }

    fn now(&self) -> Millis {
        millis(self.began)
    }

    fn is_complete(&self) -> bool {
        self.listings.values().all(|listing| listing.complete)
    }

    fn works(&self) -> bool {
        self.leads && self.is_complete()
    }

    /// Looks at every Service: at the start, and when this process begins to lead.
    fn review(&mut self) {
        if self.works() {
            // Another leader may have decided since.
            let now = self.now();
            self.index.forget_unsure(now);
            for key in self.index.keys() {
                self.enqueue(key, Rank::Repair);
            }
            let eips = self.index.eips().into_iter().collect();
            self.statuses.changed(eips);
        }
    }

    fn enqueue(&mut self, key: ServiceKey, rank: Rank) {
        if !self.works() {
            return;
        }
        if let Some(busy) = self.busy.get_mut(&key) {
            busy.again = Some(busy.again.map_or(rank, |again| again.min(rank)));
            return;
        }
        let created = self
            .index
            .service(&key)
            .map_or(0, |service| service.created);
        self.queue.push(key, rank, created);
    }

    fn take_woken(&mut self) {
        for key in self.index.take_woken() {
            let rank = if self.index.waits(&key) {
                Rank::Waiting
            } else {
                Rank::Repair
            };
            self.enqueue(key, rank);
        }
        let changed = self.index.take_changed_eips();
        self.statuses.changed(changed);
    }

    /// Starts as much work as may run at the same time.
    fn work(&mut self) {
        let now = self.now();
        self.index.tick(now);
        self.take_woken();
        if !self.works() {
            return;
        }
        for (key, rank) in self.backoff.due(now) {
            self.enqueue(key, rank);
        }
        for key in self.finalizers.due(now) {
            self.enqueue(key, Rank::Repair);
        }
        while self.running.len() < self.workers {
            let Some((key, rank)) = self.queue.pop() else {
                break;
            };
            if self.backoff.holds(&key, rank) {
                self.index.pass_on(&key);
                self.take_woken();
                continue;
            }
            self.start(key, rank, now);
            self.take_woken();
        }
        self.leftovers.work(&mut self.index, &self.context.client);
        self.statuses.write(&self.index, &self.context.client, now);
        let (waiting, addresses) = self.index.counts();
        self.metrics
            .waiting
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.metrics
            .addresses
            .set(i64::try_from(addresses).unwrap_or(i64::MAX));
        self.metrics
            .allocated
            .set(i64::try_from(self.index.holders()).unwrap_or(i64::MAX));
        self.metrics
            .queued
            .set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
    }

    fn start(&mut self, key: ServiceKey, rank: Rank, now: Millis) {
        if self
            .index
            .service(&key)
            .is_some_and(|service| service.openelb_finalizer)
        {
            self.finalizers.begin(&self.context.client, &key);
        }
        let Some(decision) = self.index.plan(&key, now) else {
            self.arrived.remove(&key);
            self.backoff.succeeded(&key);
            return;
        };
        let service = self.index.service(&key);
        let job = Job {
            before: service.and_then(|service| service.status.allocated.clone()),
            generation: service.and_then(|service| service.generation),
            plan: decision.plan,
        };
        let busy = Busy {
            rank,
            again: None,
            news: decision.news,
        };
        let span = tracing::info_span!("plan", service = %key);
        self.busy.insert(key, busy);
        let work = execute::run(self.context.client.clone(), job);
        self.running.spawn(work.instrument(span));
    }

    fn ended(&mut self, report: Report) {
        let now = self.now();
        let Report { job, end, fresh } = report;
        let key = job.plan.subject.key.clone();
        let Some(Busy { rank, again, news }) = self.busy.remove(&key) else {
            return;
        };
        // It stays what it was: what a user just did does not fall behind what is found so.
        let rank = again.map_or(rank, |again| again.min(rank));
        self.index.conclude(&job.plan, end.as_ref().ok(), now);
        match fresh {
            Fresh::NotRead => {}
            Fresh::Found(facts) => drop(self.index.apply_service(*facts, now)),
            Fresh::Gone => drop(self.index.remove_service(&key, None, now)),
        }
        match end {
            Ok(conclusion) if conclusion.outcome == Outcome::Done => {
                self.metrics.plans.inc();
                self.told(&key, &job.plan);
                self.backoff.succeeded(&key);
                for news in news {
                    tracing::info!(service = %key, ?news);
                    self.news.say(&job.plan.subject, news);
                }
                if again.is_some() || self.index.has_leftovers(&key) {
                    self.enqueue(key, rank);
                }
            }
            Ok(conclusion) => {
                self.metrics.conflicts.inc();
                tracing::debug!(service = %key, outcome = ?conclusion.outcome, "deciding again");
                self.backoff
                    .failed(&key, rank, Why::Passing, now, rand::random());
            }
            Err(failure) => {
                Metrics::count(&self.metrics.failures, failure.label());
                tracing::warn!(service = %key, error = %failure, "trying again");
                let why = if failure.is_refusal() {
                    Why::Refused
                } else {
                    Why::Passing
                };
                if self.backoff.failed(&key, rank, why, now, rand::random()) {
                    let words = format!("the API server refuses what was to be written: {failure}");
                    self.news.say(&job.plan.subject, News::Failed(words.into()));
                }
            }
        }
    }

    /// Counts what a Service was told, and how long that took.
    fn told(&mut self, key: &ServiceKey, plan: &Plan<ServiceStatus>) {
        let arrived = self.arrived.remove(key);
        let said = plan.publish.as_ref();
        let Some(said) = said.and_then(|status| status.allocated.as_ref()) else {
            return;
        };
        if !said.holds {
            Metrics::count(&self.metrics.refusals, &said.reason);
        } else if let Some(arrived) = arrived
            && !plan.reserve.is_empty()
        {
            let took = arrived.elapsed().as_secs_f64();
            self.metrics.allocation.observe(took);
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        if !self.works() {
            return None;
        }
        let next = [
            self.backoff.next(),
            self.statuses.next(),
            self.finalizers.next(),
            self.index.next_tick(),
        ];
        let next = next.into_iter().flatten().min()?;
        Some(self.began + Duration::from_millis(next))
    }
}

/// Time since then.
fn millis(began: Instant) -> Millis {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
