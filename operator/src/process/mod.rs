//! What every process of the operator has: logs, a client, metrics, health, an orderly end.
//!
//! [`run`] owns the runtime. It hands a [`Context`] to the work, cancels `Context::shutdown` on the
//! first SIGTERM or SIGINT, and returns when the work has ended. A second signal ends the process at
//! once.

pub(crate) mod admin;
mod client;
mod readiness;
mod signals;
mod state;
mod telemetry;
pub(crate) mod version;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::LocalBoxFuture;
use kube::config::{KubeConfigOptions, Kubeconfig};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
pub(crate) use readiness::{Gate, Readiness};
pub(crate) use state::State;
use tokio_util::sync::CancellationToken;

/// The work is waiting for others; more threads than this would only take memory on a large machine.
const MOST_THREADS: usize = 4;

/// Settings that all processes share.
#[derive(Debug, clap::Args)]
pub(crate) struct CommonArgs {
    /// Path of a kubeconfig; without it the in-cluster account or $KUBECONFIG is used.
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    /// The namespace openelb-rs runs in: its Lease, Secrets and ConfigMaps are there.
    #[arg(
        long,
        global = true,
        env = "OPENELB_NAMESPACE",
        default_value = "openelb-system"
    )]
    namespace: String,
    /// Address of /metrics, /healthz and /readyz (`:PORT`, `HOST:PORT`, or `0` for none)
    /// [default: :50052 for the controller, :50053 for the speaker].
    #[arg(long, global = true)]
    metrics_addr: Option<String>,
    /// What to log: a level or a filter such as `info,openelb_bgp=debug`.
    #[arg(
        long,
        global = true,
        visible_alias = "log-level",
        env = "OPENELB_LOG",
        default_value = "info"
    )]
    log: String,
    /// How to log.
    #[arg(long, global = true, env = "OPENELB_LOG_FORMAT", value_enum, default_value_t = telemetry::Format::Text)]
    log_format: telemetry::Format,
}

/// What the work of a process is given. Clones share everything.
#[derive(Clone)]
pub(crate) struct Context {
    /// A client for the cluster's API.
    pub(crate) client: kube::Client,
    /// The namespace openelb-rs runs in.
    pub(crate) namespace: String,
    /// Cancelled when the process shall end; the work then finishes in its own order and returns.
    pub(crate) shutdown: CancellationToken,
    /// What `/readyz` waits for.
    pub(crate) readiness: Readiness,
    /// Where metrics are registered; the names get the prefix `openelb_`.
    pub(crate) metrics: Metrics,
    /// What `/debug/state` tells.
    pub(crate) state: State,
}

/// The process's metrics.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// Those of every process: which build it is.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("openelb");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The build that runs", build);
        Self(Arc::new(Mutex::new(registry)))
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// A metric cannot be written.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        self.with(|registry| encode(&mut text, registry))?;
        Ok(text)
    }

    /// Registers metrics, or reads what is registered.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Registry) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs `work` to its end on a runtime of its own.
pub(crate) fn run<F>(args: CommonArgs, default_port: u16, work: F) -> anyhow::Result<()>
where
    F: FnOnce(Context) -> LocalBoxFuture<'static, anyhow::Result<()>>,
{
    let log = telemetry::init(&args.log, args.log_format)?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| {
            anyhow::anyhow!("another TLS provider is already installed in this process")
        })?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.min(MOST_THREADS))
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let result = runtime.block_on(async {
        let address = admin::parse_address(args.metrics_addr.as_deref(), default_port)?;
        let shutdown = CancellationToken::new();
        signals::cancel_on_signal(shutdown.clone())?;
        let context = Context {
            client: client(args.kubeconfig).await?,
            namespace: args.namespace,
            shutdown: shutdown.clone(),
            readiness: Readiness::default(),
            metrics: Metrics::new(),
            state: State::default(),
        };
        let admin = admin::serve(address, &context, log).await?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
        let result = work(context).await;
        shutdown.cancel();
        if let Some(admin) = admin {
            // The admin server stops by itself on shutdown; its own failure changes nothing now.
            drop(admin.await);
        }
        result
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn client(kubeconfig: Option<PathBuf>) -> anyhow::Result<kube::Client> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(&path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await.context(
            "found no way to reach the cluster: neither an in-cluster account nor a kubeconfig",
        )?,
    };
    client::connect(config)
}
