//! The API server's audit log: who asked for what, as it happened.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Writes and reads of everybody, without bodies.
pub(crate) const POLICY: &str = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],"rules":[{"level":"Metadata"}]}"#;

/// One request.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`…
    pub verb: String,
    /// The path with its query.
    #[serde(rename = "requestURI")]
    pub uri: String,
    /// Who asked.
    pub user: User,
    /// What it was about; nothing for `/healthz` and the like.
    pub object_ref: Option<Object>,
    /// How it was answered.
    pub response_status: Option<Response>,
    /// The program that asked.
    #[serde(default)]
    pub user_agent: String,
}

/// Who asked.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// The user's name.
    pub username: String,
}

/// What a request was about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    /// Empty for the core group.
    pub api_group: String,
    /// Plural, such as `services`.
    pub resource: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Empty for lists.
    pub name: String,
    /// Such as `status`.
    pub subresource: String,
}

/// How a request was answered.
#[derive(Debug, Clone, Deserialize)]
pub struct Response {
    /// The HTTP status.
    pub code: u16,
}

impl Request {
    /// Whether it changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        )
    }
}

/// All requests so far. A line that is being written is left out.
pub(crate) fn read(path: &Path) -> Result<Vec<Request>> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "there is no audit log at {}: was it asked for?",
            path.display()
        )
    })?;
    let complete = text
        .rfind('\n')
        .map_or("", |end| text.get(..end).unwrap_or(""));
    complete
        .lines()
        .map(|line| {
            serde_json::from_str(line).with_context(|| format!("not an audit event: {line}"))
        })
        .collect()
}
