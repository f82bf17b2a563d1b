//! What must have happened before the process calls itself ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Named gates; the process is ready when all of them are open. Clones share the gates.
#[derive(Clone, Default)]
pub(crate) struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// Adds a closed gate. Add all gates before doing the work that opens them.
    pub(crate) fn gate(&self, name: &'static str) -> Gate {
        self.set(name, false);
        Gate {
            name,
            readiness: self.clone(),
        }
    }

    /// The names of the gates still closed.
    pub(crate) fn waiting_for(&self) -> Vec<&'static str> {
        let gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates
            .iter()
            .filter(|(_, open)| !**open)
            .map(|(name, _)| *name)
            .collect()
    }

    /// Every gate, and whether it is open.
    pub(crate) fn gates(&self) -> BTreeMap<&'static str, bool> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, name: &'static str, open: bool) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, open);
    }
}

/// One thing that readiness waits for.
pub(crate) struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Gate {
    /// Says that it has happened.
    pub(crate) fn open(&self) {
        self.readiness.set(self.name, true);
    }
}

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn is_ready_when_every_gate_is_open() {
        let readiness = Readiness::default();
        let (caches, links) = (readiness.gate("caches"), readiness.gate("links"));
        assert_eq!(readiness.waiting_for(), ["caches", "links"]);
        caches.open();
        assert_eq!(readiness.waiting_for(), ["links"]);
        links.open();
        assert!(readiness.waiting_for().is_empty());
    }
}
