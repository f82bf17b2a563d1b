//! A world leaves nothing behind, also when the test program is killed, and harms no other beside it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use openelb_tests::{Deadline, eventually};

use crate::victim::{Victim, processes};

/// Starts two worlds side by side, kills the program of one, and lets the other come to its end.
async fn one_is_killed_and_the_other_goes_on(test: &str, level: &str) -> Result<()> {
    let mut killed = Victim::start(test, level, &[])?;
    let mut other = Victim::start(test, level, &[])?;
    let (one, two) = (
        world(&mut killed, level).await?,
        world(&mut other, level).await?,
    );
    ensure!(one.root != two.root, "both are in {}", one.root.display());
    ensure!(
        one.namespaces.is_disjoint(&two.namespaces),
        "they share a namespace"
    );
    for world in [&one, &two] {
        let groups = groups(&world.root)?;
        ensure!(groups.is_empty() == (level != "cluster"), "{groups:?}");
    }
    let cni = |world: &World| {
        let mut files = world.files.iter();
        files.any(|path| path.starts_with("/var/lib/cni"))
    };
    ensure!(cni(&one) == (level == "cluster"), "{:?}", one.files);
    killed.kill().await?;
    one.is_gone().await?;
    std::fs::write(two.folder.join("go"), "")?;
    other.says("still whole").await?;
    let status = other.ended().await?;
    ensure!(status.success(), "{status}");
    two.is_gone().await
}

#[tokio::test]
async fn a_killed_program_leaves_nothing_of_a_control_plane_and_the_one_beside_it_goes_on()
-> Result<()> {
    one_is_killed_and_the_other_goes_on("a_control_plane_that_waits", "control-plane").await
}

#[tokio::test]
async fn a_killed_program_leaves_nothing_of_a_network_and_the_one_beside_it_goes_on() -> Result<()>
{
    one_is_killed_and_the_other_goes_on("a_world_that_waits", "network").await
}

#[tokio::test]
async fn a_killed_program_leaves_nothing_of_a_cluster_and_the_one_beside_it_goes_on() -> Result<()>
{
    one_is_killed_and_the_other_goes_on("a_world_that_waits", "cluster").await
}

#[tokio::test]
async fn a_killed_program_leaves_nothing_of_a_lan_with_speakers_and_the_one_beside_it_goes_on()
-> Result<()> {
    one_is_killed_and_the_other_goes_on("a_world_that_waits", "speakers").await
}

#[tokio::test]
async fn a_program_that_is_told_to_end_leaves_nothing_either() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut victim = Victim::start("a_world_that_waits", "network", &[])?;
        let world = world(&mut victim, "network").await?;
        victim.signal(signal)?;
        world.is_gone().await?;
    }
    Ok(())
}

/// Where kubelets, network plugins, routers and `ip netns` write whatever they are told.
const SHARED: [&str; 6] = [
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
    "/var/tmp/frr",
];

/// What a process of a world sees in places that others use too, and the machine does not.
fn files_of(process: &Path) -> BTreeSet<PathBuf> {
    let root = process.join("root");
    let mut found = BTreeSet::new();
    for place in SHARED {
        below(&root.join(place.trim_start_matches('/')), &mut found);
    }
    let there = found
        .iter()
        .filter_map(|path| path.strip_prefix(&root).ok());
    there
        .map(|path| Path::new("/").join(path))
        .filter(|path| path.symlink_metadata().is_err())
        .collect()
}

/// Everything in a folder, and the folder, if it is there.
fn below(path: &Path, found: &mut BTreeSet<PathBuf>) {
    if path.symlink_metadata().is_err() {
        return;
    }
    found.insert(path.to_owned());
    if path.is_symlink() {
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        below(&entry.path(), found);
    }
}

/// What is known of a world from outside.
struct World {
    /// The folder that its test spoke of.
    folder: PathBuf,
    /// The folder of all of it.
    root: PathBuf,
    /// Its namespaces of processes, of mounts and of networks that have a process. What else is in the world, pods for
    /// instance, is known by them.
    namespaces: BTreeSet<PathBuf>,
    /// What it wrote in places that are everybody's.
    files: BTreeSet<PathBuf>,
}

async fn world(victim: &mut Victim, level: &str) -> Result<World> {
    let folder = PathBuf::from(victim.says_after("folder ").await?);
    let root = if level == "control-plane" {
        folder.clone()
    } else {
        folder.parent().context("no folder above")?.to_owned()
    };
    let found = eventually("the world's processes", Deadline::SHORT, async || {
        let found = processes(&root)?;
        ensure!(!found.is_empty(), "not seen from outside");
        Ok(found)
    })
    .await?;
    let (mut namespaces, mut files) = (BTreeSet::new(), BTreeSet::new());
    // A control plane shares those of the machine.
    if level != "control-plane" {
        for (process, _) in found {
            namespaces.extend(namespaces_of(&process));
            files.extend(files_of(&process));
        }
        let ours = namespaces_of(Path::new("/proc/self"));
        namespaces.retain(|namespace| !ours.contains(namespace));
        ensure!(!namespaces.is_empty(), "it has none of its own");
    }
    Ok(World {
        folder,
        root,
        namespaces,
        files,
    })
}

impl World {
    async fn is_gone(&self) -> Result<()> {
        eventually(
            "the end of all that was in the world",
            Deadline::SHORT,
            async || {
                let processes = processes(&self.root)?;
                ensure!(processes.is_empty(), "{processes:?}");
                let groups = groups(&self.root)?;
                ensure!(groups.is_empty(), "{groups:?}");
                ensure!(!self.root.exists(), "the folder {}", self.root.display());
                let mounts = std::fs::read_to_string("/proc/mounts")?;
                ensure!(
                    !mounts.contains(&self.root.display().to_string()),
                    "{mounts}"
                );
                let left = self.files.iter();
                let left: Vec<_> = left
                    .filter(|path| path.symlink_metadata().is_ok())
                    .collect();
                ensure!(left.is_empty(), "{left:?}");
                for entry in std::fs::read_dir("/proc")? {
                    let process = entry?.path();
                    ensure!(
                        self.namespaces.is_disjoint(&namespaces_of(&process)),
                        "{} is alive in it: {}",
                        process.display(),
                        std::fs::read_to_string(process.join("comm")).unwrap_or_default()
                    );
                }
                Ok(())
            },
        )
        .await
    }
}

/// The namespaces of a process that are of a world alone.
fn namespaces_of(process: &Path) -> BTreeSet<PathBuf> {
    ["pid", "mnt", "net"]
        .iter()
        .filter_map(|kind| std::fs::read_link(process.join("ns").join(kind)).ok())
        .collect()
}

/// The control groups named after a world.
pub(crate) fn groups(world: &Path) -> Result<Vec<String>> {
    let name = world
        .file_name()
        .context("no name")?
        .to_string_lossy()
        .into_owned();
    let mut found = Vec::new();
    let mut folders = vec!["/sys/fs/cgroup".into()];
    folders.extend(
        std::fs::read_dir("/sys/fs/cgroup")?
            .flatten()
            .map(|entry| entry.path()),
    );
    for folder in folders
        .iter()
        .filter(|folder: &&std::path::PathBuf| folder.is_dir())
    {
        for entry in std::fs::read_dir(folder)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&name) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    Ok(found)
}
