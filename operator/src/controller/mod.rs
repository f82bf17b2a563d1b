//! `controller`: addresses, statuses, conditions and events.

use crate::process::Context;

/// Settings of the controller.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs until `context.shutdown` is cancelled.
pub(crate) async fn run(_args: Args, context: Context) -> anyhow::Result<()> {
    let version = context.client.apiserver_version().await?;
    tracing::info!(
        namespace = context.namespace,
        kubernetes = version.git_version,
        "controller"
    );
    context.shutdown.cancelled().await;
    Ok(())
}
