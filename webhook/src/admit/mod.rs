//! From a review to the rules of `openelb_api::validate` and back.

use crate::{
    review::{Answer, Phase, Request},
    server::routes::Reviewer,
};

/// Answers reviews with the rules.
#[derive(Debug, Default)]
pub struct Admission;

impl Reviewer for Admission {
    fn review(&self, _: Phase, request: &Request) -> (Answer, &'static str) {
        let warning = format!("openelb-webhook has no rules for {}", request.kind);
        (Answer::warn(warning), "other")
    }
}
