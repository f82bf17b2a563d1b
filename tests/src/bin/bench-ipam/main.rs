//! How fast Services get addresses, beside a bare client that makes the same API writes in the same run: one record and
//! one status patch for each Service that it sees, 32 at a time, with no decision at all.

mod bare;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::ResourceExt;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use openelb_api::keys;
use openelb_tests::Process;
use openelb_tests::figure::{self, Figure};
use openelb_tests::ipam::{Bed, addresses, service};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The bare client's and the writers' parallelism.
const PARALLEL: usize = 32;
/// Services created one after the other.
const SINGLES: usize = 500;
/// Storms and catch-ups of each kind, in turns: the machine's own moods last longer than any of them.
const TURNS: usize = 3;
/// How often the leader is killed.
const TAKE_OVERS: usize = 5;
/// How long a process is left alone before it is looked at.
const SETTLED: Duration = Duration::from_secs(5);
/// How long it is watched doing nothing.
const IDLE: Duration = Duration::from_secs(30);
/// How often the API server is taken away, and for how long.
const OUTAGES: usize = 3;
const OUTAGE: Duration = Duration::from_secs(10);
/// How long a phase may take.
const PATIENCE: Duration = Duration::from_mins(5);

#[tokio::main]
async fn main() -> Result<()> {
    let (file, count) = arguments()?;
    let mut ours = Box::pin(measure(Allocator::Product, count)).await?;
    let mut bare = Box::pin(measure(Allocator::Bare, count)).await?;
    for _ in 1..TURNS {
        for (allocator, results) in [
            (Allocator::Product, &mut ours),
            (Allocator::Bare, &mut bare),
        ] {
            results.storms.push(lone_storm(allocator, count).await?);
            let (_bed, _seen, running, rate) = catch_up(allocator, count).await?;
            results.catch_ups.push(rate);
            running.stop().await?;
        }
    }
    let many = grouped(count);
    let mut figures = vec![
        beside_bare("one service ms", "ms", &ours.singles, Some(&bare.singles))?,
        beside_bare(
            "one service p99 ms",
            "ms",
            &[p99(&ours.singles)?],
            Some(&[p99(&bare.singles)?]),
        )?,
        beside_bare(
            &format!("storm {many} lag s"),
            "s",
            &ours.lags(),
            Some(&bare.lags()),
        )?,
        beside_bare(
            &format!("storm {many} whole s"),
            "s",
            &ours.wholes(),
            Some(&bare.wholes()),
        )?,
        beside_bare(
            &format!("storm {many} cpu s"),
            "s",
            &ours.processor(),
            Some(&bare.processor()),
        )?,
        beside_bare(
            &format!("catch-up {many} per second"),
            "1/s",
            &ours.catch_ups,
            Some(&bare.catch_ups),
        )?,
    ];
    let restart = format!("restart {many} s");
    figures.extend([
        beside_bare(&restart, "s", &ours.restart, None)?,
        beside_bare("rss MB", "MB", &ours.rss, None)?,
        beside_bare("take-over after SIGKILL s", "s", &ours.take_over, None)?,
        beside_bare("api server back s", "s", &ours.back, None)?,
        beside_bare("idle cpu ms per s", "ms/s", &ours.idle, None)?,
    ]);
    figure::write(file.as_deref(), &figures)
}

fn arguments() -> Result<(Option<PathBuf>, usize)> {
    let (mut file, mut count) = (None, 10_000);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments
            .next()
            .with_context(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--json" => file = Some(value.into()),
            "--services" => count = value.parse().context("--services needs a number")?,
            other => bail!("unknown argument {other}; there are --json FILE and --services NUMBER"),
        }
    }
    Ok((file, count))
}

/// Who gives the addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Allocator {
    Product,
    Bare,
}

/// An allocator that runs.
enum Running {
    Product(Process),
    Bare(JoinHandle<()>),
}

