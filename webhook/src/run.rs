//! `serve`: the tasks of the process and their orderly end.
//!
//! ```text
//! signal ─▶ not ready ─▶ (drain delay) ─▶ no new connections ─▶ requests at work end ─▶ exit 0
//! ```

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use jiff::Timestamp;
use kube::Client;
use rustls::server::ResolvesServerCert;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use crate::{
    admit::Admission,
    args::Serve,
    certs::{directory::Directory, keeper::Keeper, resolver::ServingCert, store::Store},
    metrics::Metrics,
    server::{Limits, admin, connection::Shared, listener, routes::router, tls},
    view::{self, Known},
};

/// Serves until a signal to stop.
pub async fn serve(args: &Serve, client: Client) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    let limits = Limits::default();
    let serving = Arc::new(ServingCert::default());
    let (stop, closing) = (CancellationToken::new(), CancellationToken::new());
    let leaving = Arc::new(AtomicBool::new(false));
    let tasks = TaskTracker::new();

    let https = match args.bind_address {
        Some(address) => TcpListener::bind((address, args.webhook_port)).await,
        None => bind_all(args.webhook_port).await,
    };
    let https = https.with_context(|| format!("cannot listen on port {}", args.webhook_port))?;
    info!(address = %https.local_addr()?, "listening");

    let known = Known::default();
    tasks.spawn(view::run(
        client.clone(),
        known.clone(),
        metrics.clone(),
        stop.clone(),
    ));
    let admission = Arc::new(Admission {
        known: known.clone(),
        inject: args.default_eip_injection,
        address_writers: args.address_writers(),
    });
    if let Some(path) = &args.cert_dir {
        let directory = Directory::new(path, Arc::clone(&serving), metrics.clone());
        tasks.spawn(directory.run(stop.clone()));
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
        tasks.spawn(keeper.run(stop.clone()));
    }

    let ready: admin::Ready = {
        let (serving, leaving) = (Arc::clone(&serving), Arc::clone(&leaving));
        Arc::new(move || {
            if leaving.load(Ordering::Relaxed) {
                Err("shutting down".to_owned())
            } else if !serving.is_valid(Timestamp::now()) {
                Err("there is no valid serving certificate yet".to_owned())
            } else if !known.is_loaded() {
                Err("Eips, their addresses, peers and nodes are not known yet".to_owned())
            } else {
                Ok(())
            }
        })
    };
    let ports = [
        (args.health_addr, admin::health(ready)),
        (args.metrics_addr, admin::metrics(metrics.clone())),
    ];
    for (address, router) in ports {
        let Some(address) = address else { continue };
        let listener = bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        tasks.spawn(admin::run(listener, router, stop.clone()));
    }

    let resolver: Arc<dyn ResolvesServerCert> = serving;
    let shared = Shared {
        router: router(admission, limits, metrics.clone()),
        acceptor: TlsAcceptor::from(Arc::new(tls::config(resolver)?)),
        limits,
        metrics,
        closing: closing.clone(),
    };
    let server = tasks.spawn(listener::run(https, shared));

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

async fn bind_all(port: u16) -> io::Result<TcpListener> {
    bind((Ipv6Addr::UNSPECIFIED, port).into()).await
}

/// Binds; where the host has no IPv6, "every address" means every IPv4 address.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && no_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(97)
}
