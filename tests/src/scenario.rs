//! Running a test inside a private world.
//!
//! [`scenario`] starts this same test program again, for this one test, inside new mount, network, pid and uts
//! namespaces with an empty `/run`. There the first process only reaps and waits; when it ends, the kernel kills all
//! that is left in the world. It ends when the test ends, when the test is killed, and when the program outside dies
//! in whatever way. Control groups and folders are no namespaces' business: a small program outside every world waits
//! for its end and removes them.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

use crate::folder::Folder;

/// Set inside a world, to the folder that is kept when the test fails.
const INSIDE: &str = "OPENELB_WORLD";
/// Set by the user: the world stays when the test has ended.
const STAY: &str = "OPENELB_KEEP_WORLD";

/// What the first process of a world does: an own `/run`, loopback, addresses usable at once; then the test, whose end
/// is the world's end. bash reaps what nobody else does.
const FIRST: &str = r#"
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/netns /run/lock /run/openelb || exit 1
hostname openelb-world
ip link set lo up || exit 1
"$@" 2>&1 &
wait $!
"#;

/// What cleans up outside: waits for the end of its input, which comes with the end of the program that holds the
/// other side, then removes the world's folder and control groups (named after the folder) for as long as that takes.
const AFTER: &str = r#"
folder=$1 keep=$1.keep
cat >/dev/null
for attempt in $(seq 200); do
    left=
    for group in /sys/fs/cgroup/*/"$(basename "$folder")"* /sys/fs/cgroup/"$(basename "$folder")"*; do
        [ -d "$group" ] || continue
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
        [ -d "$group" ] && left=yes
    done
    [ -e "$keep" ] || rm -rf "$folder" 2>/dev/null || left=yes
    [ "$left" ] || break
    sleep 0.1
done
rm -f "$keep"
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
    let outcome = if inside().is_some() {
        tell(story)
    } else {
        outside(&test_name::<S>())
    };
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
}

/// The folder of the world that this program runs in, or nothing when it runs in none.
#[must_use]
pub fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// A name for control groups that no other world has.
pub(crate) fn world_name() -> Result<String> {
    let folder = inside().context("this needs a private world: wrap the test in `scenario`")?;
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
    runtime.block_on(async {
        let outcome = story().await;
        if std::env::var_os(STAY).is_some() {
            if let Err(error) = &outcome {
                println!("the story failed: {error:?}");
            }
            println!("the world stays until you press Ctrl-C");
            let _ = tokio::signal::ctrl_c().await;
        }
        outcome
    })
}

fn outside(test: &str) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!(
            "a world needs root: run the tests as root (they touch nothing outside their namespaces)"
        );
    }
    let mut folder = Folder::new("world")?;
    let _janitor = janitor(folder.path())?;
    let program = std::env::current_exe().context("this program has no path")?;
    let mut world = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare"])
        .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--fork"])
        .args([
            "--kill-child=SIGKILL",
            "--mount-proc",
            "bash",
            "-c",
            FIRST,
            "world",
        ])
        .arg(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, folder.path())
        .env("TMPDIR", folder.path())
        .env("OPENELB_KEEP", "inside")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot start setpriv and unshare (util-linux)")?;
    if std::env::var_os(STAY).is_some() {
        eprintln!("world: folder {}", folder.path().display());
        eprintln!(
            "world: enter with nsenter --target $(pgrep --parent {}) --mount --net --pid --uts --ipc",
            world.id()
        );
    }
    let mut ran = false;
    if let Some(output) = world.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            ran |= line.starts_with("running 1 test");
            println!("  | {line}");
        }
    }
    let status = world.wait()?;
    if !ran {
        folder.keep();
        anyhow::bail!("the world did not run {test}: {status}");
    }
    if !status.success() {
        std::fs::write(folder.path().with_extension("keep"), "")?;
        folder.keep();
        anyhow::bail!(
            "{test} failed inside its world ({status}); what was kept is in {}",
            folder.path().display()
        );
    }
    Ok(())
}

/// Starts what cleans up after this program, however it ends. It lives in a session of its own, so that Ctrl-C does
/// not reach it.
fn janitor(folder: &Path) -> Result<ChildStdin> {
    let mut child = Command::new("setsid")
        .args(["bash", "-c", AFTER, "openelb-world-janitor"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("cannot start setsid (util-linux)")?;
    child.stdin.take().context("the janitor has no input")
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
