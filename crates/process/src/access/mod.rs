//! Who may scrape: bearer tokens that the API server knows, of whoever may `get` the path `/metrics`.
//!
//! The API server is asked twice for a token that is not known yet, by a TokenReview and a
//! SubjectAccessReview, as kube-apiserver itself would decide; the answer is kept for a short time. While the
//! API server is away, who was let in goes on to be let in for [a while](cache), so that monitoring works when it is
//! needed most; who is new has to wait. Whatever strangers send, few questions are under way at a time and few
//! answers are kept.

mod cache;
mod review;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use ring::digest::{SHA256, digest};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use cache::Cache;

/// How long a question may take, the wait for its turn included.
const PATIENCE: Duration = Duration::from_secs(3);
/// Questions under way at a time.
const QUESTIONS: usize = 4;
/// Longer than any token of Kubernetes.
const LONGEST_TOKEN: usize = 16 * 1024;

/// What the API server says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its owner may `get` the path `/metrics`.
    Allowed,
    /// It is somebody's, who may not.
    Forbidden {
        /// The user's name.
        user: String,
    },
    /// It is nobody's, has expired, or is not for this API server.
    Unknown,
}

type Ask = dyn Fn(String) -> BoxFuture<'static, Result<Verdict, String>> + Send + Sync;

/// Decides who is let in. Clones share what is known.
#[derive(Clone)]
pub struct Gatekeeper {
    ask: Arc<Ask>,
    cache: Arc<Mutex<Cache>>,
    questions: Arc<Semaphore>,
}

impl fmt::Debug for Gatekeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatekeeper").finish_non_exhaustive()
    }
}

impl Gatekeeper {
    /// One that asks the API server.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self::asking(move |token| Box::pin(review::ask(client.clone(), token)))
    }

    fn asking(
        ask: impl Fn(String) -> BoxFuture<'static, Result<Verdict, String>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            ask: Arc::new(ask),
            cache: Arc::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
        }
    }

    /// Whether the owner of this token may scrape.
    ///
    /// # Errors
    /// The API server cannot be asked, in words, and nothing recent is known.
    pub async fn verdict(&self, token: &str) -> Result<Verdict, String> {
        if token.is_empty() || token.len() > LONGEST_TOKEN {
            return Ok(Verdict::Unknown);
        }
        // The tokens themselves are not kept.
        let key = digest(&SHA256, token.as_bytes());
        let key = key.as_ref();
        if let Some(known) = self.with(|cache| cache.fresh(key, Instant::now())) {
            return Ok(known);
        }
        let asked = async {
            let _turn = self.questions.acquire().await;
            (self.ask)(token.to_owned()).await
        };
        let answer = match timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        let now = Instant::now();
        match answer {
            Ok(verdict) => {
                self.with(|cache| cache.put(key, verdict.clone(), now));
                Ok(verdict)
            }
            Err(why) => match self.with(|cache| cache.last_resort(key, now)) {
                Some(known) => Ok(known),
                None => Err(format!("the API server cannot be asked: {why}")),
            },
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Cache) -> T) -> T {
        f(&mut self.cache.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    /// An API server that knows the token `good`, can be switched off, and counts.
    #[derive(Clone, Default)]
    struct Server {
        away: Arc<AtomicBool>,
        asked: Arc<AtomicUsize>,
    }

    impl Server {
        fn gatekeeper(&self) -> Gatekeeper {
            let server = self.clone();
            Gatekeeper::asking(move |token| {
                let server = server.clone();
                Box::pin(async move {
                    server.asked.fetch_add(1, Ordering::Relaxed);
                    match (server.away.load(Ordering::Relaxed), token == "good") {
                        (true, _) => Err("connection refused".to_owned()),
                        (false, true) => Ok(Verdict::Allowed),
                        (false, false) => Ok(Verdict::Unknown),
                    }
                })
            })
        }
    }

    #[tokio::test]
    async fn the_api_server_is_asked_once_for_many_scrapes() {
        let server = Server::default();
        let gatekeeper = server.gatekeeper();
        for _ in 0..5 {
            assert_eq!(gatekeeper.verdict("good").await, Ok(Verdict::Allowed));
            assert_eq!(gatekeeper.verdict("bad").await, Ok(Verdict::Unknown));
        }
        assert_eq!(server.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn who_was_let_in_is_let_in_without_the_api_server_and_nobody_else() {
        let server = Server::default();
        let gatekeeper = server.gatekeeper();
        assert_eq!(gatekeeper.verdict("good").await, Ok(Verdict::Allowed));
        server.away.store(true, Ordering::Relaxed);
        assert_eq!(gatekeeper.verdict("good").await, Ok(Verdict::Allowed));
        let why = gatekeeper.verdict("new").await.unwrap_err();
        assert!(why.contains("connection refused"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_is_not_waited_for() {
        let gatekeeper = Gatekeeper::asking(|_| Box::pin(std::future::pending()));
        let all = (0..20).map(|_| gatekeeper.verdict("good"));
        for answer in futures::future::join_all(all).await {
            assert!(answer.unwrap_err().contains("no answer within 3 s"));
        }
    }

    #[tokio::test]
    async fn what_can_be_no_token_is_not_asked_about() {
        let server = Server::default();
        let gatekeeper = server.gatekeeper();
        let long = "x".repeat(LONGEST_TOKEN + 1);
        for token in ["", &long] {
            assert_eq!(gatekeeper.verdict(token).await, Ok(Verdict::Unknown));
        }
        assert_eq!(server.asked.load(Ordering::Relaxed), 0);
    }
}
