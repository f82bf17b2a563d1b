//! The API reference as a Markdown page.

use std::fmt::Write;

use openelb_api::crd::RULES;
use serde_json::{Map, Value};

use crate::schema::served;

/// The page: one chapter for each kind, one table for each object in it.
pub(crate) fn page(crds: &[Value]) -> String {
    let mut page = String::from(
        "<!-- Made by `cargo run -p crd-gen -- --write` from crates/api. Edits are lost. -->\n\n\
         # API reference\n\n\
         All kinds are in `network.kubesphere.io/v1alpha2` and cluster-scoped. Fields that are not marked as required may \
         be left out. `kubectl explain eip.spec` shows the same.\n",
    );
    for crd in crds {
        let text = |pointer: &str| {
            crd.pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let kind = text("/spec/names/kind");
        let version = served(crd);
        let Some(schema) = version.pointer("/schema/openAPIV3Schema") else {
            continue;
        };
        _ = write!(page, "\n## {kind}\n\n{}\n\n", description(schema));
        _ = writeln!(
            page,
            "`kubectl get {}`{}\n",
            text("/spec/names/plural"),
            short_names(crd)
        );
        if let Some(example) = openelb_api::crd::example(text("/spec/names/kind")) {
            _ = writeln!(page, "```yaml\n{}\n```\n", example.trim_end());
        }
        columns(&mut page, &version);
        for part in ["spec", "status"] {
            if let Some(object) = schema.pointer(&format!("/properties/{part}")) {
                table(&mut page, kind, part, object);
            }
        }
        rules(&mut page, kind);
    }
    page
}

fn short_names(crd: &Value) -> String {
    let names = crd
        .pointer("/spec/names/shortNames")
        .and_then(Value::as_array);
    let names: Vec<_> = names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|name| format!("`{name}`"))
        .collect();
    match names.len() {
        0 => String::new(),
        _ => format!(", or {} for short", names.join(", ")),
    }
}

