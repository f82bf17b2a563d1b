//! Reading the objects of a review.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads an object as a kind; `None` where there is none. The error names the field.
pub(super) fn read<K: DeserializeOwned>(value: &Value) -> Result<Option<K>, String> {
    if value.is_null() {
        return Ok(None);
    }
    match K::deserialize(value) {
        Ok(object) => Ok(Some(object)),
        // Only what fails is read with its path, which costs more.
        Err(_) => match serde_path_to_error::deserialize::<_, K>(value) {
            Ok(object) => Ok(Some(object)),
            Err(error) => {
                let path = error.path().to_string();
                Err(format!("{path}: {}", error.into_inner()))
            }
        },
    }
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
