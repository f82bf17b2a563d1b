//! What is in a binary: a software bill of materials in CycloneDX 1.5, from what cargo knows. It is sorted and has no time of
//! day, so that the same tree gives the same file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::command::{cargo, read, root};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// Where it comes from; nothing for what is in this tree.
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `build` or `dev`; nothing for what is linked in.
    kind: Option<String>,
}

/// The bill of materials of a binary package of this workspace for a target.
///
/// # Errors
/// cargo fails, or there is no such package.
pub(crate) fn of(binary: &str, target: &str) -> Result<Value> {
    let mut metadata = cargo();
    metadata
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", target]);
    let metadata: Metadata = serde_json::from_str(&read(metadata)?)?;
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).context("no Cargo.lock")?;
    bill(binary, &metadata, &checksums(&lock))
}

/// Writes it to a file.
///
/// # Errors
/// As [`of`], or the file cannot be written.
pub(crate) fn write(binary: &str, target: &str, file: &Path) -> Result<()> {
    let mut text = serde_json::to_string_pretty(&of(binary, target)?)?;
    text.push('\n');
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn bill(
    binary: &str,
    metadata: &Metadata,
    sums: &BTreeMap<(String, String), String>,
) -> Result<Value> {
    let packages: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package))
        .collect();
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let subject = metadata
        .packages
        .iter()
        .find(|package| package.name == binary && package.source.is_none())
        .with_context(|| format!("there is no package {binary}"))?;
    let mut linked: BTreeSet<&str> = BTreeSet::new();
    let mut waiting = vec![subject.id.as_str()];
    let mut edges = BTreeMap::new();
    while let Some(id) = waiting.pop() {
        if !linked.insert(id) {
            continue;
        }
        let below: BTreeSet<&str> = nodes
            .get(id)
            .into_iter()
            .flat_map(|node| &node.deps)
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()))
            .map(|dependency| dependency.pkg.as_str())
            .collect();
        waiting.extend(&below);
        edges.insert(id, below);
    }
    let url = |id: &str| packages.get(id).map(|package| purl(package));
    let mut components: Vec<Value> = linked
        .iter()
        .filter(|id| **id != subject.id)
        .filter_map(|id| packages.get(id))
        .map(|package| component(package, "library", sums))
        .collect();
    components.sort_by_key(|component| component["bom-ref"].to_string());
    let mut dependencies: Vec<Value> = edges
        .iter()
        .map(|(id, below)| {
            let mut below: Vec<String> = below.iter().filter_map(|id| url(id)).collect();
            below.sort();
            json!({"ref": url(id), "dependsOn": below})
        })
        .collect();
    dependencies.sort_by_key(|dependency| dependency["ref"].to_string());
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(subject, "application", sums)},
        "components": components,
        "dependencies": dependencies,
    }))
}

fn component(package: &Package, kind: &str, sums: &BTreeMap<(String, String), String>) -> Value {
    let mut component = Map::from_iter([
        ("type".to_owned(), json!(kind)),
        ("bom-ref".to_owned(), json!(purl(package))),
        ("name".to_owned(), json!(package.name)),
        ("version".to_owned(), json!(package.version)),
        ("purl".to_owned(), json!(purl(package))),
    ]);
    if let Some(license) = &package.license {
        // Some still write it as it was before SPDX.
        let expression = license.replace('/', " OR ");
        component.insert("licenses".to_owned(), json!([{"expression": expression}]));
    }
    if let Some(sum) = sums.get(&(package.name.clone(), package.version.clone())) {
        let hashes = json!([{"alg": "SHA-256", "content": sum}]);
        component.insert("hashes".to_owned(), hashes);
    }
    Value::Object(component)
}

fn purl(package: &Package) -> String {
    format!(
        "pkg:cargo/{}@{}",
        package.name,
        package.version.replace('+', "%2B")
    )
}

/// The checksums in a lock file, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut sums = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_start_matches(" = ").trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) =
            (field("name"), field("version"), field("checksum"))
        {
            sums.insert((name, version), sum);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "x86_64-unknown-linux-musl";

    #[test]
    fn a_bill_names_what_is_linked_with_licence_and_checksum() {
        let bill = of("openelb-webhook", TARGET).unwrap();
        assert_eq!(bill["bomFormat"], "CycloneDX");
        assert_eq!(bill["metadata"]["component"]["name"], "openelb-webhook");
        let components = bill["components"].as_array().unwrap();
        let find = |name: &str| {
            components
                .iter()
                .find(|component| component["name"] == name)
        };
        let rustls = find("rustls").unwrap();
        assert_eq!(rustls["hashes"][0]["content"].as_str().unwrap().len(), 64);
        assert!(rustls["licenses"][0]["expression"].is_string());
        assert!(find("openelb-api").is_some(), "our own crates too");
        assert!(find("proptest").is_none(), "only tests use it");
        assert!(find("openelb-bgp").is_none(), "the webhook speaks no BGP");
        for component in components {
            assert!(component["licenses"].is_array(), "{component}");
        }
    }

    #[test]
    fn every_reference_leads_to_a_component_and_none_is_there_twice() {
        let bill = of("openelb-operator", TARGET).unwrap();
        let mut known: Vec<&Value> = bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| &component["bom-ref"])
            .collect();
        known.push(&bill["metadata"]["component"]["bom-ref"]);
        let count = known.len();
        known.sort_by_key(ToString::to_string);
        known.dedup();
        assert_eq!(known.len(), count);
        let dependencies = bill["dependencies"].as_array().unwrap();
        assert_eq!(dependencies.len(), count);
        for dependency in dependencies {
            assert!(known.contains(&&dependency["ref"]), "{dependency}");
            for below in dependency["dependsOn"].as_array().unwrap() {
                assert!(known.contains(&below), "{dependency}");
            }
        }
    }

    #[test]
    fn the_same_tree_gives_the_same_bill() {
        let one = of("openelb-operator", TARGET).unwrap().to_string();
        assert_eq!(one, of("openelb-operator", TARGET).unwrap().to_string());
        assert!(!one.contains("timestamp"));
    }
}
