//! Reading a request's body within bounds of size, time and memory.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It has more bytes than one body may have.
    #[error("the request has more than {0} bytes")]
    TooLarge(usize),
    /// It did not arrive in time.
    #[error("the request did not arrive within {0:?}")]
    TooSlow(Duration),
    /// Other bodies fill the memory that is set aside.
    #[error("too many large requests at a time, try again")]
    Busy,
    /// The client went away.
    #[error("the request ended early")]
    Broken,
}

/// A body with the share of memory that it holds until dropped.
#[derive(Debug)]
pub struct HeldBody {
    /// All bytes.
    pub bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// Memory for bodies, counted in bytes.
#[derive(Clone, Debug)]
pub struct BodyMemory {
    free: Arc<Semaphore>,
    most: usize,
}

impl BodyMemory {
    /// `all` bytes for all bodies, `most` for one.
    #[must_use]
    pub fn new(all: usize, most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
            most,
        }
    }

    /// Reads a body. Memory is taken as bytes arrive, so a client that only promises a large body
    /// takes none.
    pub async fn read(&self, body: Body, time: Duration) -> Result<HeldBody, BodyError> {
        tokio::time::timeout(time, self.collect(body))
            .await
            .unwrap_or(Err(BodyError::TooSlow(time)))
    }

    async fn collect(&self, mut body: Body) -> Result<HeldBody, BodyError> {
        let mut share: Option<OwnedSemaphorePermit> = None;
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
                continue;
            };
            if data.len() > self.most.saturating_sub(bytes.len()) {
                return Err(BodyError::TooLarge(self.most));
            }
            let count = u32::try_from(data.len()).map_err(|_| BodyError::TooLarge(self.most))?;
            let more = Arc::clone(&self.free)
                .try_acquire_many_owned(count)
                .map_err(|_| BodyError::Busy)?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
            bytes.extend_from_slice(&data);
        }
        Ok(HeldBody {
            bytes: bytes.freeze(),
            _share: share,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_body_holds_memory_until_it_is_dropped() {
        let memory = BodyMemory::new(10, 8);
        let held = memory.read(Body::from("12345678"), SECOND).await.unwrap();
        assert_eq!(held.bytes, "12345678");
        let refused = memory.read(Body::from("123"), SECOND).await.unwrap_err();
        assert_eq!(refused, BodyError::Busy);
        drop(held);
        memory.read(Body::from("123"), SECOND).await.unwrap();
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_refused_and_leaves_nothing_behind() {
        let memory = BodyMemory::new(10, 8);
        let refused = memory
            .read(Body::from("123456789"), SECOND)
            .await
            .unwrap_err();
        assert_eq!(refused, BodyError::TooLarge(8));
        assert_eq!(memory.free.available_permits(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let memory = BodyMemory::new(10, 8);
        let endless = Body::from_stream(futures::stream::pending::<Result<Bytes, BodyError>>());
        let refused = memory.read(endless, SECOND).await.unwrap_err();
        assert_eq!(refused, BodyError::TooSlow(SECOND));
    }
}
