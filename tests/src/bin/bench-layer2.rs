//! How long an address is gone when its node dies, stops or is killed, and what an answer costs; keepalived beside it.
//!
//! The judge is a datagram every 10 ms from another host on the LAN. `--soak SECONDS` instead counts changes of leader
//! under full CPU load and 5 % loss of membership datagrams.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use openelb_tests::figure::{self, Figure};
use openelb_tests::speakers::{Prober, Speakers, VIP, tool};
use openelb_tests::{Capture, Deadline, Lan, Process, Program, eventually};

const NODES: [&str; 3] = ["alpha", "bravo", "charlie"];

#[derive(Parser)]
struct Args {
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Runs of each failure.
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// `default`, `fast` or `calm`.
    #[arg(long, default_value = "default")]
    profile: String,
    /// Count changes of leader under load and loss for so many seconds, and measure nothing else.
    #[arg(long)]
    soak: Option<u64>,
    /// Without the CPU load.
    #[arg(long)]
    idle: bool,
    /// Loss of membership datagrams in per cent, for `--soak`.
    #[arg(long, default_value_t = 5)]
    loss: u32,
    /// Leave keepalived out.
    #[arg(long)]
    alone: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    openelb_tests::world_of_program(async || measure(&args).await)
}

async fn measure(args: &Args) -> Result<()> {
    if let Some(seconds) = args.soak {
        let figures = soak(args, seconds).await?;
        figure::write(args.json.as_deref(), &figures)?;
        ensure!(
            figures.iter().all(|figure| figure.max() == 0.0),
            "a node that lives was taken for dead"
        );
        return Ok(());
    }
    let mut figures = Vec::new();
    let ours = silent_deaths(args).await?;
    if args.alone {
        figures.push(ours);
    } else {
        let theirs = keepalived(args.runs).await?;
        figures.push(ours.beside("keepalived, 100 ms advertisements", &theirs));
        figures.push(theirs);
    }
    figures.push(killed(args).await?);
    figures.push(planned(args).await?);
    figures.push(thousand(args).await?);
    figures.extend(answers(args).await?);
    figure::write(args.json.as_deref(), &figures)
}

fn others(leader: &str) -> Vec<&'static str> {
    NODES.into_iter().filter(|node| *node != leader).collect()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn wall() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Waits for a while that differs each time, so that a fault is not in step with anything that is periodic.
async fn out_of_step() {
    tokio::time::sleep(Duration::from_millis(rand::random_range(0..200))).await;
}

/// The cable of the leader's node is cut behind the switch: no carrier is lost, no word is said.
async fn silent_deaths(args: &Args) -> Result<Figure> {
    let speakers = Speakers::start(&NODES, &["--profile", &args.profile]).await?;
    steady(&speakers).await?;
    let mut gaps = Vec::new();
    for run in 0..args.runs {
        let leader = speakers.leader(VIP).await?;
        let prober = speakers.prober(VIP)?;
        prober.settled(20, |by| by == leader).await?;
        out_of_step().await;
        speakers.lan.cut(&leader)?;
        let heirs = others(&leader);
        let moved = prober.settled(30, |by| heirs.contains(&by)).await?;
        eprintln!("silent death {run}: {:?}", moved.gap);
        gaps.push(ms(moved.gap));
        speakers.lan.mend(&leader)?;
        prober.settled(30, |by| by == leader).await?;
    }
    Figure::of("silent death ms", "ms", gaps)
}

