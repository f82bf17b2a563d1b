//! `serve`: the tasks of the process and their orderly end.
//!
//! ```text
//! signal ─▶ not ready ─▶ (drain delay) ─▶ no new connections ─▶ requests at work end ─▶ exit 0
//! ```

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use kube::Client;
use openelb_process::{Pulses, Readiness, State, Watches, admin, telemetry::Log};
use rustls::server::ResolvesServerCert;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use crate::{
    admit::Admission,
    args::Serve,
    certs::{directory::Directory, keeper::Keeper, resolver::ServingCert, store::Store},
    metrics::Metrics,
    server::{Limits, connection::Shared, listener, routes::router, tls},
    view::{self, Known},
};

/// Serves until a signal to stop.
pub async fn serve(args: &Serve, client: Client, log: Log) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    let pulses = Pulses::default();
    let limits = Limits::default();
    let serving = Arc::new(ServingCert::default());
    let (stop, closing) = (CancellationToken::new(), CancellationToken::new());
    let leaving = Arc::new(AtomicBool::new(false));
    let tasks = TaskTracker::new();

    let every = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let address = SocketAddr::new(args.bind_address.unwrap_or(every), args.webhook_port);
    let https = admin::bind(address).await;
    let https = https.with_context(|| format!("cannot listen on port {}", args.webhook_port))?;
    info!(address = %https.local_addr()?, "listening");

    let known = Known::default();
    let view = view::run(
        client.clone(),
        known.clone(),
        metrics.clone(),
        pulses.of_loop("the view of the cluster"),
        stop.clone(),
    );
    tasks.spawn(view);
    let admission = Arc::new(Admission {
        known: known.clone(),
        inject: args.default_eip_injection,
        address_writers: args.address_writers(),
    });
    if let Some(path) = &args.cert_dir {
        let directory = Directory::new(path, Arc::clone(&serving), metrics.clone());
        let work = directory.run(stop.clone());
        tasks.spawn(pulses.of_task("the reader of the certificate", work));
    } else {
        let place = &args.place;
        let store = Store::new(
            &client,
            &place.namespace,
            &place.secret_name,
            &place.webhook_name,
        );
        let config = args.certificates();
        let keeper = Keeper::new(store, config, Arc::clone(&serving), metrics.clone());
        let work = keeper.run(stop.clone());
        tasks.spawn(pulses.of_task("the keeper of certificates", work));
    }

    let state = State::default();
    state.add("webhook", {
        let (known, serving, metrics) = (known.clone(), Arc::clone(&serving), metrics.clone());
        move || told(&known, &serving, &metrics)
    });
    let readiness = readiness(&known, &serving, &leaving, &metrics.watches);
    let server_gate = readiness.gate("the HTTPS server");
    let guard = args.scrape.guard(&client, &stop)?;
    let health = admin::health(pulses.clone(), readiness.clone());
    let numbers = admin::metrics(metrics.process.clone(), guard.gatekeeper)
        .merge(admin::debug(log, state, readiness));
    let ports = [
        (args.health_addr, health, None),
        (args.metrics_addr, numbers, guard.tls),
    ];
    for (address, router, tls) in ports {
        let Some(address) = address else { continue };
        let listener = admin::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        tasks.spawn(admin::run(listener, router, tls, stop.clone()));
    }

    let resolver: Arc<dyn ResolvesServerCert> = serving;
    let shared = Shared {
        router: router(admission, limits, metrics.clone()),
        acceptor: TlsAcceptor::from(Arc::new(tls::config(resolver)?)),
        limits,
        metrics,
        closing: closing.clone(),
    };
    server_gate.open();
    let server = tasks.spawn(async move {
        listener::run(https, shared).await;
        server_gate.shut("it has ended");
    });

    stopped().await?;
    info!("leaving");
    leaving.store(true, Ordering::Relaxed);
    tokio::select! {
        () = tokio::time::sleep(args.drain_delay) => {}
        // Twice means now.
        stopped = stopped() => stopped?,
    }
    closing.cancel();
    if let Err(error) = server.await {
        error!(%error, "the server ended badly");
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    info!("done");
    Ok(())
}

/// How long a watch may be interrupted before others had better answer in this replica's place. Longer than an API
/// server is usually away: then nobody asks, and all are to be there when it is back.
const STALE: Duration = Duration::from_mins(5);

/// What must be so for reviews to be sent here.
fn readiness(
    known: &Known,
    serving: &Arc<ServingCert>,
    leaving: &Arc<AtomicBool>,
    watches: &Watches,
) -> Readiness {
    let readiness = Readiness::default();
    let leaving = Arc::clone(leaving);
    readiness.check("time to serve", move || {
        let leaves = leaving.load(Ordering::Relaxed);
        (!leaves)
            .then_some(())
            .ok_or_else(|| "shutting down".to_owned())
    });
    let serving = Arc::clone(serving);
    readiness.check("certificate", move || {
        let valid = serving.is_valid(Timestamp::now());
        let why = || "there is no valid serving certificate yet".to_owned();
        valid.then_some(()).ok_or_else(why)
    });
    let known = known.clone();
    readiness.check("the cluster", move || {
        let why = || "Eips, their addresses, peers and nodes are not known yet".to_owned();
        known.is_loaded().then_some(()).ok_or_else(why)
    });
    let watches = watches.clone();
    readiness.check("watches", move || match watches.stalest() {
        Some((kind, stale)) if stale > STALE => Err(format!(
            "the watch of {kind} has been interrupted for {} s",
            stale.as_secs()
        )),
        _ => Ok(()),
    });
    readiness
}

/// What `/debug/state` tells.
fn told(known: &Known, serving: &ServingCert, metrics: &Metrics) -> Value {
    let certificate = serving.get().map(|served| {
        json!({
            "notBefore": served.not_before.to_string(),
            "notAfter": served.not_after.to_string(),
        })
    });
    json!({
        "objects": known.view().len(),
        "loaded": known.is_loaded(),
        "certificate": certificate,
        "connections": metrics.connections.get(),
    })
}

/// SIGTERM or SIGINT.
async fn stopped() -> io::Result<()> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
