//! The JSON schemas as editors and offline validators use them: every object that the repository shows is taken, and
//! what users get wrong is refused at the field that is wrong.

// The functions beside the tests are part of them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const GROUP_VERSION: &str = "network.kubesphere.io/v1alpha2";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The committed schemas by kind.
fn schemas() -> BTreeMap<String, Validator> {
    let folder = repository().join("config/schema");
    let read = |path: PathBuf| {
        let schema: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let kind = schema["title"].as_str().unwrap().to_owned();
        (kind, jsonschema::validator_for(&schema).unwrap())
    };
    let files = fs::read_dir(folder).unwrap();
    files.map(|file| read(file.unwrap().path())).collect()
}

/// The files below a folder whose name ends so.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().is_some_and(|name| name.ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The objects of our kinds in a text: from their first line to the end of the YAML document, of the fence, or of the
/// shell's here-document around it.
fn objects(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let mut objects: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line == format!("apiVersion: {GROUP_VERSION}") {
            objects.push(String::new());
            inside = true;
        } else if matches!(line.trim(), "---" | "```" | "YAML" | "EOF") {
            inside = false;
        }
        if let Some(object) = objects.last_mut()
            && inside
        {
            object.push_str(line);
            object.push('\n');
        }
    }
    let parse = |text: &String| {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    objects.iter().map(parse).collect()
}

fn problems(schemas: &BTreeMap<String, Validator>, object: &Value) -> Vec<String> {
    let kind = object["kind"].as_str().unwrap();
    let errors = schemas[kind].iter_errors(object);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn every_object_that_we_show_is_valid() {
    let root = repository();
    let schemas = schemas();
    let mut paths = files(&root.join("config/samples"), ".yaml");
    paths.extend(files(&root.join("docs"), ".md"));
    paths.push(root.join("README.md"));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for path in paths {
        for object in objects(&path) {
            let kind = object["kind"].as_str().unwrap().to_owned();
            let problems = problems(&schemas, &object);
            assert!(
                problems.is_empty(),
                "{}: {problems:?}\n{object:#}",
                path.display()
            );
            *seen.entry(kind).or_default() += 1;
        }
    }
    let kinds: Vec<&String> = schemas.keys().collect();
    assert_eq!(
        seen.keys().collect::<Vec<_>>(),
        kinds,
        "an example of every kind"
    );
}

#[test]
fn openelbs_samples_are_valid() {
    let folder = repository().join("tests/fixtures/openelb");
    let schemas = schemas();
    let samples: Vec<PathBuf> = files(&folder, ".yaml")
        .into_iter()
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("network_")
        })
        .collect();
    assert_eq!(samples.len(), 4);
    for path in samples {
        let objects = objects(&path);
        assert!(!objects.is_empty(), "{}", path.display());
        for object in objects {
            let problems = problems(&schemas, &object);
            assert!(problems.is_empty(), "{}: {problems:?}", path.display());
        }
    }
}

