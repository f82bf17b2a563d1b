//! A time of day of its own for a program, to be moved while it runs.
//!
//! libfaketime stands between the program and the C library, and adds what a file says to the time of day. What programs
//! wait by, the monotonic clock, runs as ever; so do the clocks of all others. It reaches programs that are linked to
//! the C library dynamically, as ours are unless they are built for an image.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{Folder, Process, Program};

/// A program's time of day.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that shows the real time, until it is moved. It is a file of the folder.
    ///
    /// # Errors
    /// libfaketime is not installed, or the file cannot be written.
    pub fn new(folder: &Folder) -> Result<Self> {
        let clock = Self {
            library: library()?,
            file: folder.join("clock"),
        };
        clock.set_ahead(0)?;
        Ok(clock)
    }

    /// The program, to be run by this clock.
    #[must_use]
    pub fn program(&self, program: Program) -> Program {
        program
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }

    /// To be called when the program has started: libfaketime would share its state with children by names below
    /// `/dev/shm`, which outlive a program that is killed.
    pub fn forget_names(process: &Process) {
        let pid = process.pid();
        for name in [
            format!("faketime_shm_{pid}"),
            format!("sem.faketime_sem_{pid}"),
        ] {
            // They need not be there.
            let _ = std::fs::remove_file(Path::new("/dev/shm").join(name));
        }
    }

    /// Shows so many seconds more than the real time, or less, from now on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_ahead(&self, seconds: i64) -> Result<()> {
        // Whoever reads meanwhile sees all of it.
        let half = self.file.with_extension("half");
        std::fs::write(&half, format!("{seconds:+}\n"))?;
        std::fs::rename(&half, &self.file).context("cannot move the clock")
    }
}

/// Where Debian's package has it, on any architecture.
fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").context("no /usr/lib")?;
    folders
        .flatten()
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file())
        .context("libfaketime is not installed: run hack/tools/apt api as root")
}
