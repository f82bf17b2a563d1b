//! `hack quickstart`: what is missing is installed and built, then the tour starts on a cluster of its own.
//!
//! The tour itself is a program of the tests crate (`quickstart`), which owns the cluster: when it ends, all of it is
//! gone. With `--keep` it goes on in the background and `--down` ends it.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, program, root, say, show};
use crate::{image, prerequisites};

/// What to do with the cluster.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave the cluster running, and print how to use it.
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// Remove the cluster that `--keep` left.
    #[arg(long)]
    down: bool,
}

/// Runs the tour; its exit code is ours.
///
/// # Errors
/// Something that is needed cannot be installed or built.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let state = State::new()?;
    if args.down {
        return state.take_down();
    }
    if !prerequisites::is_root() {
        bail!(
            "the quickstart makes network namespaces and mounts, which needs root: run it with sudo"
        );
    }
    if let Some(pid) = state.running() {
        bail!("a quickstart is still running (process {pid}): `hack/quickstart --down` removes it");
    }
    step("what the cluster is made of", || {
        prerequisites::apt_packages("cluster")?;
        prerequisites::tools(&["all"])
    })?;
    step("openelb-rs and its images", || {
        image::for_the_lab()?;
        let mut build = cargo();
        build.args(["build", "--quiet", "--package", "openelb-tests", "--bins"]);
        show(build).map(drop)
    })?;
    if args.keep {
        return state.tour_in_background();
    }
    let mut tour = program(tour_binary());
    let status = tour.status().context("cannot start the tour")?;
    Ok(exit_code(status.code()))
}

fn step(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    work().with_context(|| format!("preparing {what}"))?;
    say(&format!(
        "ready: {what} ({:.1} s)",
        started.elapsed().as_secs_f32()
    ));
    Ok(())
}

fn tour_binary() -> PathBuf {
    root().join("target/debug/quickstart")
}

fn exit_code(code: Option<i32>) -> ExitCode {
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The tour in the background: where it says what it does, and who it is.
struct State {
    log: PathBuf,
    pid: PathBuf,
    /// Made by the tour when all is shown and it only keeps the cluster.
    done: PathBuf,
}

impl State {
    fn new() -> Result<Self> {
        let folder = prerequisites::cache().join("quickstart");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Self {
            log: folder.join("log"),
            pid: folder.join("pid"),
            done: folder.join("done"),
        })
    }

    /// The process that keeps a cluster, if one does.
    fn running(&self) -> Option<u32> {
        let pid: u32 = std::fs::read_to_string(&self.pid)
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "quickstart").then_some(pid)
    }

    fn tour_in_background(&self) -> Result<ExitCode> {
        let _ = std::fs::remove_file(&self.done);
        let log = std::fs::File::create(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut tour = program(tour_binary());
        tour.arg("--keep")
            .arg(&self.done)
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .process_group(0);
        let mut child = tour.spawn().context("cannot start the tour")?;
        std::fs::write(&self.pid, child.id().to_string())
            .with_context(|| format!("cannot write {}", self.pid.display()))?;
        let code = self.follow(&mut child)?;
        if code.is_none() {
            say("`hack/quickstart --down` removes all of it");
        }
        Ok(code.unwrap_or(ExitCode::SUCCESS))
    }

    /// Shows what the tour says until it has shown all (nothing) or ended (its exit code).
    fn follow(&self, child: &mut Child) -> Result<Option<ExitCode>> {
        let mut seen = 0;
        loop {
            let ended = child.try_wait()?;
            let done = self.done.exists();
            seen = copy_from(&self.log, seen)?;
            if let Some(status) = ended {
                let _ = std::fs::remove_file(&self.pid);
                return Ok(Some(exit_code(status.code())));
            }
            if done {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn take_down(&self) -> Result<ExitCode> {
        let Some(pid) = self.running() else {
            say("no quickstart is running");
            return Ok(ExitCode::SUCCESS);
        };
        say(&format!("removing the cluster (process {pid})"));
        let mut kill = Command::new("kill");
        kill.arg(pid.to_string());
        let status = kill.status().context("cannot run kill")?;
        if !status.success() {
            bail!("cannot end process {pid}");
        }
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.running().is_some() {
            if Instant::now() > deadline {
                bail!(
                    "process {pid} is still there after a minute; see {}",
                    self.log.display()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = std::fs::remove_file(&self.pid);
        say("all of it is gone");
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints what `file` holds from `offset` on; returns where it ends.
fn copy_from(file: &Path, offset: u64) -> Result<u64> {
    let mut log = std::fs::File::open(file)?;
    log.seek(SeekFrom::Start(offset))?;
    let mut text = Vec::new();
    log.read_to_end(&mut text)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&text)?;
    out.flush()?;
    Ok(offset + u64::try_from(text.len())?)
}
