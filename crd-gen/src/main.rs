//! Emits what is made from the API's Rust types: CRDs, JSON schemas and the API reference.

mod files;
mod reference;
mod schema;
mod yaml;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use serde_json::Value;

/// Emits the CRDs of openelb-rs, made from the Rust types.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    /// How the CRDs are written.
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    format: Format,
    /// Where the CRDs go; standard output when absent.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write every generated file of the repository: CRDs, chart, JSON schemas, API reference.
    #[arg(long, conflicts_with_all = ["check", "output"])]
    write: bool,
    /// Compare every generated file of the repository with what it should be; exit 1 with the differences.
    #[arg(long, conflicts_with = "output")]
    check: bool,
    /// The repository; the one around the current directory when absent.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.write || arguments.check {
        let root = match arguments.root {
            Some(root) => root,
            None => files::repository()?,
        };
        let generated = files::generated()?;
        if arguments.write {
            return files::write(&root, &generated).map(|()| ExitCode::SUCCESS);
        }
        return Ok(match files::check(&root, &generated)? {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        });
    }
    let text = render(&openelb_api::crd::crds(), arguments.format)?;
    match arguments.output {
        Some(path) => {
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        }
        // Whoever reads may stop early, as `head` does.
        None => std::io::stdout().write_all(text.as_bytes()).or(Ok(())),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// All CRDs as one text: a YAML stream, or a Kubernetes List in JSON.
fn render(crds: &[Value], format: Format) -> Result<String> {
    match format {
        Format::Yaml => crds.iter().map(yaml::document).collect(),
        Format::Json => {
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": crds});
            Ok(serde_json::to_string_pretty(&list)? + "\n")
        }
    }
}
