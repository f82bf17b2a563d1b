//! The CustomResourceDefinitions, made from the Rust types.
//!
//! What derives cannot say is added here: the [`RULES`] that one object can be held to, how lists and maps merge, and
//! the version that OpenELB served before, so that our CRDs replace its own in place. Everything is deterministic.

mod examples;
mod rules;
mod tidy;

use kube::CustomResourceExt;
use schemars::JsonSchema;
use serde_json::{Value, json};

pub use examples::example;
pub use rules::{RULES, Rule};

use crate::v1alpha2::{
    BgpConf, BgpConfSpec, BgpPeer, BgpPeerSpec, Eip, EipAddress, EipAddressSpec, EipSpec,
};

/// All our CRDs, each as the object to apply: Eip, EipAddress, BgpConf, BgpPeer.
#[must_use]
pub fn crds() -> Vec<Value> {
    vec![
        definition::<Eip, EipSpec>(true),
        definition::<EipAddress, EipAddressSpec>(false),
        definition::<BgpConf, BgpConfSpec>(true),
        definition::<BgpPeer, BgpPeerSpec>(true),
    ]
}

/// The CRD of a kind, with OpenELB's old version where it had one.
fn definition<K: CustomResourceExt, Spec: JsonSchema>(replaces_openelb: bool) -> Value {
    let mut crd = json!(K::crd());
    let kind = text(&crd, "/spec/names/kind");
    if let Some(names) = crd
        .pointer_mut("/spec/names")
        .and_then(Value::as_object_mut)
    {
        names.insert("listKind".to_owned(), format!("{kind}List").into());
    }
    if let Some(schema) = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        tidy::describe(schema, &json!(schemars::schema_for!(Spec)));
        tidy::tidy(schema);
        if replaces_openelb && let Some(root) = schema.as_object_mut() {
            // OpenELB asked for no spec, so objects without one are stored: they must be readable, and their metadata
            // writable, or nobody could take a finalizer off them.
            root.remove("required");
        }
        for limit in rules::LIMITS.iter().filter(|limit| limit.kind == kind) {
            limit.add_to(schema);
        }
        for rule in RULES.iter().filter(|rule| rule.kind == kind) {
            rule.add_to(schema);
        }
    }
    if replaces_openelb
        && let Some(versions) = crd
            .pointer_mut("/spec/versions")
            .and_then(Value::as_array_mut)
    {
        versions.insert(0, v1alpha1());
    }
    crd
}

/// The version before the one that is served.
///
/// A CRD must list every version that objects were ever stored in (`status.storedVersions`), else the API server
/// refuses it. Nobody can read or write the version, so its schema says nothing.
fn v1alpha1() -> Value {
    json!({
        "name": "v1alpha1",
        "served": false,
        "storage": false,
        "schema": {"openAPIV3Schema": {
            "description": "Stored by OpenELB up to 0.4. Not served: read and write v1alpha2.",
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
        }},
    })
}

/// The text at a place of a JSON value; empty where there is none.
fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

    use super::*;

    fn schema(kind: &str) -> Value {
        let crd = crds()
            .into_iter()
            .find(|crd| text(crd, "/spec/names/kind") == kind)
            .unwrap();
        let versions = crd["spec"]["versions"].as_array().unwrap();
        versions.last().unwrap()["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn every_definition_is_one_that_an_api_server_reads() {
        for crd in crds() {
            let typed: CustomResourceDefinition = serde_json::from_value(crd).unwrap();
            assert_eq!(typed.spec.scope, "Cluster");
            let served = typed.spec.versions.iter().filter(|version| version.served);
            assert_eq!(
                served
                    .map(|version| version.name.as_str())
                    .collect::<Vec<_>>(),
                ["v1alpha2"]
            );
        }
    }

    #[test]
    fn every_rule_has_its_place() {
        for rule in RULES {
            let schema = schema(rule.kind);
            let rules = schema
                .pointer(&rules::pointer(rule.path))
                .unwrap_or_else(|| panic!("{} {}", rule.kind, rule.path));
            let found = rules["x-kubernetes-validations"].as_array().unwrap();
            assert!(found.iter().any(|entry| entry["message"] == rule.message));
        }
    }

    #[test]
    fn every_limit_has_its_place() {
        for limit in rules::LIMITS {
            let schema = schema(limit.kind);
            let place = schema.pointer(&rules::pointer(limit.path));
            assert_eq!(
                place.unwrap()[limit.keyword],
                limit.most,
                "{} {}",
                limit.kind,
                limit.path
            );
        }
    }

    #[test]
    fn every_field_says_what_it_is_for() {
        fn check(path: &str, schema: &Value) {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&name.as_str()) {
                    assert!(
                        field["description"].as_str().is_some_and(|d| d.len() > 5),
                        "{path}"
                    );
                }
                check(&path, field);
            }
            if schema["items"].is_object() {
                check(&format!("{path}[]"), &schema["items"]);
            }
        }
        for kind in ["Eip", "EipAddress", "BgpConf", "BgpPeer"] {
            check(kind, &schema(kind));
        }
    }

    #[test]
    fn the_field_speaks_where_its_type_would() {
        let eip = schema("Eip");
        let protocol = &eip["properties"]["spec"]["properties"]["protocol"];
        assert!(
            protocol["description"]
                .as_str()
                .unwrap()
                .contains("when absent")
        );
        assert_eq!(protocol["enum"], json!(["bgp", "layer2", "vip"]));
    }
}
