//! From an HTTP request to an answer.

use std::{sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::Value;
use tokio::sync::Semaphore;
use tracing::info;

use super::{
    body::{BodyError, BodyMemory},
    limits::Limits,
};
use crate::{
    metrics::{Metrics, ReviewLabels},
    review::{Answer, Phase, Request, read},
};

/// Paths of mutating webhooks. The one ending in `-svc` is OpenELB 0.5's, its name
/// notwithstanding.
const MUTATE: [&str; 7] = [
    "/mutate-network-kubesphere-io-v1alpha2-eip",
    "/mutate-network-kubesphere-io-v1alpha2-eipaddress",
    "/mutate-network-kubesphere-io-v1alpha2-bgpconf",
    "/mutate-network-kubesphere-io-v1alpha2-bgppeer",
    "/mutate--v1-service",
    "/mutate-v1-service",
    "/validate-network-kubesphere-io-v1alpha2-svc",
];

/// For Services of namespaces in which nobody is opted in.
const MUTATE_ASKED: &str = "/mutate--v1-service-asked";

/// Paths of validating webhooks.
const VALIDATE: [&str; 6] = [
    "/validate-network-kubesphere-io-v1alpha2-eip",
    "/validate-network-kubesphere-io-v1alpha2-eipaddress",
    "/validate-network-kubesphere-io-v1alpha2-bgpconf",
    "/validate-network-kubesphere-io-v1alpha2-bgppeer",
    "/validate--v1-service",
    "/validate-v1-service",
];

/// Answers reviews from memory. Which rules apply follows from the kind in the review; the path
/// only says whether to validate or to mutate.
pub trait Reviewer: Send + Sync + 'static {
    /// Whether it knows what the rules compare with. Until then no review is answered: an answer
    /// that may be wrong is worse than none, for which the failure policy stands in.
    fn is_ready(&self) -> bool;

    /// The answer, and a label for the kind.
    fn review(&self, phase: Phase, request: &Request) -> (Answer, &'static str);
}

struct Desk {
    reviewer: Arc<dyn Reviewer>,
    memory: BodyMemory,
    at_work: Semaphore,
    limits: Limits,
    metrics: Metrics,
}

/// The routes of the HTTPS port.
pub fn router(reviewer: Arc<dyn Reviewer>, limits: Limits, metrics: Metrics) -> Router {
    let desk = Arc::new(Desk {
        reviewer,
        memory: BodyMemory::new(limits.bodies, limits.body),
        at_work: Semaphore::new(limits.requests),
        limits,
        metrics,
    });
    let mut router = Router::new().route("/healthz", get(|| async { "ok" }));
    for path in MUTATE {
        router = router.route(path, post(mutate));
    }
    router = router.route(MUTATE_ASKED, post(mutate_asked));
    for path in VALIDATE {
        router = router.route(path, post(validate));
    }
    router.with_state(desk)
}

async fn mutate(State(desk): State<Arc<Desk>>, body: Body) -> Response {
    desk.serve(Phase::Mutate, body).await
}

async fn mutate_asked(State(desk): State<Arc<Desk>>, body: Body) -> Response {
    desk.serve(Phase::MutateAsked, body).await
}

async fn validate(State(desk): State<Arc<Desk>>, body: Body) -> Response {
    desk.serve(Phase::Validate, body).await
}

impl Desk {
    async fn serve(&self, phase: Phase, body: Body) -> Response {
        if !self.reviewer.is_ready() {
            self.metrics.refuse("not_ready");
            let message = "openelb-webhook does not know the cluster yet, try again";
            return (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
        }
        let time = self.limits.request;
        let turn = tokio::time::timeout(time, self.at_work.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            self.metrics.refuse("busy");
            let message = "too many reviews at a time, try again";
            return (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
        };
        match self.memory.read(body, time).await {
            Ok(held) => self.answer(phase, &held.bytes),
            Err(error) => self.refuse(error),
        }
    }

    /// From complete bytes to the answer, without waiting for anything.
    fn answer(&self, phase: Phase, bytes: &[u8]) -> Response {
        let start = Instant::now();
        match review(self.reviewer.as_ref(), phase, bytes) {
            Ok((review, labels)) => {
                self.metrics
                    .reviewed(&labels, start.elapsed().as_secs_f64());
                Json(review).into_response()
            }
            Err(error) => {
                self.metrics.refuse("no_review");
                (StatusCode::BAD_REQUEST, error.to_string()).into_response()
            }
        }
    }

    fn refuse(&self, error: BodyError) -> Response {
        let (reason, status) = match error {
            BodyError::TooLarge(_) => ("too_large", StatusCode::PAYLOAD_TOO_LARGE),
            BodyError::TooSlow(_) | BodyError::Broken => ("too_slow", StatusCode::REQUEST_TIMEOUT),
            BodyError::Busy => ("busy", StatusCode::SERVICE_UNAVAILABLE),
        };
        self.metrics.refuse(reason);
        (status, error.to_string()).into_response()
    }
}

/// From the bytes of a review to the review to send back.
pub fn review(
    reviewer: &dyn Reviewer,
    phase: Phase,
    bytes: &[u8],
) -> Result<(Value, ReviewLabels), crate::review::ReadError> {
    let request = read(bytes)?;
    let (answer, kind) = reviewer.review(phase, &request);
    if !answer.is_allowed() {
        info!(
            kind = %request.kind, name = request.name, namespace = request.namespace,
            user = request.user, denials = ?answer.denials, "denied"
        );
    }
    let labels = ReviewLabels {
        phase: phase.label(),
        kind,
        outcome: answer.outcome(),
    };
    Ok((answer.to_review(&request), labels))
}
