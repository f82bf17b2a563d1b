//! How long the test world takes to start, and what faults cost in it that have nothing of ours in them: figures that say
//! whether a machine is fit for the other benchmarks.
//!
//! Every measurement has a world of its own: this program starts itself again for each.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use openelb_tests::bed::{Bed, all, own, serve};
use openelb_tests::figure::{self, Figure};
use openelb_tests::{Cluster, ControlPlane, Network, Prober, ProxyMode, Traffic, world_of_program};

/// Stands before a measurement in the output of a world.
const MEASURED: &str = "measured: ";

#[derive(Parser)]
struct Args {
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// How often each is measured.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only these.
    #[arg(value_enum)]
    only: Vec<Measure>,
    /// Measure this one once, in this world.
    #[arg(long, hide = true)]
    one: Option<Measure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// etcd and kube-apiserver ready.
    ControlPlane,
    /// A network with three nodes, a router and clients.
    Network,
    /// Three nodes Ready and names resolving, kube-proxy with iptables.
    Iptables,
    /// The same with nftables.
    Nftables,
    /// A speaker dies and its kernel closes the session.
    SessionClosed,
    /// A node is unplugged silently; BFD at 3 × 100 ms.
    Bfd,
    /// An address moves on the segment and nobody says so.
    NoGratuitousArp,
}

impl Measure {
    fn figure(self) -> (&'static str, &'static str) {
        match self {
            Self::ControlPlane => ("control plane ready", "s"),
            Self::Network => ("network", "s"),
            Self::Iptables => ("cluster of 3, iptables", "s"),
            Self::Nftables => ("cluster of 3, nftables", "s"),
            Self::SessionClosed => ("session closed", "ms"),
            Self::Bfd => ("bfd 3x100", "ms"),
            Self::NoGratuitousArp => ("no gratuitous arp", "s"),
        }
    }

    /// Measures once, in the figure's unit.
    async fn once(self) -> Result<f64> {
        let began = Instant::now();
        match self {
            Self::ControlPlane => {
                let _control = ControlPlane::start().await?;
                Ok(began.elapsed().as_secs_f64())
            }
            Self::Network => {
                let _network = Network::start(3).await?;
                Ok(began.elapsed().as_secs_f64())
            }
            Self::Iptables | Self::Nftables => {
                let mode = if self == Self::Iptables {
                    ProxyMode::Iptables
                } else {
                    ProxyMode::Nftables
                };
                let _cluster = Cluster::config(3).proxy(mode).start().await?;
                Ok(began.elapsed().as_secs_f64())
            }
            Self::SessionClosed | Self::Bfd => Ok(lost_node(self).await?.as_secs_f64() * 1e3),
            Self::NoGratuitousArp => Ok(moved_in_silence().await?.as_secs_f64()),
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(measure) = args.one {
        return world_of_program(async || {
            println!("{MEASURED}{}", measure.once().await?);
            Ok(())
        });
    }
    let wanted = if args.only.is_empty() {
        Measure::value_variants()
    } else {
        &args.only
    };
    let mut figures = Vec::new();
    for measure in wanted {
        let (name, unit) = measure.figure();
        let values = (0..args.runs).map(|run| {
            let value = in_a_world(*measure)?;
            eprintln!("{name} {run}: {value:.3} {unit}");
            Ok(value)
        });
        let values = values.collect::<Result<Vec<f64>>>()?;
        figures.push(Figure::of(name, unit, values)?);
    }
    figure::write(args.json.as_deref(), &figures)
}

fn in_a_world(measure: Measure) -> Result<f64> {
    let name = measure.to_possible_value().context("it has no name")?;
    let output = Command::new(std::env::current_exe()?)
        .args(["--one", name.get_name()])
        .stderr(Stdio::inherit())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}");
    let value = said.lines().find_map(|line| line.split_once(MEASURED));
    let (_, value) = value.with_context(|| format!("no measurement: {said}"))?;
    Ok(value.trim().parse()?)
}

/// From the loss of one of three nodes to the last probe that failed.
async fn lost_node(how: Measure) -> Result<Duration> {
    let bfd = how == Measure::Bfd;
    let bed = Bed::start(bfd.then_some(100)).await?;
    if bfd {
        bed.watched(3).await?;
    }
    let mut prober = bed.prober()?;
    prober.answered(100).await?;
    let fault = prober.mark("n1 is lost");
    if bfd {
        bed.network.unplug(bed.network.node("n1")?).await?;
    } else if let (Some(speaker), Some(server)) = (bed.speakers.first(), bed.servers.first()) {
        tokio::join!(speaker.kill(), server.kill());
    }
    bed.converged(2).await?;
    prober.answered(100).await?;
    let report = prober.stop().await?;
    ensure!(report.failed_before(fault) == 0, "{report}");
    Ok(report.trouble_after(fault))
}

/// From the death of an address's owner, and its silent move to another, to the last probe that failed.
async fn moved_in_silence() -> Result<Duration> {
    let vip = "10.0.0.100";
    let network = Network::start(2).await?;
    let (old, new) = (network.node("n1")?, network.node("n2")?);
    let _old = serve(&network, old, &[vip]).await?;
    let _new = serve(&network, new, &[]).await?;
    let mut prober = Prober::start(network.lan_client(), &all(&[vip.parse()?], &[Traffic::Tcp]))?;
    prober.answered(50).await?;
    let fault = prober.mark("the owner is unplugged");
    network.unplug(old).await?;
    own(new, vip).await?;
    prober.answered(50).await?;
    Ok(prober.stop().await?.trouble_after(fault))
}