/// A good object of each kind, with a member put at a path below `spec`.
fn with(kind: &str, path: &[&str], value: Value) -> Value {
    let spec = match kind {
        "Eip" => json!({"address": "192.0.2.0/24"}),
        "EipAddress" => json!({"address": "192.0.2.1", "eip": "lan"}),
        "BgpConf" => json!({"as": 65000}),
        _ => json!({"conf": {"neighborAddress": "192.0.2.1", "peerAs": 65001}}),
    };
    let name = if kind == "EipAddress" {
        "192.0.2.1"
    } else {
        "default"
    };
    let mut object = json!({
        "apiVersion": GROUP_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    let mut place = &mut object["spec"];
    for member in path {
        place = &mut place[member];
    }
    *place = value;
    object
}

#[test]
fn what_users_get_wrong_is_refused_where_it_is_wrong() {
    let schemas = schemas();
    for (kind, path, value) in [
        ("Eip", vec!["address"], json!(7)),
        ("Eip", vec!["address"], json!("nonsense")),
        ("Eip", vec!["protocol"], json!("ospf")),
        ("Eip", vec!["sharing"], json!("Sometimes")),
        ("Eip", vec!["probe"], json!("Maybe")),
        ("Eip", vec!["onAddressRemoved"], json!("Panic")),
        ("Eip", vec!["disable"], json!("yes")),
        ("Eip", vec!["exclude"], json!("192.0.2.1")),
        ("Eip", vec!["bgp", "aggregationLength"], json!(33)),
        ("Eip", vec!["bgp", "med"], json!(-1)),
        ("Eip", vec!["bgp", "largeCommunities"], json!(["65000:1"])),
        ("EipAddress", vec!["reserved"], json!("true")),
        ("EipAddress", vec!["reservedFor"], json!(["web"])),
        ("BgpConf", vec!["as"], json!("65000")),
        ("BgpConf", vec!["as"], json!(4_294_967_296_i64)),
        ("BgpConf", vec!["listenPort"], json!(65_536)),
        ("BgpConf", vec!["families"], json!([1.5])),
        ("BgpConf", vec!["asPerRack"], json!({"a": "65001"})),
        ("BgpPeer", vec!["conf", "peerAs"], json!(-5)),
        ("BgpPeer", vec!["timers", "config"], json!({"holdTime": 90})),
        ("BgpPeer", vec!["dynamicAsn"], json!("any")),
        ("BgpPeer", vec!["ttlSecurity"], json!(255)),
        ("BgpPeer", vec!["bfd", "transmitInterval"], json!(5)),
        ("BgpPeer", vec!["bfd", "detectMultiplier"], json!(1)),
        ("BgpPeer", vec!["ebgpMultihop", "enabled"], json!("true")),
    ] {
        let problems = problems(&schemas, &with(kind, &path, value.clone()));
        let pointer = format!("/spec/{}", path.join("/"));
        assert!(
            problems.iter().any(|problem| problem.starts_with(&pointer)),
            "{kind} {pointer} {value}: {problems:?}"
        );
    }
}

#[test]
fn an_unknown_field_and_a_missing_one_are_refused() {
    let schemas = schemas();
    let typo = with("Eip", &["adress"], json!("192.0.2.1"));
    assert!(problems(&schemas, &typo)[0].contains("adress"));
    let mut nameless = with("BgpConf", &["as"], json!(1));
    nameless["metadata"] = json!({});
    assert!(problems(&schemas, &nameless)[0].contains("name"));
    let mut old = with("BgpPeer", &["ttlSecurity"], json!(1));
    old["apiVersion"] = json!("network.kubesphere.io/v1alpha1");
    assert!(problems(&schemas, &old)[0].starts_with("/apiVersion"));
}

/// The root schema of `v1alpha2` in a CRD.
fn v1alpha2(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    let crd: Value = serde_saphyr::from_str(text.trim_start_matches("---\n")).unwrap();
    let versions = crd["spec"]["versions"].as_array().unwrap();
    let version = versions
        .iter()
        .find(|version| version["name"] == "v1alpha2")
        .unwrap();
    version["schema"]["openAPIV3Schema"].clone()
}

/// Every field of `theirs` that `ours` takes away, retypes or newly asks for.
fn narrowed(path: &str, theirs: &Value, ours: &Value, fields: &mut usize) -> Vec<String> {
    let mut wrong = Vec::new();
    if theirs["type"] != ours["type"] {
        wrong.push(format!(
            "{path}: {} became {}",
            theirs["type"], ours["type"]
        ));
    }
    let strings = |list: &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.map(|entry| entry.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let (before, after) = (strings(&theirs["enum"]), strings(&ours["enum"]));
    if !after.is_empty() && before.iter().any(|value| !after.contains(value)) {
        wrong.push(format!("{path}: {before:?} became {after:?}"));
    }
    let asked = strings(&theirs["required"]);
    for name in strings(&ours["required"]) {
        // New objects inside new fields may ask for what they like.
        if !asked.contains(&name) && !theirs["properties"][&name].is_null() {
            wrong.push(format!("{path}.{name} is required now"));
        }
    }
    for (name, field) in theirs["properties"].as_object().into_iter().flatten() {
        *fields += 1;
        let found = &ours["properties"][name];
        // A field whose values nobody looks into takes all of them.
        let takes_all = ours["x-kubernetes-preserve-unknown-fields"] == true;
        if found.is_null() {
            if !takes_all {
                wrong.push(format!("{path}.{name} is gone"));
            }
        } else {
            wrong.extend(narrowed(&format!("{path}.{name}"), field, found, fields));
        }
    }
    for inner in ["items", "additionalProperties"] {
        if theirs[inner].is_object() {
            wrong.extend(narrowed(
                &format!("{path}[]"),
                &theirs[inner],
                &ours[inner],
                fields,
            ));
        }
    }
    wrong
}

#[test]
fn every_field_of_openelb_stands_with_its_name_and_type() {
    let mut fields = 0;
    let mut wrong = Vec::new();
    for kind in ["eips", "bgpconfs", "bgppeers"] {
        let file = format!("network.kubesphere.io_{kind}.yaml");
        let theirs = v1alpha2(&repository().join("tests/fixtures/openelb").join(&file));
        let ours = v1alpha2(&repository().join("config/crd/bases").join(&file));
        for part in ["spec", "status"] {
            let (theirs, ours) = (&theirs["properties"][part], &ours["properties"][part]);
            wrong.extend(narrowed(kind, theirs, ours, &mut fields));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(fields > 100, "{fields} fields");
}

/// A value that a schema describes, with every field in it.
fn filled(path: &str, schema: &Value) -> Value {
    if let Some(values) = schema["enum"].as_array() {
        return values.last().unwrap().clone();
    }
    match schema["type"].as_str() {
        Some("object") if schema["additionalProperties"].is_object() => {
            json!({"key": filled(path, &schema["additionalProperties"])})
        }
        Some("object") => {
            let fields = schema["properties"].as_object().into_iter().flatten();
            fields
                .map(|(name, field)| (name.clone(), filled(&format!("{path}.{name}"), field)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
        Some("array") => json!([filled(path, &schema["items"])]),
        Some("integer") => json!(7),
        Some("boolean") => json!(true),
        Some("string") => json!("2024-01-02T03:04:05Z"),
        _ => panic!("{path}: {schema}"),
    }
}

#[test]
fn an_object_with_every_field_of_openelb_comes_back_as_it_was() {
    use openelb_api::v1alpha2::{BgpConf, BgpPeer, Eip};

    fn back<K: DeserializeOwned + Serialize>(object: &Value) -> Value {
        json!(openelb_api::read::<K>(object).unwrap())
    }

    for (kind, plural) in [
        ("Eip", "eips"),
        ("BgpConf", "bgpconfs"),
        ("BgpPeer", "bgppeers"),
    ] {
        let file = format!("network.kubesphere.io_{plural}.yaml");
        let theirs = v1alpha2(&repository().join("tests/fixtures/openelb").join(&file));
        let mut object = filled(kind, &theirs);
        object["metadata"] = json!({"name": "full"});
        object["apiVersion"] = json!(GROUP_VERSION);
        object["kind"] = json!(kind);
        let back = match kind {
            "Eip" => back::<Eip>(&object),
            "BgpConf" => back::<BgpConf>(&object),
            _ => back::<BgpPeer>(&object),
        };
        assert_eq!(back, object, "{kind}");
    }
}
