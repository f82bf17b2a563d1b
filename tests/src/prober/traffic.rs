//! The traffic itself: what a prober's thread runs.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connect::{Bad, connect};
use super::{Counts, Outcome, Probe, Target, Traffic};

/// How often a new probe starts.
const EVERY: Duration = Duration::from_millis(10);
/// How long a probe waits before it counts as lost. The kernel repeats a SYN after a second, so a handshake that ends
/// sooner lost nothing; data after it is repeated from 200 ms on, and a probe that was saved by that counts as answered.
const PATIENCE: Duration = Duration::from_millis(900);
/// How often a long-lived connection says something.
const BEAT: Duration = Duration::from_millis(50);
/// How long something that was said on a long-lived connection waits for its echo.
const BEAT_PATIENCE: Duration = Duration::from_millis(250);
/// After so many lost beats in a row a long-lived connection is given up.
const GIVE_UP: u32 = 4;

/// Where probes are written down.
#[derive(Clone)]
struct Notes {
    target: Target,
    connection: usize,
    probes: mpsc::Sender<Probe>,
    counts: watch::Sender<Counts>,
}

impl Notes {
    fn add(&self, at: Instant, outcome: Outcome) {
        self.counts.send_modify(|counts| {
            if outcome.is_good() {
                counts.answered += 1;
            } else {
                counts.failed += 1;
            }
        });
        // The receiver lives as long as `run`.
        let _ = self.probes.send(Probe {
            at,
            target: self.target,
            connection: self.connection,
            outcome,
            took: at.elapsed(),
        });
    }
}

/// Asks all targets until it is told to stop, and returns all probes by the time they began.
pub(super) async fn run(
    targets: &[Target],
    mut stopped: watch::Receiver<bool>,
    counts: watch::Sender<Counts>,
) -> Result<Vec<Probe>> {
    let (probes, seen) = mpsc::channel();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut tasks = tokio::task::JoinSet::new();
    let mut short = Vec::new();
    let mut named = BTreeMap::new();
    for target in targets {
        let times: &mut usize = named.entry(*target).or_default();
        let notes = Notes {
            target: *target,
            connection: *times,
            probes: probes.clone(),
            counts: counts.clone(),
        };
        *times += 1;
        match target.traffic {
            Traffic::Held | Traffic::Flow => {
                tasks.spawn(stay(notes, stopped.clone()));
            }
            Traffic::Tcp | Traffic::Http | Traffic::Udp => short.push(notes),
        }
    }
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            _ = tick.tick() => {}
        }
        for notes in &short {
            tasks.spawn(once(notes.clone()));
        }
        while tasks.try_join_next().is_some() {}
    }
    tasks.join_all().await;
    drop((probes, short));
    let mut probes: Vec<Probe> = seen.iter().collect();
    probes.sort_by_key(|probe| probe.at);
    Ok(probes)
}

async fn once(notes: Notes) {
    let at = Instant::now();
    let outcome = match timeout(PATIENCE, ask(notes.target)).await {
        Err(_) => Outcome::Lost,
        Ok(Err(Bad(outcome))) => outcome,
        Ok(Ok(line)) => understand(&line),
    };
    notes.add(at, outcome);
}

async fn ask(target: Target) -> Result<String, Bad> {
    let mut line = String::new();
    if target.traffic == Traffic::Udp {
        let socket = bound(target).await?;
        socket.send(b"who?").await?;
        let mut packet = [0; 512];
        let length = socket.recv(&mut packet).await?;
        line = text(&packet, length);
    } else {
        let mut stream = BufReader::new(connect(target.address).await?);
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
async fn stay(notes: Notes, mut stopped: watch::Receiver<bool>) {
    while !*stopped.borrow() {
        let at = Instant::now();
        let lasted = async {
            match notes.target.traffic {
                Traffic::Flow => flow(&notes).await,
                _ => hold(&notes).await,
            }
        };
        let ended = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            ended = lasted => ended,
        };
        // Beats that were lost are written down one by one; a connection that never came about is not.
        match ended {
            Ended::Silent => {}
            Ended::NotMade(Bad(outcome)) => notes.add(at, outcome),
            Ended::Broken(Bad(outcome)) => notes.add(Instant::now(), outcome),
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// How a long-lived connection ended.
enum Ended {
    NotMade(Bad),
    Broken(Bad),
    Silent,
}

async fn hold(notes: &Notes) -> Ended {
    let greeted = timeout(PATIENCE, async {
        let mut stream = BufReader::new(connect(notes.target.address).await?);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        Ok((stream, understand(&line)))
    });
    let (mut stream, outcome) = match greeted.await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => return Ended::NotMade(error),
        Err(_) => return Ended::NotMade(Bad(Outcome::Lost)),
    };
    let mut echo = [0; 64];
    loop {
        let mut at = Instant::now();
        let (mut missing, mut lost) = (4_usize, 0);
        if let Err(error) = stream.write_all(b"beat").await {
            return Ended::Broken(error.into());
        }
        while missing > 0 {
            match timeout(BEAT_PATIENCE, stream.read(&mut echo)).await {
                Ok(Ok(0)) => return Ended::Broken(Bad(Outcome::Reset)),
                Ok(Ok(length)) => missing = missing.saturating_sub(length),
                Ok(Err(error)) => return Ended::Broken(error.into()),
                Err(_) => {
                    notes.add(at, Outcome::Lost);
                    at = Instant::now();
                    lost += 1;
                    if lost == GIVE_UP {
                        return Ended::Silent;
                    }
                }
            }
        }
        notes.add(at, outcome.clone());
        tokio::time::sleep(BEAT).await;
    }
}

async fn flow(notes: &Notes) -> Ended {
    let socket = match bound(notes.target).await {
        Ok(socket) => socket,
        Err(error) => return Ended::NotMade(error.into()),
    };
    let mut packet = [0; 512];
    loop {
        // An answer that came too late is not the answer to the next question.
        while socket.try_recv(&mut packet).is_ok() {}
        let at = Instant::now();
        let asked = timeout(PATIENCE, async {
            socket.send(b"who?").await?;
            socket.recv(&mut packet).await
        });
        let outcome = match asked.await {
            Err(_) => Outcome::Lost,
            Ok(Err(error)) => Bad::from(error).0,
            Ok(Ok(length)) => understand(&text(&packet, length)),
        };
        notes.add(at, outcome);
        tokio::time::sleep(BEAT).await;
    }
}

/// A socket with a port of its own that hears this target only.
async fn bound(target: Target) -> std::io::Result<UdpSocket> {
    let any = if target.address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target.address).await?;
    Ok(socket)
}

fn text(packet: &[u8], length: usize) -> String {
    String::from_utf8_lossy(packet.get(..length).unwrap_or_default()).into_owned()
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
