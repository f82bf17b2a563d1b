//! What must be true before the process calls itself ready, and must stay true.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Named gates; the process is ready while all of them are open. Clones share the gates.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Door>>>);

enum Door {
    /// Opened and shut by who has the [`Gate`]; holds the reason why it is shut, where there is more than the name.
    Kept(Result<(), Option<String>>),
    /// Looked at whenever somebody asks.
    Looked(Box<dyn Fn() -> Result<(), String> + Send>),
}

impl Readiness {
    /// Adds a shut gate. Add all gates before doing the work that opens them.
    #[must_use]
    pub fn gate(&self, name: &'static str) -> Gate {
        self.put(name, Door::Kept(Err(None)));
        Gate {
            name,
            readiness: self.clone(),
        }
    }

    /// Adds something that is looked at whenever somebody asks; it says why the process is not ready.
    pub fn check(
        &self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + 'static,
    ) {
        self.put(name, Door::Looked(Box::new(check)));
    }

    /// What the process waits for, in words; empty when it is ready. One without any gate has not begun yet.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<String> {
        let doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if doors.is_empty() {
            return vec!["its start".to_owned()];
        }
        let shut = doors.iter().filter_map(|(name, door)| match door.look() {
            Ok(()) => None,
            Err(None) => Some((*name).to_owned()),
            Err(Some(why)) => Some(format!("{name} ({why})")),
        });
        shut.collect()
    }

    /// Every gate, and whether it is open.
    #[must_use]
    pub fn gates(&self) -> BTreeMap<&'static str, bool> {
        let doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gates = doors
            .iter()
            .map(|(name, door)| (*name, door.look().is_ok()));
        gates.collect()
    }

    fn put(&self, name: &'static str, door: Door) {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.insert(name, door);
    }
}

impl Door {
    fn look(&self) -> Result<(), Option<String>> {
        match self {
            Self::Kept(state) => state.clone(),
            Self::Looked(check) => check().map_err(Some),
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.gates()).finish()
    }
}

/// One thing that readiness waits for.
#[derive(Debug)]
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Gate {
    /// Says that it has happened.
    pub fn open(&self) {
        self.readiness.put(self.name, Door::Kept(Ok(())));
    }

    /// Says that it is not so any more, and why.
    pub fn shut(&self, why: &str) {
        let why = Some(why.to_owned());
        self.readiness.put(self.name, Door::Kept(Err(why)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn is_not_ready_before_it_has_begun() {
        assert_eq!(Readiness::default().waiting_for(), ["its start"]);
    }

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

    #[test]
    fn a_gate_may_be_shut_again_and_says_why() {
        let readiness = Readiness::default();
        let server = readiness.gate("server");
        server.open();
        server.shut("it has ended");
        assert_eq!(readiness.waiting_for(), ["server (it has ended)"]);
        assert_eq!(readiness.gates(), [("server", false)].into());
        server.open();
        assert!(readiness.waiting_for().is_empty());
    }

    #[test]
    fn a_check_is_made_anew_each_time() {
        let readiness = Readiness::default();
        let bound = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&bound);
        readiness.check("listener", move || {
            if seen.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err("the address is in use".to_owned())
            }
        });
        assert_eq!(
            readiness.waiting_for(),
            ["listener (the address is in use)"]
        );
        bound.store(true, Ordering::Relaxed);
        assert!(readiness.waiting_for().is_empty());
    }
}
