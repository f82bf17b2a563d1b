//! The pages themselves.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::access::{Gatekeeper, Verdict};
use crate::telemetry::Log;
use crate::{Metrics, Pulses, Readiness, version};

/// `/healthz` and `/readyz`.
pub fn health(pulses: Pulses, readiness: Readiness) -> Router {
    let healthz = async move || match pulses.faults() {
        faults if faults.is_empty() => (StatusCode::OK, "ok".to_owned()),
        faults => {
            let faults = faults.join(", ");
            tracing::error!(faults, "not healthy");
            (StatusCode::INTERNAL_SERVER_ERROR, faults)
        }
    };
    let readyz = async move || match readiness.waiting_for() {
        waiting if waiting.is_empty() => (StatusCode::OK, "ok".to_owned()),
        waiting => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waiting for: {}", waiting.join(", ")),
        ),
    };
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

/// `/metrics`, for whom the gatekeeper lets in; for all where there is none.
pub fn metrics(metrics: Metrics, gatekeeper: Option<Gatekeeper>) -> Router {
    let page = async move || {
        let (status, text) = match metrics.text() {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        (status, [(header::CONTENT_TYPE, kind)], text)
    };
    let router = Router::new().route("/metrics", get(page));
    match gatekeeper {
        Some(gatekeeper) => router.layer(from_fn_with_state(gatekeeper, only_who_may)),
        None => router,
    }
}

async fn only_who_may(
    State(gatekeeper): State<Gatekeeper>,
    request: Request,
    next: Next,
) -> Response {
    let asks = [(header::WWW_AUTHENTICATE, "Bearer")];
    let Some(token) = bearer(request.headers()) else {
        let why = "a bearer token is needed\n";
        return (StatusCode::UNAUTHORIZED, asks, why).into_response();
    };
    match gatekeeper.verdict(token).await {
        Ok(Verdict::Allowed) => next.run(request).await,
        Ok(Verdict::Forbidden { user }) => {
            let why = format!("{user} may not get the non-resource URL /metrics\n");
            (StatusCode::FORBIDDEN, why).into_response()
        }
        Ok(Verdict::Unknown) => {
            let why = "the API server does not know this token\n";
            (StatusCode::UNAUTHORIZED, asks, why).into_response()
        }
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

/// The token of an `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
        .filter(|token| !token.is_empty())
}

/// `/debug/state` and `/debug/log`, which only this machine may ask. The connection's peer must be in the request's
/// `ConnectInfo`, as [`run`](super::run) puts it there.
pub fn debug(log: Log, state: crate::State, readiness: Readiness) -> Router {
    let told = log.clone();
    let filter = async move || told.filter() + "\n";
    let change = async move |text: String| match log.set(&text) {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(why) => (StatusCode::BAD_REQUEST, format!("{text:?}: {why}\n")),
    };
    let state = async move || {
        let mut state = state.tell();
        state.insert("ready".to_owned(), json!(readiness.gates()));
        state.insert("version".to_owned(), version::value());
        Json(Value::Object(state))
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

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn takes_the_token_of_a_bearer_and_nothing_else() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("Bearer ", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(bearer(&headers), token, "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
