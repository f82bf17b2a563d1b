//! Logs to standard error, as text for people or JSON for machines.
//!
//! Every line says which process wrote it, on which node and in which pod, so that the lines of a cluster can be
//! put together and taken apart again; where something is done for one object, the object's span is in the line
//! too. The process's own identity is put into the line when it is written, and not into a span that all
//! tasks would have to inherit: a task that was started without it would be nobody's.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One readable line per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// Who writes the log: pairs such as `process` and `speaker`, in their order.
#[derive(Clone, Debug, Default)]
pub struct Identity(Vec<(&'static str, String)>);

impl Identity {
    /// A process of this name.
    #[must_use]
    pub fn process(name: &str) -> Self {
        Self(Vec::new()).and("process", Some(name.to_owned()))
    }

    /// The same, with the node and the pod that the environment names (`NODE_NAME`, `POD_NAME`).
    #[must_use]
    pub fn from_environment(self) -> Self {
        self.and("node", std::env::var("NODE_NAME").ok())
            .and("pod", std::env::var("POD_NAME").ok())
    }

    /// The same with another pair, unless it is there already or says nothing.
    #[must_use]
    pub fn and(mut self, key: &'static str, value: Option<String>) -> Self {
        let value = value.filter(|value| !value.is_empty());
        if let Some(value) = value
            && !self.0.iter().any(|(known, _)| *known == key)
        {
            self.0.push((key, value));
        }
        self
    }

    /// What is added to each line, in its form.
    fn part(&self, format: Format) -> String {
        let pairs = self.0.iter().map(|(key, value)| match format {
            Format::Text => format!(" {key}={value}"),
            Format::Json => format!("\"{key}\":{},", serde_json::Value::from(value.as_str())),
        });
        pairs.collect()
    }
}

/// Writes lines as `inner` does, and puts `part` in: at the end of a text, as the first pairs of an object.
struct Identified<F> {
    inner: F,
    part: String,
    format: Format,
}

impl<S, N, F> FormatEvent<S, N> for Identified<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.inner
            .format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        match (self.format, line.strip_prefix('{')) {
            (Format::Json, Some(rest)) => writeln!(writer, "{{{}{rest}", self.part),
            _ => writeln!(writer, "{line}{}", self.part),
        }
    }
}

type Reload = dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync;

/// What is logged, which can be changed while the process runs. Clones change the same.
#[derive(Clone)]
pub struct Log {
    filter: Arc<Mutex<String>>,
    reload: Arc<Reload>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Log").field(&self.filter()).finish()
    }
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
    #[must_use]
    pub fn filter(&self) -> String {
        let filter = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        filter.clone()
    }

    /// Puts another filter in force.
    ///
    /// # Errors
    /// It cannot be read; the one before stays.
    pub fn set(&self, text: &str) -> Result<(), String> {
        let text = text.trim();
        let filter = EnvFilter::try_new(text).map_err(|error| error.to_string())?;
        (self.reload)(filter)?;
        text.clone_into(&mut self.filter.lock().unwrap_or_else(PoisonError::into_inner));
        tracing::info!(filter = text, "what is logged was changed");
        Ok(())
    }
}

/// Installs the process's subscriber; an unreadable filter is an error, not a silent default.
///
/// # Errors
/// The filter cannot be read, or there is a subscriber already.
pub fn init(text: &str, format: Format, identity: &Identity) -> anyhow::Result<Log> {
    let filter = EnvFilter::try_new(text).with_context(|| {
        format!("--log {text}: expected a level or a filter such as info,kube=warn")
    })?;
    let part = identity.part(format);
    // Colours are for people at a terminal; in a pod's log they are noise.
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr);
    let (log, installed) = match format {
        Format::Text => {
            let lines = lines.map_event_format(|inner| Identified {
                inner: inner.with_ansi(colours),
                part,
                format,
            });
            let lines = lines.with_filter_reloading();
            let handle = lines.reload_handle();
            let reload = move |filter| handle.reload(filter).map_err(|error| error.to_string());
            (Log::new(text, reload), lines.try_init())
        }
        Format::Json => {
            let lines = lines.json().map_event_format(|inner| Identified {
                inner,
                part,
                format,
            });
            let lines = lines.with_filter_reloading();
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
    use std::io;

    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_changes_nothing() {
        let log = Log::new("info", |_| Ok(()));
        assert!(log.set("openelb=loudly").is_err());
        assert_eq!(log.filter(), "info");
        log.set("info,openelb_bgp=debug\n").unwrap();
        assert_eq!(log.filter(), "info,openelb_bgp=debug");
    }

    /// What was written.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line that one event in a Service's span makes.
    fn line(format: Format) -> String {
        let identity = Identity::process("speaker")
            .and("node", Some("n\"1".to_owned()))
            .and("pod", Some(String::new()))
            .and("node", Some("another".to_owned()));
        let part = identity.part(format);
        let page = Page::default();
        let writer = page.clone();
        let lines = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let write = || {
            let span = tracing::info_span!("plan", service = "default/web");
            span.in_scope(|| tracing::info!(eip = "lan", "served"));
        };
        match format {
            Format::Text => {
                let lines = lines.map_event_format(|inner| Identified {
                    inner,
                    part,
                    format,
                });
                tracing::subscriber::with_default(lines.finish(), write);
            }
            Format::Json => {
                let lines = lines.json().map_event_format(|inner| Identified {
                    inner,
                    part,
                    format,
                });
                tracing::subscriber::with_default(lines.finish(), write);
            }
        }
        let written = page.0.lock().unwrap().clone();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn a_line_of_text_ends_with_who_wrote_it() {
        let line = line(Format::Text);
        assert!(line.contains("plan{service=\"default/web\"}"), "{line}");
        assert!(line.contains("served eip=\"lan\""), "{line}");
        assert!(line.ends_with(" process=speaker node=n\"1\n"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn an_object_begins_with_who_wrote_it() {
        let line = line(Format::Json);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["process"], "speaker");
        assert_eq!(read["node"], "n\"1");
        assert_eq!(read.get("pod"), None);
        assert_eq!(read["span"]["service"], "default/web");
        assert_eq!(read["fields"]["eip"], "lan");
        assert!(line.ends_with("}\n"), "{line}");
    }
}
