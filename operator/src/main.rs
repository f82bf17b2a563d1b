//! `openelb-operator`: the controller (addresses and statuses) and the speaker (announcements).
//!
//! `controller` runs as a Deployment, `speaker` as a `DaemonSet`, and `all` runs both in one process
//! for a small cluster. This file parses, builds and runs; what a process does lives in
//! [`controller`] and [`speaker`], what every process has in [`process`].

mod announce;
mod controller;
mod peering;
mod picture;
mod prepare;
mod process;
mod speaker;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use futures::future::LocalBoxFuture;
use openelb_process::telemetry::Identity;
use openelb_process::{Metrics, Watches, version};
use process::{CommonArgs, Context};

/// Load-balancer addresses for bare-metal Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "openelb-operator", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Allocate addresses and keep statuses, conditions and events.
    Controller(controller::Args),
    /// Announce addresses from this node.
    Speaker(speaker::Args),
    /// Run controller and speaker in one process.
    All(AllArgs),
    /// Make a cluster ready for an installation or an upgrade; what the chart runs first.
    Prepare(prepare::Args),
    /// Print the version as JSON.
    Version,
    /// Print every metric that a process has, as `/metrics` shows it; what the reference is made from.
    #[command(hide = true)]
    Metrics {
        /// The process.
        #[arg(value_enum)]
        process: Process,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Process {
    Controller,
    Speaker,
}

impl Process {
    fn metrics(self) -> Result<String, std::fmt::Error> {
        let metrics = Metrics::new();
        Watches::register(&metrics).begin("Eip");
        match self {
            Self::Controller => controller::example(&metrics),
            Self::Speaker => speaker::example(&metrics),
        }
        metrics.text()
    }
}

#[derive(Debug, Args)]
struct AllArgs {
    #[command(flatten)]
    controller: controller::Args,
    #[command(flatten)]
    speaker: speaker::Args,
}

/// The port of `/metrics`, `/healthz` and `/readyz` where nothing else is asked for, as OpenELB's.
const CONTROLLER_PORT: u16 = 50052;
const SPEAKER_PORT: u16 = 50053;

fn main() -> ExitCode {
    let Cli { common, command } = Cli::parse();
    let result = match command {
        Command::Version => {
            println!("{}", version::json());
            return ExitCode::SUCCESS;
        }
        Command::Metrics { process } => process
            .metrics()
            .map(|text| print!("{text}"))
            .map_err(Into::into),
        Command::Controller(args) => {
            let identity = named("controller", None);
            let work = |context| -> LocalBoxFuture<_> { Box::pin(controller::run(args, context)) };
            process::run(common, &identity, CONTROLLER_PORT, work)
        }
        Command::Speaker(args) => {
            let identity = named("speaker", args.node().ok());
            let work = |context| -> LocalBoxFuture<_> { Box::pin(speaker::run(args, context)) };
            process::run(common, &identity, SPEAKER_PORT, work)
        }
        Command::Prepare(args) => {
            let identity = named("prepare", None);
            let work = |context| -> LocalBoxFuture<_> { Box::pin(prepare::run(args, context)) };
            process::run(common, &identity, CONTROLLER_PORT, work)
        }
        Command::All(args) => {
            let identity = named("all", args.speaker.node().ok());
            let work = |context| -> LocalBoxFuture<_> { Box::pin(run_all(args, context)) };
            process::run(common, &identity, CONTROLLER_PORT, work)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("openelb-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Who writes the log: a process on a node, in a pod.
fn named(process: &str, node: Option<String>) -> Identity {
    Identity::process(process)
        .and("node", node)
        .from_environment()
}

/// Runs both; the first that ends, well or not, takes the other down with it.
async fn run_all(args: AllArgs, context: Context) -> anyhow::Result<()> {
    let stop = context.shutdown.clone();
    let ended = |result| {
        stop.cancel();
        result
    };
    let (controller, speaker) = futures::join!(
        async { ended(controller::run(args.controller, context.clone()).await) },
        async { ended(speaker::run(args.speaker, context.clone()).await) },
    );
    controller.and(speaker)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn every_command_can_be_asked_for_its_flags() {
        // Looks at every subcommand, as a debug build does when one is used.
        Cli::command().debug_assert();
    }
}
