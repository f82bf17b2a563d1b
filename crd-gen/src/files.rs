//! The generated files of the repository: what they should be, and whether they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use similar::TextDiff;

use crate::{reference, schema, yaml};

/// Where each CRD is: for kustomize, and for the chart.
const CRD_FOLDERS: [&str; 2] = ["config/crd/bases", "charts/openelb/files/crds"];

/// Where the JSON schemas are.
const SCHEMA_FOLDER: &str = "config/schema";

/// Where the API reference is.
const REFERENCE: &str = "docs/reference/api.md";

/// Every generated file by its path in the repository.
pub(crate) fn generated() -> Result<BTreeMap<PathBuf, String>> {
    let crds = openelb_api::crd::crds();
    let mut files = BTreeMap::new();
    for crd in &crds {
        let name = crd_file(crd);
        let text = format!(
            "# Made by `cargo run -p crd-gen -- --write` from crates/api. Edits are lost.\n{}",
            yaml::document(crd)?
        );
        for folder in CRD_FOLDERS {
            files.insert(Path::new(folder).join(&name), text.clone());
        }
        let (name, schema) = schema::of(crd);
        let text = serde_json::to_string_pretty(&schema)? + "\n";
        files.insert(Path::new(SCHEMA_FOLDER).join(name), text);
    }
    files.insert(REFERENCE.into(), reference::page(&crds));
    Ok(files)
}

/// The file name that controller-gen gives a CRD.
fn crd_file(crd: &Value) -> String {
    let text = |pointer: &str| {
        crd.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    format!(
        "{}_{}.yaml",
        text("/spec/group"),
        text("/spec/names/plural")
    )
}

/// The repository around the current directory.
pub(crate) fn repository() -> Result<PathBuf> {
    let here = std::env::current_dir().context("cannot tell the current directory")?;
    let found = here
        .ancestors()
        .find(|folder| folder.join("crates/api/Cargo.toml").is_file());
    match found {
        Some(root) => Ok(root.to_owned()),
        None => bail!(
            "{} is not inside the repository; name it by --root",
            here.display()
        ),
    }
}

/// Writes what differs, and removes what is generated no more.
pub(crate) fn write(root: &Path, files: &BTreeMap<PathBuf, String>) -> Result<()> {
    for (name, text) in files {
        let path = root.join(name);
        if fs::read_to_string(&path).is_ok_and(|found| found == *text) {
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", name.display());
    }
    for name in leftovers(root, files) {
        fs::remove_file(root.join(&name))
            .with_context(|| format!("cannot remove {}", name.display()))?;
        println!("removed {}", name.display());
    }
    Ok(())
}

/// Shows what differs; the number of files that do.
pub(crate) fn check(root: &Path, files: &BTreeMap<PathBuf, String>) -> Result<usize> {
    let mut wrong = 0;
    for (name, text) in files {
        let found = match fs::read_to_string(root.join(name)) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", name.display()));
            }
        };
        if found != *text {
            wrong += 1;
            let name = name.display().to_string();
            let diff = TextDiff::from_lines(&found, text);
            print!(
                "{}",
                diff.unified_diff()
                    .context_radius(3)
                    .header(&name, &format!("{name} (from the Rust types)"))
            );
        }
    }
    for name in leftovers(root, files) {
        wrong += 1;
        println!("{} is generated no more", name.display());
    }
    match wrong {
        0 => println!("{} generated files are up to date", files.len()),
        _ => eprintln!(
            "{wrong} generated files differ from the Rust types; mend them by: cargo run -p crd-gen -- --write"
        ),
    }
    Ok(wrong)
}

/// Files in generated folders that are not generated.
fn leftovers(root: &Path, files: &BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
    let mut left: Vec<_> = CRD_FOLDERS
        .iter()
        .chain([&SCHEMA_FOLDER])
        .filter_map(|folder| {
            fs::read_dir(root.join(folder))
                .ok()
                .map(|found| (folder, found))
        })
        .flat_map(|(folder, found)| {
            found
                .flatten()
                .map(|entry| Path::new(folder).join(entry.file_name()))
        })
        .filter(|path| !files.contains_key(path))
        .collect();
    left.sort();
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_up_to_date_until_somebody_edits_it() {
        let root = std::env::temp_dir().join(format!("crd-gen-{}", std::process::id()));
        let files = generated().unwrap();
        write(&root, &files).unwrap();
        assert_eq!(check(&root, &files).unwrap(), 0);
        fs::write(root.join(REFERENCE), "edited").unwrap();
        fs::write(root.join(SCHEMA_FOLDER).join("old.json"), "{}").unwrap();
        assert_eq!(check(&root, &files).unwrap(), 2);
        write(&root, &files).unwrap();
        assert_eq!(check(&root, &files).unwrap(), 0);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn generation_is_deterministic() {
        assert_eq!(generated().unwrap(), generated().unwrap());
    }
}
