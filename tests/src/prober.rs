//! Traffic that notices: a new connection every 10 ms and long-lived ones beside them, and what became of each.
//!
//! A prober runs on a thread of its own in its host's namespace, whatever the test does meanwhile. Its far side is
//! `openelb-answer`, which says which node and pod answered and whose address it saw.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;

use crate::network::Host;

/// How often a new probe starts.
const EVERY: Duration = Duration::from_millis(10);
/// How long a probe waits before it counts as lost.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often a long-lived connection says something.
const BEAT: Duration = Duration::from_millis(50);

/// What kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// A new TCP connection per probe.
    Tcp,
    /// A new TCP connection with one HTTP request per probe, to `openelb-answer web`.
    Http,
    /// A packet from a new port per probe.
    Udp,
    /// One TCP connection that stays, with a few bytes every 50 ms.
    Held,
}

/// Who is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Where to.
    pub address: SocketAddr,
    /// How.
    pub traffic: Traffic,
}

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered {
        /// The node of the pod that answered.
        node: String,
        /// The pod that answered.
        pod: String,
        /// The address the pod saw.
        seen: IpAddr,
    },
    /// Nobody answered in time.
    Lost,
    /// The connection was reset or closed.
    Reset,
    /// Somebody refused: a closed port, no route.
    Refused,
}

impl Outcome {
    /// Whether it was answered.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Answered { .. })
    }
}

/// One probe.
#[derive(Debug, Clone)]
pub struct Probe {
    /// When it began.
    pub at: Instant,
    /// What it was.
    pub target: Target,
    /// What became of it.
    pub outcome: Outcome,
}

/// Running traffic.
pub struct Prober {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<Vec<Probe>>>,
    answers: watch::Receiver<usize>,
    marks: Vec<(Instant, String)>,
    from: [IpAddr; 2],
}

impl Prober {
    /// Starts traffic from a host to these targets.
    ///
    /// # Errors
    /// The host's namespace cannot be entered.
    pub fn start(host: &Host, targets: &[Target]) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (good, answers) = watch::channel(0);
        let namespace = host.namespace().clone();
        let targets = targets.to_vec();
        let thread = std::thread::Builder::new()
            .name("prober".to_owned())
            .spawn(move || {
                namespace.enter_this_thread()?;
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?
                    .block_on(probe(&targets, stopped, good))
            })
            .context("no thread for the prober")?;
        Ok(Self {
            stop,
            thread,
            answers,
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
        let goal = *self.answers.borrow_and_update() + more;
        tokio::time::timeout(
            crate::Deadline::LONG.duration(),
            self.answers.wait_for(|answers| *answers >= goal),
        )
        .await
        .map_err(|_| anyhow!("the prober did not get {more} more answers"))?
        .context("the prober ended")?;
        Ok(())
    }

    /// Ends the traffic and tells what was seen.
    ///
    /// # Errors
    /// The prober failed.
    pub async fn stop(self) -> Result<Report> {
        self.stop.send_replace(true);
        let thread = self.thread;
        let probes = tokio::task::spawn_blocking(move || thread.join())
            .await?
            .map_err(|_| anyhow!("the prober panicked"))??;
        Ok(Report {
            probes,
            marks: self.marks,
            from: self.from,
        })
    }
}

async fn probe(
    targets: &[Target],
    mut stopped: watch::Receiver<bool>,
    good: watch::Sender<usize>,
) -> Result<Vec<Probe>> {
    let (sender, outcomes) = mpsc::channel();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut tasks = tokio::task::JoinSet::new();
    for target in targets
        .iter()
        .filter(|target| target.traffic == Traffic::Held)
    {
        tasks.spawn(hold(*target, sender.clone(), stopped.clone(), good.clone()));
    }
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            _ = tick.tick() => {}
        }
        for target in targets
            .iter()
            .filter(|target| target.traffic != Traffic::Held)
        {
            let (target, sender, good) = (*target, sender.clone(), good.clone());
            tasks.spawn(async move {
                let at = Instant::now();
                let asked = tokio::time::timeout(PATIENCE, ask(target));
                let outcome = match asked.await {
                    Err(_) => Outcome::Lost,
                    Ok(Err(error)) => failure(&error),
                    Ok(Ok(line)) => understand(&line),
                };
                note(
                    &sender,
                    &good,
                    Probe {
                        at,
                        target,
                        outcome,
                    },
                );
            });
        }
        while tasks.try_join_next().is_some() {}
    }
    tasks.join_all().await;
    drop(sender);
    let mut probes: Vec<Probe> = outcomes.iter().collect();
    probes.sort_by_key(|probe| probe.at);
    Ok(probes)
}

