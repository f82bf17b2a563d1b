//! Reading a collection in which one object may be broken.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An object of kind `K`, or the reason why it cannot be read as one.
///
/// A list or watch of `K` fails as a whole when a single object does not parse. A list or watch of `Tolerant<K>` goes
/// on: only the broken object is missing, and its metadata is there to say so on it.
#[derive(Debug, Clone)]
pub struct Tolerant<K> {
    /// The object's metadata, readable even where the rest is not; without `managedFields`.
    pub metadata: ObjectMeta,
    /// The object, or what is wrong with it (the JSON path and the reason).
    pub parsed: Result<Arc<K>, String>,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Tolerant<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        // Who wrote which field is most of many an object, and nobody's concern here.
        if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
            metadata.remove("managedFields");
        }
        let metadata = value
            .get("metadata")
            .map(ObjectMeta::deserialize)
            .transpose();
        let metadata = metadata.map_err(D::Error::custom)?.unwrap_or_default();
        let parsed = read(&value).map(Arc::new);
        Ok(Self { metadata, parsed })
    }
}

/// Reads an object as a kind; one without a spec as one with an empty spec, because OpenELB's definitions asked for none.
///
/// # Errors
/// It does not have the kind's form; the message names the field and what is wrong with it.
pub fn read<K: DeserializeOwned>(value: &Value) -> Result<K, String> {
    // Only what fails is read with its path, which costs more.
    if let Ok(object) = K::deserialize(value) {
        return Ok(object);
    }
    let mut completed = value.clone();
    if let Value::Object(object) = &mut completed
        && object.get("spec").is_none_or(Value::is_null)
    {
        object.insert("spec".to_owned(), Value::Object(serde_json::Map::new()));
    }
    let value = &completed;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        format!("{path}: {}", error.into_inner())
    })
}

impl<K: Resource> Resource for Tolerant<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1alpha2::{BgpPeer, BgpPeerSpec, Eip};

    #[test]
    fn a_good_object_is_read() {
        let text = r#"{"metadata":{"name":"lan"},"spec":{"address":"10.0.0.1"}}"#;
        let eip: Tolerant<Eip> = serde_json::from_str(text).unwrap();
        assert_eq!(eip.parsed.unwrap().spec.address, "10.0.0.1");
    }

    #[test]
    fn a_broken_object_keeps_its_name_and_says_why() {
        let text = r#"{"metadata":{"name":"lan"},"spec":{"address":7}}"#;
        let eip: Tolerant<Eip> = serde_json::from_str(text).unwrap();
        assert_eq!(eip.metadata.name.as_deref(), Some("lan"));
        assert_eq!(
            eip.parsed.unwrap_err(),
            "spec.address: invalid type: integer `7`, expected a string"
        );
    }

    #[test]
    fn an_object_without_a_spec_is_one_with_an_empty_spec() {
        let empty = r#"{"metadata":{"name":"router"}}"#;
        let peer: Tolerant<BgpPeer> = serde_json::from_str(empty).unwrap();
        assert_eq!(peer.parsed.unwrap().spec, BgpPeerSpec::default());
        let eip: Tolerant<Eip> = serde_json::from_str(empty).unwrap();
        assert_eq!(eip.parsed.unwrap_err(), "spec: missing field `address`");
    }
}
