//! The command as people and CI call it: what it prints, where it writes, what its exit code says.

// The functions beside the tests are part of them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn crd_gen(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_crd-gen"))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// An empty folder of this test, by name.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        fs::remove_dir_all(&path).unwrap();
    }
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn the_crds_go_to_standard_output_as_yaml() {
    let output = crd_gen(&[]);
    assert!(output.status.success());
    let text = stdout(&output);
    let kinds = text
        .lines()
        .filter(|line| *line == "kind: CustomResourceDefinition");
    assert_eq!(kinds.count(), 4);
    assert!(text.starts_with("---\n"), "{text}");
    assert_eq!(text, stdout(&crd_gen(&[])), "the same every time");
}

#[test]
fn json_is_one_list_and_goes_to_a_file_where_one_is_named() {
    let file = folder("output").join("crds.json");
    let output = crd_gen(&["--format", "json", "--output", file.to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty());
    let list: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(list["kind"], "List");
    let names: Vec<&str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|crd| crd["spec"]["names"]["kind"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Eip", "EipAddress", "BgpConf", "BgpPeer"]);
}

#[test]
fn check_is_content_with_what_write_wrote_and_shows_what_differs() {
    let root = folder("repository");
    let root = root.to_str().unwrap();
    let missing = crd_gen(&["--check", "--root", root]);
    assert_eq!(missing.status.code(), Some(1));

    assert!(crd_gen(&["--write", "--root", root]).status.success());
    let good = crd_gen(&["--check", "--root", root]);
    assert!(good.status.success(), "{good:?}");
    assert_eq!(stdout(&crd_gen(&["--write", "--root", root])), "");

    let page = Path::new(root).join("docs/reference/api.md");
    let edited = fs::read_to_string(&page)
        .unwrap()
        .replace("# API reference", "# Edited by hand");
    fs::write(&page, edited).unwrap();
    let differs = crd_gen(&["--check", "--root", root]);
    assert_eq!(differs.status.code(), Some(1));
    let diff = stdout(&differs);
    for line in [
        "--- docs/reference/api.md",
        "-# Edited by hand",
        "+# API reference",
    ] {
        assert!(diff.lines().any(|found| found == line), "{line}\n{diff}");
    }
}

#[test]
fn the_repository_is_up_to_date() {
    let output = crd_gen(&["--check"]);
    assert!(output.status.success(), "{}", stdout(&output));
}

#[test]
fn contradicting_options_are_refused() {
    for args in [
        ["--write", "--check"].as_slice(),
        &["--check", "--output", "x"],
    ] {
        let output = crd_gen(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