fn note(sender: &mpsc::Sender<Probe>, good: &watch::Sender<usize>, probe: Probe) {
    if probe.outcome.is_good() {
        good.send_modify(|count| *count += 1);
    }
    // The receiver lives as long as the loop above.
    let _ = sender.send(probe);
}

async fn ask(target: Target) -> std::io::Result<String> {
    let mut line = String::new();
    if target.traffic == Traffic::Udp {
        let socket = UdpSocket::bind(if target.address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        })
        .await?;
        socket.connect(target.address).await?;
        socket.send(b"who?").await?;
        let mut packet = [0; 512];
        let length = socket.recv(&mut packet).await?;
        line.push_str(&String::from_utf8_lossy(
            packet.get(..length).unwrap_or_default(),
        ));
    } else {
        let stream = TcpStream::connect(target.address).await?;
        let mut stream = BufReader::new(stream);
        if target.traffic == Traffic::Http {
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
                .await?;
            // The line is what follows the head.
            while stream.read_line(&mut line).await? > 0 && line != "\r\n" {
                line.clear();
            }
            line.clear();
        }
        stream.read_line(&mut line).await?;
    }
    Ok(line)
}

/// Keeps one connection for as long as it lasts, then makes another; every beat is a probe.
async fn hold(
    target: Target,
    sender: mpsc::Sender<Probe>,
    mut stopped: watch::Receiver<bool>,
    good: watch::Sender<usize>,
) {
    while !*stopped.borrow() {
        let at = Instant::now();
        let lasted = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            lasted = beat(target, &sender, &good) => lasted,
        };
        let outcome = failure(&lasted);
        let at = if outcome == Outcome::Lost {
            at
        } else {
            Instant::now()
        };
        note(
            &sender,
            &good,
            Probe {
                at,
                target,
                outcome,
            },
        );
        tokio::time::sleep(BEAT).await;
    }
}

async fn beat(
    target: Target,
    sender: &mpsc::Sender<Probe>,
    good: &watch::Sender<usize>,
) -> std::io::Error {
    let talk = async {
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(target.address)).await??;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let answered = understand(&line);
        let mut echo = [0; 4];
        loop {
            let at = Instant::now();
            stream.write_all(b"beat").await?;
            stream.read_exact(&mut echo).await?;
            note(
                sender,
                good,
                Probe {
                    at,
                    target,
                    outcome: answered.clone(),
                },
            );
            tokio::time::sleep(BEAT).await;
        }
    };
    let ended: std::io::Result<std::convert::Infallible> = talk.await;
    match ended {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

fn failure(error: &std::io::Error) -> Outcome {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof};
    match error.kind() {
        TimedOut => Outcome::Lost,
        ConnectionReset | UnexpectedEof | BrokenPipe => Outcome::Reset,
        _ => Outcome::Refused,
    }
}

fn understand(line: &str) -> Outcome {
    let mut words = line.split_whitespace();
    let (Some(node), Some(pod), Some(Ok(seen))) =
        (words.next(), words.next(), words.next().map(str::parse))
    else {
        return Outcome::Reset;
    };
    Outcome::Answered {
        node: node.to_owned(),
        pod: pod.to_owned(),
        seen,
    }
}

/// What a prober saw.
#[derive(Debug, Clone)]
pub struct Report {
    probes: Vec<Probe>,
    marks: Vec<(Instant, String)>,
    from: [IpAddr; 2],
}

impl Report {
    /// All probes, by the time they began.
    #[must_use]
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// How many probes were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.probes
            .iter()
            .filter(|probe| probe.outcome.is_good())
            .count()
    }

    /// How many probes nobody answered in time.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.count(&Outcome::Lost)
    }

    /// How many connections were reset.
    #[must_use]
    pub fn reset(&self) -> usize {
        self.count(&Outcome::Reset)
    }

    /// How many probes were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.count(&Outcome::Refused)
    }

    fn count(&self, outcome: &Outcome) -> usize {
        self.probes
            .iter()
            .filter(|probe| probe.outcome == *outcome)
            .count()
    }

    /// How many answers each node gave.
    #[must_use]
    pub fn by_node(&self) -> BTreeMap<String, usize> {
        self.tally(|node, _| node)
    }

    /// How many answers each pod gave.
    #[must_use]
    pub fn by_pod(&self) -> BTreeMap<String, usize> {
        self.tally(|_, pod| pod)
    }

    fn tally(&self, of: impl for<'a> Fn(&'a str, &'a str) -> &'a str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for probe in &self.probes {
            if let Outcome::Answered { node, pod, .. } = &probe.outcome {
                *counts.entry(of(node, pod).to_owned()).or_default() += 1;
            }
        }
        counts
    }

    /// Whether every pod that answered saw the client's own address.
    #[must_use]
    pub fn kept_client(&self) -> bool {
        self.probes.iter().all(|probe| match &probe.outcome {
            Outcome::Answered { seen, .. } => self.from.contains(seen),
            _ => true,
        })
    }

    /// The longest time without an answer on any target: from the beginning of the first probe that failed to the
    /// beginning of the next that was answered (or of the last one, when none was).
    #[must_use]
    pub fn gap(&self) -> Duration {
        let mut failing: BTreeMap<Target, Instant> = BTreeMap::new();
        let mut longest = Duration::ZERO;
        for probe in &self.probes {
            if probe.outcome.is_good() {
                if let Some(since) = failing.remove(&probe.target) {
                    longest = longest.max(probe.at.duration_since(since));
                }
            } else {
                let since = *failing.entry(probe.target).or_insert(probe.at);
                longest = longest.max(probe.at.duration_since(since));
            }
        }
        longest
    }

    /// How long after a moment the last failing probe began; zero when none failed after it.
    #[must_use]
    pub fn trouble_after(&self, moment: Instant) -> Duration {
        self.probes
            .iter()
            .rev()
            .find(|probe| !probe.outcome.is_good())
            .map_or(Duration::ZERO, |probe| {
                probe.at.saturating_duration_since(moment)
            })
    }

    /// How many probes failed that began before a moment.
    #[must_use]
    pub fn failed_before(&self, moment: Instant) -> usize {
        self.probes
            .iter()
            .filter(|probe| probe.at < moment && !probe.outcome.is_good())
            .count()
    }
}

