//! AdmissionReviews as they come and go on the wire.
//!
//! A review is read as plain JSON first. Whatever is wrong with the object inside is an answer
//! ("denied, because …"), never a failed request: to the API server a failed request is a broken
//! webhook, and its user learns nothing.

mod answer;
mod request;

pub use answer::Answer;
pub use request::{Kind, Operation, ReadError, Request, read};

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Fill in and rewrite.
    Mutate,
    /// The same, but opt no Service in: for namespaces that do not want that.
    MutateAsked,
    /// Accept or refuse.
    Validate,
}

impl Phase {
    /// For metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Mutate | Self::MutateAsked => "mutate",
            Self::Validate => "validate",
        }
    }
}
