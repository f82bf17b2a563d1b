//! `hack/tools/build`, tried on a small tree of its own: what it builds, what it does not build again, and what it takes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use openelb_tests::{Deadline, eventually};
use tokio::process::{Child, Command};

use crate::victim::Victim;

/// Stands for Go: tells where it runs and how often, writes half of what is wanted, waits for a word, then writes all.
const SLOW_GO: &str = r#"#!/bin/sh
[ "$1" = env ] && { echo go1.26.0; exit; }
echo $$ >> "$NOTES/started"
readlink /proc/self/ns/net >> "$NOTES/networks"
while [ "$1" != -o ]; do shift; done
echo half > "$2"
while [ ! -e "$NOTES/go-on" ]; do sleep 0.05; done
rm -f "$2"; cp /bin/true "$2"
"#;

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

    /// A folder with a Go that waits, for the front of `PATH`; its notes go there too.
    fn slow_go(&self) -> Result<PathBuf> {
        let folder = self.at("slow");
        self.write("slow/go", SLOW_GO)?;
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.join("go"), executable)?;
        Ok(folder)
    }

    /// Begins to build with that Go.
    fn begin(&self, part: &str, slow: &Path) -> Result<Child> {
        Ok(self
            .script(&[part])
            .env("PATH", path_after(slow)?)
            .env("NOTES", slow)
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?)
    }

    async fn build(&self, parts: &[&str], given: &[(&str, &Path)]) -> Result<Output> {
        Ok(self
            .script(parts)
            .envs(given.iter().copied())
            .output()
            .await?)
    }

    fn script(&self, parts: &[&str]) -> Command {
        let mut command = Command::new(self.at("build"));
        command
            .args(parts)
            .env("OPENELB_CACHE", self.at("cache"))
            .env_remove("OPENELB_KUBERNETES")
            .env_remove("KUBEBUILDER_ASSETS")
            .env_remove("OPENELB_TOOLS");
        command
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

fn path_after(first: &Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(first.to_owned()).chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(folders)?)
}

/// Waits until so many of that Go have begun, and returns their process ids.
async fn started(slow: &Path, count: usize) -> Result<Vec<i32>> {
    eventually("a build to begin", Deadline::LONG, async || {
        let text = std::fs::read_to_string(slow.join("started")).unwrap_or_default();
        let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        ensure!(pids.len() == count, "{count} were to begin: {text:?}");
        Ok(pids)
    })
    .await
}

#[tokio::test]
async fn a_killed_build_leaves_nothing_half_made_and_the_next_goes_on() -> Result<()> {
    let tree = Tree::new()?;
    let slow = tree.slow_go()?;
    let mut first = tree.begin("first", &slow)?;
    let compilers = started(&slow, 1).await?;
    first.kill().await?;
    let [compiler] = compilers[..] else {
        anyhow::bail!("one compiler")
    };

    // The killed run's compiler still writes while the next run builds, and after.
    let (said, place) = tree.built(&["first"], &[]).await?;
    ensure!(said.contains("first: building (1 of 1)"), "{said}");
    let made = std::fs::read(place.join("first"))?;
    std::fs::write(slow.join("go-on"), "")?;
    eventually("the end of its compiler", Deadline::SHORT, async || {
        ensure!(
            kill(Pid::from_raw(compiler), None::<Signal>).is_err(),
            "it runs"
        );
        Ok(())
    })
    .await?;
    ensure!(std::fs::read(place.join("first"))? == made, "overwritten");
    let (said, _) = tree.built(&["first"], &[]).await?;
    ensure!(said.is_empty(), "built again: {said}");
    Ok(())
}

#[tokio::test]
async fn runs_side_by_side_wait_for_each_other_and_build_once() -> Result<()> {
    let tree = Tree::new()?;
    let slow = tree.slow_go()?;
    let one = tree.begin("first", &slow)?;
    started(&slow, 1).await?;
    let mut other = tree.begin("first", &slow)?;
    let mut said = tokio::io::BufReader::new(other.stderr.take().context("no output")?);
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut said, &mut line).await?;
    ensure!(line.contains("first: waiting for another run"), "{line}");
    std::fs::write(slow.join("go-on"), "")?;
    ensure!(one.wait_with_output().await?.status.success(), "the first");
    ensure!(other.wait().await?.success(), "the one that waited");
    started(&slow, 1).await?;
    Ok(())
}

/// A world has no way out of its network, so that what it lacks is built from outside.
#[tokio::test]
async fn what_a_world_lacks_is_built_outside_of_it() -> Result<()> {
    let tree = Tree::new()?;
    let slow = tree.slow_go()?;
    std::fs::write(slow.join("go-on"), "")?;
    let (cache, path) = (tree.at("cache"), path_after(&slow)?);
    let text = |value: &Path| value.display().to_string();
    let env = [
        ("OPENELB_CACHE", text(&cache)),
        ("NOTES", text(&slow)),
        ("PATH", path.to_string_lossy().into_owned()),
    ];
    let env: Vec<(&str, &str)> = env
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut victim = Victim::start("a_world_that_waits", "part", &env)?;
    let inside = victim.says_after("the part is there in ").await?;
    ensure!(victim.ended().await?.success(), "it failed");
    let network = std::fs::read_to_string(slow.join("networks"))?;
    let own = std::fs::read_link("/proc/self/ns/net")?
        .display()
        .to_string();
    ensure!(
        network.trim() == own && inside != own,
        "{network}, {inside}, {own}"
    );
    Ok(())
}
