//! That commands are found, and that every command of the documentation is run by somebody: the table in
//! `docs/testing.md` says by whom, or why by nobody.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

/// Where the table is, and under which heading.
const PAGE: &str = "docs/testing.md";
const HEADING: &str = "## Commands of the documentation: which test runs them";

#[test]
fn takes_all_blocks_under_the_heading_and_no_others() {
    let page = "# A\n```sh\none\n# no heading\n```\ntext\n```yaml\na: b\n```\n```sh\ntwo\n```\n## B\n```sh\nthree\n```\n";
    let found = on(page);
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|found| (&*found.heading, &*found.script))
        .collect();
    assert_eq!(found, [("A", "one\n# no heading\ntwo\n"), ("B", "three\n")]);
}

#[test]
fn a_heading_without_commands_is_an_error() {
    let none = commands("docs/tasks/install.md", "What your cluster needs to know");
    assert!(none.unwrap_err().to_string().contains("no shell commands"));
}

/// A row of the table.
struct Row {
    page: String,
    heading: String,
    /// Tests such as `cluster packaging::one_file_installs_it_all`, or `not run: ` and the reason.
    shown: String,
}

fn table() -> Vec<Row> {
    let text = std::fs::read_to_string(repository().join(PAGE)).unwrap();
    let (_, rest) = text
        .split_once(&format!("{HEADING}\n"))
        .unwrap_or_else(|| panic!("{PAGE} has no heading {HEADING}"));
    let lines = rest.lines().take_while(|line| !line.starts_with("## "));
    let rows = lines.filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [page, heading, shown] = cells.as_slice() else {
            panic!("not three cells: {line}");
        };
        Row {
            page: page.trim_matches('`').to_owned(),
            heading: (*heading).to_owned(),
            shown: (*shown).to_owned(),
        }
    })
    .collect()
}

/// The pages that users read.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec!["README.md".into(), "CONTRIBUTING.md".into()];
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(repository().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if repository().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

#[test]
fn every_command_of_the_documentation_is_in_the_table_and_nothing_else_is() {
    let mut commands = BTreeSet::new();
    for page in pages() {
        for found in on(&read(&page)) {
            commands.insert((page.display().to_string(), found.heading));
        }
    }
    let rows: BTreeSet<_> = table()
        .into_iter()
        .map(|row| (row.page, row.heading))
        .collect();
    let missing: Vec<_> = commands.difference(&rows).collect();
    assert!(missing.is_empty(), "in no row of {PAGE}: {missing:?}");
    let surplus: Vec<_> = rows.difference(&commands).collect();
    assert!(
        surplus.is_empty(),
        "rows of {PAGE} without commands: {surplus:?}"
    );
}

#[test]
fn the_tests_that_the_table_names_exist_and_follow_the_page() {
    for row in table() {
        let (page, heading, shown) = (&row.page, &row.heading, &row.shown);
        if let Some(reason) = shown.strip_prefix("not run: ") {
            assert!(reason.len() > 20, "{page}, {heading}: why not?");
            continue;
        }
        // Every second part stands between backticks.
        let tests: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{page}, {heading}: {shown}");
        for test in tests {
            let parts = test.split_once(' ').and_then(|(tier, name)| {
                let (module, function) = name.split_once("::")?;
                Some((tier, module, function))
            });
            let (tier, module, function) = parts.unwrap_or_else(|| panic!("no test: {test}"));
            let source = read(Path::new(&format!("tests/tests/{tier}/{module}.rs")));
            assert!(
                source.contains(&format!("fn {function}(")),
                "there is no {test}"
            );
            // By `follow`, here or in what the story is made of, or by starting the same program.
            let follows = format!("\"{heading}\"");
            let starts = format!("{PAGE_OF_PROGRAMS}{heading}");
            let followed = parts_of_stories(tier)
                .iter()
                .any(|part| part.contains(&follows));
            assert!(
                followed || source.contains(&starts),
                "{test} does not follow \"{heading}\" of {page}"
            );
        }
    }
}

/// The sources that a tier's stories are made of.
fn parts_of_stories(tier: &str) -> Vec<String> {
    let folder = repository().join("tests/tests").join(tier);
    let entries = std::fs::read_dir(folder).unwrap();
    let parts = entries.map(|entry| entry.unwrap().path());
    let rust = parts.filter(|path| path.extension().is_some_and(|kind| kind == "rs"));
    rust.chain([repository().join("tests/src/product/on_cluster.rs")])
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

/// A test that starts the program which a page names says so with these words and the heading.
const PAGE_OF_PROGRAMS: &str = "What README.md has under ";
