//! Logs to standard error, as text for people or JSON for machines.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// The form of a log line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// One readable line per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// Installs the process's subscriber; an unreadable filter is an error, not a silent default.
pub(crate) fn init(filter: &str, format: Format) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("--log {filter}: expected a level or a filter such as info,kube=warn")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().try_init(),
    }
    .map_err(|error| anyhow::anyhow!("cannot install the log writer: {error}"))
}
