//! The commands by which people work on openelb-rs. The scripts beside it (`hack/test`, `hack/bench`, …) are thin doors
//! to this program; every command says what it does while it does it, and is safe to run twice.

mod ahead;
mod archive;
mod bench;
mod command;
mod crowd;
mod docs;
mod image;
mod manifests;
mod prerequisites;
mod providers;
mod quickstart;
mod release;
mod sbom;
mod tally;
mod test;
mod tier;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "hack",
    about = "Work on openelb-rs: run the tests, run the benchmarks, build the images."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every test tier, or the ones named, and print a summary line per tier.
    Test(test::Args),
    /// Run a benchmark against its yardstick and print a table.
    Bench(bench::Args),
    /// Build the container images, without a daemon.
    Image(image::Args),
    /// Write `deploy/openelb.yaml` and the bases in `config/` from the chart.
    Manifests(manifests::Args),
    /// Write the pages of the reference that are made from the programs.
    Docs(docs::Args),
    /// Make everything that a site needs: chart, manifest, images, bills of materials, checksums, signatures.
    Release(release::Args),
    /// Show the load balancer at work, on a Kubernetes of three nodes inside this machine.
    Quickstart(quickstart::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Test(args) => Ok(test::run(&args)),
        Command::Bench(args) => bench::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Manifests(args) => manifests::run(&args),
        Command::Docs(args) => docs::run(&args),
        Command::Release(args) => release::run(&args),
        Command::Quickstart(args) => quickstart::run(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hack: {error:#}");
            ExitCode::FAILURE
        }
    }
}
