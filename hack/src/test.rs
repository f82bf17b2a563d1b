//! `hack test`: every tier in turn, then one line for each.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

use crate::command::say;
use crate::tally::Tally;
use crate::tier::{self, Outcome, Tier};

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

    /// What failed, where its name is known.
    fn failures(&self) -> &[String] {
        match &self.outcome {
            Ok(Outcome::Ran(tally)) => &tally.failures,
            _ => &[],
        }
    }

    /// How many tests a filter can have chosen here; `None` where none ran, or the tier knows no filter.
    fn chosen(&self) -> Option<u64> {
        match &self.outcome {
            Ok(Outcome::Ran(tally)) if self.tier.takes_a_filter() => {
                Some(tally.passed + tally.failed + tally.skipped)
            }
            _ => None,
        }
    }

    fn text(&self) -> String {
        let name = self.tier.name();
        let seconds = self.took.as_secs_f32();
        match &self.outcome {
            Ok(Outcome::Ran(tally)) => {
                let verdict = if tally.failed == 0 { "ok" } else { "FAILED" };
                let Tally {
                    passed,
                    failed,
                    skipped,
                    ..
                } = tally;
                format!(
                    "{name:<8} {verdict:<8} {passed:>5} passed {failed:>3} failed {skipped:>3} skipped  {seconds:>7.1} s"
                )
            }
            Ok(Outcome::Skipped(why)) => format!("{name:<8} skipped  {why}"),
            Err(error) => format!("{name:<8} FAILED   {error:#}  ({seconds:.1} s)"),
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
    let _ahead = tier::build_ahead(&tiers);
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
        println!("{}", line.text());
        let failed = line.failed();
        lines.push(line);
        if failed && args.fail_fast {
            break;
        }
    }
    println!();
    for line in &lines {
        println!("{}", line.text());
    }
    println!("{}", total(&lines));
    for line in &lines {
        for name in line.failures() {
            println!("failed: {}: {name}", line.tier.name());
        }
    }
    if nothing_chosen(&lines, &args.filter) {
        println!(
            "no test of these tiers has a name with {:?} in it",
            names(&args.filter)
        );
        return ExitCode::FAILURE;
    }
    if lines.iter().any(Line::failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn total(lines: &[Line]) -> String {
    let mut total = Tally::default();
    for line in lines {
        match &line.outcome {
            Ok(Outcome::Ran(tally)) => total += tally.clone(),
            Ok(Outcome::Skipped(_)) => total.skipped += 1,
            Err(_) => total.failed += 1,
        }
    }
    format!(
        "total: {} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    )
}

/// The parts of names in a filter, without the options in it.
fn names(filter: &[String]) -> Vec<&str> {
    let names = filter.iter().map(String::as_str);
    names.filter(|word| !word.starts_with('-')).collect()
}

/// Whether names were given and none of them is a test's: a typing error, which must not look like success.
fn nothing_chosen(lines: &[Line], filter: &[String]) -> bool {
    let mut chosen = lines.iter().filter_map(Line::chosen).peekable();
    !names(filter).is_empty() && chosen.peek().is_some() && chosen.all(|count| count == 0)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn ran(tier: Tier, passed: u64, failed: u64) -> Line {
        let tally = Tally {
            passed,
            failed,
            skipped: 1,
            ..Tally::default()
        };
        line(tier, Ok(Outcome::Ran(tally)))
    }

    fn line(tier: Tier, outcome: Result<Outcome>) -> Line {
        Line {
            tier,
            took: Duration::from_millis(2500),
            outcome,
        }
    }

    #[test]
    fn a_line_says_what_ran_and_how_long_it_took() {
        assert_eq!(
            ran(Tier::Unit, 12, 0).text(),
            "unit     ok          12 passed   0 failed   1 skipped      2.5 s"
        );
        let broken = ran(Tier::Api, 3, 1);
        assert!(
            broken.failed() && broken.text().contains("FAILED"),
            "{}",
            broken.text()
        );
        let skipped = line(
            Tier::World,
            Ok(Outcome::Skipped("it needs root".to_owned())),
        );
        assert_eq!(skipped.text(), "world    skipped  it needs root");
        assert!(!skipped.failed());
        let ended = line(Tier::Lint, Err(anyhow!("no cargo")));
        assert!(ended.failed());
        assert_eq!(ended.text(), "lint     FAILED   no cargo  (2.5 s)");
    }

    #[test]
    fn the_total_counts_tests_and_tiers_that_did_not_run() {
        let lines = [
            ran(Tier::Unit, 12, 0),
            ran(Tier::Api, 3, 1),
            line(Tier::World, Ok(Outcome::Skipped("why".to_owned()))),
            line(Tier::Lint, Err(anyhow!("why"))),
        ];
        assert_eq!(total(&lines), "total: 15 passed, 2 failed, 3 skipped");
    }

    #[test]
    fn a_name_that_no_test_has_is_a_failure() {
        let nothing = || Tally::default();
        let none = |tier| line(tier, Ok(Outcome::Ran(nothing())));
        let name = ["typo".to_owned()];
        assert!(nothing_chosen(&[none(Tier::Api), none(Tier::Unit)], &name));
        assert!(nothing_chosen(
            &[ran(Tier::Lint, 4, 0), none(Tier::Api)],
            &name
        ));
        assert!(!nothing_chosen(
            &[none(Tier::Api), ran(Tier::Unit, 1, 0)],
            &name
        ));
        assert!(!nothing_chosen(
            &[none(Tier::Api)],
            &["--nocapture".to_owned()]
        ));
        assert!(!nothing_chosen(&[ran(Tier::Lint, 4, 0)], &name));
    }
}
