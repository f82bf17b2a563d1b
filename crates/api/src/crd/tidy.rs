//! Derived schemas, made fit to be read and merged.

use serde_json::{Map, Value, json};

/// Gives each field of `spec` its own description where the derive shows the one of the field's type, and the kind the
/// description of its spec.
pub(super) fn describe(schema: &mut Value, spec: &Value) {
    if let (Some(root), Some(description)) = (schema.as_object_mut(), spec.get("description")) {
        root.insert("description".to_owned(), description.clone());
    }
    let fields = spec.get("properties").and_then(Value::as_object);
    for (name, field) in fields.into_iter().flatten() {
        let place = schema.pointer_mut(&format!("/properties/spec/properties/{name}"));
        let place = place.and_then(Value::as_object_mut);
        if let (Some(place), Some(description)) = (place, field.get("description")) {
            place.insert("description".to_owned(), description.clone());
        }
    }
}

/// Makes a schema and all below it readable and mergeable.
pub(super) fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            tidy_object(map);
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn tidy_object(map: &mut Map<String, Value>) {
    if !map.contains_key("type") {
        return;
    }
    map.remove("title");
    // An absent field is what means "not set"; a stored null would be a second way to say so.
    map.remove("nullable");
    if let Some(Value::String(description)) = map.get_mut("description") {
        *description = unfold(description);
    }
    for bound in ["minimum", "maximum"] {
        if let Some(number) = map.get_mut(bound)
            && let Some(whole) = whole(number)
        {
            *number = whole.into();
        }
    }
    let fields = map.get("properties").and_then(Value::as_object);
    if fields.is_some_and(|fields| {
        fields.contains_key("matchLabels") && fields.contains_key("matchExpressions")
    }) {
        map.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    // Different writers own different entries of these lists.
    for (marker, key) in [("lastTransitionTime", "type"), ("interfaces", "node")] {
        let items = map.get("items").and_then(|items| items.get("properties"));
        if items.is_some_and(|fields| fields.get(marker).is_some()) {
            map.insert("x-kubernetes-list-type".to_owned(), "map".into());
            map.insert("x-kubernetes-list-map-keys".to_owned(), json!([key]));
        }
    }
}

/// A number without a fraction as an integer.
fn whole(number: &Value) -> Option<i64> {
    let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
    #[expect(clippy::cast_possible_truncation, reason = "bounds are small")]
    Some(float as i64)
}

/// Text with its paragraphs on one line each.
fn unfold(text: &str) -> String {
    let paragraphs = text.split("\n\n");
    let lines =
        paragraphs.map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n\n")
}
