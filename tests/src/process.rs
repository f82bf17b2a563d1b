//! Processes of a world: started, watched, paused, killed, and never left behind.
//!
//! Every process is started with `setpriv --pdeathsig KILL` by one thread that lives as long as this program, so that
//! the kernel kills it when this program ends, also by SIGKILL. One thread per process waits for its end, so there are
//! no zombies and the end can be awaited.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::wait::Deadline;

/// What to run: a program with arguments, environment and a place for its output.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    path: PathBuf,
    before: Vec<OsString>,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
}

impl Program {
    /// A program at `path`; `name` is what logs and errors call it.
    #[must_use]
    pub fn new(name: &str, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            path: path.into(),
            before: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Runs the program by way of another that ends by running its arguments, such as `nsenter` with its options.
    #[must_use]
    pub fn by_way_of(mut self, wrapper: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.before
            .extend(wrapper.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// The program, to be run before everything else: what stands for another machine, a router say, must not wait for
    /// this machine's processors.
    #[must_use]
    pub fn first(self) -> Self {
        self.by_way_of(["nice", "--adjustment=-15"])
    }

    /// The program, to be run after everything else: what is heavy and keeps no time, such as an API server, must not keep
    /// a speaker or router from its timers.
    #[must_use]
    pub fn last(self) -> Self {
        self.by_way_of(["nice", "--adjustment=5"])
    }

    /// Starts the program; its output is appended to `NAME.log` in `folder`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(self, folder: &Path) -> Result<Process> {
        let log = folder.join(format!("{}.log", self.name));
        let process = Process {
            running: Mutex::new(spawn(&self, &log)?),
            program: self,
            log,
        };
        Ok(process)
    }

    fn command(&self, log: &Path) -> Result<Command> {
        let out: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(&self.before)
            .arg(&self.path)
            .args(&self.args)
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        Ok(command)
    }
}

/// A process that was started. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    program: Program,
    log: PathBuf,
    running: Mutex<Running>,
}

/// One life of a process; a restart begins another.
#[derive(Debug, Clone)]
struct Running {
    pid: Pid,
    end: watch::Receiver<Option<ExitStatus>>,
}

impl Running {
    fn signal(&self, signal: Signal) {
        if self.end.borrow().is_none() {
            let _ = kill(self.pid, signal);
        }
    }

    async fn ended(mut self) -> Option<ExitStatus> {
        self.end
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|status| *status)
    }
}

