//! `hack test`: every tier in turn, then one line for each.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

use crate::command::say;
use crate::tally::Tally;
use crate::tier::{Outcome, Tier};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tiers to run; all of them when none is named.
    #[arg(value_enum)]
    tiers: Vec<Tier>,
    /// Leave the world of each test running, and print how to enter it.
    #[arg(long)]
    keep: bool,
    /// Stop after the first tier that fails.
    #[arg(long)]
    fail_fast: bool,
    /// Arguments for the test programs (a name to filter by, `--nocapture`).
    #[arg(last = true)]
    filter: Vec<String>,
}

struct Line {
    tier: Tier,
    took: Duration,
    outcome: Result<Outcome>,
}

impl Line {
    fn failed(&self) -> bool {
        match &self.outcome {
            Ok(Outcome::Ran(tally)) => tally.failed > 0,
            Ok(Outcome::Skipped(_)) => false,
            Err(_) => true,
        }
    }

    fn print(&self) {
        let name = self.tier.name();
        let seconds = self.took.as_secs_f32();
        match &self.outcome {
            Ok(Outcome::Ran(tally)) => {
                let verdict = if tally.failed == 0 { "ok" } else { "FAILED" };
                let Tally {
                    passed,
                    failed,
                    skipped,
                } = tally;
                println!(
                    "{name:<8} {verdict:<8} {passed:>5} passed {failed:>3} failed {skipped:>3} skipped  {seconds:>7.1} s"
                );
            }
            Ok(Outcome::Skipped(why)) => println!("{name:<8} skipped  {why}"),
            Err(error) => println!("{name:<8} FAILED   {error:#}  ({seconds:.1} s)"),
        }
    }
}

/// Runs the tiers and prints the summary.
///
/// A tier that cannot run is a line of the summary and a failing exit code, never the end of the others.
pub(crate) fn run(args: &Args) -> ExitCode {
    let tiers = if args.tiers.is_empty() {
        Tier::value_variants().to_vec()
    } else {
        args.tiers.clone()
    };
    let mut lines = Vec::new();
    for tier in tiers {
        say(&format!("tier {}", tier.name()));
        let started = Instant::now();
        let outcome = tier.run(&args.filter, args.keep);
        let line = Line {
            tier,
            took: started.elapsed(),
            outcome,
        };
        line.print();
        let failed = line.failed();
        lines.push(line);
        if failed && args.fail_fast {
            break;
        }
    }
    summarise(&lines)
}

fn summarise(lines: &[Line]) -> ExitCode {
    println!();
    let mut total = Tally::default();
    for line in lines {
        line.print();
        match &line.outcome {
            Ok(Outcome::Ran(tally)) => total += *tally,
            Ok(Outcome::Skipped(_)) => total.skipped += 1,
            Err(_) => total.failed += 1,
        }
    }
    println!(
        "total: {} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    if lines.iter().any(Line::failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
