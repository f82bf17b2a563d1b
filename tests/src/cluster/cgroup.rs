//! Control groups: one per node, so that all of a node can be found and killed at once, pods and all.
//!
//! With version 1 there is a hierarchy per controller and the group exists in each; with version 2 there is one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ROOT: &str = "/sys/fs/cgroup";

/// The group of a node; its name has no folder above it.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    name: String,
}

impl Group {
    pub(crate) fn create(name: String) -> Result<Self> {
        let group = Self { name };
        for folder in group.folders()? {
            let system = folder.join("system");
            std::fs::create_dir_all(&system)
                .with_context(|| format!("cannot make {}", system.display()))?;
            // A new cpuset is empty, and takes no process until it has processors and memory.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let all = PathBuf::from(ROOT).join("cpuset").join(file);
                if folder.starts_with(PathBuf::from(ROOT).join("cpuset")) {
                    let all = std::fs::read(all)?;
                    std::fs::write(folder.join(file), &all)?;
                    std::fs::write(system.join(file), &all)?;
                }
            }
        }
        Ok(group)
    }

    /// The kubelet's `cgroupRoot`.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// Whether this machine has version 2 only.
    pub(crate) fn is_unified() -> bool {
        PathBuf::from(ROOT).join("cgroup.controllers").exists()
    }

    fn folders(&self) -> Result<Vec<PathBuf>> {
        if Self::is_unified() {
            return Ok(vec![PathBuf::from(ROOT).join(&self.name)]);
        }
        let mut folders = Vec::new();
        for entry in
            std::fs::read_dir(ROOT).context("control groups are not mounted at /sys/fs/cgroup")?
        {
            let entry = entry?;
            // Links such as `cpu,cpuacct` lead to what is listed anyway; `unified` is a version 2 beside version 1.
            if entry.file_type()?.is_dir() && entry.path().join("tasks").exists() {
                folders.push(entry.path().join(&self.name));
            }
        }
        Ok(folders)
    }

    /// What starts a program as a member: a shell that joins, then becomes the program.
    pub(crate) fn wrapper(&self) -> Result<Vec<String>> {
        let files: Vec<String> = self
            .folders()?
            .iter()
            .map(|folder| folder.join("system/cgroup.procs").display().to_string())
            .collect();
        let script = format!(
            "for file in {}; do echo 0 > \"$file\"; done; exec \"$@\"",
            files.join(" ")
        );
        Ok(["sh", "-c", &script, "join"].map(str::to_owned).to_vec())
    }

    /// All members, of the groups below too, whose group's path contains `part`.
    pub(crate) fn members(&self, part: &str) -> Result<Vec<Pid>> {
        let mut pids = Vec::new();
        let mut folders = self.folders()?;
        // Every hierarchy has the same members.
        folders.retain(|folder| {
            Self::is_unified() || folder.starts_with(PathBuf::from(ROOT).join("pids"))
        });
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
            }
            if folder.to_string_lossy().contains(part) {
                let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                pids.extend(
                    text.lines()
                        .filter_map(|line| line.parse().ok())
                        .map(Pid::from_raw),
                );
            }
        }
        Ok(pids)
    }

    /// Kills all members, until none is left.
    pub(crate) async fn kill(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let members = self.members("")?;
            if members.is_empty() {
                return Ok(());
            }
            for member in &members {
                let _ = kill(*member, Signal::SIGKILL);
            }
            if began.elapsed() > Duration::from_secs(30) {
                bail!(
                    "{} processes of {} cannot be killed",
                    members.len(),
                    self.name
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
