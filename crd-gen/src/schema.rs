//! JSON schemas for editors and for validation without a cluster.

use serde_json::{Map, Value, json};

/// The schema of a CRD's served version, and the file name by which validators such as kubeconform find it.
pub(crate) fn of(crd: &Value) -> (String, Value) {
    let text = |value: &Value, pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let kind = text(crd, "/spec/names/kind");
    let group = text(crd, "/spec/group");
    let served = served(crd);
    let version = text(&served, "/name");
    let mut schema = served
        .pointer("/schema/openAPIV3Schema")
        .cloned()
        .unwrap_or_default();
    strict(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.insert(
            "$schema".to_owned(),
            "https://json-schema.org/draft/2020-12/schema".into(),
        );
        root.insert("title".to_owned(), kind.clone().into());
        root.insert(
            "required".to_owned(),
            json!(["apiVersion", "kind", "metadata", "spec"]),
        );
        if let Some(fields) = root.get_mut("properties").and_then(Value::as_object_mut) {
            fields.insert(
                "apiVersion".to_owned(),
                json!({"const": format!("{group}/{version}")}),
            );
            fields.insert("kind".to_owned(), json!({"const": kind}));
            fields.insert(
                "metadata".to_owned(),
                json!({"type": "object", "description": "Name, labels and annotations.", "required": ["name"]}),
            );
        }
    }
    (format!("{}_{version}.json", kind.to_lowercase()), schema)
}

/// The version of a CRD that users write.
pub(crate) fn served(crd: &Value) -> Value {
    crd.pointer("/spec/versions")
        .and_then(Value::as_array)
        .and_then(|versions| {
            versions
                .iter()
                .find(|version| version.get("served") == Some(&Value::Bool(true)))
        })
        .cloned()
        .unwrap_or_default()
}

/// Leaves out what only an API server understands, and refuses fields that nobody knows: a typing error.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let is_schema = map.get("type").is_some_and(Value::is_string);
            if is_schema {
                keep_pattern(map);
                map.retain(|key, _| !key.starts_with("x-kubernetes-"));
                close(map);
            }
            map.values_mut().for_each(strict);
        }
        Value::Array(list) => list.iter_mut().for_each(strict),
        _ => {}
    }
}

/// A rule that is one regular expression is known to every validator.
fn keep_pattern(map: &mut Map<String, Value>) {
    let rules = map
        .get("x-kubernetes-validations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let pattern = rules
        .filter_map(|rule| rule.get("rule")?.as_str())
        .find_map(|rule| {
            let pattern = rule.strip_prefix("self.matches('")?.strip_suffix("')")?;
            (!pattern.contains('\'')).then(|| pattern.to_owned())
        });
    if let Some(pattern) = pattern {
        map.entry("pattern").or_insert_with(|| pattern.into());
    }
}

fn close(map: &mut Map<String, Value>) {
    if map.contains_key("properties") && !map.contains_key("additionalProperties") {
        map.insert("additionalProperties".to_owned(), false.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_strict_and_names_its_kind() {
        let crds = openelb_api::crd::crds();
        let (name, schema) = of(&crds[0]);
        assert_eq!(name, "eip_v1alpha2.json");
        assert_eq!(schema["properties"]["kind"]["const"], "Eip");
        assert_eq!(
            schema["properties"]["apiVersion"]["const"],
            "network.kubesphere.io/v1alpha2"
        );
        assert_eq!(schema["properties"]["spec"]["additionalProperties"], false);
        assert!(!schema.to_string().contains("x-kubernetes"));
    }
}
