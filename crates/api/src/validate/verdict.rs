//! What rules say.

use std::fmt::Display;

use crate::Invalid;

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

    /// Refuses for everything that a conversion found wrong.
    pub fn deny_all(&mut self, invalid: &Invalid) {
        let errors = invalid.errors().iter().map(ToString::to_string);
        self.denials.extend(errors);
    }

    /// Whether something is said against the value of this very field.
    #[must_use]
    pub fn denies(&self, path: &str) -> bool {
        let prefix = format!("{path}: ");
        self.denials
            .iter()
            .any(|denial| denial.starts_with(&prefix))
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

    /// Accepts, and names the fields that do nothing.
    pub(super) fn warn_without_effect(&mut self, fields: &[&str]) {
        if !fields.is_empty() {
            self.warn("spec", format!("without effect: {}", fields.join(", ")));
        }
    }
}
