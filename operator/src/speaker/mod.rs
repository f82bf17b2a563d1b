//! `speaker`: announces addresses from this node.

use crate::process::Context;

/// Settings of the speaker.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// This node's name.
    #[arg(long, env = "NODE_NAME")]
    node_name: Option<String>,
}

/// Runs until `context.shutdown` is cancelled.
pub(crate) async fn run(args: Args, context: Context) -> anyhow::Result<()> {
    let gate = context.readiness.gate("speaker");
    tracing::info!(node = args.node_name, "speaker");
    gate.open();
    context.shutdown.cancelled().await;
    Ok(())
}
