//! The failure table: what users lose when something breaks, and for how long, as measured.
//!
//! Measurements are appended to a file as they are made, one JSON object per line, so that a run that is cut short loses
//! nothing. The page is made from the file and never written by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One fault, made once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What was broken, in words of a user; measurements of the same fault are one row.
    pub fault: String,
    /// For how long new connections failed, as [`super::Loss`] counts it, in milliseconds.
    pub trouble_ms: f64,
    /// New connections that failed.
    pub failed: u64,
    /// New connections tried.
    pub tried: u64,
}

/// Adds `measurement` to `file`.
///
/// # Errors
/// The file cannot be written.
pub fn append(file: &Path, measurement: &Measurement) -> Result<()> {
    append_line(file, &serde_json::to_string(measurement)?)
}

/// Adds a line to `file`, in one write, so that stories that run side by side do not mix theirs.
///
/// # Errors
/// The file cannot be written.
pub fn append_line(file: &Path, line: &str) -> Result<()> {
    let line = format!("{line}\n");
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Reads what [`append`] wrote.
///
/// # Errors
/// The file cannot be read, or a line of it is no measurement.
pub fn read(file: &Path) -> Result<Vec<Measurement>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines()
        .map(|line| {
            serde_json::from_str(line).with_context(|| format!("in {}: {line}", file.display()))
        })
        .collect()
}

/// What this machine is: its processor, how many of them, and how much memory.
#[must_use]
pub fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0);
    format!(
        "a machine with {count} processors ({processor}) and {} GiB of memory that runs all of it, nodes, routers and clients",
        memory.div_ceil(1024 * 1024)
    )
}

/// How often each fault must have been made before its figures are published.
pub const ENOUGH: usize = 10;

/// The `faults` that were not made as often as `runs` says.
#[must_use]
pub fn missing<'a>(measurements: &[Measurement], faults: &[&'a str], runs: usize) -> Vec<&'a str> {
    let made = |fault: &str| measurements.iter().filter(|m| m.fault == fault).count();
    let short = faults.iter().copied();
    short.filter(|fault| made(fault) < runs).collect()
}

/// The page: a row per fault in the order of first measurement; `machine` says where it was measured.
#[must_use]
pub fn page(measurements: &[Measurement], machine: &str) -> String {
    let mut text = format!(
        "# What users lose when something breaks\n\n\
         Made by `hack/bench cluster -- --runs 10 --page docs/failure-table.md` on {machine}: three nodes of a real\n\
         Kubernetes with the chart installed, FRR as the router, kube-proxy in iptables mode,\n\
         `externalTrafficPolicy: Local`, a pod on every node. Nothing here is written by hand.\n\n\
         A client opens a new TCP connection every 10 ms, asks one question, and counts the connection as failed when it\n\
         is refused, reset, or not answered within 0.9 s. *For how long* is the time in which connections failed, all of\n\
         them or some (by BGP those that the router had sent to the node that is gone: a third): from the first that failed\n\
         to the first good one after the last, less than half a second of nothing but answers between two failures;\n\
         several such stretches are added up. *Failed* is how many connections that were, of how many that were tried while\n\
         the fault lasted and healed.\n\n\
         | fault | runs | for how long, median | max | failed, median | max |\n\
         |---|--:|--:|--:|--:|--:|\n"
    );
    for (fault, runs) in rows(measurements) {
        let mut troubles: Vec<f64> = runs.iter().map(|run| run.trouble_ms).collect();
        let mut failed: Vec<f64> = runs.iter().map(|run| count(run.failed)).collect();
        let tried: Vec<f64> = runs.iter().map(|run| count(run.tried)).collect();
        let largest = tried.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "| {fault} | {} | {} | {} | {:.0} of {largest:.0} | {:.0} |",
            runs.len(),
            milliseconds(median(&mut troubles)),
            milliseconds(troubles.iter().copied().fold(0.0, f64::max)),
            median(&mut failed),
            failed.iter().copied().fold(0.0, f64::max),
        );
    }
    text.push_str(
        "\nA machine that loses power says nothing to anybody; what finds that is BFD, or the hold timer, or on a LAN the\n\
         speakers' gossip, with the chart's default values. The second router's hold time is 9 s, three keepalives of 3 s;\n\
         with the default of 90 s that row is ten times as long. For comparison: MetalLB in layer 2 mode, on the same\n\
         bed with the same fault and the same client, lost its last connection 5.3 to 5.4 s after it.\n",
    );
    text
}

