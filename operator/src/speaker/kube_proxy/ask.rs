//! Asks kube-proxy, and the kernel for how long the machine has run.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;

use super::Answer;
use super::progress::Reading;

/// How long an answer may take; it comes from the same machine.
const TIMEOUT: Duration = Duration::from_millis(500);
/// More than kube-proxy ever has to tell.
const MOST: usize = 8 << 20;

/// Reads kube-proxy's metrics.
pub(super) async fn ask(address: SocketAddr) -> Answer {
    tokio::time::timeout(TIMEOUT, read(address))
        .await
        .unwrap_or(Answer::Silent)
}

async fn read(address: SocketAddr) -> Answer {
    let Ok(uri) = format!("http://{address}/metrics").parse() else {
        return Answer::Strange;
    };
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let Ok(response) = client.get(uri).await else {
        return Answer::Silent;
    };
    let Ok(body) = to_bytes(Body::new(response.into_body()), MOST).await else {
        return Answer::Strange;
    };
    let reading = Reading::parse(&String::from_utf8_lossy(&body), Timestamp::now());
    reading.map_or(Answer::Strange, Answer::Told)
}

/// How long the machine has run; `None` where the kernel does not say.
pub(super) fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}
