//! `hack bench`: builds a benchmark in the release profile, runs it and prints its figures.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::command::{cargo, root, say, show};
use crate::prerequisites;

/// A benchmark of the product against what stands beside it in the same run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Admission reviews over TLS.
    Webhook,
    /// Addresses for Services, beside a bare client that makes the same API writes.
    Ipam,
    /// Routes and failure detection, beside BIRD or GoBGP.
    Bgp,
    /// Take-over of addresses on a LAN, beside keepalived.
    Layer2,
    /// What users lose when machines and processes of a whole cluster fail: the failure table.
    Cluster,
    /// Starts of the test world and faults in it without anything of ours: whether the machine is fit for the others.
    World,
}

/// What a benchmark is made of. Another one is an arm of [`Name::plan`].
struct Plan {
    /// The program of `openelb-tests` that measures.
    program: &'static str,
    /// The tier whose Debian packages it uses.
    tier: &'static str,
    /// The parts of `hack/tools` that it runs.
    parts: &'static [&'static str],
    /// What it starts of ours.
    starts: Starts,
    /// The figures that a whole run has, by their names.
    figures: &'static [&'static str],
}

/// What a benchmark starts of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starts {
    /// The product's processes, measured as they ship: static.
    Product,
    /// A program of `openelb-tests`.
    Helper(&'static str),
}

const CONTROL_PLANE: &[&str] = &["etcd", "kube-apiserver", "kubectl"];

impl Name {
    fn plan(self) -> Plan {
        match self {
            Self::Webhook => Plan {
                program: "bench-webhook",
                tier: "api",
                parts: CONTROL_PLANE,
                starts: Starts::Product,
                figures: &[
                    "review p99 ms",
                    "reviews per second",
                    "reviews per second and core",
                    "rss MB",
                ],
            },
            Self::Ipam => Plan {
                program: "bench-ipam",
                tier: "api",
                parts: CONTROL_PLANE,
                starts: Starts::Product,
                figures: &[
                    "one service ms",
                    "one service p99 ms",
                    "storm 10,000 lag s",
                    "storm 10,000 whole s",
                    "catch-up 10,000 per second",
                    "restart 10,000 s",
                    "rss MB",
                    "take-over after SIGKILL s",
                    "api server back s",
                    "idle cpu ms per s",
                ],
            },
            Self::Bgp => Plan {
                program: "bench-bgp",
                tier: "network",
                parts: CONTROL_PLANE,
                starts: Starts::Product,
                figures: &[
                    "routes 10,000 ms",
                    "100 peers ms",
                    "rss MB",
                    "killed ms",
                    "bfd 3x50 ms",
                    "bfd 3x100 ms",
                    "watch event to UPDATE ms",
                    "speaker rss MB",
                    "watch event to UPDATE ms, 10,000 Services",
                    "speaker rss MB, 10,000 Services",
                ],
            },
            Self::Layer2 => Plan {
                program: "bench-layer2",
                tier: "network",
                parts: &[],
                starts: Starts::Helper("lan-tool"),
                figures: &[
                    "silent death ms",
                    "killed ms",
                    "planned move lost",
                    "take-over 1,000 ms",
                    "request to answer us",
                    "rss MB",
                ],
            },
            Self::Cluster => Plan {
                program: "bench-cluster",
                tier: "cluster",
                parts: &["all"],
                starts: Starts::Helper("openelb-answer"),
                figures: &[
                    "a node loses power: BGP with BFD 3 × 100 ms",
                    "a node loses power: BGP with a hold timer of 9 s and no BFD",
                    "a node loses power: layer 2, the node that answers",
                    "a speaker is killed (SIGKILL): BGP with BFD 3 × 100 ms",
                    "a speaker is killed (SIGKILL): layer 2, the speaker that answers",
                    "a speaker's pod is deleted (SIGTERM): BGP",
                    "a speaker's pod is deleted (SIGTERM): layer 2, the speaker that answers",
                    "helm upgrade replaces every pod of ours: BGP",
                    "helm upgrade replaces every pod of ours: layer 2",
                    "a node is drained: BGP",
                    "a node is drained: layer 2, the node that answers",
                    "the API server is down for ten seconds: BGP",
                    "the API server is down for ten seconds: layer 2",
                ],
            },
            Self::World => Plan {
                program: "bench-world",
                tier: "world",
                parts: &["all"],
                starts: Starts::Helper("openelb-answer"),
                figures: &[
                    "control plane ready",
                    "network",
                    "cluster of 3, iptables",
                    "cluster of 3, nftables",
                    "session closed",
                    "bfd 3x100",
                    "no gratuitous arp",
                ],
            },
        }
    }
}

