//! `/metrics`, `/healthz` and `/readyz` over plain HTTP, and for this machine only `/debug/state` (what the process holds,
//! as JSON) and `/debug/log` (GET tells what is logged, PUT changes it until the process ends).
//!
//! `/healthz` says that the process runs and its runtime answers; it never depends on the API server,
//! because restarting a speaker cannot heal an API server. `/readyz` names what is still missing.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Context;
use super::telemetry::Log;

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
    log: Log,
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
        .merge(debug(log))
        .with_state(context.clone())
        .into_make_service_with_connect_info::<SocketAddr>();
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

/// What only this machine may ask.
fn debug(log: Log) -> Router<Context> {
    let told = log.clone();
    let filter = async move || told.filter() + "\n";
    let change = async move |text: String| match log.set(&text) {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(why) => (StatusCode::BAD_REQUEST, format!("{text:?}: {why}\n")),
    };
    Router::new()
        .route("/debug/state", get(state))
        .route("/debug/log", get(filter).put(change))
        .layer(from_fn(only_from_here))
}

async fn only_from_here(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if peer.ip().to_canonical().is_loopback() {
        next.run(request).await
    } else {
        let why = "only for this machine: use kubectl port-forward\n";
        (StatusCode::FORBIDDEN, why).into_response()
    }
}

async fn state(State(context): State<Context>) -> Json<Value> {
    let mut state = context.state.tell();
    state.insert("ready".to_owned(), json!(context.readiness.gates()));
    state.insert("version".to_owned(), super::version::value());
    Json(Value::Object(state))
}

async fn metrics(State(context): State<Context>) -> impl IntoResponse {
    let (status, text) = match context.metrics.text() {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
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
