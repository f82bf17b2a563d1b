//! `hack docs`: the pages of the reference that are made from the programs: metrics from what each process registers,
//! flags from its `--help`, annotations and other names from the module that holds them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::command::{cargo, read, root, say};

/// Write, or only compare.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail when a page is not what the programs say.
    #[arg(long)]
    check: bool,
}

const HEAD: &str = "<!-- Made by `hack/docs`. Edits are lost. -->\n\n";

/// The commands whose flags are told of: package and arguments.
const COMMANDS: &[(&str, &[&str])] = &[
    ("openelb-operator", &["controller"]),
    ("openelb-operator", &["speaker"]),
    ("openelb-operator", &["all"]),
    ("openelb-operator", &["prepare"]),
    ("openelb-webhook", &["serve"]),
    ("openelb-webhook", &["certs", "create"]),
    ("openelb-webhook", &["certs", "patch"]),
    ("crd-gen", &[]),
];

/// The processes with metrics: title, package and arguments.
const PROCESSES: &[(&str, &str, &[&str])] = &[
    ("Controller", "openelb-operator", &["metrics", "controller"]),
    ("Speaker", "openelb-operator", &["metrics", "speaker"]),
    ("Webhook", "openelb-webhook", &["metrics"]),
];

/// Writes or compares the pages.
///
/// # Errors
/// A program cannot be built or run, or a page cannot be read or written.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let pages = [
        ("metrics", metrics()?),
        ("flags", flags()?),
        ("annotations", annotations()?),
    ];
    let mut code = ExitCode::SUCCESS;
    for (name, wanted) in pages {
        let name = format!("docs/reference/{name}.md");
        let path = root().join(&name);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == wanted) {
            continue;
        }
        if args.check {
            say(&format!(
                "{name} is not what the programs say (mend: hack/docs)"
            ));
            code = ExitCode::FAILURE;
        } else {
            std::fs::write(&path, wanted).with_context(|| format!("cannot write {name}"))?;
            say(&format!("wrote {name}"));
        }
    }
    Ok(code)
}

fn output(package: &str, args: &[&str]) -> Result<String> {
    let mut run = cargo();
    run.args([
        "run",
        "--quiet",
        "--package",
        package,
        "--bin",
        package,
        "--",
    ])
    .args(args)
    // What is set here would stand in the page as a default.
    .env_remove("OPENELB_LOG");
    read(run)
}

fn metrics() -> Result<String> {
    let mut page = format!(
        "{HEAD}# Metrics\n\n\
         Each process serves them on `/metrics` of its metrics port in the OpenMetrics format. Counters end in `_total`; a \
         histogram has `_bucket`, `_sum` and `_count`.\n"
    );
    for (title, package, args) in PROCESSES {
        page.push_str(&table(title, &output(package, args)?));
    }
    Ok(page)
}

/// A process's metrics as a table, from the text that it serves.
fn table(title: &str, text: &str) -> String {
    let mut page =
        format!("\n## {title}\n\n| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n");
    let mut kinds = Vec::new();
    let mut helps = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let words = (words.next(), words.next(), words.next(), words.next());
        match words {
            (Some("#"), Some("HELP"), Some(name), Some(help)) => helps.push((name, help)),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => kinds.push((name, kind)),
            _ => {}
        }
    }
    for (name, help) in helps {
        let kind = kinds.iter().find(|(known, _)| *known == name);
        let kind = kind.map_or("unknown", |(_, kind)| kind);
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels: Vec<String> = labels(text, name)
            .into_iter()
            .map(|label| format!("`{label}`"))
            .collect();
        // The registry ends every help with a full stop.
        let help = help.trim_end_matches('.');
        let _ = writeln!(
            page,
            "| `{name}{suffix}` | {kind} | {} | {help} |",
            labels.join(", ")
        );
    }
    page
}

/// The labels that the series of a metric have, without those of buckets.
fn labels(text: &str, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, rest)) = line.split_once('{') else {
            continue;
        };
        let ours = series.strip_prefix(name).is_some_and(|suffix| {
            ["", "_total", "_info", "_bucket", "_sum", "_count"].contains(&suffix)
        });
        if let (true, Some((pairs, _))) = (ours, rest.split_once('}')) {
            let keys = pairs
                .split(',')
                .filter_map(|pair| pair.split_once('=').map(|(key, _)| key.to_owned()));
            found.extend(keys.filter(|key| key != "le"));
        }
    }
    found
}

