//! Reading a review.

use serde_json::{Map, Value};

/// Group, version and kind of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// API group, empty for the core group.
    pub group: String,
    /// Version of the API group.
    pub version: String,
    /// Kind.
    pub kind: String,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slash = if self.group.is_empty() { "" } else { "/" };
        write!(
            formatter,
            "{} ({}{slash}{})",
            self.kind, self.group, self.version
        )
    }
}

/// What a user wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Make an object.
    Create,
    /// Change an object.
    Update,
    /// Delete an object.
    Delete,
    /// Anything that we have no rules for.
    Other,
}

/// One question of the API server, as far as rules look at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// To be returned with the answer.
    pub uid: String,
    /// `apiVersion` of the review, to be returned too.
    pub review_version: String,
    /// What the object is.
    pub kind: Kind,
    /// `status`, `scale` and so on; empty for the object itself.
    pub sub_resource: String,
    /// Name of the object; empty when it is to be generated.
    pub name: String,
    /// Namespace of the object; empty for cluster-scoped kinds.
    pub namespace: String,
    /// What shall be done.
    pub operation: Operation,
    /// Who wants it.
    pub user: String,
    /// The object as it shall be; null for a deletion.
    pub object: Value,
    /// The object as it is; null for a creation.
    pub old_object: Value,
}

/// Why bytes are no review that could be answered. Everything else is answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No JSON.
    #[error("the request is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of something else.
    #[error("the request is no AdmissionReview: it has no request.uid")]
    NoUid,
}

/// Reads a review. Members that are missing or of another type count as empty.
pub fn read(bytes: &[u8]) -> Result<Request, ReadError> {
    let mut review: Value = serde_json::from_slice(bytes)?;
    let review_version = text(review.get("apiVersion"));
    let Some(Value::Object(mut request)) = review.get_mut("request").map(Value::take) else {
        return Err(ReadError::NoUid);
    };
    let uid = text(request.get("uid"));
    if uid.is_empty() {
        return Err(ReadError::NoUid);
    }
    let kind = request.get("kind");
    let member = |name: &str| text(kind.and_then(|kind| kind.get(name)));
    Ok(Request {
        uid,
        review_version,
        kind: Kind {
            group: member("group"),
            version: member("version"),
            kind: member("kind"),
        },
        sub_resource: text(request.get("subResource")),
        name: text(request.get("name")),
        namespace: text(request.get("namespace")),
        operation: operation(request.get("operation")),
        user: text(
            request
                .get("userInfo")
                .and_then(|user| user.get("username")),
        ),
        object: take(&mut request, "object"),
        old_object: take(&mut request, "oldObject"),
    })
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn take(request: &mut Map<String, Value>, name: &str) -> Value {
    request.get_mut(name).map_or(Value::Null, Value::take)
}

fn operation(value: Option<&Value>) -> Operation {
    match value.and_then(Value::as_str) {
        Some("CREATE") => Operation::Create,
        Some("UPDATE") => Operation::Update,
        Some("DELETE") => Operation::Delete,
        _ => Operation::Other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_review_is_read_although_members_have_odd_types() {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": "u", "kind": 5, "operation": ["CREATE"], "userInfo": "me",
                "object": { "spec": 1 },
            },
        });
        let request = read(review.to_string().as_bytes()).unwrap();
        assert_eq!(request.uid, "u");
        assert_eq!(request.kind, Kind::default());
        assert_eq!(request.operation, Operation::Other);
        assert_eq!(request.object, json!({ "spec": 1 }));
        assert_eq!(request.old_object, Value::Null);
    }

    #[test]
    fn what_is_no_review_is_said_to_be_none() {
        for text in [
            "",
            "[]",
            "5",
            "{}",
            r#"{"request":{}}"#,
            r#"{"request":{"uid":5}}"#,
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