impl Running {
    fn start(allocator: Allocator, bed: &Bed) -> Result<Self> {
        Ok(match allocator {
            Allocator::Product => Self::Product(bed.controller_with("bench", &["--log", "warn"])?),
            Allocator::Bare => Self::Bare(tokio::spawn(bare::client(bed.client()))),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Product(_) => "ours",
            Self::Bare(_) => "bare client",
        }
    }

    /// Processor time that everybody has used so far, in milliseconds; the bare client and the writers are this process.
    fn processor_of_all(&self, bed: &Bed) -> Result<f64> {
        let mut pids = vec![
            bed.control.api_server().pid(),
            bed.control.etcd().pid(),
            i32::try_from(std::process::id())?,
        ];
        if let Self::Product(process) = self {
            pids.push(process.pid());
        }
        pids.into_iter().map(processor).sum()
    }

    async fn stop(self) -> Result<()> {
        match self {
            Self::Product(process) => drop(process.stop().await?),
            Self::Bare(task) => task.abort(),
        }
        Ok(())
    }
}

/// What was measured of one allocator.
struct Results {
    singles: Vec<f64>,
    storms: Vec<Storm>,
    /// Services served in a second where all waited.
    catch_ups: Vec<f64>,
    restart: Vec<f64>,
    /// After the storm, and after the restart.
    rss: Vec<f64>,
    /// From the kill of the leader to an address for a Service that is created right then.
    take_over: Vec<f64>,
    /// From the API server's return to an address for a Service that is created right then.
    back: Vec<f64>,
    /// Processor time in milliseconds for each second in which nothing changes.
    idle: Vec<f64>,
}

impl Results {
    fn lags(&self) -> Vec<f64> {
        self.storms.iter().map(|storm| storm.lag).collect()
    }

    fn wholes(&self) -> Vec<f64> {
        self.storms.iter().map(|storm| storm.whole).collect()
    }

