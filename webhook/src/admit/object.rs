//! Reading the objects of a review.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads an object as a kind; `None` where there is none. The error names the field.
pub(super) fn read<K: DeserializeOwned>(value: &Value) -> Result<Option<K>, String> {
    if value.is_null() {
        return Ok(None);
    }
    openelb_api::read(value).map(Some)
}

/// Whether a change leaves spec and annotations as they were.
pub(super) fn unchanged(new: &Value, old: &Value) -> bool {
    let parts = |object: &'_ Value| {
        (
            object.get("spec").cloned(),
            object.pointer("/metadata/annotations").cloned(),
        )
    };
    old.is_object() && parts(new) == parts(old)
}
