//! `hack quickstart`: what is missing is installed and built, then the tour starts on a cluster of its own.
//!
//! The tour itself is a story of the cluster tier (`quickstart::tour`), in a world of its own: when it ends, all of it is
//! gone. With `--keep` the world goes on in the background and `--down` ends it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
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
    /// Where the cluster that stays is written down; tests have a place of their own.
    #[arg(long, hide = true, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Runs the tour; its exit code is ours.
///
/// # Errors
/// Something that is needed cannot be installed or built.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let state = match &args.state {
        Some(folder) => State::at(folder)?,
        None => State::at(&prerequisites::cache().join("quickstart"))?,
    };
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
    say(
        "the first run builds a Kubernetes and openelb-rs, some twenty minutes; later ones take about a minute",
    );
    step("what the cluster is made of", || {
        prerequisites::apt_packages("cluster")?;
        prerequisites::programs(&[("curl", "curl")])?;
        prerequisites::tools(&["all"], None)
    })?;
    step("openelb-rs and its images", || {
        image::for_the_lab()?;
        let mut build = cargo();
        build.args(["build", "--package", "openelb-tests"]);
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
    say(&format!("preparing {what}"));
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
/// What the world says when a story has ended and it stays, before and after the file that ends it.
const STAYS: (&str, &str) = ("the world stays, until `touch ", "`");
/// What the tour says last, and only when all of it went well.
const COMPLETE: &str = "==> the tour is complete";

/// The file that ends a world, from the line in which the world says that it stays.
fn leave(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(STAYS.0)?;
    rest.split_once(STAYS.1).map(|(file, _)| file)
}

/// How the tour in the background went on.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It showed all that it has to show, and its world stays.
    Stays,
    /// It ended with this code, or by a signal.
    Ended(Option<i32>),
}

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
    /// Names a file in the folder of the world that stays.
    world: PathBuf,
}

impl State {
    fn at(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Self {
            log: folder.join("log"),
            pid: folder.join("pid"),
            world: folder.join("world"),
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
        match self.follow(&mut child)? {
            End::Stays => {
                say("`hack/quickstart --down` removes all of it");
                Ok(ExitCode::SUCCESS)
            }
            End::Ended(code) => {
                // Whoever asks for a cluster that stays has none, whatever the code says.
                say(&format!(
                    "the tour failed; all it said is in {}",
                    self.log.display()
                ));
                Ok(code
                    .filter(|code| *code != 0)
                    .map_or(ExitCode::FAILURE, |code| exit_code(Some(code))))
            }
        }
    }

    /// Shows what the tour says until it has shown all or ended. A world stays when its story has failed, too, and tells
    /// the reason only when it goes: then it is let go.
    fn follow(&self, child: &mut Child) -> Result<End> {
        let mut log = BufReader::new(std::fs::File::open(&self.log)?);
        let mut line = String::new();
        let mut complete = false;
        loop {
            let ended = child.try_wait()?;
            while log.read_line(&mut line)? > 0 && line.ends_with('\n') {
                complete |= line.contains(COMPLETE);
                match leave(&line) {
                    Some(file) if complete => {
                        std::fs::write(&self.world, file)?;
                        return Ok(End::Stays);
                    }
                    Some(file) => {
                        std::fs::File::create(file)
                            .with_context(|| format!("cannot end the world by {file}"))?;
                    }
                    None => tell(line.trim_end()),
                }
                line.clear();
            }
            if let Some(status) = ended {
                let _ = std::fs::remove_file(&self.pid);
                return Ok(End::Ended(status.code()));
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
        gone(&format!("process {pid}"), || self.running().is_none())?;
        // Folders and control groups are removed by somebody else, once nobody uses them.
        let folder = std::fs::read_to_string(&self.world).unwrap_or_default();
        if let Some(folder) = Path::new(folder.trim()).parent() {
            gone(&folder.display().to_string(), || !folder.exists())?;
        }
        for file in [&self.pid, &self.world] {
            let _ = std::fs::remove_file(file);
        }
        say("all of it is gone");
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits until something is no more.
fn gone(what: &str, is_gone: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_gone() {
        if Instant::now() > deadline {
            bail!("{what} is still there after a minute");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A world whose story says this, and which stays until it is told to leave; then it says the reason.
    fn followed(story: &str) -> (End, String) {
        let folder = std::env::temp_dir().join(format!("openelb-follow-{}", story.len()));
        let _ = std::fs::remove_dir_all(&folder);
        let state = State::at(&folder).unwrap();
        let leave = folder.join("leave");
        let script = format!(
            r#"echo "{story}"
            echo '  | the story has ended and the world stays, until `touch {0}` or Ctrl-C'
            for look in $(seq 600); do [ -e {0} ] && break; sleep 0.05; done
            echo "  | the reason"; exit 101"#,
            leave.display()
        );
        let log = std::fs::File::create(&state.log).unwrap();
        let mut world = Command::new("bash");
        world.args(["-c", &script]).stdout(Stdio::from(log));
        let mut child = world.spawn().unwrap();
        let end = state.follow(&mut child).unwrap();
        let world = std::fs::read_to_string(&state.world).unwrap_or_default();
        std::fs::File::create(&leave).unwrap();
        child.wait().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        (end, world)
    }

    #[test]
    fn a_complete_tour_stays_and_its_world_is_remembered() {
        let (end, world) = followed("  | ==> the tour is complete");
        assert_eq!(end, End::Stays);
        assert!(world.ends_with("/leave"), "{world}");
    }

    #[test]
    fn a_tour_that_fails_is_no_success_though_its_world_stays() {
        let (end, world) = followed("  | ... kubectl apply");
        assert_eq!(end, End::Ended(Some(101)));
        assert_eq!(world, "");
    }
}
