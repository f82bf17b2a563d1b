//! Running a test inside a private world.
//!
//! [`scenario`] starts this same test program again, for this one test, inside new mount, network, pid and uts
//! namespaces with an empty `/run` and a `/var` that forgets. There the first process only reaps and waits; when it ends, the kernel kills all
//! that is left in the world. It ends when the test ends, when the test is killed, and when the program outside dies
//! in whatever way. Control groups and folders are removed from outside.
//!
//! [`story`] does the same without namespaces, for what needs none: so that it is known outside how the test ended when
//! it is decided whether its folder is kept.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::folder::{Folder, SCRATCH};

/// Set inside a private world, to the folder that is kept when the test fails.
const INSIDE: &str = "OPENELB_WORLD";
/// Set inside a story without a private world, to the same.
const STORY: &str = "OPENELB_STORY";
/// Set by the user: the world stays when the test has ended.
const STAY: &str = "OPENELB_KEEP_WORLD";

/// Stands before the name of a part that a world wants built: it has no network to build it with.
const BUILD: &str = "openelb-world wants built: ";

/// What the first process of a world does: its own `/run` and `/var`, loopback, addresses usable at once; then the test, whose end
/// is the world's end. bash reaps what nobody else does.
const FIRST: &str = r#"
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/netns /run/lock /run/openelb || exit 1
# Kubelets, network plugins and routers write below /var whatever they are told: here it is a layer of the world's own.
mkdir -p /run/var/upper /run/var/work /run/var/folder
case $TMPDIR in /var/*) mount --bind "$TMPDIR" /run/var/folder || exit 1 ;; esac
mount -t overlay -o lowerdir=/var,upperdir=/run/var/upper,workdir=/run/var/work overlay /var || exit 1
case $TMPDIR in /var/*) mount --move /run/var/folder "$TMPDIR" || exit 1 ;; esac
hostname openelb-world
ip link set lo up || exit 1
"$@" 2>&1 &
wait $!
"#;

/// Tells one story in a world of its own: call it as the whole body of a `#[test]`. An error fails the test.
///
/// # Panics
/// The story failed, or the world cannot be made (it needs root).
#[allow(
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test fails by panicking"
)]
pub fn scenario<S>(story: S)
where
    S: AsyncFnOnce() -> Result<()>,
{
    let outcome = if std::env::var_os(INSIDE).is_some() {
        tell(story)
    } else {
        outside(&Run::test::<S>(), true)
    };
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
}

/// Tells a story in a world of its own on a stage that is set there first: for tests that share one. Call it, by way of
/// one function, as the whole body of a `#[test]`; the story is what names the test.
///
/// # Panics
/// The stage or the story failed, or the world cannot be made (it needs root).
#[allow(
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test fails by panicking"
)]
pub fn scenario_on<T, S>(stage: impl AsyncFnOnce() -> Result<T>, story: S)
where
    S: AsyncFnOnce(T) -> Result<()>,
{
    let outcome = if std::env::var_os(INSIDE).is_some() {
        tell(async || story(stage().await?).await)
    } else {
        outside(&Run::test::<S>(), true)
    };
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
}

/// Tells a story that needs no world of its own, such as one about a [`crate::ControlPlane`]: as root or not. What its
/// parts leave is kept when it fails. Call it as the whole body of a `#[test]`.
///
/// # Panics
/// The story failed.
#[allow(
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test fails by panicking"
)]
pub fn story<S>(story: S)
where
    S: AsyncFnOnce() -> Result<()>,
{
    let outcome = if inside().is_some() {
        tell(story)
    } else {
        outside(&Run::test::<S>(), false)
    };
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
}

/// Tells a program's own story in a world of its own, where the program runs again with the same arguments: call it as
/// the whole body of `main`. What the story prints is indented as a test's is.
///
/// # Errors
/// The story failed, or the world cannot be made (it needs root).
pub fn world_of_program<S>(story: S) -> Result<()>
where
    S: AsyncFnOnce() -> Result<()>,
{
    if inside().is_some() {
        tell(story)
    } else {
        outside(&Run::program(), true)
    }
}

/// The folder of the world or story that this program runs in, or nothing when it runs in none.
#[must_use]
pub fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE)
        .or_else(|| std::env::var_os(STORY))
        .map(PathBuf::from)
}

/// Has a part of the world built from outside where this program is in a world of its own, or says that it is in none.
pub(crate) fn build_outside(part: &str) -> Option<Result<()>> {
    let folder = std::env::var_os(INSIDE).map(PathBuf::from)?;
    Some(ask_for(part, &answer_to(&folder, part)))
}

fn ask_for(part: &str, answer: &Path) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{BUILD}{part}").and_then(|()| out.flush())?;
    drop(out);
    loop {
        match std::fs::read_to_string(answer) {
            Ok(said) if said.is_empty() => return Ok(()),
            Ok(said) => anyhow::bail!("{said}"),
            // The world ends with the program outside, so there is always an answer.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The file that says how the building of a part went: nothing when all is well.
fn answer_to(folder: &Path, part: &str) -> PathBuf {
    folder.join(format!("built-{part}"))
}

/// Builds a part for a world.
fn build_for(folder: &Path, part: &str) -> Result<()> {
    let said = match crate::tools::build(&[part]) {
        Ok(()) => String::new(),
        Err(error) => format!("{error:#}"),
    };
    let answer = answer_to(folder, part);
    let half = answer.with_extension("half");
    std::fs::write(&half, said)?;
    Ok(std::fs::rename(half, answer)?)
}

/// The folder of the world that this program runs in.
fn world() -> Result<PathBuf> {
    std::env::var_os(INSIDE)
        .map(PathBuf::from)
        .context("this needs a private world: wrap the test in `scenario`")
}

/// Where a world has what is large and explains nothing, such as images: it is not kept when the test fails.
pub(crate) fn scratch() -> Result<PathBuf> {
    Ok(world()?.join(SCRATCH))
}

/// A name for control groups that no other world has.
pub(crate) fn world_name() -> Result<String> {
    let folder = world()?;
    let name = folder
        .file_name()
        .context("the world's folder has no name")?;
    Ok(name.to_string_lossy().into_owned())
}

/// The name libtest knows a test by: the path of the function that the story stands in, without the crate.
fn test_name<S>() -> String {
    let path = std::any::type_name::<S>();
    let function = path.trim_end_matches("::{{closure}}");
    function
        .split_once("::")
        .map_or(function, |(_, rest)| rest)
        .to_owned()
}

fn tell<S>(story: S) -> Result<()>
where
    S: AsyncFnOnce() -> Result<()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(story())
}

/// Waits, where the user asked that the world stays, until the user has seen enough. What is dropped first calls this,
/// so the world is still whole.
pub(crate) fn stay() {
    static STAYED: Once = Once::new();
    let (Some(folder), Some(_)) = (inside(), std::env::var_os(STAY)) else {
        return;
    };
    STAYED.call_once(|| {
        let leave = folder.join("leave");
        println!(
            "the story has ended and the world stays, until `touch {}` or Ctrl-C",
            leave.display()
        );
        while !leave.exists() {
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}

/// Shows a line of a world. libtest keeps what a test prints to itself until the test has ended, which one that stays
/// does not: then it goes past it.
fn show(line: &str) {
    if std::env::var_os(STAY).is_some() {
        // Nobody who reads is no reason to fail a test.
        let _ = writeln!(std::io::stderr(), "{line}");
    } else {
        println!("{line}");
    }
}

/// How this program runs again.
struct Run {
    arguments: Vec<OsString>,
    /// The test that must run then, in a test program.
    test: Option<String>,
}

impl Run {
    fn test<S>() -> Self {
        let test = test_name::<S>();
        let arguments = ["--exact", &test, "--nocapture", "--test-threads=1"];
        Self {
            arguments: arguments.map(OsString::from).to_vec(),
            test: Some(test),
        }
    }

    fn program() -> Self {
        Self {
            arguments: std::env::args_os().skip(1).collect(),
            test: None,
        }
    }

    fn name(&self) -> &str {
        self.test.as_deref().unwrap_or("the story")
    }
}

/// Runs this program again, in a private world or not.
fn outside(run: &Run, private: bool) -> Result<()> {
    if private && !nix::unistd::geteuid().is_root() {
        anyhow::bail!(
            "a world needs root: run the tests as root (they touch nothing outside their namespaces)"
        );
    }
    let mut folder = Folder::new("world")?;
    let program = std::env::current_exe().context("this program has no path")?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if private {
        command
            .args(["unshare", "--mount", "--net", "--pid", "--uts", "--ipc"])
            .args(["--fork", "--kill-child=SIGKILL", "--mount-proc"])
            .args(["bash", "-c", FIRST, "world"]);
    }
    let mut world = command
        .arg(program)
        .args(&run.arguments)
        .env(if private { INSIDE } else { STORY }, folder.path())
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot start setpriv and unshare (util-linux)")?;
    if std::env::var_os(STAY).is_some() {
        show(&format!("world: its folder is {}", folder.path().display()));
        if private {
            show("world: enter it with");
            show(&format!(
                "    nsenter --target $(pgrep --parent {}) --mount --net --pid --uts --ipc",
                world.id()
            ));
            show("world: and a host of it with `ip netns exec n1 bash`");
        }
    }
    let mut ran = run.test.is_none();
    if let Some(output) = world.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            ran |= line.starts_with("running 1 test");
            show(&format!("  | {line}"));
            if let Some((_, part)) = line.split_once(BUILD) {
                build_for(folder.path(), part)?;
            }
        }
    }
    let status = world.wait()?;
    let test = run.name();
    if !ran {
        folder.keep();
        anyhow::bail!("the world did not run {test}: {status}");
    }
    if !status.success() {
        folder.keep();
        anyhow::bail!(
            "{test} failed inside its world ({status}); what was kept is in {}",
            folder.path().display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of<S: AsyncFnOnce() -> Result<()>>(_: S) -> String {
        test_name::<S>()
    }

    #[test]
    fn a_story_knows_the_test_it_stands_in() {
        assert_eq!(
            name_of(async || Ok(())),
            "scenario::tests::a_story_knows_the_test_it_stands_in"
        );
    }
}
