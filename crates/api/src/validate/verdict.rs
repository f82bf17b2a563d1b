//! What rules say.

use std::fmt::Display;

/// The outcome of checking one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why the object is refused: field path, value, what is allowed. Empty if it is accepted.
    pub denials: Vec<String>,
    /// What works but may surprise.
    pub warnings: Vec<String>,
    /// Whether it is refused for what it is used for, and not for what it says.
    pub in_use: bool,
}

impl Verdict {
    /// Whether the object is accepted.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.denials.is_empty()
    }

    /// Refuses the value of a field.
    pub fn deny(&mut self, path: &str, message: impl Display) {
        self.denials.push(format!("{path}: {message}"));
    }

    /// Refuses because of what depends on the object.
    pub fn deny_in_use(&mut self, message: impl Into<String>) {
        self.denials.push(message.into());
        self.in_use = true;
    }

    /// Accepts, with a remark about a field.
    pub fn warn(&mut self, path: &str, message: impl Display) {
        self.warnings.push(format!("{path}: {message}"));
    }
}