impl fmt::Display for Report {
    /// The timeline: marks, and runs of probes with the same outcome, in milliseconds since the first probe.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(begin) = self.probes.first().map(|probe| probe.at) else {
            return writeln!(out, "no probes");
        };
        let since = |at: Instant| at.saturating_duration_since(begin).as_millis();
        let mut lines: Vec<(Instant, String)> = self
            .marks
            .iter()
            .map(|(at, what)| (*at, format!("-- {what}")))
            .collect();
        let mut runs: BTreeMap<Target, (Instant, Outcome, usize)> = BTreeMap::new();
        let mut flush = |target: &Target, (at, outcome, count): (Instant, Outcome, usize)| {
            let what = match outcome {
                Outcome::Answered { node, pod, .. } => format!("answered by {pod} on {node}"),
                other => format!("{other:?}"),
            };
            lines.push((
                at,
                format!("{:?} {}: {count} × {what}", target.traffic, target.address),
            ));
        };
        for probe in &self.probes {
            match runs.get_mut(&probe.target) {
                Some((_, outcome, count)) if *outcome == probe.outcome => *count += 1,
                _ => {
                    if let Some(run) =
                        runs.insert(probe.target, (probe.at, probe.outcome.clone(), 1))
                    {
                        flush(&probe.target, run);
                    }
                }
            }
        }
        for (target, run) in runs {
            flush(&target, run);
        }
        lines.sort_by_key(|(at, _)| *at);
        for (at, line) in lines {
            writeln!(out, "{:>8} ms  {line}", since(at))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: &[(u64, bool)]) -> (Report, Instant) {
        let begin = Instant::now();
        let target = Target {
            address: ([127, 0, 0, 1], 1).into(),
            traffic: Traffic::Tcp,
        };
        let good = Outcome::Answered {
            node: "n1".into(),
            pod: "p".into(),
            seen: [10, 0, 0, 1].into(),
        };
        let probes = outcomes
            .iter()
            .map(|(at, answered)| Probe {
                at: begin + Duration::from_millis(*at),
                target,
                outcome: if *answered {
                    good.clone()
                } else {
                    Outcome::Lost
                },
            })
            .collect();
        let from = [
            [10, 0, 0, 1].into(),
            IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ];
        (
            Report {
                probes,
                marks: vec![(begin, "fault".into())],
                from,
            },
            begin,
        )
    }

    #[test]
    fn the_gap_lasts_from_the_first_failure_to_the_next_answer() {
        let (report, begin) = report(&[
            (0, true),
            (10, false),
            (20, false),
            (30, true),
            (40, false),
            (50, true),
        ]);
        assert_eq!(report.gap(), Duration::from_millis(20));
        assert_eq!(report.lost(), 3);
        assert_eq!(
            report.trouble_after(begin + Duration::from_millis(15)),
            Duration::from_millis(25)
        );
        assert_eq!(report.failed_before(begin + Duration::from_millis(15)), 1);
        assert!(report.kept_client());
    }

    #[test]
    fn a_gap_that_never_ends_is_as_long_as_the_traffic() {
        let (report, begin) = report(&[(0, true), (10, false), (500, false)]);
        assert_eq!(report.gap(), Duration::from_millis(490));
        assert_eq!(
            report.trouble_after(begin + Duration::from_secs(1)),
            Duration::ZERO
        );
        assert!(report.to_string().contains("2 × Lost"), "{report}");
    }
}
