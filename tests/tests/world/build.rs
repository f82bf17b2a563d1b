//! `hack/tools/build`, tried on a small tree of its own: what it builds, what it does not build again, and what it takes.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// A copy of the script with two small parts in place of the real ones.
struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new() -> Result<Self> {
        let tree = Self {
            folder: tempfile::tempdir()?,
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/tools/build");
        std::fs::copy(script, tree.at("build"))?;
        tree.write(
            "parts",
            "# part family package\nfirst one example.com/one\nsecond two example.com/two\n",
        )?;
        for family in ["one", "two"] {
            tree.write(
                &format!("{family}/go.mod"),
                &format!("module example.com/{family}\n\ngo 1.21\n"),
            )?;
            tree.write(&format!("{family}/go.sum"), "")?;
            tree.write(
                &format!("{family}/main.go"),
                "package main\n\nfunc main() {}\n",
            )?;
        }
        Ok(tree)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().context("no folder")?)?;
        Ok(std::fs::write(path, text)?)
    }

    async fn build(&self, parts: &[&str], given: &[(&str, &Path)]) -> Result<Output> {
        let output = Command::new(self.at("build"))
            .args(parts)
            .env("OPENELB_CACHE", self.at("cache"))
            .env_remove("OPENELB_KUBERNETES")
            .env_remove("KUBEBUILDER_ASSETS")
            .env_remove("OPENELB_TOOLS")
            .envs(given.iter().copied())
            .output()
            .await?;
        Ok(output)
    }

    /// Builds, and returns what was said meanwhile and where the parts are.
    async fn built(&self, parts: &[&str], given: &[(&str, &Path)]) -> Result<(String, PathBuf)> {
        let output = self.build(parts, given).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{said}");
        let place = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((said, place.into()))
    }
}

#[tokio::test]
async fn parts_are_built_once_only_when_wanted_and_not_when_given() -> Result<()> {
    let tree = Tree::new()?;
    let (said, place) = tree.built(&["first"], &[]).await?;
    ensure!(
        said.contains("first: building") && said.contains("first: built in"),
        "{said}"
    );
    ensure!(
        !said.contains("second") && !place.join("second").exists(),
        "{said}"
    );
    let (said, again) = tree.built(&["first"], &[]).await?;
    ensure!(said.is_empty() && again == place, "built again: {said}");
    let output = tree.build(&["third"], &[]).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && said.contains("there are: first second"),
        "{said}"
    );

    // A run that broke leaves what it had done, and the next goes on there.
    tree.write("two/main.go", "package main\n\nfunc main() { broken }\n")?;
    ensure!(
        !tree.build(&["all"], &[]).await?.status.success(),
        "a broken part was built"
    );
    ensure!(
        place.join("first").exists() && !place.join("second").exists(),
        "half-made"
    );
    tree.write("two/main.go", "package main\n\nfunc main() {}\n")?;
    let (said, _) = tree.built(&["all"], &[]).await?;
    ensure!(
        said.contains("second: building") && !said.contains("first"),
        "{said}"
    );
    ensure!(
        Command::new(place.join("second")).status().await?.success(),
        "it does not run"
    );

    // Other pins are another folder, for their own family alone.
    tree.write("one/go.sum", "\n")?;
    let (said, other) = tree.built(&["all"], &[]).await?;
    ensure!(
        other != place && said.contains("first: building") && !said.contains("second"),
        "{said}"
    );

    // What the user has wins, and is not built.
    tree.write("one/go.sum", "\n\n")?;
    for name in ["KUBEBUILDER_ASSETS", "OPENELB_TOOLS"] {
        tree.write("mine/first", "")?;
        let (said, _) = tree.built(&["first"], &[(name, &tree.at("mine"))]).await?;
        ensure!(
            said.contains("first: taken from") && !said.contains("building"),
            "{said}"
        );
    }
    Ok(())
}

/// Go before 1.21 says of a newer go.mod only that it is wrong.
#[tokio::test]
async fn a_go_that_is_too_old_is_told_before_anything_is_built() -> Result<()> {
    let tree = Tree::new()?;
    tree.write("old/go", "#!/bin/sh\necho go1.19.8\n")?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(tree.at("old/go"), mode)?;
    let mut path = tree.at("old").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let output = tree
        .build(&["first"], &[("PATH", Path::new(&path))])
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && said.contains("Go 1.19.8 is too old: install Go 1.26"),
        "{said}"
    );
    Ok(())
}