/// What `kubectl get` shows.
fn columns(page: &mut String, version: &Value) {
    let columns = version
        .pointer("/additionalPrinterColumns")
        .and_then(Value::as_array);
    let text = |column: &Value, key: &str| {
        column
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    page.push_str("| Column | Shows |\n|---|---|\n");
    for column in columns.into_iter().flatten() {
        let path = text(column, "jsonPath").replace('|', "\\|");
        _ = writeln!(
            page,
            "| {} | `{path}` |",
            text(column, "name").to_uppercase()
        );
    }
}

/// The table of an object's fields, and those of the objects in it.
fn table(page: &mut String, kind: &str, path: &str, object: &Value) {
    let Some(fields) = object.get("properties").and_then(Value::as_object) else {
        return;
    };
    _ = write!(page, "\n### {kind} `{path}`\n\n{}\n\n", description(object));
    page.push_str("| Field | Type | Meaning |\n|---|---|---|\n");
    for (name, field) in fields {
        let required = object
            .get("required")
            .and_then(Value::as_array)
            .is_some_and(|list| list.iter().any(|entry| entry == name));
        let mark = if required { ", required" } else { "" };
        let meaning = description(field)
            .replace('|', "\\|")
            .replace("\n\n", "<br>");
        _ = writeln!(
            page,
            "| `{name}` | {}{mark} | {meaning}{} |",
            kind_of(field),
            bounds(field)
        );
    }
    for (name, field) in fields {
        let (inner, suffix) = inner(field);
        // Conditions and label selectors are Kubernetes' own, and told about there.
        let own = field.get("x-kubernetes-map-type").is_none() && name != "conditions";
        if own {
            table(page, kind, &format!("{path}.{name}{suffix}"), inner);
        }
    }
}

/// The object inside a list or map, with the mark of it.
fn inner(field: &Value) -> (&Value, &'static str) {
    match (field.get("items"), field.get("additionalProperties")) {
        (Some(items), _) => (items, "[]"),
        (None, Some(values)) => (values, "{}"),
        _ => (field, ""),
    }
}

fn kind_of(field: &Value) -> String {
    if let Some(values) = field.get("enum").and_then(Value::as_array) {
        let values: Vec<_> = values
            .iter()
            .filter_map(Value::as_str)
            .map(|value| format!("`{value}`"))
            .collect();
        return values.join(", ");
    }
    match inner(field) {
        (items, "[]") => format!("list of {}", plural(&kind_of(items))),
        (values, "{}") => format!("map to {}", plural(&kind_of(values))),
        _ => field
            .get("format")
            .filter(|format| *format == "date-time")
            .or(field.get("type"))
            .and_then(Value::as_str)
            .map_or_else(
                || "anything".to_owned(),
                |kind| kind.replace("date-time", "time"),
            ),
    }
}

fn plural(kind: &str) -> String {
    let suffix = if kind.starts_with('`') { "" } else { "s" };
    format!("{kind}{suffix}")
}

/// The bounds of a number, as a sentence.
fn bounds(field: &Value) -> String {
    let bound = |key: &str| field.get(key).and_then(Value::as_i64);
    match (bound("minimum"), bound("maximum")) {
        (Some(low), Some(high)) => format!(" {low} to {high}."),
        (Some(low), None) => format!(" At least {low}."),
        (None, Some(high)) => format!(" At most {high}."),
        (None, None) => String::new(),
    }
}

fn description(object: &Value) -> String {
    let text = object
        .as_object()
        .and_then(|object: &Map<String, Value>| object.get("description"));
    text.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What the API server refuses, in the words that it says.
fn rules(page: &mut String, kind: &str) {
    let mut rules = RULES.iter().filter(|rule| rule.kind == kind).peekable();
    if rules.peek().is_none() {
        return;
    }
    _ = write!(
        page,
        "\n### {kind} rules\n\nThe API server refuses an object that breaks one of these.\n\n"
    );
    for rule in rules {
        let path = match rule.path {
            "" => "the object",
            path => path,
        };
        _ = writeln!(page, "- `{path}`: {}", rule.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_of_every_kind_and_every_field() {
        let page = page(&openelb_api::crd::crds());
        for line in [
            "## Eip",
            "### Eip `spec.bgp`",
            "### BgpPeer `spec.afiSafis[].config.family`",
            "### BgpPeer `status.nodesPeerStatus{}.peerState`",
            "| `address` | string, required | ",
            "| `protocol` | `bgp`, `layer2`, `vip` | ",
            "- `spec.routerId`: must be an IPv4 address",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }

    /// The fields of an object and of those in it, each with the heading of its table.
    fn fields(path: &str, object: &Value, found: &mut Vec<(String, String)>) {
        for (name, field) in object["properties"].as_object().into_iter().flatten() {
            found.push((path.to_owned(), name.clone()));
            let (inner, suffix) = inner(field);
            if field.get("x-kubernetes-map-type").is_none() && name != "conditions" {
                fields(&format!("{path}.{name}{suffix}"), inner, found);
            }
        }
    }

    #[test]
    fn every_field_has_a_row_in_the_table_of_its_object() {
        let crds = openelb_api::crd::crds();
        let page = page(&crds);
        let mut count = 0;
        for crd in &crds {
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
            let schema = &served(crd)["schema"]["openAPIV3Schema"];
            let mut found = Vec::new();
            for part in ["spec", "status"] {
                fields(part, &schema["properties"][part], &mut found);
            }
            for (path, name) in found {
                let heading = format!("\n### {kind} `{path}`\n");
                let (_, table) = page
                    .split_once(&heading)
                    .unwrap_or_else(|| panic!("no table for {kind} {path}"));
                let table = table.split("\n#").next().unwrap();
                let row = format!("\n| `{name}` | ");
                assert!(table.contains(&row), "{kind} {path}.{name}");
                count += 1;
            }
        }
        assert!(count > 150, "{count} fields");
    }
}