/// Waits until every speaker has been a member for long enough to take an address from another, after which none moves.
async fn steady(speakers: &Speakers) -> Result<()> {
    for name in NODES {
        let node = speakers.node(name)?;
        eventually("a steady speaker", Deadline::LONG, async || {
            ensure!(node.log().contains("\"steady\":true"), "{name} is not");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// From SIGKILL of the leading speaker, whose node lives, to the first datagram that another node answers.
async fn killed(args: &Args) -> Result<Figure> {
    let mut speakers = Speakers::start(&NODES, &["--profile", &args.profile]).await?;
    let mut times = Vec::new();
    for _ in 0..args.runs {
        let leader = speakers.leader(VIP).await?;
        let prober = speakers.prober(VIP)?;
        prober.settled(20, |by| by == leader).await?;
        out_of_step().await;
        let began = wall();
        speakers.node(&leader)?.kill().await;
        times.push(until_moved(&prober, &leader, began).await?);
        speakers.speak(&leader, &["--profile", &args.profile])?;
        prober.settled(30, |by| by == leader).await?;
    }
    Figure::of("killed ms", "ms", times)
}

async fn until_moved(prober: &Prober, leader: &str, began: u64) -> Result<f64> {
    let heirs = others(leader);
    prober.settled(30, |by| heirs.contains(&by)).await?;
    let first = prober.probes().into_iter().find(|probe| {
        probe.at >= began && probe.by.as_deref().is_some_and(|by| heirs.contains(&by))
    });
    let first = first.context("the address did not move")?;
    Ok(ms(Duration::from_micros(first.at - began)))
}

/// Datagrams lost when the leading speaker stops, and when it returns.
async fn planned(args: &Args) -> Result<Figure> {
    let mut speakers = Speakers::start(&NODES, &["--profile", &args.profile]).await?;
    let mut lost = Vec::new();
    for _ in 0..args.runs {
        let leader = speakers.leader(VIP).await?;
        let prober = speakers.prober(VIP)?;
        prober.settled(20, |by| by == leader).await?;
        speakers.node(&leader)?.stop().await?;
        let heirs = others(&leader);
        prober.settled(30, |by| heirs.contains(&by)).await?;
        speakers.speak(&leader, &["--profile", &args.profile])?;
        let moved = prober.settled(30, |by| by == leader).await?;
        #[expect(clippy::cast_precision_loss)]
        lost.push(moved.lost as f64);
    }
    Figure::of("planned move lost", "lost", lost)
}

/// From the silent death of a node that leads about a thousand addresses to the announcement of the last of them.
async fn thousand(args: &Args) -> Result<Figure> {
    let names = ["alpha", "bravo"];
    let vips = ["--vips", "10.0.128.0/21", "--profile", &args.profile];
    let speakers = Speakers::start(&names, &vips).await?;
    let mut times = Vec::new();
    for _ in 0..args.runs {
        let leads = eventually("both nodes to lead", Deadline::SHORT, async || {
            let (a, b) = (
                answering(&speakers, "alpha")?,
                answering(&speakers, "bravo")?,
            );
            ensure!(a + b == 2046 && a > 0 && b > 0, "{a} and {b}");
            Ok(a)
        })
        .await?;
        let heir = speakers.lan.mac("bravo")?;
        let capture = speakers.claims().await?;
        let began = wall();
        speakers.lan.cut("alpha")?;
        let last = eventually(
            "all addresses to be announced",
            Deadline::SHORT,
            async || {
                let first = announced(&capture, &heir, began);
                // Refreshes of the heir's own addresses may be among them: at least all that moved must be.
                ensure!(answering(&speakers, "bravo")? == 2046, "not all taken");
                ensure!(first.len() >= leads, "{} of {leads}", first.len());
                let mut times: Vec<u64> = first.into_values().collect();
                times.sort_unstable();
                times.get(leads - 1).copied().context("no announcement")
            },
        )
        .await?;
        times.push(ms(Duration::from_micros(last - began)));
        speakers.lan.mend("alpha")?;
        speakers.wait_steady(&names).await?;
    }
    Figure::of("take-over 1,000 ms", "ms", times)
}

/// When each address was first announced by `mac` after `began`.
fn announced(capture: &Capture, mac: &str, began: u64) -> BTreeMap<IpAddr, u64> {
    let mut first = BTreeMap::new();
    for claim in capture.claims() {
        if claim.from == mac && claim.at >= began && claim.is_announcement() {
            first.entry(claim.address).or_insert(claim.at);
        }
    }
    first
}

fn answering(speakers: &Speakers, node: &str) -> Result<usize> {
    let log = speakers.node(node)?.log();
    let last = log
        .lines()
        .rfind(|line| line.contains("\"answering\""))
        .unwrap_or_default();
    let count = last
        .split("\"answering\":")
        .nth(1)
        .and_then(|rest| rest.trim_end_matches('}').parse().ok());
    count.with_context(|| format!("{node}: {last}"))
}

/// What an answer takes, beside the kernel's own for its own address, and the memory of a speaker.
async fn answers(args: &Args) -> Result<Vec<Figure>> {
    let vips = [
        "--vips",
        "10.0.100.1,10.0.128.0/19,10.0.192.0/21",
        "--profile",
        &args.profile,
    ];
    let speakers = Speakers::start(&["alpha"], &vips).await?;
    speakers.leader(VIP).await?;
    let mut took = Vec::new();
    for target in [VIP, &speakers.lan.address("alpha")] {
        let program = tool()?.display().to_string();
        let text = speakers.lan.run("client", &[&program, "ask", target])?;
        let micros = text
            .lines()
            .map(|line| Ok(line.parse::<f64>()? / 1e3))
            .collect::<Result<Vec<f64>>>()?;
        took.push(Figure::of("request to answer us", "us", micros)?);
    }
    let kernel = took.pop().context("no figure")?;
    let ours = took.pop().context("no figure")?;
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", speakers.node("alpha")?.pid()))?;
    let rss = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse::<f64>()
                .ok()
        })
        .context("no VmRSS")?;
    Ok(vec![
        ours.beside("the kernel's own address", &kernel),
        Figure::of("rss MB", "MB", [rss / 1024.0])?,
    ])
}

/// The same silent death under keepalived (VRRP version 3, advertisements every 100 ms).
async fn keepalived(runs: usize) -> Result<Figure> {
    let lan = Lan::new(&["alpha", "bravo", "charlie", "client"]).await?;
    let mut processes: Vec<Process> = Vec::new();
    for (n, name) in (1..).zip(NODES) {
        lan.run(name, &["sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1"])?;
        let config = format!(
            "vrrp_instance x {{\n version 3\n state BACKUP\n interface eth0\n virtual_router_id 7\n priority {}\n \
             advert_int 0.1\n garp_master_delay 1\n virtual_ipaddress {{\n {VIP}/16 dev eth0\n }}\n}}\n",
            200 - 10 * n
        );
        let file = lan.folder().write(format!("{name}.conf"), config)?;
        let pid = lan.folder().join(format!("{name}.pid"));
        let vrrp = lan.folder().join(format!("{name}.vrrp.pid"));
        let program = Program::new(&format!("keepalived-{name}"), "keepalived")
            .args(["--dont-fork", "--vrrp", "--log-console", "--use-file"])
            .arg(file)
            .arg("--pid")
            .arg(pid)
            .arg("--vrrp_pid")
            .arg(vrrp);
        processes.push(lan.start(name, program)?);
        let echo = Program::new(&format!("echo-{name}"), tool()?).args(["echo", name, VIP]);
        processes.push(lan.start(name, echo)?);
    }
    let mut gaps = Vec::new();
    for run in 0..runs {
        // Long after the return: for a second after a change the client's kernel believes no other. One that never
        // stopped to lead says nothing when its cable is mended, so that the client asks after some seconds, which is
        // not the gap that is measured: another prober judges.
        let returned = Prober::start(&lan, VIP)?;
        returned.settled(300, |by| by == "alpha").await?;
        drop(returned);
        let prober = Prober::start(&lan, VIP)?;
        prober.settled(20, |by| by == "alpha").await?;
        out_of_step().await;
        lan.cut("alpha")?;
        let moved = prober.settled(30, |by| by != "alpha").await?;
        eprintln!("keepalived {run}: {:?}", moved.gap);
        gaps.push(ms(moved.gap));
        lan.mend("alpha")?;
    }
    for process in &processes {
        process.check()?;
        process.terminate();
    }
    Figure::of("silent death ms, keepalived", "ms", gaps)
}

/// Changes of leader and members lost while nothing dies: under full load of all cores and with frames of the LAN lost.
async fn soak(args: &Args, seconds: u64) -> Result<Vec<Figure>> {
    let speakers = Speakers::start(&NODES, &["--profile", &args.profile]).await?;
    let first = speakers.leader(VIP).await?;
    speakers.prober(VIP)?.settled(20, |by| by == first).await?;
    let before: BTreeSet<String> = news(&speakers)?.into_iter().collect();
    let mut load = Vec::new();
    if !args.idle {
        let cores = std::thread::available_parallelism()?.get();
        for n in 0..cores * 2 {
            let burn = Program::new(&format!("burn-{n}"), "sh").args(["-c", "while :; do :; done"]);
            load.push(speakers.lan.start("client", burn)?);
        }
    }
    if args.loss > 0 {
        // Every frame between the hosts, whatever it carries.
        speakers
            .lan
            .filter(&[&format!("numgen random mod 100 < {} drop", args.loss)])?;
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(10).min(end - Instant::now())).await;
        for process in NODES
            .iter()
            .map(|node| speakers.node(node))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .chain(&load)
        {
            process.check()?;
        }
    }
    let after: Vec<String> = news(&speakers)?
        .into_iter()
        .filter(|line| !before.contains(line))
        .collect();
    drop(load);
    for line in after.iter().take(20) {
        println!("{line}");
    }
    let told = |line: &&String| line.contains("Announced") || line.contains("Withdrawn");
    let moves = after.iter().filter(told).count();
    let figure = |name: &str, count: usize| {
        #[expect(clippy::cast_precision_loss)]
        let count = count as f64;
        Figure::of(&format!("{name} in {seconds} s"), "times", [count])
    };
    Ok(vec![
        figure("leader changes", moves)?,
        figure("members lost", after.len() - moves)?,
    ])
}

/// Lines of the speakers that tell of a missing member, or of an address taken or given up.
fn news(speakers: &Speakers) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for node in NODES {
        for line in speakers.node(node)?.log().lines() {
            let incomplete = line.contains("\"alive\"")
                && !NODES
                    .iter()
                    .all(|name| line.contains(&format!("\"{name}\"")));
            let unsteady = line.contains("\"steady\":false");
            let moved = line.contains("Announced") || line.contains("Withdrawn");
            if incomplete || unsteady || moved {
                lines.push(format!("{node}: {line}"));
            }
        }
    }
    Ok(lines)
}
