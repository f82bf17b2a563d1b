//! The commands that the documentation tells users to type, taken from its pages so that they are run as they stand there.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::{User, repository};
use crate::{Deadline, tool};

/// The shell commands under a heading of a page.
#[derive(Debug, PartialEq, Eq)]
struct Commands {
    heading: String,
    script: String,
}

/// All shell commands of a page, by the heading that they stand under.
fn on(page: &str) -> Vec<Commands> {
    let mut found: Vec<Commands> = Vec::new();
    let mut heading = "";
    // Inside a block: whether it is one of the shell.
    let mut block = None;
    for line in page.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (block, fence) {
            (None, Some(language)) => block = Some(SHELLS.contains(&language.trim())),
            (Some(_), Some(_)) => block = None,
            (None, None) if line.starts_with('#') => heading = line.trim_start_matches('#').trim(),
            (Some(true), None) => {
                if found.last().is_none_or(|last| last.heading != heading) {
                    let heading = heading.to_owned();
                    let script = String::new();
                    found.push(Commands { heading, script });
                }
                if let Some(last) = found.last_mut() {
                    last.script += line;
                    last.script.push('\n');
                }
            }
            (Some(false) | None, None) => {}
        }
    }
    found
}

/// What blocks of commands call themselves.
const SHELLS: [&str; 4] = ["sh", "bash", "shell", "console"];

/// The shell commands under `heading` on a page (`docs/tasks/install.md`) of the repository: of all blocks there.
///
/// # Errors
/// There is no such page, heading or block.
pub fn commands(page: &str, heading: &str) -> Result<String> {
    let text = std::fs::read_to_string(repository().join(page))
        .with_context(|| format!("cannot read {page}"))?;
    let found = on(&text).into_iter().find(|found| found.heading == heading);
    let found =
        found.with_context(|| format!("{page} has no shell commands under \"{heading}\""))?;
    Ok(found.script)
}

/// Runs the commands under `heading` on a page as the user would, in a shell in the repository; returns what they printed.
///
/// # Errors
/// There are none, one of them fails (the error holds what it said), or they hang.
pub async fn follow(user: &User, page: &str, heading: &str) -> Result<String> {
    follow_in(user, page, heading, &repository()).await
}

/// As [`follow`], in another folder than the repository.
///
/// # Errors
/// As [`follow`].
pub async fn follow_in(user: &User, page: &str, heading: &str, folder: &Path) -> Result<String> {
    let script = commands(page, heading)?;
    let mut path = std::ffi::OsString::new();
    for name in ["kubectl", "helm"] {
        let program = tool(name)?;
        path.push(program.parent().unwrap_or(Path::new("/")));
        path.push(":");
    }
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let run = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", &script])
        .env("PATH", path)
        .env("KUBECONFIG", user.kubeconfig())
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Deadline::LONG.duration(), run)
        .await
        .with_context(|| format!("the commands of {page} under \"{heading}\" hang"))?
        .context("cannot start bash")?;
    if !output.status.success() {
        bail!(
            "the commands of {page} under \"{heading}\" ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests;
