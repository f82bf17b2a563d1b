//! What users lose when something breaks, on three real nodes with the chart installed: the figures of
//! `docs/failure-table.md`.
//!
//! A client opens a new TCP connection every 10 ms; each fault is made `--runs` times. One loss of power is seen by three
//! clients at once: behind a router with BFD, behind a router with nothing but the hold timer, and on the nodes' own LAN;
//! everything else by the first and the last of them.
//!
//! What is measured is written down at once. Where a cluster cannot be used any more, another takes its place and goes on
//! where it was; `--resume` goes on where an earlier run was stopped; and no measurement begins after `--minutes`.

mod faults;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use openelb_tests::bgp::{Bgp, Daemon, Peer, Software};
use openelb_tests::cluster::{Cluster, NODE_ASN, ROUTER_ASN};
use openelb_tests::figure::{self, Figure};
use openelb_tests::product::Product;
use openelb_tests::product::figures::{self, ENOUGH, Measurement};

use faults::{Bench, Fault};

/// How many clusters are tried, the first among them.
const CLUSTERS: usize = 5;

#[derive(Parser)]
struct Args {
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the failure table to this file, once every fault was made ten times or more.
    #[arg(long)]
    page: Option<PathBuf>,
    /// How often each fault is made.
    #[arg(long, default_value_t = ENOUGH)]
    runs: usize,
    /// Measure nothing new after so many minutes.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Where measurements are written down as they are made.
    #[arg(long, default_value = "target/bench-cluster.jsonl")]
    record: PathBuf,
    /// Go on with what is written down there.
    #[arg(long)]
    resume: bool,
}

impl Args {
    fn measured(&self) -> Result<Vec<Measurement>> {
        if self.record.exists() {
            figures::read(&self.record)
        } else {
            Ok(Vec::new())
        }
    }

    /// Holds the second at which the time is over: the program runs again in each cluster's world.
    fn until(&self) -> PathBuf {
        self.record.with_extension("until")
    }

    fn time_is_over(&self) -> Result<bool> {
        let until: u64 = std::fs::read_to_string(self.until())?.trim().parse()?;
        Ok(now()? >= until)
    }
}

fn now() -> Result<u64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(since.as_secs())
}

fn main() -> Result<()> {
    let args = Args::parse();
    if openelb_tests::inside().is_some() {
        return openelb_tests::world_of_program(async || measure(&args).await);
    }
    ensure!(
        args.page.is_none() || args.runs >= ENOUGH,
        "a page is made of {ENOUGH} runs or more, not of {}",
        args.runs
    );
    if !args.resume && args.record.exists() {
        std::fs::remove_file(&args.record)?;
    }
    if let Some(folder) = args.record.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let until = now()? + args.minutes * 60;
    std::fs::write(args.until(), until.to_string())
        .with_context(|| format!("cannot write {}", args.until().display()))?;
    for cluster in 1..=CLUSTERS {
        let Err(error) = openelb_tests::world_of_program(async || measure(&args).await) else {
            break;
        };
        println!("cluster {cluster} of at most {CLUSTERS} is given up: {error:#}");
        if args.time_is_over()? {
            break;
        }
    }
    publish(&args)
}

/// Shows and writes what there is; an error tells what is missing.
fn publish(args: &Args) -> Result<()> {
    let seen = args.measured()?;
    let page = figures::page(&seen, &figures::machine());
    println!("{page}");
    figure::write(args.json.as_deref(), &table(&seen)?)?;
    let rows = Fault::rows();
    let missing = figures::missing(&seen, &rows, args.runs);
    if !missing.is_empty() {
        bail!(
            "not measured {} times (`--resume` goes on): {}",
            args.runs,
            missing.join("; ")
        );
    }
    if let Some(file) = &args.page {
        std::fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Makes, on a cluster of its own, the fault that was made least often, until each was made often enough.
async fn measure(args: &Args) -> Result<()> {
    let began = Instant::now();
    let cluster = Cluster::start(3).await?;
    let product = Product::new(&cluster).await?;
    product.install(&[]).await?;
    let (bgp, lan) = product.samples().await?;
    let local = r#"--patch={"spec":{"externalTrafficPolicy":"Local"}}"#;
    product
        .user()
        .kubectl(&["patch", "service", "web-lan", local])
        .await?;
    let second = second_router(&cluster).await?;
    let bench = Bench::new(&product, bgp, lan);
    bench.all_is_well().await?;
    println!("the cluster is ready after {}", seconds(began));
    loop {
        let seen = args.measured()?;
        let made = |fault: &Fault| {
            let rows = fault.names();
            let counts = rows
                .iter()
                .map(|row| seen.iter().filter(|m| m.fault == *row).count());
            counts.min().unwrap_or(0)
        };
        let Some(fault) = Fault::ALL.iter().min_by_key(|fault| made(fault)) else {
            break;
        };
        let run = made(fault);
        if run >= args.runs || args.time_is_over()? {
            break;
        }
        let began = Instant::now();
        for measurement in bench.make(*fault, run).await? {
            figures::append(&args.record, &measurement)?;
        }
        println!("run {}: {fault:?} took {}", run + 1, seconds(began));
    }
    second.stop().await
}

fn seconds(since: Instant) -> String {
    format!("{} s", Duration::as_secs(&since.elapsed()))
}

/// The client on the LAN is a router too, with routes of its own to the addresses that BGP brings, and no BFD.
async fn second_router(cluster: &Cluster) -> Result<Daemon> {
    let network = cluster.network();
    let host = network.lan_client();
    // As a router has it: else all connections between two hosts take one way, and none or all are lost.
    host.namespace()
        .sysctl(&["net.ipv4.fib_multipath_hash_policy=1"])
        .await?;
    let router = network
        .nodes()
        .iter()
        .fold(Bgp::new(ROUTER_ASN, host), |bgp, node| {
            bgp.peer(Peer::at(node.v4, NODE_ASN).hold(faults::HOLD).passive())
        })
        .start(Software::Frr, host, network.folder())
        .await?;
    cluster
        .apply(&format!(
            r"
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {{name: without-bfd}}
spec:
  conf: {{peerAs: {ROUTER_ASN}, neighborAddress: {}}}
",
            host.v4
        ))
        .await?;
    Ok(router)
}

fn table(seen: &[Measurement]) -> Result<Vec<Figure>> {
    figures::rows(seen)
        .into_iter()
        .map(|(fault, runs)| {
            let troubles: Vec<f64> = runs.iter().map(|run| run.trouble_ms).collect();
            Figure::of(fault, "ms", troubles)
        })
        .collect()
}
