//! What every process of the operator has: a client, an orderly end, and what [`openelb_process`] gives.
//!
//! [`run`] owns the runtime. It hands a [`Context`] to the work, cancels `Context::shutdown` on the
//! first SIGTERM or SIGINT, and returns when the work has ended. A second signal ends the process at
//! once.

mod client;
mod signals;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::LocalBoxFuture;
use kube::config::{KubeConfigOptions, Kubeconfig};
use openelb_process::telemetry::{self, Identity};
use openelb_process::{Metrics, Pulses, Readiness, State, Watches, admin};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The work is waiting for others; more threads than this would only take memory on a large machine.
const MOST_THREADS: usize = 4;

/// Where to listen, if anywhere. A name of its own, because clap takes a plain `Option` for a flag that may be absent.
type Listen = Option<SocketAddr>;

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
    #[arg(long, global = true, value_parser = admin::listen_address)]
    metrics_addr: Option<Listen>,
    /// Who may scrape.
    #[command(flatten)]
    scrape: admin::ScrapeArgs,
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
    /// What `/healthz` looks at.
    pub(crate) pulses: Pulses,
    /// How old what is known of the cluster may be.
    pub(crate) watches: Watches,
    /// Where metrics are registered; the names get the prefix `openelb_`.
    pub(crate) metrics: Metrics,
    /// What `/debug/state` tells.
    pub(crate) state: State,
}

/// Runs `work` to its end on a runtime of its own.
pub(crate) fn run<F>(
    args: CommonArgs,
    identity: &Identity,
    default_port: u16,
    work: F,
) -> anyhow::Result<()>
where
    F: FnOnce(Context) -> LocalBoxFuture<'static, anyhow::Result<()>>,
{
    let log = telemetry::init(&args.log, args.log_format, identity)?;
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
        let every = SocketAddr::from(([0u16; 8], default_port));
        let address = args.metrics_addr.unwrap_or(Some(every));
        let shutdown = CancellationToken::new();
        signals::cancel_on_signal(shutdown.clone())?;
        let metrics = Metrics::new();
        let context = Context {
            client: client(args.kubeconfig).await?,
            namespace: args.namespace,
            shutdown: shutdown.clone(),
            readiness: Readiness::default(),
            pulses: Pulses::default(),
            watches: Watches::register(&metrics),
            metrics,
            state: State::default(),
        };
        let guard = args.scrape.guard(&context.client, &shutdown)?;
        let admin = match address {
            Some(address) => Some(serve(address, &context, guard, log).await?),
            None => None,
        };
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

/// Starts the server of all pages; it ends when `Context::shutdown` is cancelled.
async fn serve(
    address: SocketAddr,
    context: &Context,
    guard: admin::Guard,
    log: telemetry::Log,
) -> anyhow::Result<JoinHandle<()>> {
    let listener = admin::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for /metrics (choose another --metrics-addr)")
    })?;
    let Context {
        metrics,
        pulses,
        readiness,
        state,
        shutdown,
        ..
    } = context.clone();
    let pages = admin::health(pulses, readiness.clone())
        .merge(admin::metrics(metrics, guard.gatekeeper))
        .merge(admin::debug(log, state, readiness));
    Ok(tokio::spawn(admin::run(
        listener, pages, guard.tls, shutdown,
    )))
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