fn flags() -> Result<String> {
    let mut page = format!(
        "{HEAD}# Flags\n\nWhat `--help` of each program says. The chart sets what it needs; `extraArgs` adds to it.\n"
    );
    for (package, args) in COMMANDS {
        let mut words = vec![*package];
        words.extend_from_slice(args);
        let mut with_help = args.to_vec();
        with_help.push("--help");
        let text = output(package, &with_help)?;
        let lines: Vec<String> = text.lines().map(without_environment).collect();
        let _ = write!(
            page,
            "\n## {}\n\n```text\n{}\n```\n",
            words.join(" "),
            lines.join("\n").trim_end()
        );
    }
    Ok(page)
}

/// A line of help as it is on every machine: clap tells what a variable is set to where the page is made.
fn without_environment(line: &str) -> String {
    let line = line.trim_end();
    if let Some((before, rest)) = line.split_once("[env: ")
        && let Some((name, _)) = rest.split_once('=')
    {
        return format!("{before}[env: {name}]");
    }
    line.to_owned()
}

fn annotations() -> Result<String> {
    let path = root().join("crates/api/src/keys.rs");
    let source = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(format!(
        "{HEAD}# Annotations, labels and other names\n\n\
         Every name with a meaning, and who writes and reads it.\n{}",
        names(&source)
    ))
}

/// The constants of a module of texts, as tables: one for the module, one for each module in it.
fn names(source: &str) -> String {
    let mut page = String::from("\n| Name | Meaning |\n|---|---|\n");
    let mut doc: Vec<&str> = Vec::new();
    let mut statement = String::new();
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim());
        } else if let Some(name) = line.strip_prefix("pub mod ") {
            let title = name.trim_end_matches(" {");
            let title = title.chars().next().map_or_else(String::new, |first| {
                first.to_uppercase().chain(title.chars().skip(1)).collect()
            });
            let _ = write!(
                page,
                "\n## {title}\n\n{}\n\n| Name | Meaning |\n|---|---|\n",
                doc.join(" ")
            );
            doc.clear();
        } else if line.starts_with("pub const ") || !statement.is_empty() {
            statement.push_str(line);
            if line.ends_with(';') {
                if let Some(value) = statement.split('"').nth(1) {
                    let _ = writeln!(page, "| `{value}` | {} |", readable(&doc, source));
                }
                statement.clear();
                doc.clear();
            }
        }
    }
    page
}

/// The words of a doc comment, with the values of the constants that it links to.
fn readable(doc: &[&str], source: &str) -> String {
    let mut text = doc.join(" ").replace('|', "\\|");
    while let Some((before, rest)) = text.split_once("[`") {
        let Some((link, after)) = rest.split_once("`]") else {
            break;
        };
        let name = link.rsplit("::").next().unwrap_or(link);
        let value = source
            .split_once(&format!("pub const {name}: &str ="))
            .and_then(|(_, rest)| rest.split('"').nth(1))
            .unwrap_or(link);
        text = format!("{before}`{value}`{after}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_variable_is_set_to_here_stands_in_no_page() {
        assert_eq!(
            without_environment("    [env: OPENELB_LOG=trace]  "),
            "    [env: OPENELB_LOG]"
        );
        assert_eq!(without_environment("  [default: a=b]"), "  [default: a=b]");
    }

    #[test]
    fn a_metric_is_a_row_with_its_labels() {
        let text = "# HELP x_seconds Time taken.\n# TYPE x_seconds histogram\n\
                    x_seconds_bucket{kind=\"a\",le=\"1.0\"} 1\n\
                    # HELP x_reviews Reviews.\n# TYPE x_reviews counter\nx_reviews_total{kind=\"a\",outcome=\"b\"} 1\n";
        let table = table("Webhook", text);
        for row in [
            "| `x_seconds` | histogram | `kind` | Time taken |",
            "| `x_reviews_total` | counter | `kind`, `outcome` | Reviews |",
        ] {
            assert!(table.lines().any(|line| line == row), "{row}\n{table}");
        }
    }

    #[test]
    fn a_constant_is_a_row_with_its_words() {
        let source = "/// Set by users: must be [`YES`].\npub const ASK: &str = \"a/b\";\n\
                      /// The value.\npub const YES: &str =\n    \"yes\";\n/// Types.\npub mod conditions {\n\
                      /// It is.\npub const READY: &str = \"Ready\";\n}\n";
        let page = names(source);
        for line in [
            "| `a/b` | Set by users: must be `yes`. |",
            "| `yes` | The value. |",
            "## Conditions",
            "| `Ready` | It is. |",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }
}
