//! `hack bench`: builds a benchmark in the release profile, runs it and prints its figures.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::command::{cargo, root, show};
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
}

impl Name {
    fn program(self) -> &'static str {
        match self {
            Self::Webhook => "bench-webhook",
            Self::Ipam => "bench-ipam",
            Self::Bgp => "bench-bgp",
            Self::Layer2 => "bench-layer2",
        }
    }

    fn needs(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Webhook | Self::Ipam => ("api", &["etcd", "kube-apiserver", "kubectl"]),
            Self::Bgp | Self::Layer2 => ("network", &["gobgp", "gobgpd"]),
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
    #[serde(default)]
    reference: Option<String>,
    /// Our median over the reference's.
    #[serde(default)]
    ratio: Option<f64>,
}

/// Builds, runs, prints.
///
/// # Errors
/// The benchmark cannot be built, fails, or writes no figures.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (tier, parts) = args.name.needs();
    prerequisites::apt_packages(tier)?;
    prerequisites::tools(parts, None)?;
    let file = args.json.clone().unwrap_or_else(|| {
        root()
            .join("target")
            .join(format!("{}.json", args.name.program()))
    });
    let mut build = cargo();
    build.args(["build", "--quiet", "--release", "--workspace", "--bins"]);
    show(build)?;
    let mut bench = cargo();
    bench
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "openelb-tests",
            "--bin",
            args.name.program(),
        ])
        .args(["--", "--json"])
        .arg(&file)
        .args(&args.rest);
    show(bench)?;
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("the benchmark wrote no figures to {}", file.display()))?;
    let figures: Vec<Measurement> = serde_json::from_str(&text)
        .with_context(|| format!("{} is no list of figures", file.display()))?;
    print!("{}", table(&figures));
    Ok(ExitCode::SUCCESS)
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
        assert!(!table.contains("NaN"), "{table}");
    }
}
