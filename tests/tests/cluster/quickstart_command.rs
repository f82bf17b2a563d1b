//! What README.md has under Two commands: `hack/quickstart` itself, as a newcomer uses it. What it leaves running can be
//! entered, what it removes is gone, and its exit code tells the truth.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use openelb_tests::product::repository;
use openelb_tests::{Deadline, binary, eventually};
use tokio::process::Command;

/// A tour takes a minute; on a busy machine a few.
const TOUR: Deadline = Deadline::seconds(600);

/// The quickstart with a state of its own, so that a user's is left alone. Dropped, what it keeps is removed.
struct Quickstart {
    program: PathBuf,
    state: tempfile::TempDir,
}

impl Quickstart {
    fn new() -> Result<Self> {
        Ok(Self {
            program: binary("hack")?,
            state: tempfile::tempdir()?,
        })
    }

    async fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Result<Output> {
        let run = Command::new(&self.program)
            .arg("quickstart")
            .arg("--state")
            .arg(self.state.path())
            .args(args)
            // Whoever keeps the tests' worlds does not mean this one.
            .env_remove("OPENELB_KEEP_WORLD")
            .envs(env.iter().copied())
            .current_dir(repository())
            .stdin(Stdio::null())
            .output();
        let output = tokio::time::timeout(TOUR.duration(), run).await;
        output.context("the quickstart hangs")?.context("hack")
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        let _ = std::process::Command::new(&self.program)
            .args(["quickstart", "--down", "--state"])
            .arg(self.state.path())
            .current_dir(repository())
            .stdout(Stdio::null())
            .status();
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn keep_leaves_a_cluster_that_can_be_entered_and_down_removes_it() -> Result<()> {
    let quickstart = Quickstart::new()?;
    let output = quickstart.run(&["--keep"], &[]).await?;
    let said = text(&output);
    ensure!(output.status.success(), "{said}");
    let line = |start: &str| {
        let found = said.lines().find(|line| line.trim().starts_with(start));
        found.with_context(|| format!("no line `{start}`: {said}"))
    };
    // What a reader would type, as it was printed.
    let script = format!(
        "{} -- bash -ec '{}; kubectl get nodes --no-headers; ip netns exec router ip route show proto bgp'",
        line("nsenter --target")?.trim(),
        line("export KUBECONFIG=")?.trim()
    );
    let inside = Command::new("bash").args(["-ec", &script]).output().await?;
    let seen = text(&inside);
    ensure!(inside.status.success(), "{script}: {seen}");
    ensure!(
        seen.lines().filter(|line| line.contains(" Ready ")).count() == 3,
        "{seen}"
    );
    ensure!(seen.contains("203.0.113."), "{seen}");

    let again = quickstart.run(&["--keep"], &[]).await?;
    ensure!(
        !again.status.success() && text(&again).contains("still running"),
        "{}",
        text(&again)
    );

    let world = std::fs::read_to_string(quickstart.state.path().join("world"))?;
    let world = Path::new(world.trim()).parent().context("no world")?;
    ensure!(world.exists(), "{} is not there", world.display());
    let down = quickstart.run(&["--down"], &[]).await?;
    ensure!(down.status.success(), "{}", text(&down));
    ensure!(!world.exists(), "{} is left", world.display());
    let name = world.file_name().context("no name")?.to_string_lossy();
    let groups = format!("ls -d /sys/fs/cgroup/{name}-* /sys/fs/cgroup/*/{name}-* 2>/dev/null");
    eventually("control groups to go", Deadline::SHORT, async || {
        let left = Command::new("bash").args(["-c", &groups]).output().await?;
        ensure!(left.stdout.is_empty(), "{}", text(&left));
        anyhow::Ok(())
    })
    .await?;
    let twice = quickstart.run(&["--down"], &[]).await?;
    ensure!(twice.status.success(), "{}", text(&twice));
    Ok(())
}

/// A part of the world is not where it was said to be: both forms tell so, and neither succeeds.
#[tokio::test]
async fn a_tour_that_fails_is_told_with_its_reason_and_its_exit_code() -> Result<()> {
    let quickstart = Quickstart::new()?;
    for args in [&[][..], &["--keep"]] {
        // What a story that fails leaves to be read goes with the test.
        let state = quickstart.state.path().to_string_lossy();
        let nowhere = [("OPENELB_BINARIES", "/nowhere"), ("TMPDIR", &*state)];
        let output = quickstart.run(args, &nowhere).await?;
        let said = text(&output);
        ensure!(!output.status.success(), "{args:?}: {said}");
        ensure!(said.contains("/nowhere/"), "{args:?}: {said}");
    }
    Ok(())
}
