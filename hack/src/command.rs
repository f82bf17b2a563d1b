//! Running programs so that a person sees what runs, how long it took and what it said.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::tally::Tally;

/// The root of the repository: the folder above this crate.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or_else(|| here.clone(), PathBuf::from)
}

/// A program to run from the repository's root.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// The cargo that runs us, so that a toolchain override holds for the programs it starts too.
pub(crate) fn cargo() -> Command {
    program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs `command` with its output shown, and counts the test results in it.
///
/// # Errors
/// The program cannot be started, or ends with anything but 0.
pub(crate) fn show(mut command: Command) -> Result<Tally> {
    let text = describe(&command);
    say(&format!("$ {text}"));
    let started = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{text}`"))?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            let mut out = std::io::stdout().lock();
            out.write_all(&line)?;
            out.flush()?;
            tally.read(&String::from_utf8_lossy(&line));
            line.clear();
        }
    }
    let status = child.wait()?;
    let seconds = started.elapsed().as_secs_f32();
    if !status.success() && tally.failed == 0 {
        bail!("`{text}` ended with {status} after {seconds:.1} s");
    }
    Ok(tally)
}

/// Runs `command` quietly and returns what it printed on standard output.
///
/// # Errors
/// The program cannot be started or fails; its standard error is shown as it comes.
pub(crate) fn read(mut command: Command) -> Result<String> {
    let text = describe(&command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{text}`"))?;
    if !output.status.success() {
        bail!("`{text}` ended with {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A line about what is going on, apart from what the programs say themselves.
pub(crate) fn say(text: &str) {
    println!("==> {text}");
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    if let Some(name) = PathBuf::from(command.get_program()).file_name() {
        words = vec![name.to_string_lossy().into_owned()];
    }
    words.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    words.join(" ")
}
