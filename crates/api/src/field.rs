//! Errors that name the field, its value, and what is allowed.

use std::fmt;

use serde_json::Value;

/// What is wrong with one field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field's path as users write it, such as `spec.timers.config.holdTime`.
    pub path: String,
    /// The value as it was found; null where there is none.
    pub value: Value,
    /// What is wrong with it and what is allowed instead.
    pub reason: String,
}

impl FieldError {
    /// Says that the value at `path` cannot be used.
    pub fn new(
        path: impl Into<String>,
        value: impl Into<Value>,
        reason: impl fmt::Display,
    ) -> Self {
        Self {
            path: path.into(),
            value: value.into(),
            reason: reason.to_string(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Null => write!(f, "{}: {}", self.path, self.reason),
            value => write!(f, "{}: {value} {}", self.path, self.reason),
        }
    }
}

impl std::error::Error for FieldError {}

/// Everything that is wrong with an object; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(Vec<FieldError>);

impl Invalid {
    /// An error where there is at least one.
    pub(crate) fn unless_none(errors: Vec<FieldError>) -> Result<(), Self> {
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Self(errors))
        }
    }

    /// The single errors, in the order of the fields.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.0
    }
}

impl From<FieldError> for Invalid {
    fn from(error: FieldError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// Collects errors, so that a user sees all of them at once.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<FieldError>);

impl Errors {
    /// Notes an error.
    pub(crate) fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// The value, or a note of what is wrong with it.
    pub(crate) fn take<T>(&mut self, result: Result<T, FieldError>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// The value, or notes of all that is wrong with it.
    pub(crate) fn take_all<T>(&mut self, result: Result<T, Invalid>) -> Option<T> {
        result.map_err(|errors| self.0.extend(errors.0)).ok()
    }

    /// What was noted.
    pub(crate) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    /// The finished value when nothing was noted and there is one.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Invalid> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(Invalid(self.0)),
        }
    }
}
