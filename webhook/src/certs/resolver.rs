//! The certificate that new connections get: swapped in place, connections that are open stay.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// What is served, and until when it is good.
#[derive(Debug)]
pub struct Served {
    /// Chain and key.
    pub key: Arc<CertifiedKey>,
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
}

/// The certificate in service. One writer (the task that keeps certificates), any readers.
#[derive(Debug, Default)]
pub struct ServingCert {
    current: ArcSwapOption<Served>,
}

impl ServingCert {
    /// Serves this certificate from the next handshake on.
    pub fn set(&self, served: Served) {
        self.current.store(Some(Arc::new(served)));
    }

    /// What is served now.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Served>> {
        self.current.load_full()
    }

    /// Whether a certificate is served that is valid at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.get()
            .is_some_and(|served| served.not_before <= now && now <= served.not_after)
    }
}

impl ResolvesServerCert for ServingCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current
            .load()
            .as_ref()
            .map(|served| Arc::clone(&served.key))
    }
}
