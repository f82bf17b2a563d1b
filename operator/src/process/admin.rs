//! `/metrics`, `/healthz` and `/readyz` over plain HTTP.
//!
//! `/healthz` says that the process runs and its runtime answers; it never depends on the API server,
//! because restarting a speaker cannot heal an API server. `/readyz` names what is still missing.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Context;

/// Reads `HOST:PORT`, Go's `:PORT` (all addresses), or `0` (`None`: no server).
pub(crate) fn parse_address(
    text: Option<&str>,
    default_port: u16,
) -> anyhow::Result<Option<SocketAddr>> {
    let all = |port| SocketAddr::from(([0u16; 8], port));
    match text {
        None => Ok(Some(all(default_port))),
        Some("0") => Ok(None),
        Some(text) => text
            .strip_prefix(':')
            .map_or_else(|| text.parse().ok(), |port| port.parse().ok().map(all))
            .map(Some)
            .with_context(|| {
                format!("--metrics-addr {text}: expected HOST:PORT, :PORT, or 0 for none")
            }),
    }
}

/// Starts the server; it ends when `Context::shutdown` is cancelled.
pub(crate) async fn serve(
    address: Option<SocketAddr>,
    context: &Context,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = match TcpListener::bind(address).await {
        // A kernel without IPv6 cannot bind [::]; 0.0.0.0 is what was meant there.
        Err(_) if address.ip().is_unspecified() && address.is_ipv6() => {
            TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], address.port()))).await
        }
        other => other,
    }
    .with_context(|| {
        format!("cannot listen on {address} for /metrics (choose another --metrics-addr)")
    })?;
    let router = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(context.clone());
    let shutdown = context.shutdown.clone();
    Ok(Some(tokio::spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the metrics server ended");
        }
    })))
}

async fn readyz(State(context): State<Context>) -> (StatusCode, String) {
    let waiting = context.readiness.waiting_for();
    if waiting.is_empty() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for: {}", waiting.join(", ")),
        )
    }
}

async fn metrics(State(context): State<Context>) -> impl IntoResponse {
    let mut text = String::new();
    let status = match context.metrics.with(|registry| encode(&mut text, registry)) {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (status, [(header::CONTENT_TYPE, kind)], text)
}

#[cfg(test)]
mod tests {
    use super::parse_address;

    #[test]
    fn reads_the_go_form_and_full_addresses() {
        let port = |text| {
            parse_address(text, 50052)
                .unwrap()
                .map(|address| address.to_string())
        };
        assert_eq!(port(None).as_deref(), Some("[::]:50052"));
        assert_eq!(port(Some(":9")).as_deref(), Some("[::]:9"));
        assert_eq!(port(Some("127.0.0.1:9")).as_deref(), Some("127.0.0.1:9"));
        assert_eq!(port(Some("0")), None);
        assert!(
            parse_address(Some("nine"), 1)
                .unwrap_err()
                .to_string()
                .contains("--metrics-addr nine")
        );
    }
}