/// The measurements of each fault, in the order of first measurement.
#[must_use]
pub fn rows(measurements: &[Measurement]) -> Vec<(&str, Vec<&Measurement>)> {
    let mut order: Vec<&str> = Vec::new();
    let mut of: BTreeMap<&str, Vec<&Measurement>> = BTreeMap::new();
    for measurement in measurements {
        let runs = of.entry(&measurement.fault).or_default();
        if runs.is_empty() {
            order.push(&measurement.fault);
        }
        runs.push(measurement);
    }
    order
        .into_iter()
        .filter_map(|fault| of.remove(fault).map(|runs| (fault, runs)))
        .collect()
}

/// The middle of `values`, the mean of the two middles of an even number, 0 of none; sorts them.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = values.get(half).copied().unwrap_or(0.0);
    if values.len().is_multiple_of(2) {
        let lower = half
            .checked_sub(1)
            .and_then(|at| values.get(at))
            .copied()
            .unwrap_or(upper);
        f64::midpoint(lower, upper)
    } else {
        upper
    }
}

fn milliseconds(value: f64) -> String {
    if value < 0.5 {
        "none".to_owned()
    } else if value < 10_000.0 {
        format!("{value:.0} ms")
    } else {
        format!("{:.1} s", value / 1e3)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of connections")]
fn count(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(fault: &str, trouble_ms: f64, failed: u64) -> Measurement {
        Measurement {
            fault: fault.to_owned(),
            trouble_ms,
            failed,
            tried: 500,
        }
    }

    #[test]
    fn the_page_has_a_row_per_fault_in_the_order_of_measurement() {
        let page = page(
            &[
                measured("power off", 300.0, 30),
                measured("SIGTERM", 0.0, 0),
                measured("power off", 400.0, 40),
                measured("power off", 350.0, 35),
            ],
            "a machine",
        );
        let rows: Vec<&str> = page
            .lines()
            .filter(|line| line.contains("of 500"))
            .collect();
        assert_eq!(
            rows,
            [
                "| power off | 3 | 350 ms | 400 ms | 35 of 500 | 40 |",
                "| SIGTERM | 1 | none | none | 0 of 500 | 0 |"
            ]
        );
    }

    #[test]
    fn the_page_says_what_it_measures_and_what_stands_beside_it() {
        let page = page(&[measured("power off", 300.0, 30)], "a machine of its own");
        for words in [
            "a machine of its own",
            "every 10 ms",
            "added up",
            "5.3 to 5.4 s",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
    }

    #[test]
    fn a_fault_that_was_made_too_seldom_is_missing() {
        let seen = [
            measured("power off", 300.0, 30),
            measured("drain", 0.0, 0),
            measured("drain", 0.0, 0),
        ];
        assert!(missing(&seen, &["drain"], 2).is_empty());
        assert_eq!(
            missing(&seen, &["power off", "drain", "upgrade"], 2),
            ["power off", "upgrade"]
        );
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middles() {
        assert!((median(&mut [4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < f64::EPSILON);
        assert!((median(&mut [7.0]) - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_appended_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("figures");
        let one = measured("drain", 12.5, 1);
        append(&file, &one).unwrap();
        append(&file, &one).unwrap();
        assert_eq!(read(&file).unwrap(), [one.clone(), one]);
    }
}