/// Which benchmark, and where its figures go.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(value_enum)]
    name: Name,
    /// Also write the figures to this file, as a JSON list.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Arguments for the benchmark program.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// One measured figure, and the same of what it is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measurement {
    /// What was measured.
    figure: String,
    /// The unit of the five numbers.
    unit: String,
    /// How many measurements.
    n: u64,
    min: f64,
    median: f64,
    p99: f64,
    max: f64,
    /// What ran beside it in the same run; empty where nothing did.
    reference: Option<String>,
    /// Our median over the reference's.
    ratio: Option<f64>,
}

/// Builds, runs, prints.
///
/// # Errors
/// The benchmark cannot be built, fails, or writes no figures.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let plan = args.name.plan();
    prerequisites::apt_packages(plan.tier)?;
    prerequisites::tools(plan.parts, None)?;
    let file = args.json.clone().unwrap_or_else(|| {
        let name = format!("{}.json", plan.program);
        root().join("target").join(name)
    });
    // Figures of an earlier run would pass for this one's.
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", file.display()));
        }
        _ => {}
    }
    if args.name == Name::Cluster {
        crate::image::released(crate::image::Arch::X86_64)?;
    }
    say(&format!(
        "building {} in the release profile (some minutes where something changed)",
        plan.program
    ));
    let (product, helper) = match plan.starts {
        Starts::Product => (Some(crate::image::released_binaries()?), None),
        Starts::Helper(name) => (None, Some(name)),
    };
    for binary in helper.into_iter().chain([plan.program]) {
        let mut build = cargo();
        build.args(["build", "--quiet", "--release"]).args([
            "--package",
            "openelb-tests",
            "--bin",
            binary,
        ]);
        show(build).with_context(|| format!("{binary} cannot be built"))?;
    }
    let mut bench = cargo();
    bench
        .args(["run", "--quiet", "--release", "--package", "openelb-tests"])
        .args(["--bin", plan.program, "--", "--json"])
        .arg(&file)
        .args(&args.rest);
    if let Some(folder) = product {
        bench.env("OPENELB_BINARIES", folder);
    }
    show(bench).with_context(|| format!("{} failed", plan.program))?;
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("the benchmark wrote no figures to {}", file.display()))?;
    let figures: Vec<Measurement> = serde_json::from_str(&text)
        .with_context(|| format!("{} is no list of figures", file.display()))?;
    print!("{}", table(&figures));
    // Arguments of its own may have a benchmark measure less.
    let missing = missing(&figures, plan.figures);
    if args.rest.is_empty() && !missing.is_empty() {
        bail!("{} did not measure: {}", plan.program, missing.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// The figures that are asked for and are not there.
fn missing<'a>(figures: &[Measurement], wanted: &[&'a str]) -> Vec<&'a str> {
    let has = |name: &str| figures.iter().any(|found| found.figure == name);
    wanted.iter().copied().filter(|name| !has(name)).collect()
}

fn table(figures: &[Measurement]) -> String {
    let mut text = format!(
        "{:<36} {:>8} {:>6} {:>10} {:>10} {:>10} {:>10} {:>7}  {}\n",
        "figure", "unit", "n", "min", "median", "p99", "max", "ratio", "reference"
    );
    for f in figures {
        let ratio = f
            .ratio
            .map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let _ = writeln!(
            text,
            "{:<36} {:>8} {:>6} {:>10.2} {:>10.2} {:>10.2} {:>10.2} {:>7}  {}",
            f.figure,
            f.unit,
            f.n,
            f.min,
            f.median,
            f.p99,
            f.max,
            ratio,
            f.reference.as_deref().unwrap_or("")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_without_a_reference_prints_an_empty_ratio() {
        let figures: Vec<Measurement> = serde_json::from_str(
            r#"[{"figure":"rss MB","unit":"MB","n":1,"min":5.5,"median":5.5,"p99":5.5,"max":5.5}]"#,
        )
        .unwrap();
        let table = table(&figures);
        assert!(table.contains("rss MB"), "{table}");
        assert_eq!(missing(&figures, &["rss MB", "killed ms"]), ["killed ms"]);
        assert!(!table.contains("NaN"), "{table}");
    }
}
