//! What the process holds at this moment, for people who look into it: `/debug/state`.
//!
//! Parts say it themselves, when asked. Nothing in it is secret: parts name objects and count them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

type Tell = Box<dyn Fn() -> Value + Send>;

/// The parts that have something to tell, by name. Clones share them.
#[derive(Clone, Default)]
pub struct State(Arc<Mutex<BTreeMap<&'static str, Tell>>>);

impl State {
    /// Adds a part.
    pub fn add(&self, name: &'static str, tell: impl Fn() -> Value + Send + 'static) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(name, Box::new(tell));
    }

    /// What all parts tell now.
    #[must_use]
    pub fn tell(&self) -> Map<String, Value> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .map(|(name, tell)| ((*name).to_owned(), tell()))
            .collect()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.tell()).finish()
    }
}