impl Process {
    /// What logs and errors call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// Its process id, in the pid namespace of this program.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.running().pid.as_raw()
    }

    /// The path of its log.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All it has written so far, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How it ended, or nothing while it runs.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        *self.running().end.borrow()
    }

    /// Whether it still runs (or is paused).
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.status().is_none()
    }

    /// An error when it has ended, with the end of its log: for probes that wait for it to answer.
    ///
    /// # Errors
    /// It has ended.
    pub fn check(&self) -> Result<()> {
        match self.status() {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended with {status}: …{}",
                self.name(),
                tail(&self.log(), 2000)
            ),
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn ended(&self, deadline: Deadline) -> Result<ExitStatus> {
        let running = self.running();
        tokio::time::timeout(deadline.duration(), running.ended())
            .await
            .map_err(|_| anyhow!("{} still runs after {:?}", self.name(), deadline.duration()))?
            .with_context(|| format!("nobody knows how {} ended", self.name()))
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn stop(&self) -> Result<ExitStatus> {
        self.terminate();
        self.ended(Deadline::LONG).await
    }

    /// Asks it to end (SIGTERM), without waiting.
    pub fn terminate(&self) {
        self.running().signal(Signal::SIGTERM);
    }

    /// Kills it (SIGKILL), and waits until it is gone.
    pub async fn kill(&self) {
        let running = self.running();
        running.signal(Signal::SIGKILL);
        running.ended().await;
    }

    /// Stops its clock (SIGSTOP): it keeps its connections and answers nobody.
    pub fn pause(&self) {
        self.running().signal(Signal::SIGSTOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.running().signal(Signal::SIGCONT);
    }

    /// Whether its clock is stopped.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        // The state follows the name, which may have brackets itself.
        stat.is_ok_and(|stat| {
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
        })
    }

    /// Sends it any other signal.
    pub fn signal(&self, signal: Signal) {
        self.running().signal(signal);
    }

    /// Starts it again with the same arguments; a life that still lasts is killed first.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn restart(&self) -> Result<()> {
        self.kill().await;
        let running = spawn(&self.program, &self.log)?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
        Ok(())
    }

    fn running(&self) -> Running {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let running = self.running();
        running.signal(Signal::SIGCONT);
        running.signal(Signal::SIGKILL);
        // What it writes to must not be removed under it. Death by SIGKILL takes milliseconds; a process that hangs in
        // the kernel is not worth waiting for.
        let began = Instant::now();
        while running.end.borrow().is_none() && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The last `characters` or so of a text.
fn tail(text: &str, characters: usize) -> &str {
    let start = text
        .char_indices()
        .rev()
        .take(characters)
        .last()
        .map_or(0, |(index, _)| index);
    text.get(start..).unwrap_or(text)
}

type Started = std::io::Result<Child>;

/// The thread that starts all processes. The kernel's "parent died" signal is bound to the thread that started a
/// process, so this one must not end before the program does.
static STARTER: LazyLock<mpsc::Sender<(Command, mpsc::Sender<Started>)>> = LazyLock::new(|| {
    let (orders, queue) = mpsc::channel::<(Command, mpsc::Sender<Started>)>();
    std::thread::spawn(move || {
        for (mut command, reply) in queue {
            let _ = reply.send(command.spawn());
        }
    });
    orders
});

fn spawn(program: &Program, log: &Path) -> Result<Running> {
    let (reply, started) = mpsc::channel();
    STARTER
        .send((program.command(log)?, reply))
        .map_err(|_| anyhow!("the thread that starts processes is gone"))?;
    let mut child = started
        .recv()
        .context("the thread that starts processes is gone")?
        .with_context(|| format!("cannot start {} ({})", program.name, program.path.display()))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a pid is out of range")?);
    let (ended, end) = watch::channel(None);
    std::thread::spawn(move || {
        let status = child.wait().ok();
        ended.send_replace(status);
    });
    Ok(Running { pid, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Process {
        Program::new("sleeper", "sleep")
            .arg("1000")
            .start(folder)
            .unwrap()
    }

    #[tokio::test]
    async fn a_process_is_killed_and_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(folder.path());
        let first = process.pid();
        assert!(process.is_running());
        process.kill().await;
        assert!(!process.is_running());
        process.restart().await.unwrap();
        assert!(process.is_running());
        assert_ne!(process.pid(), first);
        process.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_paused_process_stands_still_until_it_is_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(folder.path());
        assert!(!process.is_paused());
        process.pause();
        crate::eventually("the pause", Deadline::SHORT, async || {
            process.is_paused().then_some(()).ok_or("it runs")
        })
        .await
        .unwrap();
        process.resume();
        crate::eventually("the end of the pause", Deadline::SHORT, async || {
            (!process.is_paused()).then_some(()).ok_or("it stands")
        })
        .await
        .unwrap();
        assert!(process.is_running());
    }

    #[tokio::test]
    async fn the_log_keeps_what_a_process_said_on_both_streams() {
        let folder = tempfile::tempdir().unwrap();
        let process = Program::new("talker", "sh")
            .args(["-c", "echo out; echo err >&2; exit 3"])
            .start(folder.path())
            .unwrap();
        assert_eq!(
            process.ended(Deadline::SHORT).await.unwrap().code(),
            Some(3)
        );
        assert!(process.log().contains("out") && process.log().contains("err"));
        assert!(process.check().unwrap_err().to_string().contains("talker"));
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(folder.path());
        let running = process.running();
        drop(process);
        running.ended().await.unwrap();
    }
}
