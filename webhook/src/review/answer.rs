//! Answering a review.

use json_patch::Patch;
use serde_json::{Value, json};

use super::Request;

/// Most characters of one warning: API servers cut at 256.
const WARNING: usize = 250;
/// Most warnings of one answer: API servers drop all when there are 4,096 characters.
const WARNINGS: usize = 15;
/// Most bytes of a denial.
const MESSAGE: usize = 4096;

/// The answer to one question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Why it is refused; empty if it is not.
    pub denials: Vec<String>,
    /// Why it is refused on principle (in use, not yours) and not for what the object says.
    pub forbidden: bool,
    /// What the user should know although it works.
    pub warnings: Vec<String>,
    /// What is changed.
    pub patch: Patch,
}

impl Answer {
    /// Yes.
    #[must_use]
    pub fn allow() -> Self {
        Self::default()
    }

    /// Yes, but.
    #[must_use]
    pub fn warn(warning: impl Into<String>) -> Self {
        Self {
            warnings: vec![warning.into()],
            ..Self::default()
        }
    }

    /// No, because of what the object says.
    #[must_use]
    pub fn deny(message: impl Into<String>) -> Self {
        Self {
            denials: vec![message.into()],
            ..Self::default()
        }
    }

    /// Whether the answer is yes.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.denials.is_empty()
    }

    /// For metrics.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match (self.is_allowed(), self.patch.0.is_empty()) {
            (false, _) => "denied",
            (true, false) => "patched",
            (true, true) => "allowed",
        }
    }

    /// The review to send back.
    #[must_use]
    pub fn to_review(&self, request: &Request) -> Value {
        let mut response = json!({ "uid": request.uid, "allowed": self.is_allowed() });
        if let Some(fields) = response.as_object_mut() {
            if !self.is_allowed() {
                let (code, reason) = if self.forbidden {
                    (403, "Forbidden")
                } else {
                    (422, "Invalid")
                };
                let message = cut(&self.denials.join("; "), MESSAGE);
                fields.insert(
                    "status".to_owned(),
                    json!({ "status": "Failure", "code": code, "reason": reason, "message": message }),
                );
            } else if !self.patch.0.is_empty()
                && let Ok(patch) = serde_json::to_vec(&self.patch)
            {
                fields.insert("patchType".to_owned(), json!("JSONPatch"));
                fields.insert("patch".to_owned(), json!(k8s_openapi::ByteString(patch)));
            }
            if !self.warnings.is_empty() {
                let warnings: Vec<String> = self
                    .warnings
                    .iter()
                    .take(WARNINGS)
                    .map(|text| cut(text, WARNING))
                    .collect();
                fields.insert("warnings".to_owned(), json!(warnings));
            }
        }
        let api_version = if request.review_version.is_empty() {
            "admission.k8s.io/v1"
        } else {
            &request.review_version
        };
        json!({ "apiVersion": api_version, "kind": "AdmissionReview", "response": response })
    }
}

/// At most `most` bytes of a text, ending with an ellipsis where something was cut off.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::review::read;

    fn request() -> Request {
        read(br#"{"apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"u"}}"#).unwrap()
    }

    #[test]
    fn an_answer_has_the_version_and_uid_of_the_question() {
        let review = Answer::allow().to_review(&request());
        assert_eq!(
            review,
            json!({
                "apiVersion": "admission.k8s.io/v1beta1",
                "kind": "AdmissionReview",
                "response": { "uid": "u", "allowed": true },
            })
        );
    }

    #[test]
    fn a_denial_names_every_reason() {
        let answer = Answer {
            denials: vec!["one".into(), "two".into()],
            ..Answer::default()
        };
        let review = answer.to_review(&request());
        let status = &review["response"]["status"];
        assert_eq!(status["message"], "one; two");
        assert_eq!(status["code"], 422);
    }

    #[test]
    fn long_warnings_are_cut_between_characters() {
        let warnings = Answer::warn("ü".repeat(300)).to_review(&request());
        let text = warnings["response"]["warnings"][0].as_str().unwrap();
        assert!(text.len() <= 250 && text.ends_with('…'));
    }
}