    fn processor(&self) -> Vec<f64> {
        self.storms.iter().map(|storm| storm.processor).collect()
    }
}

/// Services created all at once, in seconds.
struct Storm {
    /// From the last creation to the last address.
    lag: f64,
    /// From the first creation to the last address.
    whole: f64,
    /// Processor time that everybody took for it: the API server, etcd, the allocator and the writers. Unlike the
    /// others it hardly depends on what else the machine's owner does with its processors.
    processor: f64,
}

/// Creates Services on top of the `served` ones.
async fn storm(
    bed: &Bed,
    running: &Running,
    seen: &mut Seen,
    served: usize,
    count: usize,
) -> Result<Storm> {
    let spent_before = running.processor_of_all(bed)?;
    let began = Instant::now();
    create(bed, "storm", count).await?;
    let created = Instant::now();
    let last = seen.all_served(served + count).await?;
    let storm = Storm {
        lag: last.saturating_duration_since(created).as_secs_f64(),
        whole: (last - began).as_secs_f64(),
        processor: (running.processor_of_all(bed)? - spent_before) / 1000.0,
    };
    eprintln!(
        "storm, {}: {:.1} s, processors {:.1} s",
        running.name(),
        storm.whole,
        storm.processor
    );
    Ok(storm)
}

/// A storm in a control plane of its own.
async fn lone_storm(allocator: Allocator, count: usize) -> Result<Storm> {
    let bed = Bed::start().await?;
    bed.eip("lan", "10.0.0.0/8").await?;
    let mut seen = Seen::watch(&bed);
    let running = Running::start(allocator, &bed)?;
    bed.create(&service("first")).await?;
    seen.served("first").await?;
    let storm = storm(&bed, &running, &mut seen, 1, count).await?;
    running.stop().await?;
    Ok(storm)
}

async fn measure(allocator: Allocator, count: usize) -> Result<Results> {
    let bed = Bed::start().await?;
    bed.eip("lan", "10.0.0.0/8").await?;
    let mut seen = Seen::watch(&bed);
    let running = Running::start(allocator, &bed)?;

    let mut singles = Vec::new();
    // The first few find connections to be opened and pages to be touched.
    for n in 0..SINGLES + 5 {
        let name = format!("single-{n}");
        let began = Instant::now();
        bed.create(&service(&name)).await?;
        let at = seen.served(&name).await?;
        if n >= 5 {
            singles.push((at - began).as_secs_f64() * 1000.0);
        }
    }

    let storms = vec![storm(&bed, &running, &mut seen, SINGLES + 5, count).await?];

    let (mut restart, mut rss, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    if allocator == Allocator::Product {
        bed.audit().await.context("after the storm")?;
    }
    if let Running::Product(process) = &running {
        rss.push(resident(process.pid())?);
        for n in 0..99 {
            bed.eip(&format!("more-{n}"), &format!("172.16.{n}.0/24"))
                .await?;
        }
        running.stop().await?;
        bed.create(&service("after-restart")).await?;
        let began = Instant::now();
        let again = bed.controller_with("bench", &["--log", "warn"])?;
        let at = seen.served("after-restart").await?;
        restart.push((at - began).as_secs_f64());
        tokio::time::sleep(SETTLED).await;
        rss.push(resident(again.pid())?);
        judged(&bed).await?;
        tokio::time::sleep(SETTLED).await;
        let before = processor(again.pid())?;
        tokio::time::sleep(IDLE).await;
        idle.push((processor(again.pid())? - before) / IDLE.as_secs_f64());
        again.stop().await?;
    } else {
        running.stop().await?;
    }
    drop(bed);

    let (bed, mut seen, running, rate) = catch_up(allocator, count).await?;
    let (take_over, back) = match &running {
        Running::Product(leader) => {
            bed.audit().await.context("after catching up")?;
            (
                take_overs(&bed, &mut seen, leader).await?,
                outages(&bed, leader).await?,
            )
        }
        Running::Bare(_) => (Vec::new(), Vec::new()),
    };
    running.stop().await?;
    Ok(Results {
        singles,
        storms,
        catch_ups: vec![rate],
        restart,
        rss,
        take_over,
        back,
        idle,
    })
}

/// Services that wait when the allocator starts, and how many of them it serves in a second.
async fn catch_up(allocator: Allocator, count: usize) -> Result<(Bed, Seen, Running, f64)> {
    let bed = Bed::start().await?;
    bed.eip("lan", "10.0.0.0/8").await?;
    create(&bed, "waiting", count).await?;
    let mut seen = Seen::watch(&bed);
    let began = Instant::now();
    let running = Running::start(allocator, &bed)?;
    let last = seen.all_served(count).await?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let rate = count as f64 / (last - began).as_secs_f64();
    eprintln!("catch-up, {}: {rate:.0} per second", running.name());
    Ok((bed, seen, running, rate))
}

/// Kills the leader, again and again, while another waits.
async fn take_overs(bed: &Bed, seen: &mut Seen, leader: &Process) -> Result<Vec<f64>> {
    let standby = bed.controller_with("standby", &["--log", "warn"])?;
    let (mut leads, mut waits) = (leader, &standby);
    let mut times = Vec::new();
    for n in 0..TAKE_OVERS {
        tokio::time::sleep(SETTLED).await;
        let name = format!("taken-over-{n}");
        let began = Instant::now();
        leads.kill().await;
        bed.create(&service(&name)).await?;
        let at = seen.served(&name).await?;
        times.push((at - began).as_secs_f64());
        leads.restart().await?;
        (leads, waits) = (waits, leads);
    }
    // Nobody but the one that was handed in shall be left.
    standby.stop().await?;
    Ok(times)
}

/// Waits until every Service says whether it is announced, which is told slowly and when there is time.
async fn judged(bed: &Bed) -> Result<()> {
    let began = Instant::now();
    loop {
        let services = bed.services("default").list(&ListParams::default()).await?;
        let missing = services.iter().filter(|service| {
            let status = service.status.as_ref();
            let conditions = status.and_then(|status| status.conditions.as_ref());
            let mut conditions = conditions.into_iter().flatten();
            !addresses(service).is_empty()
                && !conditions.any(|condition| condition.type_ == keys::conditions::ANNOUNCED)
        });
        let missing = missing.count();
        if missing == 0 {
            return Ok(());
        }
        if began.elapsed() > PATIENCE * 2 {
            bail!("{missing} Services do not say whether they are announced");
        }
        tokio::time::sleep(SETTLED).await;
    }
}

/// Takes the API server away, again and again, and asks for an address as soon as it is back.
async fn outages(bed: &Bed, leader: &Process) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for n in 0..OUTAGES {
        bed.control.api_server().kill().await;
        tokio::time::sleep(OUTAGE).await;
        leader.check()?;
        bed.control.api_server().restart().await?;
        bed.control.ready().await?;
        let name = format!("after-outage-{n}");
        let began = Instant::now();
        bed.create(&service(&name)).await?;
        while bed.shown(&name).await?.is_empty() {
            if began.elapsed() > PATIENCE {
                bail!("no address after an outage");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times.push(began.elapsed().as_secs_f64());
    }
    Ok(times)
}

async fn create(bed: &Bed, prefix: &str, count: usize) -> Result<()> {
    stream::iter(0..count)
        .map(|n| async move { bed.create(&service(&format!("{prefix}-{n}"))).await })
        .buffer_unordered(PARALLEL)
        .try_for_each(async |_| Ok(()))
        .await
}

/// When each Service was first seen with an address, by a watch.
struct Seen {
    events: mpsc::UnboundedReceiver<(String, Instant)>,
    times: HashMap<String, Instant>,
    watch: JoinHandle<()>,
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Seen {
    fn watch(bed: &Bed) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let api = bed.services("default");
        let watch = tokio::spawn(async move {
            let stream = watcher::watcher(api, watcher::Config::default()).default_backoff();
            let mut stream = Box::pin(stream);
            while let Some(event) = stream.next().await {
                let Ok(Event::Apply(service) | Event::InitApply(service)) = event else {
                    continue;
                };
                if !addresses(&service).is_empty()
                    && sender.send((service.name_any(), Instant::now())).is_err()
                {
                    return;
                }
            }
        });
        Self {
            events,
            times: HashMap::new(),
            watch,
        }
    }

    async fn next(&mut self) -> Result<()> {
        let event = tokio::time::timeout(PATIENCE, self.events.recv())
            .await
            .context("no address for too long")?;
        let (name, at) = event.context("the watch ended")?;
        self.times.entry(name).or_insert(at);
        Ok(())
    }

    async fn served(&mut self, name: &str) -> Result<Instant> {
        loop {
            if let Some(at) = self.times.get(name) {
                return Ok(*at);
            }
            self.next().await?;
        }
    }

    async fn all_served(&mut self, count: usize) -> Result<Instant> {
        while self.times.len() < count {
            self.next().await?;
        }
        self.times
            .values()
            .max()
            .copied()
            .context("nobody was served")
    }
}

/// Processor time used so far, in milliseconds.
fn processor(pid: i32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(')').context("no name in stat")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || -> Result<f64> { Ok(fields.next().context("stat is short")?.parse()?) };
    // In hundredths of a second.
    Ok((next()? + next()?) * 10.0)
}

/// Resident memory in megabytes.
fn resident(pid: i32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1024.0)
}

/// A figure of ours, beside the bare client's where it did the same.
fn beside_bare(name: &str, unit: &str, ours: &[f64], bare: Option<&[f64]>) -> Result<Figure> {
    let figure = Figure::of(name, unit, ours)?;
    Ok(match bare {
        Some(bare) => figure.beside("bare client", &Figure::of(name, unit, bare)?),
        None => figure,
    })
}

/// What 99 of 100 do not exceed.
fn p99(values: &[f64]) -> Result<f64> {
    Ok(Figure::of("p99", "", values)?.p99())
}

/// A number as people write it: 10,000.
fn grouped(number: usize) -> String {
    match number / 1000 {
        0 => number.to_string(),
        thousands => format!("{},{:03}", grouped(thousands), number % 1000),
    }
}
