//! `hack quickstart`: what is missing is installed and built, then the tour starts on a cluster of its own.
//!
//! The tour itself is a story of the cluster tier (`quickstart::tour`), in a world of its own: when it ends, all of it is
//! gone. With `--keep` the world goes on in the background and `--down` ends it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, say, show};
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
        prerequisites::programs(&[("curl", "curl")])?;
        prerequisites::tools(&["all"], None)
    })?;
    step("openelb-rs and its images", || {
        image::for_the_lab()?;
        let mut build = cargo();
        build.args(["build", "--quiet", "--package", "openelb-tests"]);
        build.args(["--bins", "--test", "cluster"]);
        show(build).map(drop)
    })?;
    if args.keep {
        return state.tour_in_background();
    }
    let mut tour = tour();
    tour.stdout(Stdio::piped());
    let mut child = tour.spawn().context("cannot start the tour")?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            tell(&line?);
        }
    }
    Ok(exit_code(child.wait()?.code()))
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

/// The tour is a story of the cluster tier; what its test program says beside it is left out by [`tell`].
fn tour() -> Command {
    let mut tour = cargo();
    tour.args([
        "test",
        "--quiet",
        "--package",
        "openelb-tests",
        "--test",
        "cluster",
    ])
    .args(["--", "--exact", "quickstart::tour", "--nocapture"]);
    tour
}

/// Lines of the story begin so.
const STORY: &str = "  | ";
/// What the world says when a story has ended and it stays.
const STAYS: &str = "the world stays";

/// Prints a line of the tour's output as people want it.
fn tell(line: &str) {
    let noise = ["running ", "test ", "test result", "failures:", "---- "];
    let story = line.strip_prefix(STORY).map(|story| {
        // The test program leaves its own line open for the first word of the story.
        story
            .strip_prefix("test quickstart::tour ... ")
            .unwrap_or(story)
    });
    match story {
        Some(story) if noise.iter().any(|start| story.starts_with(start)) => {}
        Some(story) if story.trim().is_empty() || story.trim() == "ok" => {}
        Some(story) => println!("{story}"),
        None if line.starts_with("world: ") || line.starts_with("    nsenter") => {
            println!("{line}");
        }
        None => {}
    }
}

fn exit_code(code: Option<i32>) -> ExitCode {
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The tour in the background: where it says what it does, and who it is.
struct State {
    log: PathBuf,
    pid: PathBuf,
}

impl State {
    fn new() -> Result<Self> {
        let folder = prerequisites::cache().join("quickstart");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Self {
            log: folder.join("log"),
            pid: folder.join("pid"),
        })
    }

    /// The process that keeps a cluster, if one does.
    fn running(&self) -> Option<u32> {
        let pid: u32 = std::fs::read_to_string(&self.pid)
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        command.contains("quickstart::tour").then_some(pid)
    }

    fn tour_in_background(&self) -> Result<ExitCode> {
        let log = std::fs::File::create(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut tour = tour();
        tour.env("OPENELB_KEEP_WORLD", "1")
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
        let mut log = BufReader::new(std::fs::File::open(&self.log)?);
        let mut line = String::new();
        loop {
            let ended = child.try_wait()?;
            while log.read_line(&mut line)? > 0 && line.ends_with('\n') {
                if line.contains(STAYS) {
                    return Ok(None);
                }
                tell(line.trim_end());
                line.clear();
            }
            if let Some(status) = ended {
                let _ = std::fs::remove_file(&self.pid);
                return Ok(Some(exit_code(status.code())));
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
        // The whole group: cargo and the test program, with which the world ends.
        kill.args(["--", &format!("-{pid}")]);
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
