//! Logs to standard error, as text for people or JSON for machines.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

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

type Reload = dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync;

/// What is logged, which can be changed while the process runs. Clones change the same.
#[derive(Clone)]
pub(crate) struct Log {
    filter: Arc<Mutex<String>>,
    reload: Arc<Reload>,
}

impl Log {
    fn new(
        filter: &str,
        reload: impl Fn(EnvFilter) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            filter: Arc::new(Mutex::new(filter.to_owned())),
            reload: Arc::new(reload),
        }
    }

    /// The filter in force.
    pub(crate) fn filter(&self) -> String {
        let filter = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        filter.clone()
    }

    /// Puts another filter in force.
    ///
    /// # Errors
    /// It cannot be read; the one before stays.
    pub(crate) fn set(&self, text: &str) -> Result<(), String> {
        let text = text.trim();
        let filter = EnvFilter::try_new(text).map_err(|error| error.to_string())?;
        (self.reload)(filter)?;
        text.clone_into(&mut self.filter.lock().unwrap_or_else(PoisonError::into_inner));
        tracing::info!(filter = text, "what is logged was changed");
        Ok(())
    }
}

/// Installs the process's subscriber; an unreadable filter is an error, not a silent default.
pub(crate) fn init(text: &str, format: Format) -> anyhow::Result<Log> {
    let filter = EnvFilter::try_new(text).with_context(|| {
        format!("--log {text}: expected a level or a filter such as info,kube=warn")
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are for people at a terminal; in a pod's log they are noise.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let (log, installed) = match format {
        Format::Text => {
            let lines = lines.with_filter_reloading();
            let handle = lines.reload_handle();
            let reload = move |filter| handle.reload(filter).map_err(|error| error.to_string());
            (Log::new(text, reload), lines.try_init())
        }
        Format::Json => {
            let lines = lines.json().with_filter_reloading();
            let handle = lines.reload_handle();
            let reload = move |filter| handle.reload(filter).map_err(|error| error.to_string());
            (Log::new(text, reload), lines.try_init())
        }
    };
    installed.map_err(|error| anyhow::anyhow!("cannot install the log writer: {error}"))?;
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_changes_nothing() {
        let log = Log::new("info", |_| Ok(()));
        assert!(log.set("openelb=loudly").is_err());
        assert_eq!(log.filter(), "info");
        log.set("info,openelb_bgp=debug\n").unwrap();
        assert_eq!(log.filter(), "info,openelb_bgp=debug");
    }
}
