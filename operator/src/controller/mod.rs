//! `controller`: addresses, statuses, conditions and events.
//!
//! ```text
//!  watches ──► Engine (owns the Index, decides) ──► executors (≤ 32, one Service each) ──► API
//!     ▲                    │    ▲                        │
//!     │                    │    └──── how it ended ──────┘
//!     │                    ├──► Eip views (at most one a second per Eip)
//!     └── own writes       └──► events, `Announced` conditions (bounded, paced, when addresses rest)
//! ```
//!
//! The engine is one task and owns all state; executors get a plan by value and give a conclusion
//! back. Every process keeps its index warm; only the one that holds the Lease writes. Safety does not
//! rest on that: see `openelb_ipam::ledger`.

mod announced;
mod backoff;
mod calm;
mod eips;
mod engine;
mod execute;
mod feed;
mod finalizers;
mod leader;
mod lean;
mod leftovers;
mod metrics;
mod news;
mod queue;
mod wire;

use crate::process::Context;

/// Settings of the controller.
#[derive(Debug, clap::Args)]
// Both may stand in one command line, whose groups are told apart by name.
#[group(id = "controller")]
pub(crate) struct Args {
    /// Whether to wait for the Lease `openelb-controller` before writing anything.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// How long a leader that is gone is waited for, in seconds.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=600))]
    lease_seconds: u64,
    /// This process's name in the Lease; the pod's name unless told otherwise.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// How many Services are worked on at the same time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=512))]
    workers: u16,
}

/// Registers every metric of the controller, each with a value.
pub(crate) fn example(metrics: &openelb_process::Metrics) {
    metrics::Metrics::register(metrics).example();
}

/// Runs until `context.shutdown` is cancelled.
pub(crate) async fn run(args: Args, context: Context) -> anyhow::Result<()> {
    let synced = context
        .readiness
        .gate("controller: first look at the cluster");
    let metrics = metrics::Metrics::register(&context.metrics);
    let told = metrics.clone();
    context.state.add("controller", move || told.state());
    let identity = args.identity.unwrap_or_else(leader::default_identity);
    let election = if args.leader_elect {
        leader::Election::join(&context, &identity, args.lease_seconds)
    } else {
        leader::Election::won()
    };
    let (activity, calm) = calm::channel();
    let news = news::Reporter::start(&context, &identity, calm.clone());
    let (feed, seen) = feed::start(&context);
    announced::start(&context, election.leading(), calm, seen);
    finalizers::watch_bgp(&context, election.leading());
    let engine = engine::Engine::new(
        context.clone(),
        usize::from(args.workers),
        news,
        metrics,
        activity,
    );
    engine.run(feed, election.leading(), synced).await;
    election.resign().await;
    Ok(())
}
