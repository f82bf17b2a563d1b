//! Control groups: one per node, so that all of a node can be found and killed at once, pods and all.
//!
//! With version 1 there is a hierarchy per controller and the group exists in each, also where a version 2 without
//! controllers is mounted beside (`unified`); with version 2 alone there is one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ROOT: &str = "/sys/fs/cgroup";

/// The group of a node; its name has no folder above it.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    name: String,
    /// Where hierarchies are mounted (version 1), or the one (version 2).
    root: PathBuf,
}

impl Group {
    pub(crate) fn create(name: String) -> Result<Self> {
        Self::below(Path::new(ROOT), name)
    }

    fn below(root: &Path, name: String) -> Result<Self> {
        let root = root.to_owned();
        let group = Self { name, root };
        for folder in group.folders()? {
            let system = folder.join("system");
            std::fs::create_dir_all(&system)
                .with_context(|| format!("cannot make {}", system.display()))?;
            let cpuset = group.root.join("cpuset");
            if group.is_unified() || !folder.starts_with(&cpuset) {
                continue;
            }
            // A new cpuset of version 1 is empty, and takes no process until it has processors and memory.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let all = std::fs::read(cpuset.join(file))?;
                std::fs::write(folder.join(file), &all)?;
                std::fs::write(system.join(file), &all)?;
            }
        }
        Ok(group)
    }

    /// The kubelet's `cgroupRoot`.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// Whether this is version 2.
    fn is_unified(&self) -> bool {
        self.root.join("cgroup.controllers").exists()
    }

    fn folders(&self) -> Result<Vec<PathBuf>> {
        if self.is_unified() {
            return Ok(vec![self.root.join(&self.name)]);
        }
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(&self.root)
            .context("control groups are not mounted at /sys/fs/cgroup")?
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
        folders.retain(|folder| self.is_unified() || folder.starts_with(self.root.join("pids")));
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
            // Version 2 kills all of a tree in one step; version 1 has to be asked until nobody is born any more.
            let at_once = self.root.join(&self.name).join("cgroup.kill");
            if !self.is_unified() || std::fs::write(at_once, "1").is_err() {
                for member in &members {
                    let _ = kill(*member, Signal::SIGKILL);
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Program;
    use crate::wait::{Deadline, eventually};

    /// The version 2 hierarchy of this machine: the only one, or the one beside version 1.
    fn unified() -> Option<PathBuf> {
        [PathBuf::from(ROOT), PathBuf::from(ROOT).join("unified")]
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists())
    }

    /// A process and its child join, are found, and are killed.
    async fn holds_and_kills_its_members(root: &Path) {
        let name = format!(
            "openelb-group-test-{}-{}",
            std::process::id(),
            rand::random::<u32>()
        );
        let group = Group::below(root, name).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let process = Program::new("parent", "sh")
            .args(["-c", "sleep 1000 & wait"])
            .by_way_of(group.wrapper().unwrap())
            .start(folder.path())
            .unwrap();
        eventually("both members", Deadline::SHORT, async || {
            let members = group.members("")?;
            anyhow::ensure!(members.len() == 2, "{members:?}");
            anyhow::ensure!(group.members("system")? == members, "not in system");
            anyhow::ensure!(group.members("elsewhere")?.is_empty(), "everywhere");
            Ok(())
        })
        .await
        .unwrap();
        group.kill().await.unwrap();
        assert!(!process.ended(Deadline::SHORT).await.unwrap().success());
        assert!(group.members("").unwrap().is_empty());
        for folder in group.folders().unwrap() {
            std::fs::remove_dir(folder.join("system")).unwrap();
            std::fs::remove_dir(folder).unwrap();
        }
    }

    #[tokio::test]
    async fn a_group_of_this_machine_holds_and_kills_its_members() {
        if nix::unistd::geteuid().is_root() {
            holds_and_kills_its_members(Path::new(ROOT)).await;
        } else {
            println!("skipped: making control groups needs root");
        }
    }

    #[tokio::test]
    async fn a_group_of_version_2_holds_and_kills_its_members() {
        match unified() {
            Some(root) if nix::unistd::geteuid().is_root() => {
                holds_and_kills_its_members(&root).await;
            }
            _ => println!("skipped: this needs root and a mounted version 2"),
        }
    }
}
