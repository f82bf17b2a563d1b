//! Traffic that notices: a new connection every 10 ms and long-lived ones beside them, and what became of each.
//!
//! A prober runs on a thread of its own in its host's namespace, whatever the test does meanwhile. Its far side is
//! `openelb-answer`, which says which node and pod answered and whose address it saw. What it saw is kept as
//! `traffic-N.txt` in the world's folder too, for when the test fails.

mod connect;
mod outcome;
mod report;
mod traffic;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use tokio::sync::watch;

pub use outcome::{Outcome, Refusal};
pub use report::Report;

use crate::network::Host;

/// What kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// A new TCP connection per probe.
    Tcp,
    /// A new TCP connection with one HTTP request per probe, to `openelb-answer web`.
    Http,
    /// A packet from a new port per probe.
    Udp,
    /// One TCP connection that stays, with a few bytes every 50 ms. Given up after a second without an answer, for a
    /// new one.
    Held,
    /// A packet every 50 ms, always from the same port.
    Flow,
}

/// Who is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Where to.
    pub address: SocketAddr,
    /// How.
    pub traffic: Traffic,
}

/// One probe.
#[derive(Debug, Clone)]
pub struct Probe {
    /// When it began.
    pub at: Instant,
    /// What it was.
    pub target: Target,
    /// Which of the long-lived connections to the target it is of, from 0, where the target was named several times.
    pub connection: usize,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took until that was known.
    pub took: Duration,
}

/// Running traffic.
pub struct Prober {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<Vec<Probe>>>>,
    counts: watch::Receiver<Counts>,
    began: (Instant, Timestamp),
    marks: Vec<(Instant, String)>,
    from: [IpAddr; 2],
}

/// How many probes ended how, so far.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    answered: usize,
    failed: usize,
}

impl Prober {
    /// Starts traffic from a host to these targets. A target that is named several times gets as many long-lived
    /// connections.
    ///
    /// # Errors
    /// The host's namespace cannot be entered.
    pub fn start(host: &Host, targets: &[Target]) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (counter, counts) = watch::channel(Counts::default());
        let namespace = host.namespace().clone();
        let targets = targets.to_vec();
        let began = (Instant::now(), Timestamp::now());
        let thread = std::thread::Builder::new()
            .name("prober".to_owned())
            .spawn(move || {
                namespace.enter_this_thread()?;
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?
                    .block_on(traffic::run(&targets, stopped, counter))
            })
            .context("no thread for the prober")?;
        Ok(Self {
            stop,
            thread: Some(thread),
            counts,
            began,
            marks: Vec::new(),
            from: host.addresses(),
        })
    }

    /// Notes that something happens now, for the timeline; returns when that was.
    pub fn mark(&mut self, what: &str) -> Instant {
        let now = Instant::now();
        self.marks.push((now, what.to_owned()));
        now
    }

    /// Waits until so many more probes were answered.
    ///
    /// # Errors
    /// They are not in time.
    pub async fn answered(&mut self, more: usize) -> Result<()> {
        let goal = self.counts.borrow_and_update().answered + more;
        self.reaches(&format!("{more} more answers"), |counts| {
            counts.answered >= goal
        })
        .await
    }

    /// Waits until so many more probes failed, in whatever way.
    ///
    /// # Errors
    /// They do not in time.
    pub async fn failed(&mut self, more: usize) -> Result<()> {
        let goal = self.counts.borrow_and_update().failed + more;
        self.reaches(&format!("{more} more failures"), |counts| {
            counts.failed >= goal
        })
        .await
    }

    async fn reaches(&mut self, what: &str, enough: impl Fn(&Counts) -> bool) -> Result<()> {
        let waited = tokio::time::timeout(
            crate::Deadline::LONG.duration(),
            self.counts.wait_for(|counts| enough(counts)),
        )
        .await
        .map(|ended| ended.map(drop));
        match waited {
            Ok(ended) => ended.context("the prober ended"),
            Err(_) => Err(anyhow!(
                "the prober saw no {what}: {:?}",
                *self.counts.borrow()
            )),
        }
    }

    /// Ends the traffic and tells what was seen.
    ///
    /// # Errors
    /// The prober failed, or could not ask at times for want of something of its own (ports, files).
    pub async fn stop(mut self) -> Result<Report> {
        tokio::task::spawn_blocking(move || self.finish()).await?
    }

    fn finish(&mut self) -> Result<Report> {
        self.stop.send_replace(true);
        let thread = self.thread.take().context("the prober was stopped")?;
        let probes = thread
            .join()
            .map_err(|_| anyhow!("the prober panicked"))??;
        let report = Report::new(
            probes,
            std::mem::take(&mut self.marks),
            self.from,
            self.began,
        );
        if let Some(folder) = crate::scenario::inside() {
            static COUNT: AtomicU32 = AtomicU32::new(1);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            // Only for people who look at what failed.
            let _ = std::fs::write(
                folder.join(format!("traffic-{number}.txt")),
                report.to_string(),
            );
        }
        if let Some(error) = report.own_failure() {
            anyhow::bail!("the prober itself failed ({error}):\n{report}");
        }
        Ok(report)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.finish();
        }
    }
}
