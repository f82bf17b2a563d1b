//! The commands that the documentation tells users to type, taken from its pages so that they are run as they stand there.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use super::{User, repository};
use crate::{Deadline, tool};

/// The shell commands of the first block under `heading` on a page (`docs/tasks/install.md`) of the repository.
///
/// # Errors
/// There is no such page, heading or block.
pub fn commands(page: &str, heading: &str) -> Result<String> {
    let text = std::fs::read_to_string(repository().join(page))
        .with_context(|| format!("cannot read {page}"))?;
    let block = text
        .lines()
        .skip_while(|line| line.trim_start_matches('#').trim() != heading || !line.starts_with('#'))
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .skip_while(|line| *line != "```sh")
        .skip(1)
        .take_while(|line| *line != "```")
        .fold(String::new(), |all, line| all + line + "\n");
    ensure!(
        !block.is_empty(),
        "{page} has no shell commands under \"{heading}\""
    );
    Ok(block)
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
mod tests {
    use super::*;

    #[test]
    fn takes_the_block_under_the_heading_and_no_other() {
        let uninstall = commands("docs/tasks/install.md", "Uninstall").unwrap();
        assert_eq!(
            uninstall,
            "helm uninstall openelb --namespace openelb-system --wait\n"
        );
    }

    #[test]
    fn a_heading_without_commands_is_an_error() {
        let none = commands("docs/tasks/install.md", "What your cluster needs to know");
        assert!(none.unwrap_err().to_string().contains("no shell commands"));
    }
}
