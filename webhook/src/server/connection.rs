//! One connection: handshake, requests, end.
//!
//! The HTTP library bounds the parts of a request; what it leaves open (a connection that says
//! nothing, or half of a preface) is closed by a watch on activity.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use http::Request;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::limits::Limits;
use crate::metrics::Metrics;

/// After a polite end was asked for, connections are dropped when this has passed as well.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What all connections share.
#[derive(Clone)]
pub struct Shared {
    /// Answers requests.
    pub router: Router,
    /// TLS.
    pub acceptor: TlsAcceptor,
    /// Bounds.
    pub limits: Limits,
    /// Counters.
    pub metrics: Metrics,
    /// No new requests.
    pub closing: CancellationToken,
}

/// When a connection last had a request at work.
#[derive(Default)]
struct Activity {
    at_work: AtomicUsize,
    requests: AtomicU64,
}

/// A request at work; counted until dropped.
struct AtWork(Arc<Activity>);

impl AtWork {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.at_work.fetch_add(1, Ordering::Relaxed);
        activity.requests.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::Relaxed);
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }
}

/// Serves one connection to its end; `scarce` says whether connections are running out.
pub async fn serve(stream: TcpStream, shared: Shared, scarce: impl Fn() -> bool) {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let limits = shared.limits;
    let handshake = tokio::time::timeout(limits.handshake, shared.acceptor.accept(stream));
    let stream = tokio::select! {
        () = shared.closing.cancelled() => return,
        stream = handshake => stream,
    };
    let Ok(Ok(stream)) = stream else {
        shared.metrics.refuse("tls");
        return;
    };
    let activity = Arc::new(Activity::default());
    let router = shared.router;
    let counted = Arc::clone(&activity);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let at_work = AtWork::begin(&counted);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answer.await;
            drop(at_work);
            answer
        }
    });
    let builder = builder(&limits);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let reason = tokio::select! {
        _ = connection.as_mut() => return,
        () = shared.closing.cancelled() => None,
        () = idle(&activity, &limits, scarce) => Some("idle"),
    };
    if let Some(reason) = reason {
        shared.metrics.refuse(reason);
    }
    connection.as_mut().graceful_shutdown();
    let patience = if reason.is_some() {
        LAST_WORDS
    } else {
        limits.drain
    };
    let _ = tokio::time::timeout(patience, connection).await;
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head.max(limits.idle))
        .max_buf_size(64 << 10)
        .max_headers(64);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(16 << 10)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(100)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Ends when no request has been at work for too long. Until the first request that is the time
/// for a head, so a client that never says anything is gone soon.
async fn idle(activity: &Activity, limits: &Limits, scarce: impl Fn() -> bool) {
    let mut seen = 0;
    let mut since = Instant::now();
    loop {
        let requests = activity.requests.load(Ordering::Relaxed);
        if requests != seen || activity.at_work.load(Ordering::Relaxed) > 0 {
            seen = requests;
            since = Instant::now();
        }
        let patience = match (seen, scarce()) {
            (0, _) => limits.head,
            (_, true) => limits.idle_when_scarce,
            (_, false) => limits.idle,
        };
        if since.elapsed() >= patience {
            return;
        }
        // Scarcity may come at any time, so look again before the long patience ends.
        let look = (since + patience).min(Instant::now() + limits.idle_when_scarce);
        sleep_until(look).await;
    }
}
