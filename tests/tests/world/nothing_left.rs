//! A world leaves nothing behind, also when the test program is killed, and harms no other beside it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
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
        level == "control-plane" || one.networks.is_disjoint(&two.networks),
        "they share a network namespace"
    );
    for world in [&one, &two] {
        let groups = groups(&world.root)?;
        ensure!(groups.is_empty() == (level != "cluster"), "{groups:?}");
    }
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

/// What is known of a world from outside.
struct World {
    /// The folder that its test spoke of.
    folder: PathBuf,
    /// The folder of all of it.
    root: PathBuf,
    /// Its network namespaces that have a process, by which its interfaces live.
    networks: BTreeSet<PathBuf>,
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
    let mut networks = BTreeSet::new();
    if level != "control-plane" {
        let links = found.iter().map(|(process, _)| process.join("ns/net"));
        networks.extend(links.filter_map(|link| std::fs::read_link(link).ok()));
    }
    Ok(World {
        folder,
        root,
        networks,
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
                let alive = networks_of_all()?;
                ensure!(
                    self.networks.is_disjoint(&alive),
                    "a network namespace is alive"
                );
                Ok(())
            },
        )
        .await
    }
}

/// The network namespaces of all processes of this machine.
fn networks_of_all() -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")? {
        found.extend(std::fs::read_link(entry?.path().join("ns/net")).ok());
    }
    Ok(found)
}

/// The control groups named after a world.
fn groups(world: &Path) -> Result<Vec<String>> {
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
